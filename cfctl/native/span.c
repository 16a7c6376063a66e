#include "span.h"

#include <string.h>

_Thread_local struct cf_span_stack cf_span_stack;

void cf_span_end_buried(uint32_t instrument, uint64_t end_tick, int failed) {
    struct cf_span_stack *stack = &cf_span_stack;
    if (stack->overflow > 0) {
        stack->overflow--;
        return;
    }
    for (uint32_t i = stack->depth; i-- > 0;) {
        if (stack->spans[i].instrument != instrument)
            continue;
        uint64_t start_tick = stack->spans[i].start_tick;
        stack->depth--;
        memmove(&stack->spans[i], &stack->spans[i + 1],
                (stack->depth - i) * sizeof stack->spans[0]);
        cf_operation_record(instrument, start_tick, end_tick, failed);
        return;
    }
}
