/* Publisher: the writing end of a topic. */
#include "bus_publisher_object.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bus.h"
#include "tick.h"

enum { PAUSES_WITHOUT_LOCK = 8, SLEEP_NS = 50000, SLICE_NS = 100000000 };

void cf_bus_shut_publisher(struct publisher_object *self) {
    if (self->busy == 0)
        cf_publisher_close(&self->publisher);
}

void cf_bus_published(struct publisher_object *self, uint64_t messages, uint64_t bytes,
                      uint64_t tick) {
    cf_topic_notify(self->publisher.topic.page);
    struct cf_bus_published *shard = cf_process_payload(&cf_thread, self->instrument);
    if (cf_likely(shard != NULL))
        cf_bus_published_add(shard, messages, bytes, tick);
    else
        cf_process_lost(messages);
}

/* Publishes and counts. 0 or a negative errno. */
static inline int publish(struct publisher_object *self, const void *payload, size_t length,
                          uint16_t flags) {
    struct cf_ring_writer *writer = &self->publisher.writer;
    if (cf_unlikely(cf_ring_room(writer) == 0))
        return -EAGAIN;
    uint64_t tick = cf_ticks();
    uint64_t hlc = cf_hlc_node_tick(&cf_hlc_process, cf_hlc_node_now(&cf_hlc_process, tick));
    int error = cf_ring_publish(writer, payload, length, tick, hlc, flags);
    if (cf_likely(error == 0))
        cf_bus_published(self, 1, length, tick);
    return error;
}

PyObject *cf_bus_raise_blocked(const struct publisher_object *self) {
    if (self->blocked & CF_PUBLISHER_LOANED && !(self->blocked & CF_PUBLISHER_CLOSING))
        return cf_raise_error("StateError", "Nothing was published.",
                              "The publisher has lent out its next slot.",
                              "Leave the `with publisher.loan(...)` block first.");
    return cf_raise_error("StateError", "Nothing was published.", "The publisher is closed.",
                          "Make another: bus.publisher(topic).");
}

PyObject *cf_bus_raise_too_large(const struct publisher_object *self, size_t length) {
    char what[96], why[128];
    snprintf(what, sizeof what, "A payload of %zu bytes was not published.", length);
    snprintf(why, sizeof why, "It is too large for this ring: at most %llu bytes.",
             (unsigned long long)cf_ring_max_payload(&self->publisher.writer));
    return cf_raise_error("InputError", what, why,
                          "Enlarge BusConfig.arena_bytes, of which one payload may take half.");
}

PyObject *cf_bus_raise_unpublished(struct publisher_object *self, int error, size_t length) {
    if (error == -EAGAIN) {
        struct cf_ring_writer *writer = &self->publisher.writer;
        struct cf_bus_published *shard = cf_process_payload(&cf_thread, self->instrument);
        cf_ring_reject(writer);
        if (shard)
            cf_bump(&shard->rejected, 1);
        if (shard && writer->high_water > cf_load_relaxed(&shard->high_water))
            cf_store_relaxed(&shard->high_water, writer->high_water);
        const char *topic = PyUnicode_AsUTF8AndSize(self->topic, NULL);
        char what[128];
        snprintf(what, sizeof what, "A message on '%.64s' was not accepted.", topic ? topic : "?");
        return cf_raise_error("ResourceExhausted", what,
                              "The ring is full: a subscriber is slower than its publisher.",
                              "Publish later, enlarge BusConfig.channel_buffer_size for bursts, or "
                              "set overwrite.");
    }
    if (error == -EMSGSIZE)
        return cf_bus_raise_too_large(self, length);
    if (error == -ECHILD)
        return cf_raise_error("StateError", "Nothing was published.",
                              "A forked child cannot use its parent's publisher.",
                              "Make a Bus of its own in the child.");
    char why[128];
    snprintf(why, sizeof why, "The space for large payloads cannot be had: %s.", strerror(-error));
    return cf_raise_error("StateError", "Nothing was published.", why,
                          "Free space in the directory of the rings, or lower "
                          "BusConfig.arena_bytes.");
}

/* Waits for room without the interpreter lock, by spinning and later in sleeps. 0, or -1 with an
 * exception. */
static int wait_for_room(struct publisher_object *self, uint64_t started_ns) {
    self->busy++;
    PyThreadState *released = PyEval_SaveThread();
    if (cf_os_ns(CLOCK_MONOTONIC) - started_ns < self->spin_ns) {
        for (int i = 0; i < PAUSES_WITHOUT_LOCK; i++)
            cf_relax();
    } else {
        struct timespec pause = {.tv_nsec = SLEEP_NS};
        nanosleep(&pause, NULL);
    }
    PyEval_RestoreThread(released);
    int interrupted = PyErr_CheckSignals();
    self->busy--;
    if (self->blocked & CF_PUBLISHER_CLOSING)
        cf_bus_shut_publisher(self);
    return interrupted < 0 || !cf_bus_is_publishing(self) ? -1 : 0;
}

