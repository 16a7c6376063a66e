/* The LD_PRELOAD library: the malloc family, counted and handed on to the next allocator.
 *
 * The pointers to the next functions start with ones that look them up. dlsym may itself allocate:
 * while it does, blocks come from a small arena that is never given back and is not counted. */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "alloc.h"
#include "alloc_next.h"
#include "owner.h"

enum { ARENA_BYTES = 1 << 16, ARENA_ALIGNMENT = 16 };

/* glibc keeps a word before each block: its chunk's bytes, which a multiple of 16, and flags. See
 * malloc.c, "chunk representation". */
#define GLIBC_FLAGS ((size_t)7)
#define GLIBC_MAPPED ((size_t)2)
/* A chunk of its own mapping has another overhead, one this large is told by itself. */
#define GLIBC_UNCOMMON (GLIBC_MAPPED | ~(size_t)(CF_ALLOC_LARGE - 1))

static _Alignas(64) unsigned char arena[ARENA_BYTES];
static size_t arena_used;

/* An arena block is preceded by its size and then a word that no block of glibc's in use has. */
static void *arena_take(size_t alignment, size_t size) {
    if (size > ARENA_BYTES || alignment > 64)
        return NULL;
    size_t bytes = ((size + ARENA_ALIGNMENT - 1) & ~(size_t)(ARENA_ALIGNMENT - 1)) + 64;
    size_t start = __atomic_fetch_add(&arena_used, bytes + 64, __ATOMIC_RELAXED);
    if (start + bytes + 64 > ARENA_BYTES)
        return NULL;
    size_t at = (start + 64 + 63) & ~(size_t)63;
    static const size_t mark = GLIBC_MAPPED;
    memcpy(arena + at - 2 * sizeof size, &size, sizeof size);
    memcpy(arena + at - sizeof size, &mark, sizeof mark);
    return arena + at;
}

static inline bool in_arena(const void *block) {
    return (uintptr_t)block - (uintptr_t)arena < ARENA_BYTES;
}

static size_t arena_size(const void *block) {
    size_t size;
    memcpy(&size, (const unsigned char *)block - 2 * sizeof size, sizeof size);
    return size;
}

static void *first_malloc(size_t);
static void *first_calloc(size_t, size_t);
static void *first_realloc(void *, size_t);
static void first_free(void *);
static int first_posix_memalign(void **, size_t, size_t);
static void *first_aligned_alloc(size_t, size_t);
static void *first_memalign(size_t, size_t);
static void *first_valloc(size_t);
static void *first_pvalloc(size_t);
static size_t first_malloc_usable_size(void *);

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    void *(*valloc)(size_t);
    void *(*pvalloc)(size_t);
    size_t (*malloc_usable_size)(void *);
} next = {
    first_malloc,        first_calloc,   first_realloc, first_free,    first_posix_memalign,
    first_aligned_alloc, first_memalign, first_valloc,  first_pvalloc, first_malloc_usable_size,
};

void cf_alloc_next(const char *name, void *function_pointer) {
    void *symbol = dlsym(RTLD_NEXT, name);
    memcpy(function_pointer, &symbol, sizeof symbol);
}

