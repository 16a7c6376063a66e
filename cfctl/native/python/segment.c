/* The process's segment and histograms as Python sees them. */
#include "binding.h"

#include <string.h>

#include "histogram.h"
#include "operation.h"
#include "timeline.h"

static PyObject *segment_configure(PyObject *module, PyObject *args) {
    (void)module;
    const char *directory, *run_id;
    unsigned long long limit_bytes;
    if (!PyArg_ParseTuple(args, "szK:segment_configure", &directory, &run_id, &limit_bytes))
        return NULL;
    int error = cf_process_configure(directory, run_id, limit_bytes);
    if (error)
        return cf_raise_errno(error, directory);
    Py_RETURN_NONE;
}

static PyObject *segment_open(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    int error = cf_process_open();
    if (!cf_process_header())
        return PyErr_NoMemory();
    char path[CF_SEGMENT_PATH_BYTES];
    cf_process_path(path, sizeof path);
    PyObject *text = PyUnicode_DecodeFSDefault(path);
    return text ? Py_BuildValue("Ni", text, -error) : NULL;
}

static PyObject *segment_bytes(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    struct cf_segment_header *header = cf_process_header();
    if (!header)
        return PyBytes_FromStringAndSize(NULL, 0);
    /* Partner: the release in take_space; all below is reserved. */
    uint64_t used = cf_load_acquire(&header->used_bytes);
    PyObject *copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)used);
    if (!copy)
        return NULL;
    uint64_t *into = (uint64_t *)(void *)PyBytes_AsString(copy);
    const uint64_t *from = (const uint64_t *)(const void *)header;
    /* Word by word: a counter that is being written is seen whole. */
    for (uint64_t i = 0; i < used / sizeof *from; i++) {
        uint64_t word = cf_load_acquire(&from[i]);
        memcpy(&into[i], &word, sizeof word);
    }
    return copy;
}

/* Gets a buffer that holds whole uint64 buckets. 0, or -1 with an exception. */
static int get_buckets(PyObject *object, Py_buffer *view, int flags) {
    if (PyObject_GetBuffer(object, view, flags) < 0)
        return -1;
    if (view->len % (Py_ssize_t)sizeof(uint64_t) == 0 && view->len > 0 &&
        view->len / (Py_ssize_t)sizeof(uint64_t) <= CF_HISTOGRAM_BUCKETS &&
        (uintptr_t)view->buf % sizeof(uint64_t) == 0)
        return 0;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "a histogram is an aligned buffer of 1 to 4352 uint64");
    return -1;
}

static PyObject *histogram_merge(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *into_object, *from_object;
    if (!PyArg_ParseTuple(args, "OO:histogram_merge", &into_object, &from_object))
        return NULL;
    Py_buffer into, from;
    if (get_buckets(into_object, &into, PyBUF_WRITABLE) < 0)
        return NULL;
    if (get_buckets(from_object, &from, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&into);
        return NULL;
    }
    int equal = into.len == from.len;
    if (equal)
        cf_histogram_merge(into.buf, from.buf, (size_t)into.len / sizeof(uint64_t));
    PyBuffer_Release(&from);
    PyBuffer_Release(&into);
    if (!equal) {
        PyErr_SetString(PyExc_ValueError, "the histograms differ in length");
        return NULL;
    }
    Py_RETURN_NONE;
}

enum { MAX_QUANTILES = 64 };

/* Reads ascending quantiles in 0..1; their number, or -1 with an exception. */
static Py_ssize_t read_quantiles(PyObject *sequence, double *quantiles) {
    Py_ssize_t count = PySequence_Size(sequence);
    if (count > MAX_QUANTILES)
        PyErr_SetString(PyExc_ValueError, "more than 64 quantiles");
    if (count < 0 || count > MAX_QUANTILES)
        return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(sequence, i);
        if (!item)
            return -1;
        quantiles[i] = PyFloat_AsDouble(item);
        Py_DECREF(item);
        if (PyErr_Occurred())
            return -1;
        if (!(quantiles[i] >= 0 && quantiles[i] <= 1) ||
            (i > 0 && quantiles[i] < quantiles[i - 1])) {
            PyErr_SetString(PyExc_ValueError, "quantiles ascend within 0..1");
            return -1;
        }
    }
    return count;
}