/* Publishes, waiting for room as long as the timeout says. NULL with an exception. */
static PyObject *publish_within(struct publisher_object *self, const void *payload, size_t length,
                                uint16_t flags, double timeout_s) {
    uint64_t started_ns = 0;
    if (cf_unlikely(!cf_bus_is_publishing(self)))
        return NULL;
    for (;;) {
        int error = publish(self, payload, length, flags);
        if (cf_likely(error == 0))
            return PyLong_FromUnsignedLongLong(
                cf_bus_message_id(self->publisher.writer.publisher, self->publisher.writer.tail));
        if (error != -EAGAIN || timeout_s <= 0)
            return cf_bus_raise_unpublished(self, error, length);
        uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC);
        started_ns = started_ns ? started_ns : now_ns;
        if (now_ns >= cf_bus_end_ns(timeout_s, started_ns))
            return cf_bus_raise_unpublished(self, error, length);
        if (wait_for_room(self, started_ns) < 0)
            return NULL;
    }
}

static PyObject *publish_object(struct publisher_object *self, PyObject *data, uint16_t flags,
                                double timeout_s) {
    if (cf_likely(PyBytes_CheckExact(data)))
        return publish_within(self, PyBytes_AsString(data), (size_t)PyBytes_Size(data), flags,
                              timeout_s);
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        cf_bus_raise_payload(data);
        return NULL;
    }
    PyObject *result = publish_within(self, view.buf, (size_t)view.len, flags, timeout_s);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *publisher_try_publish(PyObject *object, PyObject *data) {
    return publish_object((struct publisher_object *)object, data, 0, 0);
}

static PyObject *publisher_publish(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                   PyObject *keywords) {
    double timeout_s;
    if (cf_bus_arguments("publish", 1, args, count, keywords, &timeout_s) < 0)
        return NULL;
    return publish_object((struct publisher_object *)object, args[0], 0, timeout_s);
}

static PyObject *publisher_publish_extended(PyObject *object, PyObject *data) {
    return publish_object((struct publisher_object *)object, data, CF_MESSAGE_EXTENDED, 0);
}

/* Sleeps until seats or rings of the topic change, at most 100 ms. 0, or -1 with an exception. */
static int wait_for_change(struct publisher_object *self, uint32_t readers, uint64_t left_ns) {
    struct cf_topic_page *page = self->publisher.topic.page;
    uint64_t slice_ns = left_ns < SLICE_NS ? left_ns : SLICE_NS;
    self->busy++;
    PyThreadState *released = PyEval_SaveThread();
    uint32_t *word = &page->waiters, value = cf_topic_prepare(page);
    if (cf_ring_count_readers(&self->publisher.writer) == readers)
        cf_topic_sleep(&word, &value, 1, slice_ns);
    PyEval_RestoreThread(released);
    int interrupted = PyErr_CheckSignals();
    self->busy--;
    if (self->blocked & CF_PUBLISHER_CLOSING)
        cf_bus_shut_publisher(self);
    return interrupted < 0 || !cf_bus_is_publishing(self) ? -1 : 0;
}

static PyObject *raise_nobody(const struct publisher_object *self, uint32_t readers, long wanted) {
    char what[96];
    snprintf(what, sizeof what, "%u of %ld subscribers came in time.", readers, wanted);
    const char *topic = PyUnicode_AsUTF8AndSize(self->topic, NULL);
    char why[160];
    snprintf(why, sizeof why, "They subscribe to another topic than '%.64s', or do not run.",
             topic ? topic : "?");
    PyErr_Clear();
    return cf_raise_error("BusTimeout", what, why, "Look at `cfctl bus topics`.");
}

static PyObject *publisher_wait_for_subscribers(PyObject *object, PyObject *args,
                                                PyObject *keywords) {
    static char *names[] = {"n", "timeout_s", NULL};
    struct publisher_object *self = (struct publisher_object *)object;
    long wanted = 1;
    PyObject *timeout = NULL;
    double timeout_s;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|lO", names, &wanted, &timeout) ||
        cf_bus_timeout(timeout, &timeout_s) < 0 || !cf_bus_is_publishing(self))
        return NULL;
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC), end_ns = cf_bus_end_ns(timeout_s, now_ns);
    for (;; now_ns = cf_os_ns(CLOCK_MONOTONIC)) {
        /* Dead ones are no subscribers. */
        if (now_ns >= self->publisher.writer.next_look_ns)
            cf_ring_remove_dead_readers(&self->publisher.writer);
        uint32_t readers = cf_ring_count_readers(&self->publisher.writer);
        if ((long)readers >= wanted)
            return PyLong_FromUnsignedLong(readers);
        if (now_ns >= end_ns)
            return raise_nobody(self, readers, wanted);
        if (wait_for_change(self, readers, end_ns - now_ns) < 0)
            return NULL;
    }
}

