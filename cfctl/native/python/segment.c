/* The process's segment as Python sees it. */
#include "binding.h"

#include <string.h>

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
    {NULL, NULL, 0, NULL},
};

static int segment_add(PyObject *module) {
    return PyModule_AddIntConstant(module, "SEGMENT_DEFAULT_LIMIT_BYTES",
                                   (long)CF_SEGMENT_DEFAULT_LIMIT);
}

const struct cf_binding_topic cf_topic_segment = {segment_methods, segment_add};
