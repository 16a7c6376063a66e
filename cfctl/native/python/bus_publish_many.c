/* Publisher.publish_many. */
#include "bus_publisher_object.h"

#include <errno.h>

#include "bus.h"
#include "tick.h"

/* Messages of one publish_many that share a tick: at 10 to 20 ns a message, that dates the last of
 * them back by a third of a microsecond, which a receiver's latency then shows too much. */
enum { BATCH = 16 };

/* Publishes bytes objects that have room; sets how many. 0 or a negative errno. */
static int publish_batch(struct publisher_object *self, PyObject *const *batch, uint64_t size,
                         uint64_t *done) {
    uint64_t tick = cf_ticks(), bytes = 0;
    uint64_t hlc =
        cf_hlc_node_tick_many(&cf_hlc_process, cf_hlc_node_now(&cf_hlc_process, tick), size);
    int error = 0;
    for (*done = 0; *done < size; ++*done) {
        size_t length = (size_t)PyBytes_Size(batch[*done]);
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

/* Returns a tuple of bytes objects, each of which the ring can take; NULL with an exception, and
 * nothing was published. */
static PyObject *checked_payloads(const struct publisher_object *self, PyObject *sequence) {
    if (!PyList_Check(sequence) && !PyTuple_Check(sequence))
        return cf_raise_error("InputError", "Nothing was published.",
                              "publish_many takes a list or tuple of payloads.",
                              "Collect them first: list(payloads).");
    PyObject *items = PySequence_Tuple(sequence);
    size_t most = cf_ring_max_payload(&self->publisher.writer);
    for (Py_ssize_t i = 0; items && i < PyTuple_Size(items); i++) {
        PyObject *item = PyTuple_GetItem(items, i);
        if (cf_likely(PyBytes_CheckExact(item))) {
            if (cf_likely((size_t)PyBytes_Size(item) <= most))
                continue;
            cf_bus_raise_too_large(self, (size_t)PyBytes_Size(item));
            Py_CLEAR(items);
            break;
        }
        /* What can be made bytes is; then it is looked at again, with all before it. */
        Py_buffer view;
        PyObject *list = PySequence_List(items), *bytes = NULL;
        Py_CLEAR(items);
        PyObject *other = list ? Py_NewRef(PyList_GetItem(list, i)) : NULL;
        if (other && PyObject_GetBuffer(other, &view, PyBUF_SIMPLE) < 0) {
            cf_bus_raise_payload(other);
        } else if (other) {
            bytes = PyBytes_FromStringAndSize(view.buf, view.len);
            PyBuffer_Release(&view);
        }
        if (bytes && PyList_SetItem(list, i--, bytes) == 0)
            items = PyList_AsTuple(list);
        Py_XDECREF(other);
        Py_XDECREF(list);
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
    uint64_t size = (uint64_t)PyTuple_Size(items), done = 0, now = 0;
    int error = cf_bus_is_publishing(self) ? 0 : -EBADF;
    while (error == 0 && done < size) {
        uint64_t room = cf_ring_room(&self->publisher.writer), count = 0;
        PyObject *batch[BATCH];
        for (; count < room && count < size - done && count < BATCH; count++)
            batch[count] = PyTuple_GetItem(items, (Py_ssize_t)(done + count));
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
