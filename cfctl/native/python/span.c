/* Span: one sample of an operation that carries its own start, so that tasks and threads may
 * interleave. It is on no thread's stack: it has no parent and no children. */
#include "binding.h"

#include "operation.h"
#include "tick.h"

struct span_object {
    PyObject_HEAD PyObject *operation;
    uint64_t start_tick;
    uint32_t instrument;
    int running;
};

static struct span_object *make_span(PyObject *operation, Py_ssize_t count) {
    if (count != 0) {
        PyErr_SetString(PyExc_TypeError, "takes no arguments");
        return NULL;
    }
    struct cf_module_state *state = cf_operation_state(operation);
    int64_t id = state ? cf_operation_id(state, operation) : -1;
    struct span_object *self =
        id < 0 ? NULL : PyObject_GC_New(struct span_object, state->span_type);
    if (!self)
        return NULL;
    self->operation = Py_NewRef(operation);
    self->instrument = (uint32_t)id;
    self->running = 0;
    self->start_tick = 0;
    PyObject_GC_Track((PyObject *)self);
    return self;
}

static void start(struct span_object *self) {
    self->running = 1;
    /* A thread's first sample must not hold the making of its shard. */
    (void)cf_process_payload(&cf_thread, self->instrument);
    self->start_tick = cf_ticks();
}

/* Records; ending twice is a mistake that must be seen. -1 with an exception. */
static int finish(struct span_object *self, uint64_t end_tick, int failed) {
    if (!self->running) {
        PyErr_SetString(PyExc_RuntimeError, "the span is not running: it was not begun, or ended");
        return -1;
    }
    self->running = 0;
    cf_operation_record(self->instrument, self->start_tick, end_tick, failed);
    return 0;
}

PyObject *cf_span_begin_handle(PyObject *operation, PyObject *const *args, Py_ssize_t count) {
    (void)args;
    struct span_object *self = make_span(operation, count);
    if (self)
        start(self);
    return (PyObject *)self;
}

PyObject *cf_span_new_handle(PyObject *operation, PyObject *const *args, Py_ssize_t count) {
    (void)args;
    return (PyObject *)make_span(operation, count);
}

static PyObject *span_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    struct span_object *self = (struct span_object *)object;
    if (self->running) {
        PyErr_SetString(PyExc_RuntimeError, "the span is running: take a new one for each block");
        return NULL;
    }
    PyObject *result = Py_NewRef(object);
    start(self);
    return result;
}

static PyObject *span_exit(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t end_tick = cf_ticks();
    int failed = count > 1 && args[1] != Py_None && cf_is_error(args[1]);
    if (finish((struct span_object *)object, end_tick, failed) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *span_end(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t end_tick = cf_ticks();
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "takes, optionally, whether it failed");
        return NULL;
    }
    int failed = count == 1 ? PyObject_IsTrue(args[0]) : 0;
    if (failed < 0 || finish((struct span_object *)object, end_tick, failed) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int span_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct span_object *)object)->operation);
    return 0;
}

static void span_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_CLEAR(((struct span_object *)object)->operation);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMethodDef span_methods[] = {
    {"__enter__", span_enter, METH_NOARGS, "Begin."},
    {"__exit__", CF_FASTCALL(span_exit), METH_FASTCALL, "End; errors are counted."},
    {"end", CF_FASTCALL(span_end), METH_FASTCALL, "End, optionally as failed."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot span_slots[] = {
    {Py_tp_dealloc, (void *)span_dealloc},
    {Py_tp_traverse, (void *)span_traverse},
    {Py_tp_methods, span_methods},
    {Py_tp_doc, (void *)"One sample of an operation; made by Operation.begin and Operation.span."},
    {0, NULL},
};

static PyType_Spec span_spec = {
    .name = "cfctl._native.Span",
    .basicsize = sizeof(struct span_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = span_slots,
};

static int span_add(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->span_type = cf_add_type(module, &span_spec);
    return state->span_type ? 0 : -1;
}

const struct cf_binding_topic cf_topic_span = {NULL, span_add};
