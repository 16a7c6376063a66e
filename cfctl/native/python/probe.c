/* Probes as Python sees them: each releases the GIL, runs on the calling thread, returns a dict. */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "probe_cost.h"
#include "probe_jitter.h"
#include "probe_pair.h"
#include "probe_wakeup.h"

/* Gets the flag another thread stops the probe by: a writable buffer of one aligned uint32. */
static int get_stop(PyObject *object, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_WRITABLE) < 0)
        return -1;
    if (view->len == sizeof(uint32_t) && (uintptr_t)view->buf % sizeof(uint32_t) == 0)
        return 0;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "stop is an aligned writable buffer of 4 bytes");
    return -1;
}

static PyObject *load_dict(const struct cf_thread_load *load) {
    PyObject *run_delay = load->run_delay_known ? PyLong_FromUnsignedLongLong(load->run_delay_ns)
                                                : Py_NewRef(Py_None);
    if (!run_delay)
        return NULL;
    return Py_BuildValue("{sKsKsKsKsN}", "involuntary_switches",
                         (unsigned long long)load->involuntary_switches, "voluntary_switches",
                         (unsigned long long)load->voluntary_switches, "minor_faults",
                         (unsigned long long)load->minor_faults, "major_faults",
                         (unsigned long long)load->major_faults, "run_delay_ns", run_delay);
}

static PyObject *distribution_dict(const struct cf_distribution *distribution) {
    return Py_BuildValue(
        "{sKsKsKsKsKsy#}", "count", (unsigned long long)distribution->count, "sum",
        (unsigned long long)distribution->sum, "min", (unsigned long long)distribution->min, "max",
        (unsigned long long)distribution->max, "out_of_range",
        (unsigned long long)distribution->out_of_range, "histogram",
        (const char *)distribution->histogram, (Py_ssize_t)sizeof distribution->histogram);
}

static PyObject *jitter_dict(const struct cf_jitter_result *result, const struct cf_gap *kept) {
    PyObject *load = load_dict(&result->load);
    PyObject *gaps = load ? distribution_dict(&result->gaps) : NULL;
    if (!gaps) {
        Py_XDECREF(load);
        return NULL;
    }
    return Py_BuildValue(
        "{sKsKsKsKsNsNsy#}", "start_tick", (unsigned long long)result->start_tick, "end_tick",
        (unsigned long long)result->end_tick, "turns", (unsigned long long)result->turns,
        "handling_ticks", (unsigned long long)result->handling_ticks, "load", load, "gaps", gaps,
        "kept", (const char *)kept, (Py_ssize_t)(result->kept * sizeof(struct cf_gap)));
}

static PyObject *probe_jitter(PyObject *module, PyObject *args) {
    (void)module;
    enum { MAX_CAPACITY = 1 << 22 };
    unsigned long long start_tick, duration_ticks, threshold_ticks;
    unsigned capacity;
    int inspect;
    PyObject *stop_object;
    if (!PyArg_ParseTuple(args, "KKKpIO:probe_jitter", &start_tick, &duration_ticks,
                          &threshold_ticks, &inspect, &capacity, &stop_object))
        return NULL;
    if (capacity > MAX_CAPACITY) {
        PyErr_SetString(PyExc_ValueError, "at most 4194304 gaps can be kept");
        return NULL;
    }
    Py_buffer stop;
    if (get_stop(stop_object, &stop) < 0)
        return NULL;
    size_t bytes = ((size_t)capacity + 1) * sizeof(struct cf_gap);
    struct cf_jitter_result *result = malloc(sizeof *result);
    struct cf_gap *kept = malloc(bytes);
    PyObject *dict = NULL;
    if (result && kept) {
        Py_BEGIN_ALLOW_THREADS;
        /* A page's first touch inside the run would be a gap of our own making. */
        memset(kept, 0xff, bytes);
        cf_probe_jitter(start_tick, duration_ticks, threshold_ticks, inspect, kept, capacity,
                        stop.buf, result);
        Py_END_ALLOW_THREADS;
        dict = jitter_dict(result, kept);
    } else {
        PyErr_NoMemory();
    }
    free(kept);
    free(result);
    PyBuffer_Release(&stop);
    return dict;
}

static PyObject *probe_wakeup(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long interval_ns, duration_ns;
    PyObject *stop_object;
    if (!PyArg_ParseTuple(args, "KKO:probe_wakeup", &interval_ns, &duration_ns, &stop_object))
        return NULL;
    Py_buffer stop;
    if (get_stop(stop_object, &stop) < 0)
        return NULL;
    struct cf_wakeup_result *result = malloc(sizeof *result);
    PyObject *dict = NULL;
    int error = 0;
    if (result) {
        Py_BEGIN_ALLOW_THREADS;
        error = cf_probe_wakeup(interval_ns, duration_ns, stop.buf, result);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&stop);
    if (!result)
        return PyErr_NoMemory();
    PyObject *load = error == 0 ? load_dict(&result->load) : NULL;
    PyObject *latency = load ? distribution_dict(&result->latency) : NULL;
    if (latency)
        dict =
            Py_BuildValue("{sKsKsKsNsN}", "start_ns", (unsigned long long)result->start_ns,
                          "end_ns", (unsigned long long)result->end_ns, "overruns",
                          (unsigned long long)result->overruns, "load", load, "latency", latency);
    else
        Py_XDECREF(load);
    free(result);
    return error == 0 ? dict : cf_raise_errno(error, "clock_nanosleep");
}