static PyObject *publisher_close(PyObject *object, PyObject *unused) {
    (void)unused;
    struct publisher_object *self = (struct publisher_object *)object;
    self->blocked |= CF_PUBLISHER_CLOSING;
    cf_bus_shut_publisher(self);
    Py_RETURN_NONE;
}

static PyObject *publisher_counts(PyObject *object, PyObject *unused) {
    (void)unused;
    struct publisher_object *self = (struct publisher_object *)object;
    struct cf_ring_writer *writer = &self->publisher.writer;
    if (!writer->header)
        return cf_bus_raise_blocked(self);
    cf_ring_look(writer);
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:I}", "published", (unsigned long long)writer->tail, "rejected",
        (unsigned long long)writer->header->rejected, "orphaned",
        (unsigned long long)writer->header->orphaned, "pending",
        (unsigned long long)(writer->header->overwrite ? 0 : writer->tail - writer->released),
        "high_water", (unsigned long long)writer->high_water, "readers",
        cf_ring_count_readers(writer));
}

static PyObject *publisher_get_ring_id(PyObject *object, void *closure) {
    (void)closure;
    struct publisher_object *self = (struct publisher_object *)object;
    if (!self->publisher.writer.header)
        return cf_bus_raise_blocked(self);
    return PyLong_FromUnsignedLongLong(self->publisher.writer.header->ring_id);
}

static PyObject *publisher_get_number(PyObject *object, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(((struct publisher_object *)object)->publisher.writer.publisher);
}

static PyObject *publisher_get_max_payload(PyObject *object, void *closure) {
    (void)closure;
    struct publisher_object *self = (struct publisher_object *)object;
    if (!self->publisher.writer.header)
        return cf_bus_raise_blocked(self);
    return PyLong_FromUnsignedLongLong(cf_ring_max_payload(&self->publisher.writer));
}

static PyObject *publisher_get_readers(PyObject *object, void *closure) {
    (void)closure;
    struct publisher_object *self = (struct publisher_object *)object;
    if (!self->publisher.writer.header)
        return cf_bus_raise_blocked(self);
    return PyLong_FromUnsignedLong(cf_ring_count_readers(&self->publisher.writer));
}

static PyObject *publisher_get_topic(PyObject *object, void *closure) {
    (void)closure;
    return Py_NewRef(((struct publisher_object *)object)->topic);
}

static PyObject *publisher_get_closed(PyObject *object, void *closure) {
    (void)closure;
    return PyBool_FromLong(((struct publisher_object *)object)->publisher.writer.header == NULL);
}

/* Registers the publisher's counters under the topic's name. -1 with an exception. */
static int register_counters(struct publisher_object *self, const char *topic, uint32_t bytes) {
    const struct cf_ring_writer *writer = &self->publisher.writer;
    char labels[128];
    int length = snprintf(labels, sizeof labels, "ring%c%016llx%cpublisher%c%u%cpriority%c%u%c", 0,
                          (unsigned long long)writer->header->ring_id, 0, 0, writer->publisher, 0,
                          0, writer->header->priority, 0);
    int64_t id =
        cf_process_instrument(&cf_kind_bus_publisher, topic, bytes, labels, (uint32_t)length);
    if (id < 0) {
        cf_raise_errno((int)id, "segment");
        return -1;
    }
    self->instrument = (uint32_t)id;
    return 0;
}

/* Opens without the interpreter lock: another process may hold the topic's. */
static int open_publisher(struct publisher_object *self, const struct cf_ring_config *config) {
    struct cf_participant *participant =
        &((struct participant_object *)self->participant)->participant;
    int error;
    Py_BEGIN_ALLOW_THREADS;
    error = cf_publisher_open(&self->publisher, participant, *config);
    Py_END_ALLOW_THREADS;
    return error;
}

