/* DispatcherRecord: a bus's dispatcher in the segment. */
#include "bus_types.h"

#include "bus.h"

struct record_object {
    PyObject_HEAD uint32_t instrument;
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
    if (self)
        self->instrument = (uint32_t)id;
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
    if (!PyTuple_CheckExact(values) || PyTuple_Size(values) != (Py_ssize_t)kind->field_count)
        return PyErr_Format(PyExc_TypeError, "takes a tuple of %u numbers", kind->field_count);
    char *payload = cf_process_payload(&cf_thread, ((struct record_object *)self)->instrument);
    if (!payload) {
        cf_process_lost(1);
        Py_RETURN_NONE;
    }
    for (uint32_t i = 0; i < kind->field_count; i++) {
        if (add_field(&kind->fields[i], payload, PyTuple_GetItem(values, (Py_ssize_t)i)) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef record_methods[] = {
    {"add", record_add, METH_O, "Add to the fields, in the order of DISPATCHER_FIELDS."},
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
    PyObject *names = PyTuple_New((Py_ssize_t)kind->field_count);
    for (uint32_t i = 0; names && i < kind->field_count; i++) {
        PyObject *name = PyUnicode_FromString(kind->fields[i].name);
        if (!name || PyTuple_SetItem(names, (Py_ssize_t)i, name) < 0)
            Py_CLEAR(names);
    }
    int failed = !type || !names || PyModule_AddObjectRef(module, "DISPATCHER_FIELDS", names) < 0;
    Py_XDECREF(names);
    Py_XDECREF((PyObject *)type);
    return failed ? -1 : 0;
}
