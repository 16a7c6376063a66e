/* DispatcherRecord: a bus's dispatcher in the segment. */
#include "bus_types.h"

#include "bus.h"

#include <string.h>

/* The last two fields of the kind are counted by themselves: `subscriptions`. */
#define ADDED_FIELDS (cf_kind_bus_dispatcher.field_count - 2)

struct record_object {
    PyObject_HEAD uint32_t instrument;
    int64_t lateness; /* instrument of kind "bus_lateness"; -1 until a message is late */
    uint32_t name_bytes;
    char name[CF_NAME_BYTES];
};

static PyObject *record_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"name", NULL};
    const char *name;
    Py_ssize_t bytes;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s#", names, &name, &bytes))
        return NULL;
    int64_t id =
        bytes > (Py_ssize_t)CF_NAME_BYTES
            ? -1
            : cf_process_instrument(&cf_kind_bus_dispatcher, name, (uint32_t)bytes, NULL, 0);
    struct record_object *self =
        id < 0 ? (void *)PyErr_NoMemory() : (void *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->instrument = (uint32_t)id;
    self->lateness = -1;
    self->name_bytes = (uint32_t)bytes;
    memcpy(self->name, name, (size_t)bytes);
    return (PyObject *)self;
}

static void record_dealloc(PyObject *self) {
    cf_free_instance(self);
}

/* Adds one item of the tuple to its field, or raises a maximum. 0, or -1 with an exception. */
static int add_field(const struct cf_field *field, char *payload, PyObject *item) {
    void *at = payload + field->offset;
    if (field->type == CF_FIELD_F64) {
        double *sum = at, value = PyFloat_AsDouble(item), total;
        if (value == -1.0 && PyErr_Occurred())
            return -1;
        total = *sum + value;
        __atomic_store(sum, &total, __ATOMIC_RELAXED);
        return 0;
    }
    if (field->type == CF_FIELD_I64) {
        /* Unsigned addition of two's complements is signed addition. */
        long long change = PyLong_AsLongLong(item);
        if (change == -1 && PyErr_Occurred())
            return -1;
        cf_bump((uint64_t *)at, (uint64_t)change);
        return 0;
    }
    uint64_t *count = at, value = PyLong_AsUnsignedLongLong(item);
    if (value == UINT64_MAX && PyErr_Occurred())
        return -1;
    if (field->merge == CF_MERGE_MAX)
        value = value > *count ? value - *count : 0;
    cf_bump(count, value);
    return 0;
}

static PyObject *record_add(PyObject *self, PyObject *values) {
    const struct cf_kind *kind = &cf_kind_bus_dispatcher;
    if (!PyTuple_CheckExact(values) || PyTuple_Size(values) != (Py_ssize_t)ADDED_FIELDS)
        return PyErr_Format(PyExc_TypeError, "takes a tuple of %u numbers", ADDED_FIELDS);
    char *payload = cf_process_payload(&cf_thread, ((struct record_object *)self)->instrument);
    if (!payload) {
        cf_process_lost(1);
        Py_RETURN_NONE;
    }
    for (uint32_t i = 0; i < ADDED_FIELDS; i++) {
        if (add_field(&kind->fields[i], payload, PyTuple_GetItem(values, (Py_ssize_t)i)) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *record_late(PyObject *object, PyObject *argument) {
    struct record_object *self = (struct record_object *)object;
    uint64_t lateness_ns = PyLong_AsUnsignedLongLong(argument);
    if (lateness_ns == UINT64_MAX && PyErr_Occurred())
        return NULL;
    if (self->lateness < 0) {
        /* Not for every bus: a histogram takes 34 KiB. */
        self->lateness =
            cf_process_instrument(&cf_kind_bus_lateness, self->name, self->name_bytes, NULL, 0);
        if (self->lateness < 0)
            return PyErr_NoMemory();
    }
    struct cf_bus_lateness *shard = cf_process_payload(&cf_thread, (uint32_t)self->lateness);
    if (shard)
        cf_bus_late_add(shard, lateness_ns);
    else
        cf_process_lost(1);
    Py_RETURN_NONE;
}

static PyObject *record_subscriptions(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    uint64_t made = count == 2 ? PyLong_AsUnsignedLongLong(args[0]) : UINT64_MAX;
    uint64_t ended = count == 2 ? PyLong_AsUnsignedLongLong(args[1]) : UINT64_MAX;
    if (PyErr_Occurred())
        return NULL;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "takes how many were made and how many have ended");
    struct cf_bus_dispatched *shard =
        cf_process_payload(&cf_thread, ((struct record_object *)self)->instrument);
    if (shard) {
        cf_bump(&shard->subscribed, made);
        cf_bump(&shard->unsubscribed, ended);
    } else
        cf_process_lost(1);
    Py_RETURN_NONE;
}

static PyMethodDef record_methods[] = {
    {"add", record_add, METH_O, "Add to the fields, in the order of DISPATCHER_FIELDS."},
    {"late", record_late, METH_O, "Count a message delivered so many ns after its deadline."},
    {"subscriptions", (PyCFunction)(void (*)(void))record_subscriptions, METH_FASTCALL,
     "Count subscriptions that were made, and that have ended."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot record_slots[] = {
    {Py_tp_doc, (void *)"A bus's dispatcher in the segment."},
    {Py_tp_new, (void *)record_new},
    {Py_tp_dealloc, (void *)record_dealloc},
    {Py_tp_methods, record_methods},
    {0, NULL},
};

static PyType_Spec record_spec = {
    .name = "cfctl._native.DispatcherRecord",
    .basicsize = sizeof(struct record_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = record_slots,
};

int cf_add_bus_record(PyObject *module) {
    const struct cf_kind *kind = &cf_kind_bus_dispatcher;
    PyTypeObject *type = cf_add_type(module, &record_spec);
    PyObject *names = PyTuple_New((Py_ssize_t)ADDED_FIELDS);
    for (uint32_t i = 0; names && i < ADDED_FIELDS; i++) {
        PyObject *name = PyUnicode_FromString(kind->fields[i].name);
        if (!name || PyTuple_SetItem(names, (Py_ssize_t)i, name) < 0)
            Py_CLEAR(names);
    }
    int failed = !type || !names || PyModule_AddObjectRef(module, "DISPATCHER_FIELDS", names) < 0;
    Py_XDECREF(names);
    Py_XDECREF((PyObject *)type);
    return failed ? -1 : 0;
}