static PyObject *histogram_quantiles(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *object, *sequence;
    double quantiles[MAX_QUANTILES], values[MAX_QUANTILES];
    if (!PyArg_ParseTuple(args, "OO:histogram_quantiles", &object, &sequence))
        return NULL;
    Py_ssize_t count = read_quantiles(sequence, quantiles);
    Py_buffer view;
    if (count < 0 || get_buckets(object, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    uint64_t total = cf_histogram_quantiles(view.buf, (size_t)view.len / sizeof(uint64_t),
                                            quantiles, (size_t)count, values);
    PyBuffer_Release(&view);
    PyObject *list = PyList_New(total ? count : 0);
    for (Py_ssize_t i = 0; list && total && i < count; i++) {
        PyObject *value = PyFloat_FromDouble(values[i]);
        if (!value || PyList_SetItem(list, i, value) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *histogram_bounds(PyObject *module, PyObject *argument) {
    (void)module;
    unsigned long bucket = PyLong_AsUnsignedLong(argument);
    if (PyErr_Occurred())
        return NULL;
    if (bucket >= CF_HISTOGRAM_BUCKETS) {
        PyErr_SetString(PyExc_ValueError, "there are 4352 buckets");
        return NULL;
    }
    return Py_BuildValue("KK", (unsigned long long)cf_histogram_lower((uint32_t)bucket),
                         (unsigned long long)cf_histogram_width((uint32_t)bucket));
}

static PyObject *timeline_start(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    if (cf_timeline_start() != 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *count_folded(PyObject *module, PyObject *name) {
    (void)module;
    Py_ssize_t length;
    const char *utf8 = PyUnicode_AsUTF8AndSize(name, &length);
    if (!utf8)
        return NULL;
    int64_t id = length > CF_NAME_BYTES ? -1
                                        : cf_process_instrument(&cf_kind_folded_labels, utf8,
                                                                (uint32_t)length, NULL, 0);
    struct cf_count *shard = id < 0 ? NULL : cf_process_payload(&cf_thread, (uint32_t)id);
    if (shard)
        cf_bump(&shard->count, 1);
    Py_RETURN_NONE;
}

static PyObject *segment_pause(PyObject *module, PyObject *argument) {
    (void)module;
    int paused = PyObject_IsTrue(argument);
    struct cf_segment_header *header = paused < 0 ? NULL : cf_process_header();
    if (header)
        cf_store_relaxed(&header->control, (uint32_t)(paused ? CF_CONTROL_PAUSED : 0));
    return paused < 0 ? NULL : PyBool_FromLong(header != NULL);
}

static PyMethodDef segment_methods[] = {
    {"segment_configure", segment_configure, METH_VARARGS,
     "Say where the process's segment shall be."},
    {"segment_open", segment_open, METH_NOARGS, "Open the process's segment; (path, errno)."},
    {"segment_bytes", segment_bytes, METH_NOARGS, "Return a copy of the open segment."},
    {"segment_pause", segment_pause, METH_O, "Pause instrumentation by name, or resume it."},
    {"timeline_start", timeline_start, METH_NOARGS, "Keep each thread's recent samples."},
    {"count_folded", count_folded, METH_O, "Count a label set that was folded."},
    {"histogram_merge", histogram_merge, METH_VARARGS, "Add one histogram to another."},
    {"histogram_quantiles", histogram_quantiles, METH_VARARGS, "Return values at quantiles."},
    {"histogram_bounds", histogram_bounds, METH_O, "Return a bucket's lowest value and width."},
    {NULL, NULL, 0, NULL},
};

static int segment_add(PyObject *module) {
    if (PyModule_AddIntConstant(module, "SEGMENT_DEFAULT_LIMIT_BYTES",
                                (long)CF_SEGMENT_DEFAULT_LIMIT) < 0 ||
        PyModule_AddIntConstant(module, "HISTOGRAM_BUCKETS", CF_HISTOGRAM_BUCKETS) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "HISTOGRAM_SUB_BITS", CF_HISTOGRAM_SUB_BITS);
}

const struct cf_binding_topic cf_topic_segment = {segment_methods, segment_add};
