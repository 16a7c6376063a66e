/* Allocation counts of a process: one shard per thread, written by that thread alone.
 *
 * A count costs a few single instructions and nothing is kept per block: sizes come from the
 * allocator (malloc_usable_size), so a block that was allocated before counting began, or by
 * somebody else, can be freed like any other. Live bytes are the sum of what all threads allocated
 * less what they freed, and exact. Their course and their peak are followed in batches: each thread
 * tells its net when it reaches +-64 KiB or after 8192 calls, so that the peak is known to
 * within 64 KiB for each thread.
 *
 * Threads without a shard (before the segment is open, in their last moments, or when there was no
 * space) share one and count with atomic additions: slower, and nothing is lost.
 *
 * Any thread may call the counting functions, also in a signal handler; none of them allocates.
 */
#ifndef CF_ALLOC_H
#define CF_ALLOC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "atomic.h"
#include "segment.h"

#define CF_ALLOC_BATCH_BYTES 65536
#define CF_ALLOC_BATCH_COUNT 8192

/* Sizes: four classes per power of two, exact below 4; those of 2^40 and more count in the last. */
#define CF_ALLOC_SUB_BITS 2
#define CF_ALLOC_SIZE_BITS 40
#define CF_ALLOC_SIZES ((CF_ALLOC_SIZE_BITS - CF_ALLOC_SUB_BITS + 1) << CF_ALLOC_SUB_BITS)

/* The timeline: points in levels of 128, each level four times as coarse as the one before; the
 * finest takes a point every 10 ms, the coarsest one every 11 minutes, which is 23 hours. */
#define CF_ALLOC_LEVELS 9
#define CF_ALLOC_LEVEL_POINTS 128
#define CF_ALLOC_POINTS (CF_ALLOC_LEVELS * CF_ALLOC_LEVEL_POINTS)
#define CF_ALLOC_POINT_NS UINT64_C(10000000)

/* A shard. Freed bytes are bytes_allocated less the net; `pending` belongs to three of the others.
 *
 * Fields are told in batches: `tells_ended` is counted when a batch is in the fields, `tells_begun`
 * before. A reader who copies upwards and finds both equal has seen no batch halfway. */
struct cf_allocations {
    uint64_t tells_ended;
    uint64_t pending; /* since the last batch: allocations, deallocations and net, see below */
    uint64_t allocations;
    uint64_t deallocations;
    uint64_t reallocations;         /* of a block that stays or moves */
    uint64_t failures;              /* requests that the allocator refused */
    uint64_t bytes_allocated;       /* usable; of a reallocation those of the new block */
    int64_t net_bytes;              /* usable bytes allocated less those freed */
    uint64_t sizes[CF_ALLOC_SIZES]; /* allocations and reallocations by the bytes asked for */
    uint64_t tells_begun;
};

/* `pending` is one word, so that a count is one addition: net bytes in bits 0 to 33 (it borrows
 * from the next while it is negative), allocations from bit 34, deallocations from bit 49. It is
 * told when the net leaves +-64 KiB or one of the counts reaches 8192, long before one runs into
 * another. */
#define CF_ALLOC_NET_BITS 34
#define CF_ALLOC_COUNT_BITS 15
#define CF_ALLOC_ONE (UINT64_C(1) << CF_ALLOC_NET_BITS)
#define CF_ALLOC_ONE_FREED (CF_ALLOC_ONE << CF_ALLOC_COUNT_BITS)
#define CF_ALLOC_FULL                                                                            \
    ((CF_ALLOC_ONE - 2 * (uint64_t)CF_ALLOC_BATCH_BYTES) | CF_ALLOC_ONE * CF_ALLOC_BATCH_COUNT | \
     CF_ALLOC_ONE_FREED * CF_ALLOC_BATCH_COUNT)
/* A block this large is told by itself. */
#define CF_ALLOC_LARGE (UINT64_C(1) << 32)

