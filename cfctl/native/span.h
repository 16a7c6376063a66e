/* Spans: a begin and an end on one thread, matched by instrument. Fixed depth, counted overflow. */
#ifndef CF_SPAN_H
#define CF_SPAN_H

#include <stdint.h>

#include "operation.h"
#include "tick.h"

#define CF_SPAN_DEPTH 256

struct cf_span {
    uint64_t start_tick;
    uint32_t instrument;
};

struct cf_span_stack {
    uint32_t depth;
    uint32_t overflow; /* begun spans that found no room; their ends are the next to come */
    struct cf_span spans[CF_SPAN_DEPTH];
};
extern _Thread_local struct cf_span_stack cf_span_stack;

/* Begins a span; the tick is read last, after the shard is there: a thread's first sample must not
 * hold the making of its shard. Beyond the depth the span is lost and counted. */
static inline void cf_span_begin(uint32_t instrument) {
    struct cf_span_stack *stack = &cf_span_stack;
    if (cf_unlikely(stack->depth == CF_SPAN_DEPTH)) {
        stack->overflow++;
        cf_process_lost(1);
        return;
    }
    struct cf_span *span = &stack->spans[stack->depth++];
    span->instrument = instrument;
    (void)cf_process_payload(instrument);
    span->start_tick = cf_ticks();
}

/* Ends the latest span of an instrument that was not the latest of all (interleaved tasks). */
void cf_span_end_buried(uint32_t instrument, uint64_t end_tick, int failed);

/* Ends the latest span of an instrument and records it. A span that never began is ignored. */
static inline void cf_span_end(uint32_t instrument, int failed) {
    uint64_t end_tick = cf_ticks();
    struct cf_span_stack *stack = &cf_span_stack;
    if (cf_likely(stack->overflow == 0 && stack->depth > 0 &&
                  stack->spans[stack->depth - 1].instrument == instrument)) {
        cf_operation_record(instrument, stack->spans[--stack->depth].start_tick, end_tick, failed);
        return;
    }
    cf_span_end_buried(instrument, end_tick, failed);
}

#endif
