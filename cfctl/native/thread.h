/* What the core keeps for each thread: its payloads by instrument, and its spans.
 *
 * Pointers only: as long as the module's thread-local block is a few dozen bytes, the loader places
 * it in the static area, where it is found without a call.
 */
#ifndef CF_THREAD_H
#define CF_THREAD_H

#include <stddef.h>
#include <stdint.h>

#define CF_SPAN_DEPTH 1024u /* Python's own default limit of recursion is 1000 */
#define CF_EDGE_CACHE 256u

struct cf_span {
    uint64_t start_tick;
    uint64_t child_ticks; /* of the spans that ended directly inside of this one */
    void *payload;        /* the thread's shard; NULL = refused, or lost by a fork */
    const void *key;      /* with CF_SPAN_KEYED: the frame of a generator that runs; else NULL, or
                             the code of a function that is timed by name */
    uint64_t what;        /* the instrument and bits CF_SPAN_...: one comparison tells all */
};

#define CF_SPAN_KEYED (UINT64_C(1) << 32)
#define CF_SPAN_UNRECORDED (UINT64_C(1) << 33) /* begun while instrumentation was paused */
#define CF_SPAN_THROWN_INTO \
    (UINT64_C(1) << 34) /* of a generator: its step began with an exception */

struct cf_edge_slot {
    uint32_t parent, child;
    uint32_t edge; /* its instrument; 0 = free slot, UINT32_MAX = refused */
};

struct cf_thread {
    void **payloads;  /* by instrument id */
    uint8_t *refused; /* 1: refused until the next fork, so that a full segment costs no lock */
    uint32_t count;
    uint32_t depth;
    uint32_t capacity; /* of `spans`: 0 until the thread's first span */
    uint32_t overflow; /* begun spans that found no room; their ends are the next to come */
    struct cf_span *spans;
    struct cf_edge_slot *edges;
};
extern _Thread_local struct cf_thread cf_thread;

/* Returns the calling thread's. Its address is found once: left to itself the compiler finds it
 * again after each call, to spare a register. */
static inline struct cf_thread *cf_this_thread(void) {
    struct cf_thread *thread = &cf_thread;
    __asm__("" : "+r"(thread));
    return thread;
}

_Static_assert(sizeof(struct cf_thread) <= 64, "the static area has little room");

#endif