/* Looks the next functions up. Returns false while that is under way. */
static bool resolve(void) {
    static int state; /* 1: under way, 2: done */
    int found = 0;
    if (!__atomic_compare_exchange_n(&state, &found, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
        return found == 2;
    int saved_errno = errno;
    /* Stored only when all are known: a block must not come from one allocator and go to another.
     */
    struct {
        void *function[10];
    } all;
    _Static_assert(sizeof all == sizeof next, "one pointer for each name");
    static const char *const names[] = {
        "malloc",        "calloc",   "realloc", "free",    "posix_memalign",
        "aligned_alloc", "memalign", "valloc",  "pvalloc", "malloc_usable_size",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        cf_alloc_next(names[i], &all.function[i]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (all.function[i])
            memcpy((char *)&next + i * sizeof(void *), &all.function[i], sizeof(void *));
    }
    __atomic_store_n(&state, 2, __ATOMIC_RELEASE);
    errno = saved_errno;
    return true;
}

static void *no_memory(void) {
    errno = ENOMEM;
    return NULL;
}

static void *first_malloc(size_t size) {
    if (resolve() && next.malloc != first_malloc)
        return next.malloc(size);
    void *block = arena_take(ARENA_ALIGNMENT, size);
    return block ? block : no_memory();
}

static void *first_calloc(size_t count, size_t size) {
    if (resolve() && next.calloc != first_calloc)
        return next.calloc(count, size);
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return no_memory();
    void *block = arena_take(ARENA_ALIGNMENT, bytes); /* zero: it is taken once */
    return block ? block : no_memory();
}

static void *first_realloc(void *block, size_t size) {
    if (resolve() && next.realloc != first_realloc)
        return next.realloc(block, size);
    return block ? no_memory() : first_malloc(size);
}

static void first_free(void *block) {
    if (resolve() && next.free != first_free)
        next.free(block);
}

static int first_posix_memalign(void **block, size_t alignment, size_t size) {
    if (resolve() && next.posix_memalign != first_posix_memalign)
        return next.posix_memalign(block, alignment, size);
    *block = arena_take(alignment, size);
    return *block ? 0 : ENOMEM;
}

static void *first_aligned_alloc(size_t alignment, size_t size) {
    if (resolve() && next.aligned_alloc != first_aligned_alloc)
        return next.aligned_alloc(alignment, size);
    void *block = arena_take(alignment, size);
    return block ? block : no_memory();
}

static void *first_memalign(size_t alignment, size_t size) {
    if (resolve() && next.memalign != first_memalign)
        return next.memalign(alignment, size);
    void *block = arena_take(alignment, size);
    return block ? block : no_memory();
}

static void *first_valloc(size_t size) {
    return resolve() && next.valloc != first_valloc ? next.valloc(size) : no_memory();
}

static void *first_pvalloc(size_t size) {
    return resolve() && next.pvalloc != first_pvalloc ? next.pvalloc(size) : no_memory();
}

static size_t first_malloc_usable_size(void *block) {
    if (resolve() && next.malloc_usable_size != first_malloc_usable_size)
        return next.malloc_usable_size(block);
    return 0;
}

/* Where blocks are glibc's, their size stands before them. Its malloc_usable_size also reads the
 * word after a block to see whether it is in use: a cache miss for each that is freed. */
static inline size_t glibc_word(const void *block) {
    return ((const size_t *)block)[-1];
}

static inline size_t glibc_usable(size_t word) {
    return (word & ~GLIBC_FLAGS) - sizeof(size_t);
}

/* Returns the usable bytes of a block in use that is none of the arena. */
static inline size_t usable_size(void *block) {
    if (cf_likely(cf_alloc_quick)) {
        size_t word = glibc_word(block);
        if (cf_likely(!(word & GLIBC_UNCOMMON)))
            return glibc_usable(word);
    }
    return next.malloc_usable_size(block);
}

/* What is not usual is done out of line and called last, so that the usual case saves no registers.
 */
static __attribute__((noinline)) void *counted_slowly(void *block, size_t requested) {
    if (block == NULL)
        cf_alloc_failed();
    else if (!in_arena(block))
        cf_alloc_allocated_slowly(requested, next.malloc_usable_size(block));
    return block;
}

static __attribute__((noinline)) void *told(void *block) {
    cf_alloc_tell(&cf_alloc_thread);
    return block;
}

/* Counts what an allocation function returned, and returns it. */
static inline void *counted(void *block, size_t requested) {
    struct cf_allocations *shard = cf_alloc_thread.quick;
    if (cf_unlikely(block == NULL || shard == NULL))
        return counted_slowly(block, requested);
    size_t word = glibc_word(block);
    if (cf_unlikely(word & GLIBC_UNCOMMON))
        return counted_slowly(block, requested);
    return cf_alloc_count_allocated(shard, requested, glibc_usable(word)) ? told(block) : block;
}

CF_EXPORT void *malloc(size_t size) {
    return counted(next.malloc(size), size);
}

CF_EXPORT void *calloc(size_t count, size_t size) {
    void *block = next.calloc(count, size);
    size_t requested;
    if (__builtin_mul_overflow(count, size, &requested))
        requested = SIZE_MAX;
    return counted(block, requested);
}

static __attribute__((noinline)) void free_slowly(void *block) {
    if (block == NULL || in_arena(block))
        return;
    cf_alloc_freed_slowly(next.malloc_usable_size(block));
    next.free(block);
}

static __attribute__((noinline)) void tell_and_free(void *block) {
    cf_alloc_tell(&cf_alloc_thread);
    next.free(block);
}

CF_EXPORT void free(void *block) {
    struct cf_allocations *shard = cf_alloc_thread.quick;
    size_t word;
    if (cf_unlikely(block == NULL || shard == NULL ||
                    ((word = glibc_word(block)) & GLIBC_UNCOMMON))) {
        free_slowly(block);
        return;
    }
    if (cf_alloc_count_freed(shard, glibc_usable(word))) {
        tell_and_free(block);
        return;
    }
    next.free(block);
}

/* A block of the arena can not grow: its content moves to one of the allocator's. */
static void *leave_arena(void *block, size_t size) {
    void *moved = malloc(size);
    size_t held = arena_size(block);
    if (moved)
        memcpy(moved, block, held < size ? held : size);
    return moved;
}

CF_EXPORT void *realloc(void *block, size_t size) {
    if (block == NULL)
        return counted(next.realloc(NULL, size), size);
    if (cf_unlikely(in_arena(block)))
        return leave_arena(block, size);
    size_t before = usable_size(block);
    void *moved = next.realloc(block, size);
    if (cf_likely(moved != NULL))
        cf_alloc_reallocated(size, before, usable_size(moved));
    else if (size == 0)
        cf_alloc_freed_slowly(before);
    else
        cf_alloc_failed();
    return moved;
}

/* glibc's own calls realloc by its name, and would be counted twice. */
CF_EXPORT void *reallocarray(void *block, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        cf_alloc_failed();
        return no_memory();
    }
    return realloc(block, bytes);
}

CF_EXPORT int posix_memalign(void **block, size_t alignment, size_t size) {
    int error = next.posix_memalign(block, alignment, size);
    if (error == 0)
        counted(*block, size);
    else
        cf_alloc_failed();
    return error;
}

CF_EXPORT void *aligned_alloc(size_t alignment, size_t size) {
    return counted(next.aligned_alloc(alignment, size), size);
}

CF_EXPORT void *memalign(size_t alignment, size_t size) {
    return counted(next.memalign(alignment, size), size);
}

CF_EXPORT void *valloc(size_t size) {
    return counted(next.valloc(size), size);
}

CF_EXPORT void *pvalloc(size_t size) {
    return counted(next.pvalloc(size), size);
}

CF_EXPORT size_t malloc_usable_size(void *block) {
    if (cf_unlikely(in_arena(block)))
        return arena_size(block);
    return next.malloc_usable_size(block);
}

/* For the Python extension of the same process. */
CF_EXPORT struct cf_owner *cfctl_segment_owner(void);
struct cf_owner *cfctl_segment_owner(void) {
    return &cf_owner_own;
}

static int is_object(struct dl_phdr_info *info, size_t size, void *argument) {
    (void)size;
    struct cf_alloc_object *object = argument;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t start = (uintptr_t)info->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && (uintptr_t)object->address - start < part->p_memsz) {
            object->base = (const void *)((uintptr_t)info->dlpi_addr + info->dlpi_phdr[0].p_vaddr);
            object->name = info->dlpi_name;
            return 1;
        }
    }
    return 0;
}

