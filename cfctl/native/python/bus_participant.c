/* BusParticipant: a bus's presence in a directory, which its endpoints share. */
#include "bus_types.h"

#include <stddef.h>

static PyObject *participant_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"directory", NULL};
    const char *directory;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s", names, &directory))
        return NULL;
    struct participant_object *self = (void *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    int error = cf_participant_open(&self->participant, directory);
    if (error != 0) {
        self->participant.directory_fd = -1;
        Py_DECREF(self);
        return cf_raise_errno(error, directory);
    }
    return (PyObject *)self;
}

static void participant_dealloc(PyObject *object) {
    cf_participant_close(&((struct participant_object *)object)->participant);
    cf_free_instance(object);
}

static PyObject *participant_lives(PyObject *object, PyObject *argument) {
    unsigned long long id = PyLong_AsUnsignedLongLong(argument);
    if (id == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(
        cf_participant_lives(&((struct participant_object *)object)->participant, id) != 0);
}

static PyObject *participant_get_id(PyObject *object, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(((struct participant_object *)object)->participant.id);
}

static PyObject *participant_get_is_open(PyObject *object, void *closure) {
    (void)closure;
    return PyBool_FromLong(
        cf_participant_is_open(&((struct participant_object *)object)->participant));
}

static PyObject *participant_close(PyObject *object, PyObject *unused) {
    (void)unused;
    cf_participant_close(&((struct participant_object *)object)->participant);
    Py_RETURN_NONE;
}

static PyMethodDef participant_methods[] = {
    {"close", participant_close, METH_NOARGS, "Give up the lease; no endpoint may be in use."},
    {"lives", participant_lives, METH_O, "Return whether the participant of an id lives."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef participant_properties[] = {
    {"id", participant_get_id, NULL, "The id of its lease.", NULL},
    {"is_open", participant_get_is_open, NULL, "False in a forked child.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot participant_slots[] = {
    {Py_tp_doc, (void *)"A bus's presence in a directory; it ends with its last endpoint."},
    {Py_tp_new, (void *)participant_new},
    {Py_tp_dealloc, (void *)participant_dealloc},
    {Py_tp_methods, participant_methods},
    {Py_tp_getset, participant_properties},
    {0, NULL},
};

static PyType_Spec participant_spec = {
    .name = "cfctl._native.BusParticipant",
    .basicsize = sizeof(struct participant_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = participant_slots,
};

int cf_add_bus_participant(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->participant_type = cf_add_type(module, &participant_spec);
    return state->participant_type ? 0 : -1;
}
