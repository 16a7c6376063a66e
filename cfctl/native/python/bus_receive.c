/* How a RingSubscription receives: at once, waiting, and in batches. */
#include "bus_subscription_object.h"

#include <math.h>

#include "bus.h"
#include "tick.h"

/* A wait starts with some looks under the interpreter lock, about a microsecond: giving it up and
 * taking it again costs as much as a message's way. Messages of one recv_many share a tick, which
 * dates the first of them a third of a microsecond too late. */
enum { SLICE_NS = 100000000, LOOKS_WITH_LOCK = 64, BATCH = 16, PAYLOADS = 256 };

/* Takes the next message of the rings, on top of what a group's member works on if `more`. Its
 * payload; Py_None when there is none; NULL with an exception. */
static PyObject *take_payload(struct subscription_object *self, struct cf_ring_message *message,
                              struct cf_ring_reader **of, int more) {
    struct cf_ring_reader *reader;
    while ((reader = cf_subscription_poll(&self->subscription, message)) != NULL) {
        PyObject *payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)message->length);
        if (!payload)
            return NULL;
        cf_ring_copy(message, PyBytes_AsString(payload));
        int taken = cf_unlikely(more && reader->member) ? cf_ring_take_next(reader, message)
                                                        : cf_ring_take(reader, message);
        if (cf_likely(taken)) {
            if (reader->high_water > self->high_water)
                self->high_water = reader->high_water;
            self->has_extra |= (reader->dropped | reader->history) != 0;
            *of = reader;
            return payload;
        }
        Py_DECREF(payload);
        if (more && reader->member)
            break;
    }
    return Py_NewRef(Py_None);
}

void cf_bus_account(struct subscription_object *self, const struct cf_ring_message *messages,
                    size_t size, uint64_t tick) {
    struct cf_bus_received *shard = cf_process_payload(&cf_thread, self->instrument);
    if (cf_unlikely(shard == NULL))
        cf_process_lost(size);
    const struct cf_ring_message *latest = messages;
    for (const struct cf_ring_message *each = messages; each < messages + size; each++) {
        if (each->hlc > latest->hlc)
            latest = each;
        if (cf_likely(shard != NULL))
            cf_bus_received_add(shard, each->length, each->tick, tick);
    }
    cf_bus_merge_stamp(latest->hlc, latest->publisher, tick, &self->looked_tick);
    if (cf_unlikely(shard == NULL))
        return;
    if (cf_unlikely(self->high_water > cf_load_relaxed(&shard->high_water)))
        cf_store_relaxed(&shard->high_water, self->high_water);
    if (cf_unlikely(self->has_extra)) {
        struct cf_subscription_counts counts;
        cf_subscription_count(&self->subscription, &counts);
        cf_store_relaxed(&shard->dropped, counts.dropped);
        cf_store_relaxed(&shard->history, counts.history);
    }
}

/* Gives a message with an extension to `hold`, and its reference to the payload up. What hold
 * returns: Py_None when it is held. Without a hold: the message as it lies on the ring. */
static PyObject *hold(struct subscription_object *self, const struct cf_ring_message *message,
                      const struct cf_ring_reader *reader, uint64_t tick, PyObject *payload) {
    PyObject *topic = cf_bus_topic_of(self, reader);
    if (!topic) {
        Py_DECREF(payload);
        return NULL;
    }
    PyObject *extended =
        cf_bus_message(self->state, message, reader->ring_id, tick, payload, topic);
    if (self->hold == Py_None)
        return extended;
    PyObject *kept = extended ? PyObject_CallFunctionObjArgs(self->hold, extended, NULL) : NULL;
    Py_XDECREF(extended);
    return kept;
}

/* Takes the next message of the rings: its payload or, `whole`, the Message. Py_None when there is
 * none; NULL with an exception. */
static PyObject *take(struct subscription_object *self, int whole) {
    for (;;) {
        struct cf_ring_message message;
        struct cf_ring_reader *reader;
        PyObject *payload = take_payload(self, &message, &reader, 0);
        if (payload == Py_None || cf_unlikely(!payload))
            return payload;
        uint64_t tick = cf_ticks();
        cf_bus_account(self, &message, 1, tick);
        int is_extended = message.flags & CF_MESSAGE_EXTENDED;
        if (cf_likely(!is_extended && !whole))
            return payload;
        if (!is_extended) {
            PyObject *topic = cf_bus_topic_of(self, reader);
            if (topic)
                return cf_bus_message(self->state, &message, reader->ring_id, tick, payload, topic);
            Py_DECREF(payload);
            return NULL;
        }
        PyObject *kept = hold(self, &message, reader, tick, payload);
        if (kept != Py_None)
            return kept;
        Py_DECREF(kept);
        /* Python ran: the subscription may have been closed. */
        if (!cf_bus_is_open(self))
            return NULL;
    }
}

