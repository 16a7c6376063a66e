/* Publisher.publish_many. */
#include "bus_publisher_object.h"

#include <errno.h>

#include "bus.h"
#include "tick.h"

/* Messages of one publish_many that share a tick: at 10 to 20 ns a message, that dates the last of
 * them back by a third of a microsecond, which a receiver's latency then shows too much. */
enum { BATCH = 16 };

/* Of a list or tuple, borrowed; no Python code runs while items are looked at twice, so that a list
 * stays as it was. */
static inline PyObject *item_of(PyObject *items, Py_ssize_t at) {
#ifdef Py_LIMITED_API
    return PyList_Check(items) ? PyList_GetItem(items, at) : PyTuple_GetItem(items, at);
#else
    return PySequence_Fast_GET_ITEM(items, at);
#endif
}

static inline size_t length_of(PyObject *bytes) {
#ifdef Py_LIMITED_API
    return (size_t)PyBytes_Size(bytes);
#else
    return (size_t)PyBytes_GET_SIZE(bytes);
#endif
}

/* Publishes bytes objects that have room; sets how many. 0 or a negative errno. */
static int publish_batch(struct publisher_object *self, PyObject *const *batch, uint64_t size,
                         uint64_t *done) {
    uint64_t tick = cf_ticks(), bytes = 0;
    uint64_t hlc =
        cf_hlc_node_tick_many(&cf_hlc_process, cf_hlc_node_now(&cf_hlc_process, tick), size);
    int error = 0;
    for (*done = 0; *done < size; ++*done) {
        size_t length = length_of(batch[*done]);
        error = cf_ring_publish(&self->publisher.writer, PyBytes_AsString(batch[*done]), length,
                                tick, hlc + *done, 0);
        if (cf_unlikely(error != 0))
            break;
        bytes += length;
    }
    if (*done > 0)
        cf_bus_published(self, *done, bytes, tick);
    return error;
}

/* Returns the bytes object of a payload; NULL with an exception. */
static PyObject *as_bytes(PyObject *item) {
    Py_buffer view;
    if (PyBytes_CheckExact(item))
        return Py_NewRef(item);
    if (PyObject_GetBuffer(item, &view, PyBUF_SIMPLE) < 0) {
        cf_bus_raise_payload(item);
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(view.buf, view.len);
    PyBuffer_Release(&view);
    return bytes;
}

/* Returns a new list of the bytes objects of all items; NULL with an exception. */
static PyObject *all_as_bytes(PyObject *items) {
    PyObject *list = PySequence_List(items);
    for (Py_ssize_t i = 0; list && i < PyList_Size(list); i++) {
        PyObject *bytes = as_bytes(PyList_GetItem(list, i));
        if (!bytes || PyList_SetItem(list, i, bytes) < 0)
            Py_CLEAR(list);
    }
    return list;
}

/* Returns a list or tuple of bytes objects, each of which the ring can take; NULL with an
 * exception, and nothing was published. */
static PyObject *checked_payloads(const struct publisher_object *self, PyObject *sequence) {
    if (!PyList_Check(sequence) && !PyTuple_Check(sequence))
        return cf_raise_error("InputError", "Nothing was published.",
                              "publish_many takes a list or tuple of payloads.",
                              "Collect them first: list(payloads).");
    size_t most = cf_ring_max_payload(&self->publisher.writer);
    Py_ssize_t count = PySequence_Size(sequence), i = 0;
    while (i < count && PyBytes_CheckExact(item_of(sequence, i)))
        i++;
    PyObject *items = i < count ? all_as_bytes(sequence) : Py_NewRef(sequence);
    count = items ? PySequence_Size(items) : 0;
    for (i = 0; items && i < count; i++) {
        size_t length = length_of(item_of(items, i));
        if (cf_likely(length <= most))
            continue;
        cf_bus_raise_too_large(self, length);
        Py_CLEAR(items);
    }
    return items;
}

PyObject *cf_bus_publisher_publish_many(PyObject *object, PyObject *sequence) {
    struct publisher_object *self = (struct publisher_object *)object;
    if (!cf_bus_is_publishing(self))
        return NULL;
    PyObject *items = checked_payloads(self, sequence);
    if (!items)
        return NULL;
    uint64_t size = (uint64_t)PySequence_Size(items), done = 0, now = 0;
    int error = cf_bus_is_publishing(self) ? 0 : -EBADF;
    while (error == 0 && done < size) {
        uint64_t room = cf_ring_room(&self->publisher.writer), count = 0;
        PyObject *batch[BATCH];
        for (; count < room && count < size - done && count < BATCH; count++)
            batch[count] = item_of(items, (Py_ssize_t)(done + count));
        error = count == 0 ? -EAGAIN : publish_batch(self, batch, count, &now);
        done += count == 0 ? 0 : now;
    }
    Py_DECREF(items);
    if (error == -EBADF)
        return NULL;
    /* Those that were sent must not be lost with the exception; the next call meets it again. */
    if (error != 0 && error != -EAGAIN && done == 0)
        return cf_bus_raise_unpublished(self, error, 0);
    return PyLong_FromUnsignedLongLong(done);
}
