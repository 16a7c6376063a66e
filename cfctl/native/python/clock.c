/* Clocks as Python sees them. */
#include "clock_types.h"

#include <errno.h>
#include <sys/timex.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include "clock.h"
#include "cost.h"
#include "offset.h"
#include "tick.h"

static PyObject *refuse_arguments(const char *name) {
    PyErr_Format(PyExc_TypeError, "%s() takes no arguments", name);
    return NULL;
}

static PyObject *clock_ticks(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module, (void)args;
    if (cf_unlikely(count != 0))
        return refuse_arguments("ticks");
    return PyLong_FromUnsignedLongLong(cf_ticks());
}

static PyObject *clock_now_ns(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module, (void)args;
    if (cf_unlikely(count != 0))
        return refuse_arguments("now_ns");
    return PyLong_FromUnsignedLongLong(cf_clock_now_ns());
}

static PyObject *clock_tick_source(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    static const char *const names[] = {
        [CF_TICK_UNSELECTED] = "os",
        [CF_TICK_TSC] = "tsc",
        [CF_TICK_CNTVCT] = "cntvct",
        [CF_TICK_OS] = "os",
    };
    enum cf_gate gate = cf_tick_gate();
    return Py_BuildValue("(sss)", names[cf_tick_select()], cf_gate_name(gate), cf_gate_text(gate));
}