struct cf_alloc_pending {
    uint64_t allocations, deallocations;
    int64_t net_bytes;
};

/* Takes a pending word apart. */
static inline struct cf_alloc_pending cf_alloc_unpack(uint64_t word) {
    const uint64_t half = CF_ALLOC_ONE >> 1;
    uint64_t biased = word + half;
    const uint64_t counts = (UINT64_C(1) << CF_ALLOC_COUNT_BITS) - 1;
    return (struct cf_alloc_pending){
        .allocations = biased >> CF_ALLOC_NET_BITS & counts,
        .deallocations = biased >> (CF_ALLOC_NET_BITS + CF_ALLOC_COUNT_BITS),
        .net_bytes = (int64_t)(biased & (CF_ALLOC_ONE - 1)) - (int64_t)half,
    };
}

/* One per process. Any thread adds to it, atomically. */
struct cf_alloc_process {
    int64_t live_bytes; /* what the threads have told, with what was inherited */
    int64_t peak_bytes;
    uint64_t peak_ns;         /* since the counting began */
    int64_t inherited_bytes;  /* live at the fork that made this process */
    int64_t inherited_blocks; /* blocks of these */
    uint64_t began_ns;        /* CLOCK_REALTIME, when the counting began */
    uint64_t batch_bytes;     /* CF_ALLOC_BATCH_BYTES */
    uint64_t bypass;          /* enum cf_alloc_bypass bits */
    uint64_t children;        /* forked children that counted in the shard "children" */
};

/* What of the program does not come through the counted functions. */
enum cf_alloc_bypass {
    CF_ALLOC_OWN_MALLOC = 1, /* the program brings its own malloc */
    CF_ALLOC_OWN_NEW = 2,    /* the allocator's operator new does not call malloc */
};

struct cf_alloc_point {
    uint64_t time_ns; /* since the counting began; 0 = none, or being written */
    int64_t live_bytes;
};

struct cf_alloc_timeline {
    uint64_t written; /* points ever, those that were overwritten too */
    uint64_t reserved[7];
    struct cf_alloc_point points[CF_ALLOC_POINTS];
};

extern const struct cf_kind cf_kind_allocations;
extern const struct cf_kind cf_kind_alloc_process;
extern const struct cf_kind cf_kind_alloc_timeline;

struct cf_alloc_thread {
    struct cf_allocations *shard; /* NULL: see cf_alloc_count */
    struct cf_allocations *quick; /* the shard where cf_alloc_quick holds, else NULL */
    uint8_t busy;                 /* the thread is inside of this module, or forking */
    uint8_t refused; /* no shard until the next fork: refused, or the thread is ending */
    uint8_t ends;    /* times its end was put off, so as to be the last to know of it */
};
extern _Thread_local struct cf_alloc_thread cf_alloc_thread;

/* Whether blocks' sizes can be told without asking the allocator, so that threads get `quick`. Set
 * before cf_alloc_begin. */
extern uint8_t cf_alloc_quick;

/* While it is set nothing is counted: what the C library allocates for this module's own start is
 * none of the program's. */
extern uint8_t cf_alloc_starting;

/* What one call did. `requested` is UINT64_MAX when no size was asked for. */
struct cf_alloc_change {
    uint32_t allocations, deallocations, reallocations, failures;
    uint64_t requested, allocated, freed;
};

/* Begins to count: opens the segment where cf_owner_configure said, with all that was counted so
 * far. `bypass` as in struct cf_alloc_process. Once, before there are threads or forks of the
 * program's; errors leave the counts where nobody else can see them. */
void cf_alloc_begin(uint64_t bypass);

/* Tells all of the calling thread's net, makes the last point and closes the segment. */
void cf_alloc_end(void);

/* Counts any change, also for a thread without a shard, which claims one if it can. */
void cf_alloc_count(const struct cf_alloc_change *change);

/* Tells what is pending in the calling thread's shard to its other fields and to the process. */
void cf_alloc_tell(struct cf_alloc_thread *thread);

