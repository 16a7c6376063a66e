/* RingSubscription: the reading ends of its topics' rings; bus_receive.c takes messages of them. */
#include "bus_subscription_object.h"

#include <errno.h>
#include <stdio.h>

#include "bus.h"

void cf_bus_shut(struct subscription_object *self) {
    if (self->subscription.busy > 0 || !self->is_open)
        return;
    self->is_open = 0;
    if (self->notifier)
        cf_notifier_stop(self->notifier, &self->subscription);
    self->notifier = NULL;
    cf_subscription_close(&self->subscription);
}

PyObject *cf_bus_topic_of(struct subscription_object *self, const struct cf_ring_reader *reader) {
    for (uint32_t at = (uint32_t)PyList_Size(self->topics); at <= reader->topic_index; at++) {
        const struct cf_topic_page *page =
            cf_subscription_topic(&self->subscription, at)->topic.page;
        PyObject *name = PyUnicode_DecodeUTF8(page->name, (Py_ssize_t)page->name_bytes, "replace");
        int error = name ? PyList_Append(self->topics, name) : -1;
        Py_XDECREF(name);
        if (error < 0)
            return NULL;
    }
    return PyList_GetItem(self->topics, reader->topic_index);
}

/* Opens the topics of a tuple of str, or those of a pattern, without the interpreter lock: another
 * process may hold a topic's. 0 or a negative errno; sets the topic that it failed at. */
static int open_topics(struct subscription_object *self, PyObject *names, const char *pattern,
                       Py_ssize_t pattern_bytes, const char **failed) {
    int error = 0;
    for (Py_ssize_t i = 0; error == 0 && i < PyTuple_Size(names); i++) {
        Py_ssize_t bytes = 0;
        const char *name = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(names, i), &bytes);
        if (!name || bytes > (Py_ssize_t)CF_TOPIC_BYTES)
            return -EINVAL;
        *failed = name;
        Py_BEGIN_ALLOW_THREADS;
        error = cf_subscription_add_topic(&self->subscription, name, (uint32_t)bytes);
        Py_END_ALLOW_THREADS;
    }
    if (error != 0 || !pattern)
        return error;
    *failed = pattern;
    Py_BEGIN_ALLOW_THREADS;
    error = cf_subscription_follow(&self->subscription, pattern, (uint32_t)pattern_bytes);
    Py_END_ALLOW_THREADS;
    return error;
}

/* Registers the counters under the one topic's name, the pattern, or the first of several topics.
 * 0, or -1 with an exception. */
static int register_counters(struct subscription_object *self, PyObject *topics,
                             const char *pattern, unsigned long long id) {
    char labels[64];
    int length = snprintf(labels, sizeof labels, "subscription%c%016llx%c", 0, id, 0);
    const char *name =
        pattern ? pattern : PyUnicode_AsUTF8AndSize(PyTuple_GetItem(topics, 0), NULL);
    int64_t instrument = cf_process_instrument(&cf_kind_bus_subscriber, name,
                                               (uint32_t)strlen(name), labels, (uint32_t)length);
    if (instrument < 0) {
        PyErr_NoMemory();
        return -1;
    }
    self->instrument = (uint32_t)instrument;
    return 0;
}

