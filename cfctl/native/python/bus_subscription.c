/* RingSubscription: the reading ends of a topic's rings; bus_receive.c takes messages of them. */
#include "bus_subscription_object.h"

#include <stdio.h>

#include "bus.h"

void cf_bus_shut(struct subscription_object *self) {
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
    cf_bus_shut(self);
    subscription_clear(object);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

int cf_bus_raise_closed(const struct subscription_object *self) {
    if (self->subscription.topic.page && !self->closing) {
        PyErr_SetString(PyExc_RuntimeError, "a forked child can not use its parent's subscription");
        return 0;
    }
    PyObject *exception = PyObject_CallNoArgs(self->gone);
    if (exception) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return 0;
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
    cf_bus_shut(self);
    Py_RETURN_TRUE;
}

static PyObject *subscription_counts(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    if (!cf_bus_is_open(self))
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
    PyObject *marks = cf_bus_is_open(self) ? PyDict_New() : NULL;
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

static PyMethodDef subscription_methods[] = {
    {"try_recv", CF_FASTCALL(cf_bus_try_recv), METH_FASTCALL, "Return a payload or None."},
    {"try_recv_message", CF_FASTCALL(cf_bus_try_recv_message), METH_FASTCALL,
     "Return a message or None."},
    {"recv", CF_FASTCALL(cf_bus_recv), METH_FASTCALL, "Wait for a payload."},
    {"recv_message", CF_FASTCALL(cf_bus_recv_message), METH_FASTCALL, "Wait for a message."},
    {"recv_many", cf_bus_recv_many, METH_O, "Return the payloads that are there."},
    {"wait", CF_FASTCALL(cf_bus_wait), METH_FASTCALL, "Wait, at most 100 ms, for something."},
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
    {Py_tp_iternext, (void *)cf_bus_next},
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
