/* TimedFunction: a callable that records each of its calls, at the cost of two tick reads. */
#include "binding.h"

#include <stddef.h>
#include <structmember.h>

#include "span.h"
#include "tick.h"

struct timed_object {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject *function;
    PyObject *operation;
    PyObject *dict; /* __wrapped__, __name__, ... as functools.update_wrapper sets them */
    PyObject *weak_references;
    uint32_t instrument;
};

/* As PyObject_Vectorcall, without a call of its own where the API has what that takes: 1 ns. */
static inline PyObject *call(PyObject *function, PyObject *const *args, size_t flagged_count,
                             PyObject *names) {
#ifndef Py_LIMITED_API
    vectorcallfunc direct = PyVectorcall_Function(function);
    if (cf_likely(direct != NULL))
        return direct(function, args, flagged_count, names);
#endif
    return PyObject_Vectorcall(function, args, flagged_count, names);
}

/* Recursion deeper than the span stack is timed all the same, as nobody's child. */
static PyObject *call_unnested(struct timed_object *self, PyObject *const *args,
                               size_t flagged_count, PyObject *names) {
    (void)cf_process_payload(&cf_thread, self->instrument);
    uint64_t start_tick = cf_ticks();
    PyObject *result = PyObject_Vectorcall(self->function, args, flagged_count, names);
    uint64_t end_tick = cf_ticks();
    int failed = cf_unlikely(result == NULL) && cf_raised_error();
    cf_operation_record(self->instrument, start_tick, end_tick, failed);
    return result;
}

static PyObject *timed_call(PyObject *callable, PyObject *const *args, size_t flagged_count,
                            PyObject *names) {
    struct timed_object *self = (struct timed_object *)callable;
    struct cf_thread *thread = cf_this_thread();
    uint32_t instrument = self->instrument;
    if (cf_unlikely(thread->depth == CF_SPAN_DEPTH))
        return call_unnested(self, args, flagged_count, names);
    cf_span_begin(thread, instrument);
    PyObject *result = call(self->function, args, flagged_count, names);
    uint64_t end_tick = cf_ticks();
    int failed = cf_unlikely(result == NULL) && cf_raised_error();
    cf_span_end(thread, instrument, end_tick, failed);
    return result;
}

static PyObject *timed_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"function", "operation", NULL};
    PyObject *function, *operation;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:TimedFunction", names, &function,
                                     &operation))
        return NULL;
    if (!PyCallable_Check(function)) {
        PyErr_SetString(PyExc_TypeError, "only something callable can be timed");
        return NULL;
    }
    int64_t id = cf_operation_id(cf_type_state(type), operation);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct timed_object *self = id < 0 ? NULL : (void *)allocate(type, 0);
    if (!self)
        return NULL;
    self->vectorcall = timed_call;
    self->function = Py_NewRef(function);
    self->operation = Py_NewRef(operation);
    self->instrument = (uint32_t)id;
    return (PyObject *)self;
}

static int timed_traverse(PyObject *object, visitproc visit, void *arg) {
    struct timed_object *self = (struct timed_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->function);
    Py_VISIT(self->operation);
    Py_VISIT(self->dict);
    return 0;
}

static int timed_clear(PyObject *object) {
    struct timed_object *self = (struct timed_object *)object;
    Py_CLEAR(self->function);
    Py_CLEAR(self->operation);
    Py_CLEAR(self->dict);
    return 0;
}

static void timed_dealloc(PyObject *object) {
    struct timed_object *self = (struct timed_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weak_references)
        PyObject_ClearWeakRefs(object);
    timed_clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Binds as a function does: through an instance it is a method. */
static PyObject *timed_bind(PyObject *object, PyObject *instance, PyObject *owner) {
    (void)owner;
    if (!instance || instance == Py_None)
        return Py_NewRef(object);
    PyObject *method_type = cf_type_state(Py_TYPE(object))->method_type;
    return PyObject_CallFunctionObjArgs(method_type, object, instance, NULL);
}

static PyObject *timed_repr(PyObject *object) {
    return PyUnicode_FromFormat("<timed %R>", ((struct timed_object *)object)->function);
}

/* Pickled by name, like the function it stands for. */
static PyObject *timed_reduce(PyObject *object, PyObject *unused) {
    (void)unused;
    return PyObject_GetAttrString(object, "__qualname__");
}

static PyMethodDef timed_methods[] = {
    {"__reduce__", timed_reduce, METH_NOARGS, "Pickle by qualified name."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef timed_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct timed_object, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(struct timed_object, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct timed_object, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef timed_properties[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot timed_slots[] = {
    {Py_tp_new, (void *)timed_new},
    {Py_tp_dealloc, (void *)timed_dealloc},
    {Py_tp_traverse, (void *)timed_traverse},
    {Py_tp_clear, (void *)timed_clear},
    {Py_tp_repr, (void *)timed_repr},
    {Py_tp_call, (void *)PyVectorcall_Call},
    {Py_tp_descr_get, (void *)timed_bind},
    {Py_tp_methods, timed_methods},
    {Py_tp_members, timed_members},
    {Py_tp_getset, timed_properties},
    {Py_tp_doc, (void *)"A callable that records each of its calls."},
    {0, NULL},
};

static PyType_Spec timed_spec = {
    .name = "cfctl._native.TimedFunction",
    .basicsize = sizeof(struct timed_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = timed_slots,
};

static int timed_add(PyObject *module) {
    PyTypeObject *type = cf_add_type(module, &timed_spec);
    Py_XDECREF((PyObject *)type);
    return type ? 0 : -1;
}

const struct cf_binding_topic cf_topic_timed_function = {NULL, timed_add};