static PyObject *subscription_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"participant", "topics", "pattern", "id",    "wait", "spin_ns",
                            "ordered",     "flags",  "history", "group", "hold", NULL};
    struct cf_module_state *state = cf_find_state(type);
    struct cf_subscription_request request = {0};
    PyObject *participant, *topics, *hold;
    const char *pattern, *failed = "";
    Py_ssize_t pattern_bytes, group_bytes;
    unsigned long long id, spin_ns, history;
    int wait;
    if (!state || !PyArg_ParseTupleAndKeywords(args, keywords, "O!O!z#KiKpIKz#O", names,
                                               state->participant_type, &participant, &PyTuple_Type,
                                               &topics, &pattern, &pattern_bytes, &id, &wait,
                                               &spin_ns, &request.ordered, &request.flags, &history,
                                               &request.group, &group_bytes, &hold))
        return NULL;
    if (wait < CF_WAIT_SPIN || wait > CF_WAIT_PARK || (!pattern && PyTuple_Size(topics) == 0)) {
        PyErr_SetString(PyExc_ValueError, "wait is 0 to 2, and there is a topic or a pattern");
        return NULL;
    }
    struct subscription_object *self = (void *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    request.id = id;
    request.wait = (enum cf_wait)wait;
    request.spin_ns = spin_ns;
    request.history = history;
    request.group_bytes = request.group ? (uint32_t)group_bytes : 0;
    self->state = state;
    self->participant = Py_NewRef(participant);
    self->hold = Py_NewRef(hold);
    self->released = PyList_New(0);
    self->topics = PyList_New(0);
    cf_subscription_init(&self->subscription,
                         &((struct participant_object *)participant)->participant, &request);
    self->is_open = 1;
    int error = register_counters(self, topics, pattern, id);
    if (error == 0 && self->released && self->topics) {
        error = open_topics(self, topics, pattern, pattern_bytes, &failed);
        if (error != 0)
            cf_raise_errno(error, failed);
    }
    if (error != 0 || !self->released || !self->topics) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int subscription_traverse(PyObject *object, visitproc visit, void *arg) {
    struct subscription_object *self = (struct subscription_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->hold);
    Py_VISIT(self->topics);
    Py_VISIT(self->released);
    return 0;
}

static int subscription_clear(PyObject *object) {
    struct subscription_object *self = (struct subscription_object *)object;
    Py_CLEAR(self->hold);
    Py_CLEAR(self->released);
    return 0;
}

static void subscription_dealloc(PyObject *object) {
    struct subscription_object *self = (struct subscription_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    self->closing = 1;
    cf_bus_shut(self);
    subscription_clear(object);
    Py_CLEAR(self->topics);
    Py_CLEAR(self->participant);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

int cf_bus_raise_closed(const struct subscription_object *self) {
    if (self->is_open && !self->closing)
        cf_raise_error("StateError", "Nothing was received.",
                       "A forked child cannot use its parent's subscription.",
                       "Make a Bus of its own in the child.");
    else
        cf_raise_error("SubscriptionNotFound", "Nothing was received.",
                       "The subscription has ended.", "Subscribe again.");
    return 0;
}

static PyObject *subscription_release(PyObject *object, PyObject *message) {
    struct subscription_object *self = (struct subscription_object *)object;
    if (self->closing || !self->is_open || !self->released)
        Py_RETURN_FALSE;
    if (PyList_Append(self->released, message) < 0)
        return NULL;
    if (cf_participant_is_open(self->subscription.participant))
        cf_subscription_wake(&self->subscription);
    Py_RETURN_TRUE;
}

static PyObject *subscription_close(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    if (self->closing)
        Py_RETURN_FALSE;
    self->closing = 1;
    if (self->subscription.busy > 0 && self->is_open &&
        cf_participant_is_open(self->subscription.participant))
        cf_subscription_wake(&self->subscription);
    cf_bus_shut(self);
    Py_RETURN_TRUE;
}

static PyObject *subscription_done(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    if (!cf_bus_enter(self))
        return NULL;
    cf_subscription_finish(&self->subscription);
    cf_bus_leave(self);
    Py_RETURN_NONE;
}

static PyObject *subscription_fileno(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    if (!cf_bus_is_open(self))
        return NULL;
    if (!self->notifier)
        self->notifier = cf_notifier_start(&self->subscription);
    if (!self->notifier)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(cf_notifier_descriptor(self->notifier));
}

static PyObject *subscription_counts(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    if (!cf_bus_is_open(self))
        return NULL;
    struct cf_subscription_counts counts;
    cf_subscription_count(&self->subscription, &counts);
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I,s:I}", "copies",
        (unsigned long long)counts.copies, "delivered", (unsigned long long)counts.delivered,
        "dropped", (unsigned long long)counts.dropped, "pending",
        (unsigned long long)counts.pending, "damaged", (unsigned long long)counts.damaged,
        "history", (unsigned long long)counts.history, "skipped",
        (unsigned long long)counts.skipped, "high_water", (unsigned long long)counts.high_water,
        "oldest_tick", (unsigned long long)counts.oldest_tick, "rings", counts.rings, "publishers",
        counts.publishers, "unjoined", self->subscription.unjoined);
}

/* The number of the last message that was taken of each publisher's ring. */
static PyObject *subscription_watermarks(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    PyObject *marks = cf_bus_is_open(self) ? PyDict_New() : NULL;
    for (uint32_t i = 0; marks && i < self->subscription.readers.count; i++) {
        const struct cf_ring_reader *reader = cf_subscription_reader(&self->subscription, i);
        if (reader->scheduled)
            continue;
        PyObject *key = PyLong_FromUnsignedLong(reader->publisher);
        PyObject *value = PyLong_FromUnsignedLongLong(cf_ring_next(reader));
        if (!key || !value || PyDict_SetItem(marks, key, value) < 0)
            Py_CLEAR(marks);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return marks;
}

static PyObject *subscription_numbers(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    PyObject *numbers = cf_bus_is_open(self) ? PyList_New(0) : NULL;
    for (uint32_t i = 0; numbers && i < self->subscription.readers.count; i++) {
        uint32_t number = cf_subscription_reader(&self->subscription, i)->publisher;
        PyObject *item = PyLong_FromUnsignedLong(number);
        if (!item || PyList_Append(numbers, item) < 0)
            Py_CLEAR(numbers);
        Py_XDECREF(item);
    }
    return numbers;
}

/* How many of the rings are still published on; joins those that came. */
static PyObject *subscription_publishers(PyObject *object, PyObject *unused) {
    (void)unused;
    struct subscription_object *self = (struct subscription_object *)object;
    if (!cf_bus_enter(self))
        return NULL;
    cf_subscription_refresh(&self->subscription);
    uint32_t count = 0;
    for (uint32_t i = 0; i < self->subscription.readers.count; i++)
        count += cf_ring_writer_lives(cf_subscription_reader(&self->subscription, i)) != 0;
    cf_bus_leave(self);
    return PyLong_FromUnsignedLong(count);
}

#define KEYWORDS (METH_FASTCALL | METH_KEYWORDS)

static PyMethodDef subscription_methods[] = {
    {"try_recv", CF_FASTCALL(cf_bus_try_recv), METH_FASTCALL,
     "try_recv($self)\n--\n\nReturn the next payload, None when there is none.\n\nRaises "
     "SubscriptionNotFound when the subscription has ended."},
    {"recv", CF_KEYWORDS(cf_bus_recv), KEYWORDS,
     "recv($self, timeout_s=None)\n--\n\nReturn the next payload; waits, None at the time-out."},
    {"recv_many", cf_bus_recv_many, METH_O,
     "recv_many($self, most, /)\n--\n\nReturn the payloads that are there, at most so many."},
    {"recv_view", CF_KEYWORDS(cf_bus_recv_view), KEYWORDS,
     "recv_view($self, timeout_s=None)\n--\n\nReturn a context manager that gives the next payload "
     "as a memoryview of the ring,\nor None at the time-out; the message is taken when it ends."},
    {"_try_recv_message", CF_FASTCALL(cf_bus_try_recv_message), METH_FASTCALL,
     "Return a message or None."},
    {"_recv_message", CF_KEYWORDS(cf_bus_recv_message), KEYWORDS, "Wait for a message."},
    {"_wait", CF_KEYWORDS(cf_bus_wait), KEYWORDS, "Wait, at most 100 ms, for something."},
    {"_release", subscription_release, METH_O, "Give a message that was held to the receiver."},
    {"_close", subscription_close, METH_NOARGS, "Leave the rings; False if it was closed."},
    {"_fileno", subscription_fileno, METH_NOARGS, "Return the descriptor."},
    {"done", subscription_done, METH_NOARGS,
     "done($self)\n--\n\nSay that what this member of a group received last is finished."},
    {"_publishers", subscription_publishers, METH_NOARGS,
     "Return how many rings are published on."},
    {"_numbers", subscription_numbers, METH_NOARGS, "Return the publishers' numbers."},
    {"_watermarks", subscription_watermarks, METH_NOARGS, "Return the last number per publisher."},
    {"counts", subscription_counts, METH_NOARGS,
     "counts($self)\n--\n\nReturn copies = delivered + dropped + pending, and more."},
    {NULL, NULL, 0, NULL},
};

static PyObject *subscription_get_is_shut(PyObject *object, void *closure) {
    (void)closure;
    return PyBool_FromLong(!((struct subscription_object *)object)->is_open);
}

static PyGetSetDef subscription_properties[] = {
    {"_is_shut", subscription_get_is_shut, NULL, "Whether it has left its topics.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot subscription_slots[] = {
    {Py_tp_doc, (void *)"The reading ends of some topics' rings; for one thread at a time."},
    {Py_tp_new, (void *)subscription_new},
    {Py_tp_dealloc, (void *)subscription_dealloc},
    {Py_tp_traverse, (void *)subscription_traverse},
    {Py_tp_clear, (void *)subscription_clear},
    {Py_tp_methods, subscription_methods},
    {Py_tp_getset, subscription_properties},
    {0, NULL},
};

static PyType_Spec subscription_spec = {
    .name = "cfctl._native.RingSubscription",
    .basicsize = sizeof(struct subscription_object),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = subscription_slots,
};

int cf_add_bus_subscription(PyObject *module) {
    PyTypeObject *type = cf_add_type(module, &subscription_spec);
    Py_XDECREF((PyObject *)type);
    return type ? 0 : -1;
}
