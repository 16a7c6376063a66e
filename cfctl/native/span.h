/* Spans: a begin and an end on one thread, matched by instrument. They nest, so that a span knows
 * how much of its time was spent in others. Fixed depth, counted overflow. */
#ifndef CF_SPAN_H
#define CF_SPAN_H

#include <stdint.h>

#include "edge.h"
#include "operation.h"
#include "tick.h"
#include "timeline.h"

/* Counts a span for which there is no room, after making room on a thread's first. NULL then. */
struct cf_span *cf_span_push_slowly(struct cf_thread *thread, uint32_t instrument, const void *key);

/* Puts a span on the stack without a start; NULL when it is lost, and counted. */
static inline struct cf_span *cf_span_push(struct cf_thread *thread, uint32_t instrument,
                                           const void *key) {
    if (cf_unlikely(thread->depth >= thread->capacity))
        return cf_span_push_slowly(thread, instrument, key);
    struct cf_span *span = &thread->spans[thread->depth++];
    span->what = instrument | (key != NULL ? CF_SPAN_KEYED : 0);
    span->key = key;
    span->child_ticks = 0;
    span->payload = cf_process_payload(thread, instrument);
    return span;
}

/* Begins a span; the tick is read last, after the shard is there: a thread's first sample must not
 * hold the making of its shard. */
static inline void cf_span_begin(struct cf_thread *thread, uint32_t instrument) {
    struct cf_span *span = cf_span_push(thread, instrument, NULL);
    if (cf_likely(span != NULL))
        span->start_tick = cf_ticks();
}

/* Records the span that was taken off the stack; those left on it are its parents. */
static inline void cf_span_record(struct cf_thread *thread, const struct cf_span *span,
                                  uint64_t end_tick, int failed) {
    struct cf_operation *shard = span->payload;
    if (cf_unlikely(shard == NULL)) {
        /* Refused, or begun before a fork. */
        shard = cf_process_payload(thread, (uint32_t)span->what);
        if (shard == NULL) {
            cf_process_lost(1);
            return;
        }
    }
    uint64_t ticks = cf_elapsed(span->start_tick, end_tick);
    cf_operation_add(shard, ticks, end_tick, failed);
    if (span->child_ticks != 0)
        cf_bump(&shard->child_sum, span->child_ticks);
    struct cf_span *parent = thread->depth > 0 ? &thread->spans[thread->depth - 1] : NULL;
    if (parent != NULL && !(parent->what & CF_SPAN_UNRECORDED)) {
        parent->child_ticks += ticks;
        cf_edge_add(thread, (uint32_t)parent->what, (uint32_t)span->what, ticks);
    }
    if (cf_unlikely(cf_timeline_is_on()))
        cf_timeline_add(shard, parent ? parent->payload : NULL, ticks, end_tick, failed);
}

/* Takes the latest span of an instrument and key off the stack, wherever it is; 0 when there is
 * none, or it had found no room. */
int cf_span_take(struct cf_thread *thread, uint32_t instrument, const void *key,
                 struct cf_span *taken);

/* Ends the latest span of an instrument that was not the latest of all (interleaved tasks). */
void cf_span_end_buried(struct cf_thread *thread, uint32_t instrument, uint64_t end_tick,
                        int failed);

/* Ends the latest span of an instrument at a tick and records it. One that never began is ignored.
 */
static inline void cf_span_end(struct cf_thread *thread, uint32_t instrument, uint64_t end_tick,
                               int failed) {
    if (cf_likely(thread->overflow == 0 && thread->depth > 0)) {
        const struct cf_span *span = &thread->spans[thread->depth - 1];
        if (cf_likely(span->what == instrument)) {
            thread->depth--;
            cf_span_record(thread, span, end_tick, failed);
            return;
        }
    }
    cf_span_end_buried(thread, instrument, end_tick, failed);
}

#endif
