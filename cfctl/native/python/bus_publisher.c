/* RingPublisher: the writing end of a ring. */
#include "bus_types.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "bus.h"
#include "tick.h"
#include "topic.h"

/* Messages of one publish_many that share a tick: at 10 to 20 ns a message, that dates the last of
 * them back by a third of a microsecond, which a receiver's latency then shows too much. */
enum { BATCH = 16, PAUSES_WITHOUT_LOCK = 8, SLEEP_NS = 50000 };

struct publisher_object {
    PyObject_HEAD struct cf_ring_writer writer;
    struct cf_topic topic;
    struct cf_held_file number; /* holds the publisher number */
    PyObject *exhausted;        /* returns the exception for a full ring */
    uint64_t spin_ns;
    uint32_t instrument;
    uint32_t waiting; /* threads that wait for room without the interpreter lock */
    uint8_t closing;
};

static void shut(struct publisher_object *self) {
    if (self->waiting > 0)
        return; /* the last of them does it */
    cf_ring_close(&self->writer);
    cf_topic_close(&self->topic);
    cf_release_file(&self->number);
}

/* Registers the publisher's counters under the topic's name. -1 with an exception. */
static int register_counters(struct publisher_object *self, const char *topic, uint32_t bytes) {
    char labels[128];
    int length = snprintf(labels, sizeof labels, "ring%c%016llx%cpublisher%c%u%cpriority%c%u%c", 0,
                          (unsigned long long)self->writer.header->ring_id, 0, 0,
                          self->writer.publisher, 0, 0, self->writer.header->priority, 0);
    int64_t id =
        cf_process_instrument(&cf_kind_bus_publisher, topic, bytes, labels, (uint32_t)length);
    if (id < 0) {
        cf_raise_errno((int)id, "segment");
        return -1;
    }
    self->instrument = (uint32_t)id;
    return 0;
}

static int open_ring(struct publisher_object *self, const char *directory,
                     struct cf_ring_config *config) {
    int fd = cf_place_open(directory);
    if (fd < 0)
        return fd;
    uint64_t hash = cf_topic_hash(config->topic, config->topic_bytes);
    int error = cf_publisher_number(&self->number, fd);
    if (error > 0) {
        config->publisher = (uint32_t)error;
        error = cf_topic_open(&self->topic, fd, hash);
    }
    if (error == 0)
        error = cf_ring_create(&self->writer, fd, config, hash);
    if (error == 0)
        cf_topic_announce(self->topic.page);
    close(fd);
    return error;
}

static PyObject *publisher_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"directory",   "topic",     "capacity", "slot_bytes",
                            "arena_bytes", "overwrite", "priority", "scheduled",
                            "spin_ns",     "exhausted", NULL};
    const char *directory, *topic;
    Py_ssize_t topic_bytes;
    struct cf_ring_config config = {0};
    int overwrite, scheduled;
    unsigned long long arena_bytes, spin_ns;
    PyObject *exhausted;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ss#IIKpIpKO", names, &directory, &topic,
                                     &topic_bytes, &config.capacity, &config.slot_bytes,
                                     &arena_bytes, &overwrite, &config.priority, &scheduled,
                                     &spin_ns, &exhausted))
        return NULL;
    if (topic_bytes < 1 || topic_bytes > (Py_ssize_t)CF_TOPIC_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a topic is 1 to 1024 bytes of UTF-8");
        return NULL;
    }
    struct publisher_object *self = (void *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->writer.file.fd = self->topic.file.fd = self->number.fd = -1;
    self->exhausted = Py_NewRef(exhausted);
    self->spin_ns = spin_ns;
    config.topic = topic;
    config.topic_bytes = (uint32_t)topic_bytes;
    config.arena_bytes = arena_bytes;
    config.overwrite = (uint32_t)overwrite;
    config.scheduled = (uint32_t)scheduled;
    int error = open_ring(self, directory, &config);
    if (error != 0)
        cf_raise_errno(error, directory);
    if (error != 0 || register_counters(self, topic, config.topic_bytes) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void publisher_dealloc(PyObject *object) {
    struct publisher_object *self = (struct publisher_object *)object;
    PyObject_GC_UnTrack(object);
    shut(self);
    Py_CLEAR(self->exhausted);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static int publisher_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct publisher_object *)object)->exhausted);
    return 0;
}

static int publisher_clear(PyObject *object) {
    Py_CLEAR(((struct publisher_object *)object)->exhausted);
    return 0;
}

/* Wakes who sleeps, and counts. */
static inline void published(struct publisher_object *self, uint64_t messages, uint64_t bytes,
                             uint64_t tick) {
    cf_topic_notify(self->topic.page);
    struct cf_bus_published *shard = cf_process_payload(&cf_thread, self->instrument);
    if (cf_likely(shard != NULL))
        cf_bus_published_add(shard, messages, bytes, tick);
    else
        cf_process_lost(messages);
}

