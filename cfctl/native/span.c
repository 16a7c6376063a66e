#include "span.h"

#include <string.h>

struct cf_span *cf_span_push_slowly(struct cf_thread *thread, uint32_t instrument,
                                    const void *key) {
    if (thread->capacity == 0 && cf_process_make_spans())
        return cf_span_push(thread, instrument, key);
    thread->overflow++;
    cf_process_lost(1);
    return NULL;
}

static int is_of(const struct cf_span *span, uint32_t instrument, const void *key) {
    if ((uint32_t)span->what != instrument)
        return 0;
    return span->what & CF_SPAN_KEYED ? span->key == key : key == NULL;
}

int cf_span_take(struct cf_thread *thread, uint32_t instrument, const void *key,
                 struct cf_span *taken) {
    if (thread->overflow > 0) {
        thread->overflow--;
        return 0;
    }
    for (uint32_t i = thread->depth; i-- > 0;) {
        if (!is_of(&thread->spans[i], instrument, key))
            continue;
        *taken = thread->spans[i];
        thread->depth--;
        memmove(&thread->spans[i], &thread->spans[i + 1],
                (thread->depth - i) * sizeof thread->spans[0]);
        return 1;
    }
    return 0;
}

void cf_span_end_buried(struct cf_thread *thread, uint32_t instrument, uint64_t end_tick,
                        int failed) {
    struct cf_span span;
    if (cf_span_take(thread, instrument, NULL, &span) && !(span.what & CF_SPAN_UNRECORDED))
        cf_span_record(thread, &span, end_tick, failed);
}
