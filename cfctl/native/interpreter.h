/* What a Python process says of its own memory: facts that nobody else can read. */
#ifndef CF_INTERPRETER_H
#define CF_INTERPRETER_H

#include <stdint.h>

#include "segment.h"

/* Kind "interpreter": one shard per interpreter that shares its facts, written under its GIL. */
struct cf_interpreter {
    uint64_t young_collections; /* of the garbage collector, all generations but the oldest */
    uint64_t full_collections;
    uint64_t collected;     /* objects */
    uint64_t uncollectable; /* objects */
    uint64_t pause_ns;      /* of all collections */
    uint64_t longest_pause_ns;
    uint64_t gc_enabled;           /* 0 or 1 */
    uint64_t frozen;               /* objects that gc.freeze() put aside */
    uint64_t blocks;               /* sys.getallocatedblocks() */
    uint64_t heap_known;           /* 1 when the next four were read (glibc 2.33 or later) */
    uint64_t heap_in_use_bytes;    /* mallinfo2: uordblks + hblkhd */
    uint64_t heap_free_bytes;      /* fordblks: held by malloc, used by nobody */
    uint64_t heap_mapped_bytes;    /* hblkhd: blocks with a mapping of their own */
    uint64_t heap_trimmable_bytes; /* keepcost: malloc_trim(0) gives back at least this */
    uint64_t updated_unix_ns;
};

extern const struct cf_kind cf_kind_interpreter;

/* Kind "pymalloc": the windows of cfctl.alloc.track that were recorded under a name. */
struct cf_pymalloc {
    uint64_t windows;
    uint64_t duration_ns;
    uint64_t allocations;
    uint64_t reallocations;
    uint64_t frees;
    uint64_t requested_bytes;
    uint64_t large_allocations; /* of more than 512 bytes: pymalloc hands them to malloc */
    uint64_t failures;
};

extern const struct cf_kind cf_kind_pymalloc;

struct cf_heap {
    uint64_t in_use_bytes, free_bytes, mapped_bytes, trimmable_bytes;
};

/* Reads the heap of malloc over all arenas, about 1 us each. 0, or -ENOSYS when this C library does
 * not tell (mallinfo2 is glibc's, from 2.33). */
int cf_heap_read(struct cf_heap *heap);

#endif
