/* Dense histograms as Python sees them: buffers of native uint64. */
#include "binding.h"

#include "histogram.h"

#define MAX_ASKED 64

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

static size_t buckets_of(const Py_buffer *view) {
    return (size_t)view->len / sizeof(uint64_t);
}

/* Returns the number of items of a tuple of at most MAX_ASKED; -1 with an exception. */
static Py_ssize_t tuple_size(PyObject *tuple) {
    if (PyTuple_Check(tuple) && PyTuple_Size(tuple) <= MAX_ASKED)
        return PyTuple_Size(tuple);
    PyErr_SetString(PyExc_ValueError, "it is no tuple of at most 64 numbers");
    return -1;
}

static PyObject *histogram_since(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    Py_buffer later, earlier;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "histogram_since takes two histograms");
        return NULL;
    }
    if (get_buckets(args[0], &later, PyBUF_SIMPLE) < 0)
        return NULL;
    if (get_buckets(args[1], &earlier, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&later);
        return NULL;
    }
    PyObject *part = NULL;
    if (later.len != earlier.len)
        PyErr_SetString(PyExc_ValueError, "the histograms differ in length");
    else
        part = PyBytes_FromStringAndSize(NULL, later.len);
    if (part)
        cf_histogram_since((uint64_t *)(void *)PyBytes_AsString(part), later.buf, earlier.buf,
                           buckets_of(&later));
    PyBuffer_Release(&earlier);
    PyBuffer_Release(&later);
    return part;
}

static PyObject *histogram_at_ranks(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    uint64_t ranks[MAX_ASKED];
    uint32_t found[MAX_ASKED];
    Py_buffer view;
    Py_ssize_t size = count == 2 ? tuple_size(args[1]) : -1;
    for (Py_ssize_t i = 0; i < size && !PyErr_Occurred(); i++)
        ranks[i] = PyLong_AsUnsignedLongLong(PyTuple_GetItem(args[1], i));
    if (count != 2)
        PyErr_SetString(PyExc_TypeError, "histogram_at_ranks takes a histogram and ranks");
    if (size < 0 || PyErr_Occurred() || get_buckets(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    uint32_t buckets = (uint32_t)buckets_of(&view);
    cf_histogram_at_ranks(view.buf, buckets, ranks, (size_t)size, found);
    PyBuffer_Release(&view);
    PyObject *answer = PyTuple_New(size);
    for (Py_ssize_t i = 0; answer && i < size; i++) {
        PyObject *bucket =
            found[i] < buckets ? PyLong_FromUnsignedLong(found[i]) : Py_NewRef(Py_None);
        if (!bucket || PyTuple_SetItem(answer, i, bucket) < 0)
            Py_CLEAR(answer);
    }
    return answer;
}

static PyObject *histogram_below(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    double edges[MAX_ASKED];
    uint64_t below[MAX_ASKED];
    Py_buffer view;
    double scale = count == 3 ? PyFloat_AsDouble(args[1]) : 0;
    Py_ssize_t size = count == 3 ? tuple_size(args[2]) : -1;
    for (Py_ssize_t i = 0; i < size && !PyErr_Occurred(); i++)
        edges[i] = PyFloat_AsDouble(PyTuple_GetItem(args[2], i));
    if (count != 3)
        PyErr_SetString(PyExc_TypeError, "histogram_below takes a histogram, a scale and edges");
    if (size < 0 || PyErr_Occurred() || get_buckets(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    cf_histogram_below(view.buf, buckets_of(&view), scale, edges, (size_t)size, below);
    PyBuffer_Release(&view);
    PyObject *answer = PyTuple_New(size);
    for (Py_ssize_t i = 0; answer && i < size; i++) {
        PyObject *samples = PyLong_FromUnsignedLongLong(below[i]);
        if (!samples || PyTuple_SetItem(answer, i, samples) < 0)
            Py_CLEAR(answer);
    }
    return answer;
}

static PyObject *histogram_moments(PyObject *module, PyObject *object) {
    (void)module;
    Py_buffer view;
    if (get_buckets(object, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    double squares;
    uint64_t samples = cf_histogram_moments(view.buf, buckets_of(&view), &squares);
    PyBuffer_Release(&view);
    return Py_BuildValue("Kd", (unsigned long long)samples, squares);
}

static PyMethodDef histogram_methods[] = {
    {"histogram_merge", histogram_merge, METH_VARARGS, "Add one histogram to another."},
    {"histogram_quantiles", histogram_quantiles, METH_VARARGS, "Return values at quantiles."},
    {"histogram_bounds", histogram_bounds, METH_O, "Return a bucket's lowest value and width."},
    {"histogram_since", CF_FASTCALL(histogram_since), METH_FASTCALL, "Return the difference."},
    {"histogram_at_ranks", CF_FASTCALL(histogram_at_ranks), METH_FASTCALL,
     "Return the buckets of ranks."},
    {"histogram_below", CF_FASTCALL(histogram_below), METH_FASTCALL,
     "Return the samples at or below edges."},
    {"histogram_moments", histogram_moments, METH_O, "Return the samples and their squares."},
    {NULL, NULL, 0, NULL},
};

static int histogram_add(PyObject *module) {
    if (PyModule_AddIntConstant(module, "HISTOGRAM_BUCKETS", CF_HISTOGRAM_BUCKETS) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "HISTOGRAM_SUB_BITS", CF_HISTOGRAM_SUB_BITS);
}

const struct cf_binding_topic cf_topic_histogram = {histogram_methods, histogram_add};
