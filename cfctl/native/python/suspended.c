/* What happens to a timed generator or coroutine between its first step and its end. */
#include "monitor.h"

#include "span.h"

static int take_parked(struct cf_monitor *self, const void *frame, struct cf_parked *parked) {
    CF_LOCK(self);
    int found = cf_parked_take(&self->parked, frame, parked);
    CF_UNLOCK(self);
    return found;
}

/* Records a generator that was dropped without an event: with the time it had spent by then. One
 * that was suspended when this process was forked off is the parent's to record. */
static void record_dropped(const struct cf_monitor *self, const struct cf_parked *parked) {
    if (parked->stopped && parked->parked_tick >= self->forked_tick)
        cf_operation_record(parked->instrument, parked->parked_tick - parked->ticks,
                            parked->parked_tick, 0);
}

void cf_monitor_begin_suspending(struct cf_monitor *self, const struct cf_known_code *known,
                                 const void *frame) {
    struct cf_parked dropped;
    if (take_parked(self, frame, &dropped))
        record_dropped(self, &dropped);
    cf_monitor_begin(known, frame);
}

void cf_monitor_resume(struct cf_monitor *self, const struct cf_known_code *known,
                       const void *frame) {
    struct cf_parked parked;
    uint32_t instrument = (uint32_t)known->instrument;
    if (!take_parked(self, frame, &parked)) {
        cf_monitor_begin_unrecorded(instrument, frame);
        return;
    }
    struct cf_span *span = cf_span_push(&cf_thread, instrument, frame);
    if (!span)
        return;
    span->child_ticks = parked.child_ticks;
    span->start_tick = parked.stopped ? cf_ticks() - parked.ticks : parked.ticks;
}

/* Whether the time until the next step belongs to the consumer: after a value, not while waiting.
 */
static int gives_a_value(const struct cf_known_code *known, PyObject *value) {
    if (known->sort != CF_ASYNC_GENERATOR)
        return known->sort == CF_GENERATOR;
    PyObject *name = PyType_GetName(Py_TYPE(value));
    int wrapped =
        name && PyUnicode_CompareWithASCIIString(name, "async_generator_wrapped_value") == 0;
    if (!name)
        PyErr_Clear();
    Py_XDECREF(name);
    return wrapped;
}

void cf_monitor_suspend(struct cf_monitor *self, const struct cf_known_code *known,
                        const void *frame, PyObject *value) {
    uint64_t now = cf_ticks();
    struct cf_span span;
    if (!cf_span_take(&cf_thread, (uint32_t)known->instrument, frame, &span) ||
        (span.what & CF_SPAN_UNRECORDED))
        return;
    int stopped = gives_a_value(known, value);
    struct cf_parked parked = {
        .frame = frame,
        .ticks = stopped ? cf_elapsed(span.start_tick, now) : span.start_tick,
        .child_ticks = span.child_ticks,
        .parked_tick = now,
        .instrument = (uint32_t)span.what,
        .stopped = (uint32_t)stopped,
    };
    CF_LOCK(self);
    int result = cf_parked_add(&self->parked, &parked);
    CF_UNLOCK(self);
    if (result < 0)
        cf_process_lost(1);
}

void cf_monitor_flush(struct cf_monitor *self) {
    for (size_t i = 0; i < self->parked.capacity; i++) {
        if (self->parked.slots[i].frame)
            record_dropped(self, &self->parked.slots[i]);
    }
    cf_parked_free(&self->parked);
}