static PyObject *probe_pair(PyObject *module, PyObject *args) {
    (void)module;
    struct cf_pair_config config;
    int kind;
    PyObject *stop_object, *dict = NULL;
    if (!PyArg_ParseTuple(args, "iiiIIIO:probe_pair", &kind, &config.cpu_a, &config.cpu_b,
                          &config.samples, &config.round_trips, &config.samples_a_page,
                          &stop_object))
        return NULL;
    config.kind = (enum cf_pair_kind)kind;
    Py_buffer stop;
    if (get_stop(stop_object, &stop) < 0)
        return NULL;
    struct cf_pair_result *result = malloc(sizeof *result);
    int error = 0;
    if (result) {
        Py_BEGIN_ALLOW_THREADS;
        error = cf_probe_pair(&config, stop.buf, result);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&stop);
    if (!result)
        return PyErr_NoMemory();
    PyObject *load_a = error == 0 ? load_dict(&result->load_a) : NULL;
    PyObject *load_b = load_a ? load_dict(&result->load_b) : NULL;
    PyObject *batch = load_b ? distribution_dict(&result->batch) : NULL;
    if (batch) {
        dict = Py_BuildValue("{sNsNsN}", "load_a", load_a, "load_b", load_b, "batch", batch);
    } else {
        Py_XDECREF(load_a);
        Py_XDECREF(load_b);
    }
    free(result);
    return error == 0 ? dict : cf_raise_errno(error, "pair of probe threads");
}

static PyObject *probe_cost(PyObject *module, PyObject *args) {
    (void)module;
    int kind;
    unsigned samples;
    PyObject *stop_object, *dict = NULL;
    if (!PyArg_ParseTuple(args, "iIO:probe_cost", &kind, &samples, &stop_object))
        return NULL;
    Py_buffer stop;
    if (get_stop(stop_object, &stop) < 0)
        return NULL;
    struct cf_cost_result *result = malloc(sizeof *result);
    int error = 0;
    if (result) {
        Py_BEGIN_ALLOW_THREADS;
        error = cf_probe_cost((enum cf_cost_kind)kind, samples, stop.buf, result);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&stop);
    if (!result)
        return PyErr_NoMemory();
    PyObject *load = error == 0 ? load_dict(&result->load) : NULL;
    PyObject *ticks = load ? distribution_dict(&result->ticks) : NULL;
    if (ticks)
        dict = Py_BuildValue("{sIsNsN}", "batch", (unsigned)result->batch, "load", load, "ticks",
                             ticks);
    else
        Py_XDECREF(load);
    free(result);
    return error == 0 ? dict : cf_raise_errno(error, "cost probe");
}

static PyObject *timer_slack(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long wanted_ns = 0;
    if (!PyArg_ParseTuple(args, "|K:timer_slack", &wanted_ns))
        return NULL;
    if (wanted_ns != 0 && prctl(PR_SET_TIMERSLACK, (unsigned long)wanted_ns, 0, 0, 0) != 0)
        return cf_raise_errno(-errno, "prctl(PR_SET_TIMERSLACK)");
    int slack_ns = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    return slack_ns >= 0 ? PyLong_FromLong(slack_ns)
                         : cf_raise_errno(-errno, "prctl(PR_GET_TIMERSLACK)");
}

static PyMethodDef probe_methods[] = {
    {"probe_jitter", probe_jitter, METH_VARARGS, "Run the busy loop on this thread."},
    {"probe_wakeup", probe_wakeup, METH_VARARGS, "Run the cyclic timer on this thread."},
    {"probe_pair", probe_pair, METH_VARARGS, "Time round trips between two pinned threads."},
    {"probe_cost", probe_cost, METH_VARARGS, "Time entries into the kernel."},
    {"timer_slack", timer_slack, METH_VARARGS, "Return this thread's timer slack, set it first."},
    {NULL, NULL, 0, NULL},
};

static int probe_add(PyObject *module) {
    static const struct {
        const char *name;
        int value;
    } constants[] = {
        {"PAIR_LOAD_STORE", CF_PAIR_LOAD_STORE},
        {"PAIR_CAS", CF_PAIR_CAS},
        {"PAIR_FUTEX", CF_PAIR_FUTEX},
        {"PAIR_PIPE", CF_PAIR_PIPE},
        {"COST_SYSCALL", CF_COST_SYSCALL},
        {"COST_YIELD", CF_COST_YIELD},
        {"COST_MINOR_FAULT", CF_COST_MINOR_FAULT},
        {"COST_PIPE", CF_COST_PIPE},
    };
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    }
    return 0;
}

const struct cf_binding_topic cf_topic_probe = {probe_methods, probe_add};
