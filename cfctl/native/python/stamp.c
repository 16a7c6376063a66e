/* The ring of raw stamps. */
#include "clock_types.h"

#include <stdbool.h>

#include "stamp.h"
#include "tick.h"

enum { MAX_CAPACITY = 1 << 26 };

struct stamp_ring {
    PyObject ob_base;
    struct cf_stamp_ring ring;
};

static PyObject *ring_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"capacity", NULL};
    Py_ssize_t wanted;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "n", names, &wanted))
        return NULL;
    if (wanted < 1 || wanted > MAX_CAPACITY) {
        PyErr_Format(PyExc_ValueError, "the capacity must be 1 to %d stamps", MAX_CAPACITY);
        return NULL;
    }
    uint64_t capacity = 1;
    while (capacity < (uint64_t)wanted)
        capacity *= 2;
    struct stamp_ring *self = (struct stamp_ring *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->ring.mask = capacity - 1;
    self->ring.slots = PyMem_Malloc(capacity * sizeof *self->ring.slots);
    if (self->ring.slots == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    /* Written now, so that no stamp pays for a page fault. */
    for (uint64_t i = 0; i < capacity; i++)
        self->ring.slots[i] = (struct cf_stamp){0, 0};
    return (PyObject *)self;
}

static void ring_dealloc(PyObject *object) {
    PyMem_Free(((struct stamp_ring *)object)->ring.slots);
    cf_free_instance(object);
}

/* Returns a Python int as an id; UINT64_MAX with an exception set for what is none. */
static inline uint64_t id_of(PyObject *number) {
#if !defined(Py_LIMITED_API) && PY_VERSION_HEX < 0x030c0000
    /* An int of one digit without a call: 2 of a stamp's 12 ns. */
    if (cf_likely(PyLong_CheckExact(number) && (size_t)Py_SIZE(number) <= 1))
        return Py_SIZE(number) ? ((PyLongObject *)number)->ob_digit[0] : 0;
#endif
    return PyLong_AsUnsignedLongLong(number);
}

static inline PyObject *record(PyObject *object, PyObject *number, uint64_t tick) {
    struct cf_stamp_ring *ring = &((struct stamp_ring *)object)->ring;
    uint64_t id = id_of(number);
    if (cf_unlikely(id == UINT64_MAX) && PyErr_Occurred())
        return NULL;
#if defined(Py_GIL_DISABLED)
    cf_stamp_record_shared(ring, id, tick);
#else
    cf_stamp_record(ring, id, tick);
#endif
    Py_RETURN_NONE;
}

/* One function per tick source, chosen when the type is made: a test of the source in each stamp
 * costs half a nanosecond. METH_O beats METH_FASTCALL by one where there is one argument. */
static PyObject *ring_stamp_hardware(PyObject *object, PyObject *number) {
    return record(object, number, cf_tick_hardware());
}

static PyObject *ring_stamp_selected(PyObject *object, PyObject *number) {
    return record(object, number, cf_ticks());
}

static uint64_t held(const struct cf_stamp_ring *ring) {
    uint64_t recorded = cf_load_relaxed(&ring->recorded);
    return recorded <= ring->mask ? recorded : ring->mask + 1;
}

static PyObject *ring_read(PyObject *object, PyObject *unused) {
    (void)unused;
    struct cf_stamp_ring *ring = &((struct stamp_ring *)object)->ring;
    uint64_t recorded = cf_load_relaxed(&ring->recorded), count = held(ring);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (uint64_t i = 0; list != NULL && i < count; i++) {
        struct cf_stamp *slot = &ring->slots[(recorded - count + i) & ring->mask];
        PyObject *stamp = Py_BuildValue("(KK)", (unsigned long long)cf_load_relaxed(&slot->id),
                                        (unsigned long long)cf_load_relaxed(&slot->tick));
        if (stamp == NULL || PyList_SetItem(list, (Py_ssize_t)i, stamp) != 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *ring_clear(PyObject *object, PyObject *unused) {
    (void)unused;
    cf_store_relaxed(&((struct stamp_ring *)object)->ring.recorded, 0);
    Py_RETURN_NONE;
}

static PyObject *ring_capacity(PyObject *object, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(((struct stamp_ring *)object)->ring.mask + 1);
}

static PyObject *ring_overwritten(PyObject *object, void *closure) {
    (void)closure;
    const struct cf_stamp_ring *ring = &((struct stamp_ring *)object)->ring;
    return PyLong_FromUnsignedLongLong(cf_load_relaxed(&ring->recorded) - held(ring));
}

static Py_ssize_t ring_length(PyObject *object) {
    return (Py_ssize_t)held(&((struct stamp_ring *)object)->ring);
}

#define RING_METHODS(stamp)                                                                        \
    {                                                                                              \
        {"stamp", (stamp), METH_O, "Record an id with the current tick."},                         \
        {"read", ring_read, METH_NOARGS, "Return the held stamps as (id, tick), oldest first."},   \
        {"clear", ring_clear, METH_NOARGS, "Forget all stamps and the count of the overwritten."}, \
        {NULL, NULL, 0, NULL},                                                                     \
    }

static PyMethodDef hardware_methods[] = RING_METHODS(ring_stamp_hardware);
static PyMethodDef selected_methods[] = RING_METHODS(ring_stamp_selected);

static PyGetSetDef ring_properties[] = {
    {"capacity", ring_capacity, NULL, "Stamps the ring holds: a power of two.", NULL},
    {"overwritten", ring_overwritten, NULL, "Stamps that were overwritten by later ones.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

int cf_add_stamp_ring(PyObject *module) {
    bool hardware = cf_tick_select() == CF_TICK_HARDWARE;
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)"StampRing(capacity): raw stamps, the oldest overwritten when full."},
        {Py_tp_new, (void *)ring_new},
        {Py_tp_dealloc, (void *)ring_dealloc},
        {Py_tp_methods, hardware ? hardware_methods : selected_methods},
        {Py_tp_getset, ring_properties},
        {Py_sq_length, (void *)ring_length},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "cfctl._native.StampRing",
        .basicsize = sizeof(struct stamp_ring),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    PyTypeObject *type = cf_add_type(module, &spec);
    Py_XDECREF((PyObject *)type);
    return type == NULL ? -1 : 0;
}