static PyObject *clock_os_clock_ns(PyObject *module, PyObject *args) {
    (void)module;
    int clock;
    struct timespec now;
    if (!PyArg_ParseTuple(args, "i", &clock))
        return NULL;
    if (cf_os_gettime((clockid_t)clock, &now) != 0)
        return cf_raise_errno(-errno, "clock_gettime");
    return PyLong_FromUnsignedLongLong((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
}

static PyObject *clock_publish(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long base_tick, base_ns, mult;
    int shift, reference;
    if (!PyArg_ParseTuple(args, "KKKii", &base_tick, &base_ns, &mult, &shift, &reference))
        return NULL;
    struct cf_clock_line line = {base_tick, base_ns, mult, (uint32_t)shift, (clockid_t)reference};
    if (cf_clock_publish(&line) != 0) {
        PyErr_SetString(PyExc_ValueError, "mult must not be 0 and shift must be 1 to 64");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *clock_withdraw(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    cf_clock_withdraw();
    Py_RETURN_NONE;
}

static PyObject *clock_published(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    struct cf_clock_line line;
    if (cf_clock_published(&line) != 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(KKKii)", (unsigned long long)line.base_tick,
                         (unsigned long long)line.base_ns, (unsigned long long)line.mult,
                         (int)line.shift, (int)line.reference);
}

static PyObject *clock_read_costs(PyObject *module, PyObject *args) {
    (void)module;
    enum { MAX_BATCHES = 1024 };
    int kind;
    unsigned reads, batches;
    uint64_t elapsed[MAX_BATCHES];
    if (!PyArg_ParseTuple(args, "iII", &kind, &reads, &batches))
        return NULL;
    if (batches > MAX_BATCHES) {
        PyErr_Format(PyExc_ValueError, "at most %d batches", MAX_BATCHES);
        return NULL;
    }
    int status;
    Py_BEGIN_ALLOW_THREADS;
    status = cf_read_costs((enum cf_read_kind)kind, reads, elapsed, batches);
    Py_END_ALLOW_THREADS;
    if (status != 0)
        return cf_raise_errno(status, "clock_gettime");
    PyObject *list = PyList_New((Py_ssize_t)batches);
    for (unsigned i = 0; list != NULL && i < batches; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(elapsed[i]);
        if (value == NULL || PyList_SetItem(list, (Py_ssize_t)i, value) != 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *clock_tick_increments(PyObject *module, PyObject *args) {
    (void)module;
    enum { SIZE = 1 << 16 };
    unsigned reads;
    if (!PyArg_ParseTuple(args, "I", &reads))
        return NULL;
    uint32_t *counts = PyMem_Calloc(SIZE, sizeof *counts);
    if (counts == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS;
    cf_tick_increments(counts, SIZE, reads);
    Py_END_ALLOW_THREADS;
    PyObject *found = PyDict_New();
    for (int i = 0; found != NULL && i < SIZE; i++) {
        if (counts[i] == 0)
            continue;
        PyObject *key = PyLong_FromLong(i), *value = PyLong_FromUnsignedLong(counts[i]);
        if (key == NULL || value == NULL || PyDict_SetItem(found, key, value) != 0)
            Py_CLEAR(found);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    PyMem_Free(counts);
    return found;
}

static PyObject *clock_cpu_offset(PyObject *module, PyObject *args) {
    (void)module;
    int cpu_a, cpu_b, status;
    unsigned exchanges;
    unsigned long long timeout_ns;
    struct cf_offset offset;
    if (!PyArg_ParseTuple(args, "iiIK", &cpu_a, &cpu_b, &exchanges, &timeout_ns))
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = cf_offset_measure(cpu_a, cpu_b, exchanges, timeout_ns, &offset);
    Py_END_ALLOW_THREADS;
    if (status != 0)
        return cf_raise_errno(status, "ping-pong between two CPUs");
    return Py_BuildValue("(LLKI)", (long long)offset.min_ab, (long long)offset.min_ba,
                         (unsigned long long)offset.warps, (unsigned)offset.exchanges);
}

static PyObject *clock_discipline(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    struct timex state = {0};
    int status = adjtimex(&state);
    if (status < 0)
        return cf_raise_errno(-errno, "adjtimex");
    return Py_BuildValue("(iillll)", status, state.status, (long)state.freq, (long)state.tick,
                         (long)state.maxerror, (long)state.esterror);
}

static PyObject *clock_cpuid(PyObject *module, PyObject *args) {
    (void)module;
    unsigned leaf, subleaf = 0;
    if (!PyArg_ParseTuple(args, "I|I", &leaf, &subleaf))
        return NULL;
#if defined(__x86_64__) || defined(__i386__)
    /* 0x40000000 and up are the hypervisor's, outside of what __get_cpuid knows. */
    unsigned eax, ebx, ecx, edx, range = leaf & 0xc0000000u;
    __cpuid(range, eax, ebx, ecx, edx);
    if (leaf <= eax) {
        __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
        return Py_BuildValue("(IIII)", eax, ebx, ecx, edx);
    }
#endif
    Py_RETURN_NONE;
}

static PyObject *clock_stated_counter_hz(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
#if defined(__aarch64__)
    uint64_t hz;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
    return PyLong_FromUnsignedLongLong(hz);
#else
    Py_RETURN_NONE;
#endif
}

static PyMethodDef clock_methods[] = {
    {"ticks", CF_FASTCALL(clock_ticks), METH_FASTCALL,
     "Return the current tick of the selected source."},
    {"now_ns", CF_FASTCALL(clock_now_ns), METH_FASTCALL,
     "Return nanoseconds of the published reference clock."},
    {"tick_source", clock_tick_source, METH_NOARGS,
     "Return the tick source and why it was chosen."},
    {"os_clock_ns", clock_os_clock_ns, METH_VARARGS, "Return nanoseconds of an OS clock."},
    {"clock_publish", clock_publish, METH_VARARGS, "Make a line the clock of now_ns."},
    {"clock_withdraw", clock_withdraw, METH_NOARGS, "Let now_ns read the reference clock again."},
    {"clock_published", clock_published, METH_NOARGS, "Return the published line, or None."},
    {"read_costs", clock_read_costs, METH_VARARGS, "Return the ns each batch of reads took."},
    {"tick_increments", clock_tick_increments, METH_VARARGS,
     "Return how often each increment between neighbouring tick reads was seen."},
    {"cpu_offset", clock_cpu_offset, METH_VARARGS,
     "Return the least differences, warps and exchanges of ping-pongs between two CPUs."},
    {"clock_discipline", clock_discipline, METH_NOARGS, "Return what adjtimex(2) says."},
    {"cpuid", clock_cpuid, METH_VARARGS, "Return a CPUID leaf, or None where there is none."},
    {"stated_counter_hz", clock_stated_counter_hz, METH_NOARGS,
     "Return the rate the CPU states for its counter, or None."},
    {NULL, NULL, 0, NULL},
};

static int clock_add(PyObject *module) {
    return cf_add_pair_sampler(module) < 0 || cf_add_stamp_ring(module) < 0 ? -1 : 0;
}

const struct cf_binding_topic cf_topic_clock = {clock_methods, clock_add};