/* Publishes and counts. 0 or a negative errno. */
static inline int publish(struct publisher_object *self, const void *payload, size_t length,
                          uint16_t flags) {
    if (cf_unlikely(cf_ring_room(&self->writer) == 0))
        return -EAGAIN;
    uint64_t tick = cf_ticks();
    uint64_t hlc = cf_hlc_node_tick(&cf_hlc_process, cf_hlc_node_now(&cf_hlc_process, tick));
    int error = cf_ring_publish(&self->writer, payload, length, tick, hlc, flags);
    if (cf_likely(error == 0))
        published(self, 1, length, tick);
    return error;
}

/* Publishes bytes objects that have room; sets how many. 0 or a negative errno. */
static int publish_batch(struct publisher_object *self, PyObject *const *batch, uint64_t size,
                         uint64_t *done) {
    uint64_t tick = cf_ticks(), bytes = 0;
    uint64_t hlc =
        cf_hlc_node_tick_many(&cf_hlc_process, cf_hlc_node_now(&cf_hlc_process, tick), size);
    int error = 0;
    for (*done = 0; *done < size; ++*done) {
        size_t length = (size_t)PyBytes_Size(batch[*done]);
        error = cf_ring_publish(&self->writer, PyBytes_AsString(batch[*done]), length, tick,
                                hlc + *done, 0);
        if (cf_unlikely(error != 0))
            break;
        bytes += length;
    }
    if (*done > 0)
        published(self, *done, bytes, tick);
    return error;
}

static void count_rejected(struct publisher_object *self) {
    cf_ring_reject(&self->writer);
    struct cf_bus_published *shard = cf_process_payload(&cf_thread, self->instrument);
    if (!shard)
        return;
    cf_bump(&shard->rejected, 1);
    if (self->writer.high_water > cf_load_relaxed(&shard->high_water))
        cf_store_relaxed(&shard->high_water, self->writer.high_water);
}

static int is_open(const struct publisher_object *self) {
    if (cf_likely(self->writer.header != NULL && !self->closing))
        return 1;
    PyErr_SetString(PyExc_ValueError, "the publisher is closed");
    return 0;
}

/* Sets the exception of a failed publication. */
static PyObject *raise_failure(struct publisher_object *self, int error, size_t length) {
    if (error == -EAGAIN) {
        count_rejected(self);
        PyObject *exception = PyObject_CallNoArgs(self->exhausted);
        if (exception) {
            PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
            Py_DECREF(exception);
        }
        return NULL;
    }
    if (error == -EMSGSIZE)
        return PyErr_Format(PyExc_ValueError,
                            "a payload of %zu bytes is too large for this ring: at most %llu",
                            length, (unsigned long long)cf_ring_max_payload(&self->writer));
    if (error == -ECHILD)
        return PyErr_Format(PyExc_RuntimeError,
                            "a forked child can not use its parent's publisher");
    return cf_raise_errno(error, "ring");
}

/* Waits for room without the interpreter lock, by spinning and later in sleeps. 0, or -1 with an
 * exception. */
static int wait_for_room(struct publisher_object *self, uint64_t started_ns) {
    self->waiting++;
    PyThreadState *released = PyEval_SaveThread();
    if (cf_os_ns(CLOCK_MONOTONIC) - started_ns < self->spin_ns) {
        for (int i = 0; i < PAUSES_WITHOUT_LOCK; i++)
            cf_relax();
    } else {
        struct timespec pause = {.tv_nsec = SLEEP_NS};
        nanosleep(&pause, NULL);
    }
    PyEval_RestoreThread(released);
    if (--self->waiting == 0 && self->closing)
        shut(self);
    if (!is_open(self))
        return -1;
    return PyErr_CheckSignals();
}

/* Publishes, waiting for room as long as the timeout says. NULL with an exception. */
static PyObject *publish_within(struct publisher_object *self, const void *payload, size_t length,
                                uint16_t flags, double timeout_s) {
    uint64_t started_ns = 0;
    for (;;) {
        int error = publish(self, payload, length, flags);
        if (cf_likely(error == 0))
            return PyLong_FromUnsignedLongLong(
                cf_bus_message_id(self->writer.publisher, self->writer.tail));
        if (error != -EAGAIN || timeout_s <= 0)
            return raise_failure(self, error, length);
        uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC);
        started_ns = started_ns ? started_ns : now_ns;
        if (now_ns >= cf_bus_end_ns(timeout_s, started_ns))
            return raise_failure(self, error, length);
        if (wait_for_room(self, started_ns) < 0)
            return NULL;
    }
}

static PyObject *publish_object(struct publisher_object *self, PyObject *data, uint16_t flags,
                                double timeout_s) {
    if (cf_unlikely(!is_open(self)))
        return NULL;
    if (cf_likely(PyBytes_CheckExact(data)))
        return publish_within(self, PyBytes_AsString(data), (size_t)PyBytes_Size(data), flags,
                              timeout_s);
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *result = publish_within(self, view.buf, (size_t)view.len, flags, timeout_s);
    PyBuffer_Release(&view);
    return result;
}

static PyObject *publisher_try_publish(PyObject *object, PyObject *data) {
    return publish_object((struct publisher_object *)object, data, 0, 0);
}

