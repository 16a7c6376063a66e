/* RingSubscription: the reading ends of a topic's rings. */
#include "bus_types.h"

#include <math.h>
#include <stdio.h>

#include "bus.h"
#include "subscription.h"
#include "tick.h"

/* A wait starts with some looks under the interpreter lock, about a microsecond: giving it up and
 * taking it again costs as much as a message's way. Messages of one recv_many share a tick, which
 * dates the first of them a third of a microsecond too late. */
enum { SLICE_NS = 100000000, LOOKS_WITH_LOCK = 64, BATCH = 16, PAYLOADS = 256 };

struct subscription_object {
    PyObject_HEAD struct cf_subscription subscription;
    struct cf_module_state *state;
    PyObject *hold;         /* called with each message that has an extension; returns it or None */
    PyObject *released;     /* list of messages that were held */
    PyObject *gone;         /* returns the exception for an ended subscription */
    uint64_t trusted_until; /* cf_bus_merge_stamp's */
    uint64_t high_water;    /* of the rings that messages were taken of */
    uint32_t instrument;
    uint8_t closing;
    uint8_t has_dropped; /* one of these rings has lost messages */
};

static void shut(struct subscription_object *self) {
    if (self->subscription.watchers == 0)
        cf_subscription_close(&self->subscription);
}

static PyObject *subscription_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"directory", "topic", "id",   "wait", "spin_ns",
                            "ordered",   "hold",  "gone", NULL};
    const char *directory, *topic;
    Py_ssize_t topic_bytes;
    unsigned long long id, spin_ns;
    int wait, ordered;
    PyObject *hold, *gone;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ss#KiKpOO", names, &directory, &topic,
                                     &topic_bytes, &id, &wait, &spin_ns, &ordered, &hold, &gone))
        return NULL;
    if (topic_bytes < 1 || topic_bytes > (Py_ssize_t)CF_TOPIC_BYTES || wait < CF_WAIT_SPIN ||
        wait > CF_WAIT_PARK) {
        PyErr_SetString(PyExc_ValueError, "a topic is 1 to 1024 bytes of UTF-8; wait is 0 to 2");
        return NULL;
    }
    char labels[64];
    int length = snprintf(labels, sizeof labels, "subscription%c%016llx%c", 0, id, 0);
    int64_t instrument = cf_process_instrument(&cf_kind_bus_subscriber, topic,
                                               (uint32_t)topic_bytes, labels, (uint32_t)length);
    struct subscription_object *self =
        instrument < 0 ? (void *)PyErr_NoMemory() : (void *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->state = cf_type_state(type);
    self->instrument = (uint32_t)instrument;
    self->hold = Py_NewRef(hold);
    self->gone = Py_NewRef(gone);
    self->released = PyList_New(0);
    int error = cf_subscription_open(&self->subscription, directory, topic, (uint32_t)topic_bytes,
                                     id, (enum cf_wait)wait, spin_ns, ordered);
    if (error != 0)
        cf_raise_errno(error, directory);
    if (error != 0 || !self->released) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int subscription_traverse(PyObject *object, visitproc visit, void *arg) {
    struct subscription_object *self = (struct subscription_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->hold);
    Py_VISIT(self->gone);
    Py_VISIT(self->released);
    return 0;
}

static int subscription_clear(PyObject *object) {
    struct subscription_object *self = (struct subscription_object *)object;
    Py_CLEAR(self->hold);
    Py_CLEAR(self->gone);
    Py_CLEAR(self->released);
    return 0;
}

static void subscription_dealloc(PyObject *object) {
    struct subscription_object *self = (struct subscription_object *)object;
    PyObject_GC_UnTrack(object);
    shut(self);
    subscription_clear(object);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static int is_open(const struct subscription_object *self) {
    const struct cf_subscription *subscription = &self->subscription;
    if (cf_likely(subscription->topic.file.fd >= 0 && !self->closing))
        return 1;
    if (subscription->topic.page && !self->closing)
        PyErr_SetString(PyExc_RuntimeError, "a forked child can not use its parent's subscription");
    else {
        PyObject *exception = PyObject_CallNoArgs(self->gone);
        if (exception) {
            PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
            Py_DECREF(exception);
        }
    }
    return 0;
}

/* Takes the next message of the rings. Its payload; Py_None when there is none; NULL with an
 * exception. */
static PyObject *take_payload(struct subscription_object *self, struct cf_ring_message *message) {
    struct cf_ring_reader *reader;
    while ((reader = cf_subscription_poll(&self->subscription, message)) != NULL) {
        PyObject *payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)message->length);
        if (!payload)
            return NULL;
        cf_ring_copy(message, PyBytes_AsString(payload));
        if (cf_likely(cf_ring_take(reader, message))) {
            if (reader->high_water > self->high_water)
                self->high_water = reader->high_water;
            self->has_dropped |= reader->dropped != 0;
            return payload;
        }
        Py_DECREF(payload);
    }
    return Py_NewRef(Py_None);
}