/* As the functions for a shard, for blocks of any size and threads without one. */
void cf_alloc_allocated_slowly(uint64_t requested, uint64_t usable);
void cf_alloc_freed_slowly(uint64_t usable);

/* Adds to a counter that only the calling thread writes. One instruction where the CPU has it, so
 * that a signal handler that allocates between the reading and the writing takes nothing away; on
 * other CPUs such a handler's count can be lost. */
static inline void cf_alloc_bump(uint64_t *counter, uint64_t value) {
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    __asm__ volatile("addq %1, %0" : "+m"(*counter) : "re"(value) : "cc");
#else
    cf_bump(counter, value);
#endif
}

/* As cf_alloc_bump, after all that stands before it. Partner: a reader who copies upwards. */
static inline void cf_alloc_bump_after(uint64_t *counter, uint64_t value) {
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    __asm__ volatile("addq %1, %0" : "+m"(*counter) : "re"(value) : "cc", "memory");
#else
    cf_store_release(counter, cf_load_relaxed(counter) + value);
#endif
}

/* As cf_alloc_bump; returns what the counter then holds. */
static inline uint64_t cf_alloc_bump_fetch(uint64_t *counter, uint64_t value) {
    cf_alloc_bump(counter, value);
    return cf_load_relaxed(counter);
}

/* Returns the class of a size below 2^40; as cf_histogram_bucket, with two bits. */
static inline uint32_t cf_alloc_usual_class(uint64_t size) {
    enum { EXPONENT_BIAS = 1023, MANTISSA_BITS = 52 };
    if (size < (1u << CF_ALLOC_SUB_BITS))
        return (uint32_t)size;
    double exact = (double)(int64_t)size;
    uint64_t bits;
    memcpy(&bits, &exact, sizeof bits);
    return (uint32_t)(bits >> (MANTISSA_BITS - CF_ALLOC_SUB_BITS)) -
           ((EXPONENT_BIAS + CF_ALLOC_SUB_BITS - 1u) << CF_ALLOC_SUB_BITS);
}

/* Returns the class of a size. */
static inline uint32_t cf_alloc_size_class(uint64_t size) {
    return size >> CF_ALLOC_SIZE_BITS ? CF_ALLOC_SIZES - 1 : cf_alloc_usual_class(size);
}

/* True when a pending word is to be told. */
static inline int cf_alloc_is_full(uint64_t pending) {
    return ((pending + CF_ALLOC_BATCH_BYTES) & CF_ALLOC_FULL) != 0;
}

/* Counts in the calling thread's shard a block of `usable` bytes, fewer than CF_ALLOC_LARGE, that
 * was allocated for a request of no more than these. True when the batch is to be told. */
static inline int cf_alloc_count_allocated(struct cf_allocations *shard, uint64_t requested,
                                           uint64_t usable) {
    uint64_t pending = cf_alloc_bump_fetch(&shard->pending, CF_ALLOC_ONE + usable);
    cf_alloc_bump(&shard->bytes_allocated, usable);
    cf_alloc_bump(&shard->sizes[cf_alloc_usual_class(requested)], 1);
    return cf_unlikely(cf_alloc_is_full(pending));
}

/* Counts in the calling thread's shard the end of a block of `usable` bytes, fewer than
 * CF_ALLOC_LARGE. True when the batch is to be told. */
static inline int cf_alloc_count_freed(struct cf_allocations *shard, uint64_t usable) {
    uint64_t pending = cf_alloc_bump_fetch(&shard->pending, CF_ALLOC_ONE_FREED - usable);
    return cf_unlikely(cf_alloc_is_full(pending));
}

/* Counts a block of `before` usable bytes that became one of `after`. */
void cf_alloc_reallocated(uint64_t requested, uint64_t before, uint64_t after);

/* Counts a request that failed. */
void cf_alloc_failed(void);

#endif