/* Takes a message that was held and is released now; NULL without exception when there is none. */
static PyObject *take_released(struct subscription_object *self) {
    if (cf_likely(PyList_Size(self->released) == 0))
        return NULL;
    PyObject *message = Py_NewRef(PyList_GetItem(self->released, 0));
    if (PyList_SetSlice(self->released, 0, 1, NULL) < 0)
        Py_CLEAR(message);
    return message;
}

/* Reduces a held message, which is an object of Python's, to its payload. */
static PyObject *payload_of(PyObject *message, int whole) {
    if (whole || message == NULL || PyBytes_CheckExact(message) || message == Py_None)
        return message;
    PyObject *payload = PyObject_GetAttrString(message, "payload");
    Py_DECREF(message);
    return payload;
}

/* With the subscription found empty, its descriptor waits for the next message. */
static void arm(struct subscription_object *self) {
    cf_store_relaxed(&self->subscription.attention, 0u);
    if (PyList_Size(self->released) > 0)
        cf_store_release(&self->subscription.attention, 1u);
    cf_notifier_arm(self->notifier, &self->subscription);
}

PyObject *cf_bus_take(struct subscription_object *self, int whole) {
    cf_subscription_finish(&self->subscription);
    PyObject *released = take_released(self);
    if (cf_unlikely(released != NULL))
        return payload_of(released, whole);
    PyObject *result = payload_of(take(self, whole), whole);
    if (cf_unlikely(self->notifier != NULL) && result == Py_None)
        arm(self);
    return result;
}

int cf_bus_wait_slice(struct subscription_object *self, uint64_t spin_until_ns, uint64_t now_ns,
                      uint64_t end_ns) {
    uint64_t slice = end_ns - now_ns < SLICE_NS ? end_ns - now_ns : SLICE_NS;
    cf_subscription_check(&self->subscription, now_ns);
    self->subscription.watchers++;
    PyThreadState *released = PyEval_SaveThread();
    cf_subscription_wait(&self->subscription, spin_until_ns, slice);
    PyEval_RestoreThread(released);
    cf_store_relaxed(&self->subscription.attention, 0u);
    self->subscription.watchers--;
    return PyErr_CheckSignals() < 0 || !cf_bus_is_open(self) ? -1 : 0;
}

/* Takes a message, waiting as long as the timeout says; Py_None when there was none. Entered. */
static PyObject *take_within(struct subscription_object *self, int whole, double timeout_s) {
    PyObject *result = cf_bus_take(self, whole);
    if (result != Py_None)
        return result;
    if (cf_subscription_spin(&self->subscription, LOOKS_WITH_LOCK)) {
        Py_DECREF(result);
        result = cf_bus_take(self, whole);
    }
    if (result != Py_None)
        return result;
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC), end_ns = cf_bus_end_ns(timeout_s, now_ns);
    uint64_t spin_until_ns = now_ns + self->subscription.spin_ns;
    for (; now_ns < end_ns && result == Py_None; now_ns = cf_os_ns(CLOCK_MONOTONIC)) {
        Py_DECREF(result);
        if (cf_bus_wait_slice(self, spin_until_ns, now_ns, end_ns) < 0)
            return NULL;
        result = cf_bus_take(self, whole);
    }
    return result;
}

int cf_bus_enter_to_receive(struct subscription_object *self) {
    if (cf_likely(!self->viewed))
        return cf_bus_enter(self);
    cf_raise_error("StateError", "Nothing was received.",
                   "A message of this subscription is lent out by recv_view.",
                   "Leave its `with` block, and delete what was made of the view (del array).");
    return 0;
}

static PyObject *try_recv(PyObject *object, int whole) {
    struct subscription_object *self = (struct subscription_object *)object;
    if (cf_unlikely(!cf_bus_enter_to_receive(self)))
        return NULL;
    PyObject *result = cf_bus_take(self, whole);
    cf_bus_leave(self);
    return result;
}

PyObject *cf_bus_try_recv(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args, (void)count;
    return try_recv(object, 0);
}

PyObject *cf_bus_try_recv_message(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args, (void)count;
    return try_recv(object, 1);
}

static PyObject *recv_within(PyObject *object, int whole, double timeout_s) {
    struct subscription_object *self = (struct subscription_object *)object;
    if (cf_unlikely(!cf_bus_enter_to_receive(self)))
        return NULL;
    PyObject *result = take_within(self, whole, timeout_s);
    cf_bus_leave(self);
    return result;
}

PyObject *cf_bus_recv(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    double timeout_s;
    if (cf_bus_arguments("recv", 0, args, count, names, &timeout_s) < 0)
        return NULL;
    return recv_within(object, 0, timeout_s);
}