static PyObject *publisher_publish(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    double timeout_s;
    if (count < 1 || count > 2)
        return PyErr_Format(PyExc_TypeError, "publish takes a payload and, optionally, a timeout");
    if (cf_bus_timeout(count == 2 ? args[1] : NULL, &timeout_s) < 0)
        return NULL;
    return publish_object((struct publisher_object *)object, args[0], 0, timeout_s);
}

static PyObject *publisher_publish_extended(PyObject *object, PyObject *data) {
    return publish_object((struct publisher_object *)object, data, CF_MESSAGE_EXTENDED, 0);
}

/* Publishes the bytes objects of a list or tuple until the ring is full; how many. */
static PyObject *publisher_publish_many(PyObject *object, PyObject *sequence) {
    struct publisher_object *self = (struct publisher_object *)object;
    if (!is_open(self))
        return NULL;
    int is_list = PyList_CheckExact(sequence);
    if (!is_list && !PyTuple_CheckExact(sequence))
        return PyErr_Format(PyExc_TypeError, "publish_many takes a list or tuple of bytes");
    uint64_t size = (uint64_t)(is_list ? PyList_Size(sequence) : PyTuple_Size(sequence));
    for (uint64_t done = 0, published_now;; done += published_now) {
        uint64_t room = cf_ring_room(&self->writer), count = 0;
        uint64_t most = room < size - done ? room : size - done;
        PyObject *batch[BATCH];
        for (; count < most && count < BATCH; count++) {
            Py_ssize_t at = (Py_ssize_t)(done + count);
            batch[count] = is_list ? PyList_GetItem(sequence, at) : PyTuple_GetItem(sequence, at);
            if (!PyBytes_CheckExact(batch[count]))
                break;
        }
        if (count == 0 && most == 0)
            return PyLong_FromUnsignedLongLong(done);
        if (count == 0)
            return PyErr_Format(PyExc_TypeError, "publish_many takes bytes; item %zd is none",
                                (Py_ssize_t)done);
        int error = publish_batch(self, batch, count, &published_now);
        if (error == -EAGAIN)
            return PyLong_FromUnsignedLongLong(done + published_now);
        if (error != 0)
            return raise_failure(self, error, (size_t)PyBytes_Size(batch[published_now]));
    }
}

static PyObject *publisher_close(PyObject *object, PyObject *unused) {
    (void)unused;
    struct publisher_object *self = (struct publisher_object *)object;
    self->closing = 1;
    shut(self);
    Py_RETURN_NONE;
}

static PyObject *publisher_counts(PyObject *object, PyObject *unused) {
    (void)unused;
    struct publisher_object *self = (struct publisher_object *)object;
    if (!is_open(self))
        return NULL;
    cf_ring_look(&self->writer);
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K}", "published",
                         (unsigned long long)self->writer.tail, "rejected",
                         (unsigned long long)self->writer.header->rejected, "orphaned",
                         (unsigned long long)self->writer.header->orphaned, "pending",
                         (unsigned long long)(self->writer.tail - self->writer.released),
                         "high_water", (unsigned long long)self->writer.high_water, "readers",
                         (unsigned long long)__builtin_popcountll(self->writer.members));
}

static PyObject *publisher_get_ring_id(PyObject *object, void *closure) {
    (void)closure;
    struct publisher_object *self = (struct publisher_object *)object;
    return is_open(self) ? PyLong_FromUnsignedLongLong(self->writer.header->ring_id) : NULL;
}

static PyObject *publisher_get_number(PyObject *object, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(((struct publisher_object *)object)->writer.publisher);
}

static PyMethodDef publisher_methods[] = {
    {"try_publish", publisher_try_publish, METH_O, "Publish at once or raise."},
    {"publish", CF_FASTCALL(publisher_publish), METH_FASTCALL, "Publish, waiting for room."},
    {"publish_extended", publisher_publish_extended, METH_O, "Publish with an extension, at once."},
    {"publish_many", publisher_publish_many, METH_O, "Publish until the ring is full."},
    {"counts", publisher_counts, METH_NOARGS, "Return the ring's counters."},
    {"close", publisher_close, METH_NOARGS, "Say that no more comes; idempotent."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef publisher_properties[] = {
    {"ring_id", publisher_get_ring_id, NULL, "The ring's random id.", NULL},
    {"number", publisher_get_number, NULL, "The publisher's number.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot publisher_slots[] = {
    {Py_tp_doc, (void *)"The writing end of a ring; for one thread at a time."},
    {Py_tp_new, (void *)publisher_new},
    {Py_tp_dealloc, (void *)publisher_dealloc},
    {Py_tp_traverse, (void *)publisher_traverse},
    {Py_tp_clear, (void *)publisher_clear},
    {Py_tp_methods, publisher_methods},
    {Py_tp_getset, publisher_properties},
    {0, NULL},
};

static PyType_Spec publisher_spec = {
    .name = "cfctl._native.RingPublisher",
    .basicsize = sizeof(struct publisher_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = publisher_slots,
};

int cf_add_bus_publisher(PyObject *module) {
    PyTypeObject *type = cf_add_type(module, &publisher_spec);
    Py_XDECREF((PyObject *)type);
    return type ? 0 : -1;
}