static PyObject *publisher_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"participant", "topic",     "capacity", "slot_bytes",
                            "arena_bytes", "overwrite", "priority", "scheduled",
                            "spin_ns",     "own",       NULL};
    struct cf_module_state *state = cf_type_state(type);
    struct cf_ring_config config = {0};
    PyObject *participant, *topic;
    int overwrite, scheduled, own;
    unsigned long long arena_bytes, spin_ns;
    if (!state || !PyArg_ParseTupleAndKeywords(
                      args, keywords, "O!UIIKpIpKp", names, state->participant_type, &participant,
                      &topic, &config.capacity, &config.slot_bytes, &arena_bytes, &overwrite,
                      &config.priority, &scheduled, &spin_ns, &own))
        return NULL;
    Py_ssize_t bytes;
    config.topic = PyUnicode_AsUTF8AndSize(topic, &bytes);
    struct publisher_object *self = config.topic ? (void *)PyType_GenericAlloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->state = state;
    self->participant = Py_NewRef(participant);
    self->topic = Py_NewRef(topic);
    self->spin_ns = spin_ns;
    config.topic_bytes = bytes <= (Py_ssize_t)CF_TOPIC_BYTES ? (uint32_t)bytes : 0;
    config.arena_bytes = arena_bytes;
    config.overwrite = (uint32_t)overwrite;
    config.scheduled = (uint32_t)scheduled;
    config.own = (uint32_t)own;
    int error = open_publisher(self, &config);
    if (error != 0)
        cf_raise_errno(error, config.topic);
    if (error != 0 || register_counters(self, config.topic, config.topic_bytes) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void publisher_dealloc(PyObject *object) {
    struct publisher_object *self = (struct publisher_object *)object;
    cf_bus_shut_publisher(self);
    Py_XDECREF(self->participant);
    Py_XDECREF(self->topic);
    cf_free_instance(object);
}

static PyMethodDef publisher_methods[] = {
    {"try_publish", publisher_try_publish, METH_O,
     "try_publish($self, data, /)\n--\n\nPublish at once and return the message's id.\n\n"
     "Raises ResourceExhausted, and nothing was accepted, when the ring is full."},
    {"publish", CF_KEYWORDS(publisher_publish), METH_FASTCALL | METH_KEYWORDS,
     "publish($self, data, timeout_s=None)\n--\n\nPublish as soon as there is room and return the "
     "message's id.\n\nRaises ResourceExhausted when there was none in time."},
    {"publish_extended", publisher_publish_extended, METH_O,
     "publish_extended($self, data, /)\n--\n\nFor the dispatcher: publish with an extension."},
    {"publish_many", cf_bus_publisher_publish_many, METH_O,
     "publish_many($self, payloads, /)\n--\n\nPublish a list or tuple of payloads until the ring "
     "is "
     "full; return how many.\n\nAll are checked first: InputError means that none was published."},
    {"loan", cf_bus_publisher_loan, METH_O,
     "loan($self, size, /)\n--\n\nReturn a context manager that gives `size` bytes of the ring to "
     "write into.\n\nThey are published when it ends, and given back on an exception."},
    {"wait_for_subscribers", (PyCFunction)(void (*)(void))publisher_wait_for_subscribers,
     METH_VARARGS | METH_KEYWORDS,
     "wait_for_subscribers($self, n=1, timeout_s=None)\n--\n\nWait until n subscriptions or groups "
     "are there and return how many are.\n\nRaises BusTimeout when they did not come in time."},
    {"counts", publisher_counts, METH_NOARGS,
     "counts($self)\n--\n\nReturn published, rejected, orphaned, pending, high_water, readers."},
    {"close", publisher_close, METH_NOARGS,
     "close($self)\n--\n\nSay that no more comes; idempotent. What was published can still be "
     "received."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef publisher_properties[] = {
    {"topic", publisher_get_topic, NULL, "The topic.", NULL},
    {"ring_id", publisher_get_ring_id, NULL, "The ring's random id.", NULL},
    {"number", publisher_get_number, NULL, "The publisher's number, 16 to 65535.", NULL},
    {"max_payload", publisher_get_max_payload, NULL, "The largest payload, in bytes.", NULL},
    {"readers", publisher_get_readers, NULL, "How many subscriptions and groups are there.", NULL},
    {"closed", publisher_get_closed, NULL, "Whether it has ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot publisher_slots[] = {
    {Py_tp_doc, (void *)"The writing end of a topic, made by Bus.publisher; for one thread at a "
                        "time."},
    {Py_tp_new, (void *)publisher_new},
    {Py_tp_dealloc, (void *)publisher_dealloc},
    {Py_tp_methods, publisher_methods},
    {Py_tp_getset, publisher_properties},
    {0, NULL},
};

static PyType_Spec publisher_spec = {
    .name = "cfctl.bus.Publisher",
    .basicsize = sizeof(struct publisher_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = publisher_slots,
};

int cf_add_bus_publisher(PyObject *module) {
    PyTypeObject *type = cf_add_type(module, &publisher_spec);
    Py_XDECREF((PyObject *)type);
    return type ? 0 : -1;
}
