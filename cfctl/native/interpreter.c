#include "interpreter.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

#define FIELD(type, member, unit, rule) \
    {#member, unit, CF_FIELD_U64, rule, offsetof(struct type, member), 1, 0}

#define FACT(member, unit, rule) FIELD(cf_interpreter, member, unit, rule)

static const struct cf_field interpreter_fields[] = {
    FACT(young_collections, "1", CF_MERGE_SUM),
    FACT(full_collections, "1", CF_MERGE_SUM),
    FACT(collected, "1", CF_MERGE_SUM),
    FACT(uncollectable, "1", CF_MERGE_SUM),
    FACT(pause_ns, "ns", CF_MERGE_SUM),
    FACT(longest_pause_ns, "ns", CF_MERGE_MAX),
    FACT(gc_enabled, "1", CF_MERGE_MAX),
    FACT(frozen, "1", CF_MERGE_SUM),
    FACT(blocks, "1", CF_MERGE_SUM),
    /* The heap is the process's: all interpreters of it read the same. */
    FACT(heap_known, "1", CF_MERGE_MAX),
    FACT(heap_in_use_bytes, "B", CF_MERGE_LAST),
    FACT(heap_free_bytes, "B", CF_MERGE_LAST),
    FACT(heap_mapped_bytes, "B", CF_MERGE_LAST),
    FACT(heap_trimmable_bytes, "B", CF_MERGE_LAST),
    FACT(updated_unix_ns, "ns", CF_MERGE_MAX),
};

const struct cf_kind cf_kind_interpreter = {
    .name = "interpreter",
    .fields = interpreter_fields,
    .field_count = sizeof interpreter_fields / sizeof interpreter_fields[0],
    .payload_bytes = sizeof(struct cf_interpreter),
};

#define TALLY(member, unit) FIELD(cf_pymalloc, member, unit, CF_MERGE_SUM)

static const struct cf_field pymalloc_fields[] = {
    TALLY(windows, "1"),           TALLY(duration_ns, "ns"), TALLY(allocations, "1"),
    TALLY(reallocations, "1"),     TALLY(frees, "1"),        TALLY(requested_bytes, "B"),
    TALLY(large_allocations, "1"), TALLY(failures, "1"),
};

const struct cf_kind cf_kind_pymalloc = {
    .name = "pymalloc",
    .fields = pymalloc_fields,
    .field_count = sizeof pymalloc_fields / sizeof pymalloc_fields[0],
    .payload_bytes = sizeof(struct cf_pymalloc),
};

/* struct mallinfo2 of glibc, mallinfo(3); asked for by name, as an older or another C library has
 * none. */
struct heap_info {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

int cf_heap_read(struct cf_heap *heap) {
    void *symbol = dlsym(RTLD_DEFAULT, "mallinfo2");
    if (!symbol)
        return -ENOSYS;
    struct heap_info (*read_info)(void) = (struct heap_info (*)(void))(uintptr_t)symbol;
    struct heap_info info = read_info();
    *heap = (struct cf_heap){
        .in_use_bytes = info.uordblks + info.hblkhd,
        .free_bytes = info.fordblks,
        .mapped_bytes = info.hblkhd,
        .trimmable_bytes = info.keepcost,
    };
    return 0;
}
