/* A dense histogram as its filled buckets: what a report keeps of the 35 KB of each operation. */
#include "binding.h"

#include <string.h>

#include "histogram.h"

static int append_bucket(PyObject *list, uint32_t bucket, uint64_t samples) {
    PyObject *first = PyLong_FromUnsignedLong(bucket);
    PyObject *second = PyLong_FromUnsignedLongLong(samples);
    /* Half the time of Py_BuildValue, and a report makes hundreds of thousands of pairs. */
    PyObject *pair = first && second ? PyTuple_Pack(2, first, second) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(second);
    int failed = pair ? PyList_Append(list, pair) : -1;
    Py_XDECREF(pair);
    return failed;
}

static PyObject *histogram_sparse(PyObject *module, PyObject *object) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t buckets = (size_t)view.len / sizeof(uint64_t);
    if (view.len % (Py_ssize_t)sizeof(uint64_t) != 0 || buckets > CF_HISTOGRAM_BUCKETS) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "a histogram is a buffer of at most 4352 uint64");
        return NULL;
    }
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < buckets; i++) {
        uint64_t samples;
        /* Copied: a slice of a file need not be aligned. */
        memcpy(&samples, (const char *)view.buf + i * sizeof samples, sizeof samples);
        if (samples && append_bucket(list, (uint32_t)i, samples) < 0)
            Py_CLEAR(list);
    }
    PyBuffer_Release(&view);
    PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

/* Reads item `i` of a tuple of (bucket, samples); 0, or -1 with an exception. */
static int read_pair(PyObject *pairs, Py_ssize_t i, uint32_t *bucket, double *samples) {
    PyObject *pair = PyTuple_GetItem(pairs, i);
    if (!pair || !PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a sparse histogram is a tuple of pairs");
        return -1;
    }
    unsigned long number = PyLong_AsUnsignedLong(PyTuple_GetItem(pair, 0));
    *samples = PyLong_AsDouble(PyTuple_GetItem(pair, 1));
    if (PyErr_Occurred())
        return -1;
    if (number >= CF_HISTOGRAM_BUCKETS) {
        PyErr_SetString(PyExc_ValueError, "there are 4352 buckets");
        return -1;
    }
    *bucket = (uint32_t)number;
    return 0;
}

static double middle(uint32_t bucket) {
    return (double)cf_histogram_lower(bucket) + (double)(cf_histogram_width(bucket) - 1) / 2;
}

static PyObject *sparse_moments(PyObject *module, PyObject *pairs) {
    (void)module;
    if (!PyTuple_Check(pairs)) {
        PyErr_SetString(PyExc_TypeError, "a sparse histogram is a tuple of pairs");
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(pairs);
    double samples, total = 0, least = 0, most = 0, squares = 0;
    uint32_t bucket;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_pair(pairs, i, &bucket, &samples) < 0)
            return NULL;
        double low = (double)cf_histogram_lower(bucket);
        total += samples;
        least += low * samples;
        most += (low + (double)(cf_histogram_width(bucket) - 1)) * samples;
    }
    double mean = total > 0 ? (least + most) / 2 / total : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (read_pair(pairs, i, &bucket, &samples) < 0)
            return NULL;
        double distance = middle(bucket) - mean;
        squares += distance * distance * samples;
    }
    return Py_BuildValue("ddd", least, most, squares);
}

static PyMethodDef sparse_methods[] = {
    {"sparse_moments", sparse_moments, METH_O, "Return least and most sum, and squares."},
    {"histogram_sparse", histogram_sparse, METH_O, "Return the filled buckets as pairs."},
    {NULL, NULL, 0, NULL},
};

const struct cf_binding_topic cf_topic_sparse = {sparse_methods, NULL};