/* Counts messages that were taken, and merges the latest of their stamps into the clock. */
static void account(struct subscription_object *self, const struct cf_ring_message *messages,
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
    cf_bus_merge_stamp(latest->hlc, latest->publisher, tick, &self->trusted_until);
    if (cf_unlikely(shard == NULL))
        return;
    if (cf_unlikely(self->high_water > cf_load_relaxed(&shard->high_water)))
        cf_store_relaxed(&shard->high_water, self->high_water);
    if (cf_unlikely(self->has_dropped)) {
        struct cf_subscription_counts counts;
        cf_subscription_count(&self->subscription, &counts);
        cf_store_relaxed(&shard->dropped, counts.dropped);
    }
}

/* Gives a message with an extension to `hold`, and its reference to the payload up. What hold
 * returns: Py_None when it is held. */
static PyObject *hold(struct subscription_object *self, const struct cf_ring_message *message,
                      uint64_t tick, PyObject *payload) {
    PyObject *extended = cf_bus_message(self->state, message, tick, payload);
    PyObject *kept = extended ? PyObject_CallFunctionObjArgs(self->hold, extended, NULL) : NULL;
    Py_XDECREF(extended);
    return kept;
}

/* Takes the next message of the rings: its payload or, `whole`, the Message. Py_None when there is
 * none; NULL with an exception. */
