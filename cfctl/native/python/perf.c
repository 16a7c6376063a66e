/* perf events and tracefs as Python sees them: descriptors, which Python maps and reads. */
#include "binding.h"

#include "perf.h"

static PyObject *perf_open_switches(PyObject *module, PyObject *args) {
    (void)module;
    (void)args;
    int fd = cf_perf_open_switches();
    return fd >= 0 ? PyLong_FromLong(fd) : cf_raise_errno(fd, "perf_event_open");
}

static PyObject *perf_open_tracepoint(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long id;
    int cpu;
    if (!PyArg_ParseTuple(args, "Ki:perf_open_tracepoint", &id, &cpu))
        return NULL;
    int fd = cf_perf_open_tracepoint(id, cpu);
    return fd >= 0 ? PyLong_FromLong(fd) : cf_raise_errno(fd, "perf_event_open");
}

static PyObject *tracefs_mount_privately(PyObject *module, PyObject *target) {
    (void)module;
    PyObject *path = NULL;
    if (!PyUnicode_FSConverter(target, &path))
        return NULL;
    int error = cf_tracefs_mount_privately(PyBytes_AsString(path));
    Py_DECREF(path);
    if (error != 0)
        return cf_raise_errno(error, "mount tracefs");
    Py_RETURN_NONE;
}

static PyMethodDef perf_methods[] = {
    {"perf_open_switches", perf_open_switches, METH_NOARGS, "Open this thread's switch records."},
    {"perf_open_tracepoint", perf_open_tracepoint, METH_VARARGS, "Open a tracepoint on a CPU."},
    {"tracefs_mount_privately", tracefs_mount_privately, METH_O,
     "Mount tracefs for this thread alone."},
    {NULL, NULL, 0, NULL},
};

const struct cf_binding_topic cf_topic_perf = {perf_methods, NULL};