void cf_alloc_find_object(struct cf_alloc_object *object) {
    object->base = NULL;
    object->name = NULL;
    if (object->address)
        dl_iterate_phdr(is_object, object);
}

/* The base address of the object that holds a symbol's definition; NULL when there is none. */
static const void *object_of(const void *symbol) {
    struct cf_alloc_object object = {.address = symbol};
    cf_alloc_find_object(&object);
    return object.base;
}

/* Looks whether the next allocator is glibc's own and a few of its blocks are as expected. */
static bool has_glibc_blocks(void) {
    if (object_of(dlsym(RTLD_NEXT, "malloc")) !=
            object_of(dlsym(RTLD_NEXT, "gnu_get_libc_version")) ||
        next.malloc_usable_size == first_malloc_usable_size)
        return false;
    bool equal = true;
    for (size_t size = 1; size <= 4096 && equal; size = size * 5 + 3) {
        size_t *block = next.malloc(size);
        if (!block)
            return false;
        size_t word = glibc_word(block);
        equal = !(word & GLIBC_UNCOMMON) && glibc_usable(word) == next.malloc_usable_size(block);
        next.free(block);
    }
    return equal;
}

/* C++'s operator new, NULL in a program without. Not by dlsym: what that does not find leaves a
 * message on the heap, allocated here and freed by the program. */
extern void cf_operator_new(void) __asm__("_Znwm") __attribute__((weak));

uint64_t cf_alloc_bypassed(void) {
    uint64_t bypass = 0;
    if (object_of(dlsym(RTLD_DEFAULT, "malloc")) != object_of(&arena))
        bypass |= CF_ALLOC_OWN_MALLOC;
    /* libstdc++'s operator new calls malloc; an allocator that defines both does not. */
    const void *operator_new = object_of((const void *)(uintptr_t)&cf_operator_new);
    if (operator_new && operator_new == object_of(dlsym(RTLD_NEXT, "malloc")))
        bypass |= CF_ALLOC_OWN_NEW;
    return bypass;
}

/* glibc hands the program's arguments to constructors; others hand on nothing that can be used. */
__attribute__((constructor)) static void begin(int argument_count, char **arguments) {
    int saved_errno = errno;
    cf_alloc_starting = 1;
    resolve();
    cf_alloc_quick = sizeof(size_t) == 8 && has_glibc_blocks();
#if defined(__GLIBC__)
    cf_alloc_take_request((const char *const *)arguments, (size_t)argument_count);
#else
    (void)argument_count, (void)arguments;
    cf_alloc_take_request(NULL, 0);
#endif
    cf_alloc_begin(cf_alloc_bypassed());
    cf_alloc_starting = 0;
    errno = saved_errno;
}