static PyObject *take(struct subscription_object *self, int whole) {
    for (;;) {
        struct cf_ring_message message;
        PyObject *payload = take_payload(self, &message);
        if (payload == Py_None || cf_unlikely(!payload))
            return payload;
        uint64_t tick = cf_ticks();
        account(self, &message, 1, tick);
        if (cf_likely(!(message.flags & CF_MESSAGE_EXTENDED)))
            return whole ? cf_bus_message(self->state, &message, tick, payload) : payload;
        PyObject *kept = hold(self, &message, tick, payload);
        if (kept != Py_None)
            return kept;
        Py_DECREF(kept);
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

static PyObject *try_take(struct subscription_object *self, int whole) {
    if (cf_unlikely(!is_open(self)))
        return NULL;
    PyObject *released = take_released(self);
    if (cf_unlikely(released != NULL))
        return payload_of(released, whole);
    return payload_of(take(self, whole), whole);
}

/* One wait without the interpreter lock. 0, or -1 with an exception. */
static int wait_slice(struct subscription_object *self, uint64_t spin_until_ns, uint64_t now_ns,
                      uint64_t end_ns) {
    uint64_t slice = end_ns - now_ns < SLICE_NS ? end_ns - now_ns : SLICE_NS;
    cf_subscription_check(&self->subscription, now_ns);
    self->subscription.watchers++;
    PyThreadState *released = PyEval_SaveThread();
    cf_subscription_wait(&self->subscription, spin_until_ns, slice);
    PyEval_RestoreThread(released);
    cf_store_relaxed(&self->subscription.attention, 0u);
    if (--self->subscription.watchers == 0 && self->closing)
        shut(self);
    return PyErr_CheckSignals();
}

/* As try_take, after some looks when there is nothing at first. */
static PyObject *take_soon(struct subscription_object *self, int whole) {
    PyObject *result = try_take(self, whole);
    if (result != Py_None || !cf_subscription_spin(&self->subscription, LOOKS_WITH_LOCK))
        return result;
    Py_DECREF(result);
    return try_take(self, whole);
}

/* Takes a message, waiting as long as the timeout says; Py_None when there was none. */
static PyObject *take_within(struct subscription_object *self, int whole, double timeout_s) {
    PyObject *result = take_soon(self, whole);
    if (result != Py_None)
        return result;
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC), end_ns = cf_bus_end_ns(timeout_s, now_ns);
    uint64_t spin_until_ns = now_ns + self->subscription.spin_ns;
    for (; now_ns < end_ns && result == Py_None; now_ns = cf_os_ns(CLOCK_MONOTONIC)) {
        Py_DECREF(result);
        if (wait_slice(self, spin_until_ns, now_ns, end_ns) < 0)
            return NULL;
        result = try_take(self, whole);
        if (result != Py_None)
            return result;
    }
    return result;
}

static PyObject *subscription_try_recv(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args, (void)count;
    return try_take((struct subscription_object *)object, 0);
}

static PyObject *subscription_try_recv_message(PyObject *object, PyObject *const *args,
                                               Py_ssize_t count) {
    (void)args, (void)count;
    return try_take((struct subscription_object *)object, 1);
}

static PyObject *recv(PyObject *object, PyObject *const *args, Py_ssize_t count, int whole) {
    double timeout_s;
    if (count > 1)
        return PyErr_Format(PyExc_TypeError, "takes a timeout in seconds at most");
    if (cf_bus_timeout(count == 1 ? args[0] : NULL, &timeout_s) < 0)
        return NULL;
    return take_within((struct subscription_object *)object, whole, timeout_s);
}

static PyObject *subscription_recv(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    return recv(object, args, count, 0);
}

static PyObject *subscription_recv_message(PyObject *object, PyObject *const *args,
                                           Py_ssize_t count) {
    return recv(object, args, count, 1);
}

/* Takes up to `most` messages, at most BATCH; one that has an extension is the last. How many
 * payloads it stored: of held messages there are none. -1 when nothing is there, or with an
 * exception. */
static Py_ssize_t take_batch(struct subscription_object *self, PyObject **payloads,
                             Py_ssize_t most) {
    struct cf_ring_message messages[BATCH];
    PyObject *payload = NULL;
    Py_ssize_t taken = 0;
    int is_extended = 0;
    while (taken < most && !is_extended) {
        payload = take_payload(self, &messages[taken]);
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
    account(self, messages, (size_t)taken, tick);
    if (cf_likely(!is_extended))
        return taken;
    PyObject *kept = payload_of(hold(self, &messages[taken - 1], tick, payload), 0);
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

static PyObject *subscription_recv_many(PyObject *object, PyObject *argument) {
    struct subscription_object *self = (struct subscription_object *)object;
    Py_ssize_t left = PyLong_AsSsize_t(argument);
    if ((left == -1 && PyErr_Occurred()) || !is_open(self))
        return NULL;
    PyObject *payloads[PAYLOADS], *list = NULL;
    Py_ssize_t size = 0, got = 0;
    while (left > 0 && got >= 0) {
        Py_ssize_t most = left < BATCH ? left : BATCH;
        PyObject *released = payload_of(take_released(self), 0);
        if (cf_unlikely(released != NULL)) {
            payloads[size] = released;
            got = 1;
        } else {
            got = PyErr_Occurred() ? -1 : take_batch(self, payloads + size, most);
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
    }
    /* What was taken before an exception must not be lost with it. */
    if (PyErr_Occurred()) {
        if (size == 0 && !list)
            return NULL;
        PyErr_Clear();
    }
    return add_payloads(list, payloads, size);
}

/* Waits until there is something to take, without taking it. */
static PyObject *subscription_wait(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct subscription_object *self = (struct subscription_object *)object;
    double timeout_s;
    if (!is_open(self) || cf_bus_timeout(count > 0 ? args[0] : NULL, &timeout_s) < 0)
        return NULL;
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC), end_ns = cf_bus_end_ns(timeout_s, now_ns);
    if (now_ns < end_ns && PyList_Size(self->released) == 0) {
        if (wait_slice(self, now_ns + self->subscription.spin_ns, now_ns, end_ns) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *subscription_release(PyObject *object, PyObject *message) {
    struct subscription_object *self = (struct subscription_object *)object;
    if (self->closing || !self->released)
        Py_RETURN_FALSE;
    if (PyList_Append(self->released, message) < 0)
        return NULL;
    cf_store_release(&self->subscription.attention, 1u);
    if (self->subscription.topic.page)
        cf_topic_wake(self->subscription.topic.page);
    Py_RETURN_TRUE;
}

static PyObject *subscription_close(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    if (self->closing)
        Py_RETURN_FALSE;
    self->closing = 1;
    cf_store_release(&self->subscription.attention, 1u);
    if (self->subscription.watchers > 0 && self->subscription.topic.page)
        cf_topic_wake(self->subscription.topic.page);
    shut(self);
    Py_RETURN_TRUE;
}

static PyObject *subscription_counts(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    if (!is_open(self))
        return NULL;
    struct cf_subscription_counts counts;
    cf_subscription_count(&self->subscription, &counts);
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I}", "copies", (unsigned long long)counts.copies,
        "delivered", (unsigned long long)counts.delivered, "dropped",
        (unsigned long long)counts.dropped, "pending", (unsigned long long)counts.pending,
        "damaged", (unsigned long long)counts.damaged, "high_water",
        (unsigned long long)counts.high_water, "oldest_tick",
        (unsigned long long)counts.oldest_tick, "rings", self->subscription.count, "rings_refused",
        self->subscription.refused);
}

/* The number of the last message that was taken of each publisher's ring. */
static PyObject *subscription_watermarks(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    PyObject *marks = is_open(self) ? PyDict_New() : NULL;
    for (uint32_t i = 0; marks && i < self->subscription.count; i++) {
        const struct cf_ring_reader *reader = self->subscription.readers[i];
        if (reader->scheduled)
            continue;
        PyObject *key = PyLong_FromUnsignedLong(reader->publisher);
        PyObject *value = PyLong_FromUnsignedLongLong(reader->position);
        if (!key || !value || PyDict_SetItem(marks, key, value) < 0)
            Py_CLEAR(marks);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return marks;
}

static PyObject *subscription_next(PyObject *object) {
    return take_within((struct subscription_object *)object, 0, INFINITY);
}

static PyMethodDef subscription_methods[] = {
    {"try_recv", CF_FASTCALL(subscription_try_recv), METH_FASTCALL, "Return a payload or None."},
    {"try_recv_message", CF_FASTCALL(subscription_try_recv_message), METH_FASTCALL,
     "Return a message or None."},
    {"recv", CF_FASTCALL(subscription_recv), METH_FASTCALL, "Wait for a payload."},
    {"recv_message", CF_FASTCALL(subscription_recv_message), METH_FASTCALL, "Wait for a message."},
    {"recv_many", subscription_recv_many, METH_O, "Return the payloads that are there."},
    {"wait", CF_FASTCALL(subscription_wait), METH_FASTCALL, "Wait, at most 100 ms, for something."},
    {"release", subscription_release, METH_O, "Give a message that was held to the receiver."},
    {"watermarks", subscription_watermarks, METH_NOARGS, "Return the last number per publisher."},
    {"counts", subscription_counts, METH_NOARGS, "Return the counters."},
    {"close", subscription_close, METH_NOARGS, "Leave the rings; False if it was closed."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot subscription_slots[] = {
    {Py_tp_doc, (void *)"The reading ends of a topic's rings; for one thread at a time."},
    {Py_tp_new, (void *)subscription_new},
    {Py_tp_dealloc, (void *)subscription_dealloc},
    {Py_tp_traverse, (void *)subscription_traverse},
    {Py_tp_clear, (void *)subscription_clear},
    {Py_tp_methods, subscription_methods},
    {Py_tp_iter, (void *)PyObject_SelfIter},
    {Py_tp_iternext, (void *)subscription_next},
    {0, NULL},
};

static PyType_Spec subscription_spec = {
    .name = "cfctl._native.RingSubscription",
    .basicsize = sizeof(struct subscription_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = subscription_slots,
};

int cf_add_bus_subscription(PyObject *module) {
    PyTypeObject *type = cf_add_type(module, &subscription_spec);
    Py_XDECREF((PyObject *)type);
    return type ? 0 : -1;
}