PyObject *cf_bus_recv_message(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names) {
    double timeout_s;
    if (cf_bus_arguments("recv_message", 0, args, count, names, &timeout_s) < 0)
        return NULL;
    return recv_within(object, 1, timeout_s);
}

/* Takes up to `most` messages, at most BATCH; one that has an extension is the last. How many
 * payloads it stored: of held messages there are none. -1 when nothing is there, or with an
 * exception. */
static Py_ssize_t take_batch(struct subscription_object *self, PyObject **payloads, Py_ssize_t most,
                             int more) {
    struct cf_ring_message messages[BATCH];
    struct cf_ring_reader *reader = NULL;
    PyObject *payload = NULL;
    Py_ssize_t taken = 0;
    int is_extended = 0;
    while (taken < most && !is_extended) {
        payload = take_payload(self, &messages[taken], &reader, more || taken > 0);
        if (payload == Py_None || cf_unlikely(!payload))
            break;
        is_extended = messages[taken].flags & CF_MESSAGE_EXTENDED;
        payloads[taken++] = payload;
    }
    if (payload == Py_None)
        Py_DECREF(payload);
    if (taken == 0)
        return -1;
    uint64_t tick = cf_ticks();
    cf_bus_account(self, messages, (size_t)taken, tick);
    if (cf_likely(!is_extended))
        return taken;
    PyObject *kept = payload_of(hold(self, &messages[taken - 1], reader, tick, payload), 0);
    if (kept && kept != Py_None) {
        payloads[taken - 1] = kept;
        return taken;
    }
    Py_XDECREF(kept);
    return taken == 1 && !kept ? -1 : taken - 1;
}

/* Adds payloads to a list, which is made with the first of them, and gives their references up. The
 * list, or NULL with an exception. */
static PyObject *add_payloads(PyObject *list, PyObject **payloads, Py_ssize_t size) {
    int is_new = list == NULL;
    if (is_new)
        list = PyList_New(size);
    for (Py_ssize_t i = 0; i < size; i++) {
        if (list && is_new)
            PyList_SetItem(list, i, payloads[i]);
        else if (list && PyList_Append(list, payloads[i]) < 0)
            Py_CLEAR(list);
        if (!is_new || !list)
            Py_DECREF(payloads[i]);
    }
    return list;
}

/* As cf_bus_recv_many, entered. */
static PyObject *take_many(struct subscription_object *self, Py_ssize_t left) {
    PyObject *payloads[PAYLOADS], *list = NULL;
    Py_ssize_t size = 0, got = 0;
    int more = 0;
    cf_subscription_finish(&self->subscription);
    while (left > 0 && got >= 0) {
        Py_ssize_t most = left < BATCH ? left : BATCH;
        PyObject *released = payload_of(take_released(self), 0);
        if (cf_unlikely(released != NULL)) {
            payloads[size] = released;
            got = 1;
        } else {
            got = PyErr_Occurred() ? -1 : take_batch(self, payloads + size, most, more);
            more = 1;
        }
        if (got < 0)
            break;
        left -= got;
        size += got;
        if (size > PAYLOADS - BATCH) {
            list = add_payloads(list, payloads, size);
            size = 0;
            if (!list)
                return NULL;
        }
        if (cf_unlikely(self->closing))
            break;
    }
    /* What was taken before an exception must not be lost with it. */
    if (PyErr_Occurred()) {
        if (size == 0 && !list)
            return NULL;
        PyErr_Clear();
    }
    if (cf_unlikely(self->notifier != NULL) && got < 0)
        arm(self);
    return add_payloads(list, payloads, size);
}

PyObject *cf_bus_recv_many(PyObject *object, PyObject *argument) {
    struct subscription_object *self = (struct subscription_object *)object;
    Py_ssize_t most = PyLong_AsSsize_t(argument);
    if ((most == -1 && PyErr_Occurred()) || !cf_bus_enter_to_receive(self))
        return NULL;
    PyObject *list = take_many(self, most);
    cf_bus_leave(self);
    return list;
}

/* Waits until there is something to take, without taking it. */
PyObject *cf_bus_wait(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    struct subscription_object *self = (struct subscription_object *)object;
    double timeout_s;
    if (cf_bus_arguments("wait", 0, args, count, names, &timeout_s) < 0 || !cf_bus_enter(self))
        return NULL;
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC), end_ns = cf_bus_end_ns(timeout_s, now_ns);
    int error = 0;
    if (now_ns < end_ns && PyList_Size(self->released) == 0)
        error = cf_bus_wait_slice(self, now_ns + self->subscription.spin_ns, now_ns, end_ns);
    cf_bus_leave(self);
    if (error < 0)
        return NULL;
    Py_RETURN_NONE;
}
