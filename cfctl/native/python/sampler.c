/* The clusters of one calibration: sampled one by one, analysed as often as needed. */
#include "clock_types.h"

#include <string.h>

#include "atomic.h"
#include "sampler.h"

struct pair_sampler {
    PyObject ob_base;
    uint32_t clusters, pairs_each;
    uint32_t busy; /* 1 while a call works without the interpreter lock */
    struct cf_pair *pairs;
    uint32_t *scratch; /* [2 * pairs_each] */
};

static PyObject *sampler_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"clusters", "pairs", NULL};
    unsigned clusters, pairs;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "II", names, &clusters, &pairs))
        return NULL;
    if (clusters < 1 || clusters > 1024 || pairs < 1 || pairs > 65536) {
        PyErr_SetString(PyExc_ValueError, "1 to 1024 clusters of 1 to 65536 pairs");
        return NULL;
    }
    struct pair_sampler *self = (struct pair_sampler *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->clusters = clusters;
    self->pairs_each = pairs;
    self->pairs = PyMem_Malloc((size_t)clusters * pairs * sizeof *self->pairs);
    self->scratch = PyMem_Calloc(2 * (size_t)pairs, sizeof *self->scratch);
    if (self->pairs == NULL || self->scratch == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    /* Touched now: a page fault inside a bracket would make it wide. An unsampled cluster holds
     * pairs of the greatest width, which no analysis keeps. */
    memset(self->pairs, 0xff, (size_t)clusters * pairs * sizeof *self->pairs);
    return (PyObject *)self;
}

static void sampler_dealloc(PyObject *object) {
    struct pair_sampler *self = (struct pair_sampler *)object;
    PyMem_Free(self->pairs);
    PyMem_Free(self->scratch);
    cf_free_instance(object);
}

/* Returns a cluster's pairs, or NULL with IndexError. */
static struct cf_pair *cluster_at(struct pair_sampler *self, unsigned index) {
    if (index < self->clusters)
        return self->pairs + (size_t)index * self->pairs_each;
    PyErr_Format(PyExc_IndexError, "there are %u clusters", self->clusters);
    return NULL;
}

/* The buffers are used without the interpreter lock, by one call at a time. */
static int enter(struct pair_sampler *self) {
    if (__atomic_exchange_n(&self->busy, 1, __ATOMIC_ACQUIRE) == 0)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "a PairSampler is used by one thread at a time");
    return -1;
}

static void leave(struct pair_sampler *self) {
    cf_store_release(&self->busy, 0); /* pairs with the exchange in enter() */
}

static PyObject *sampler_sample(PyObject *object, PyObject *args) {
    struct pair_sampler *self = (struct pair_sampler *)object;
    unsigned index;
    int reference, status;
    if (!PyArg_ParseTuple(args, "Ii", &index, &reference))
        return NULL;
    struct cf_pair *pairs = cluster_at(self, index);
    if (pairs == NULL || enter(self) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    status = cf_sample_pairs((clockid_t)reference, pairs, self->pairs_each);
    Py_END_ALLOW_THREADS;
    leave(self);
    if (status != 0)
        return cf_raise_errno(status, "clock_gettime");
    Py_RETURN_NONE;
}

static PyObject *sampler_narrowest(PyObject *object, PyObject *args) {
    struct pair_sampler *self = (struct pair_sampler *)object;
    unsigned index;
    if (!PyArg_ParseTuple(args, "I", &index))
        return NULL;
    const struct cf_pair *pairs = cluster_at(self, index);
    if (pairs == NULL || enter(self) < 0)
        return NULL;
    const struct cf_pair *best = pairs;
    for (uint32_t i = 1; i < self->pairs_each; i++)
        if (pairs[i].width < best->width)
            best = &pairs[i];
    struct cf_pair found = *best;
    leave(self);
    return Py_BuildValue("(KKI)", (unsigned long long)(found.before + found.width / 2),
                         (unsigned long long)found.ns, (unsigned)found.width);
}

static PyObject *sampler_centre(PyObject *object, PyObject *args) {
    struct pair_sampler *self = (struct pair_sampler *)object;
    unsigned index;
    double ns_per_tick;
    if (!PyArg_ParseTuple(args, "Id", &index, &ns_per_tick))
        return NULL;
    const struct cf_pair *pairs = cluster_at(self, index);
    if (pairs == NULL || enter(self) < 0)
        return NULL;
    struct cf_centre centre;
    int status;
    Py_BEGIN_ALLOW_THREADS;
    status = cf_cluster_centre(pairs, self->pairs_each, ns_per_tick, self->scratch, &centre);
    Py_END_ALLOW_THREADS;
    leave(self);
    if (status != 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(KKddIIIi)", (unsigned long long)centre.tick,
                         (unsigned long long)centre.ns, centre.fraction_ns, centre.error_ns,
                         (unsigned)centre.kept, (unsigned)centre.cpu_changes,
                         (unsigned)centre.min_width, (int)centre.cpu);
}

static PyObject *sampler_pairs(PyObject *object, PyObject *args) {
    struct pair_sampler *self = (struct pair_sampler *)object;
    unsigned index;
    if (!PyArg_ParseTuple(args, "I", &index))
        return NULL;
    const struct cf_pair *pairs = cluster_at(self, index);
    if (pairs == NULL || enter(self) < 0)
        return NULL;
    PyObject *list = PyList_New((Py_ssize_t)self->pairs_each);
    for (uint32_t i = 0; list != NULL && i < self->pairs_each; i++) {
        PyObject *pair = Py_BuildValue("(KKIi)", (unsigned long long)pairs[i].before,
                                       (unsigned long long)pairs[i].ns, (unsigned)pairs[i].width,
                                       (int)pairs[i].cpu);
        if (pair == NULL || PyList_SetItem(list, (Py_ssize_t)i, pair) != 0)
            Py_CLEAR(list);
    }
    leave(self);
    return list;
}

static PyMethodDef sampler_methods[] = {
    {"sample", sampler_sample, METH_VARARGS, "Take the pairs of one cluster against a clock."},
    {"narrowest", sampler_narrowest, METH_VARARGS,
     "Return (middle tick, ns, width in ticks) of a cluster's narrowest pair."},
    {"centre", sampler_centre, METH_VARARGS,
     "Return a cluster's centre for a slope in ns per tick, None when no pair can be used."},
    {"pairs", sampler_pairs, METH_VARARGS, "Return a cluster's pairs (before, ns, width, cpu)."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sampler_slots[] = {
    {Py_tp_doc, (void *)"PairSampler(clusters, pairs): bracketed readings of a reference clock."},
    {Py_tp_new, (void *)sampler_new},
    {Py_tp_dealloc, (void *)sampler_dealloc},
    {Py_tp_methods, sampler_methods},
    {0, NULL},
};

static PyType_Spec sampler_spec = {
    .name = "cfctl._native.PairSampler",
    .basicsize = sizeof(struct pair_sampler),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sampler_slots,
};

int cf_add_pair_sampler(PyObject *module) {
    PyTypeObject *type = cf_add_type(module, &sampler_spec);
    Py_XDECREF((PyObject *)type);
    return type == NULL ? -1 : 0;
}
