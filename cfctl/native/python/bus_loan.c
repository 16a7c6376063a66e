/* Loan: a message's place in the ring, to be written into. */
#include "bus_publisher_object.h"

#include <errno.h>

#include "bus.h"
#include "tick.h"

enum { LOAN_NEW, LOAN_OPEN, LOAN_PUBLISHED, LOAN_ABANDONED };

struct loan_object {
    PyObject_HEAD struct publisher_object *publisher;
    void *memory;
    PyObject *view; /* the memoryview that was given out */
    size_t size;
    unsigned long long id; /* 0 = not published */
    Py_ssize_t exports;    /* the memoryview and all that was made of it count as one */
    int state;
};

PyObject *cf_bus_publisher_loan(PyObject *object, PyObject *argument) {
    struct publisher_object *publisher = (struct publisher_object *)object;
    Py_ssize_t size = PyLong_AsSsize_t(argument);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (size < 0)
        return cf_raise_error("InputError", "Nothing was lent.", "A payload has 0 bytes or more.",
                              "Give its size in bytes.");
    if (!cf_bus_is_publishing(publisher))
        return NULL;
    struct loan_object *self = (void *)PyType_GenericAlloc(publisher->state->loan_type, 0);
    if (!self)
        return NULL;
    self->publisher = (void *)Py_NewRef(object);
    self->size = (size_t)size;
    return (PyObject *)self;
}

/* Gives the publisher free again, which may have been closed meanwhile. */
static void end(struct loan_object *self, int state) {
    struct publisher_object *publisher = self->publisher;
    self->state = state;
    publisher->blocked &= ~(uint32_t)CF_PUBLISHER_LOANED;
    if (--publisher->busy == 0 && publisher->blocked & CF_PUBLISHER_CLOSING)
        cf_bus_shut_publisher(publisher);
}

static void abandon(struct loan_object *self) {
    cf_ring_abandon(&self->publisher->publisher.writer);
    end(self, LOAN_ABANDONED);
}

static PyObject *loan_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    struct loan_object *self = (struct loan_object *)object;
    struct publisher_object *publisher = self->publisher;
    if (self->state != LOAN_NEW)
        return cf_raise_error("StateError", "Nothing was lent.", "The loan has ended.",
                              "Take another: publisher.loan(size).");
    if (!cf_bus_is_publishing(publisher))
        return NULL;
    int error = cf_ring_loan(&publisher->publisher.writer, self->size, &self->memory);
    if (error != 0)
        return cf_bus_raise_unpublished(publisher, error, self->size);
    publisher->blocked |= CF_PUBLISHER_LOANED;
    publisher->busy++;
    self->state = LOAN_OPEN;
    self->view = PyMemoryView_FromObject(object);
    if (!self->view)
        abandon(self);
    return Py_XNewRef(self->view);
}

/* Takes the memory back from the program. 0, or -1 with an exception when it is still used. */
static int recall(struct loan_object *self) {
    PyObject *result = PyObject_CallMethod(self->view, "release", NULL);
    Py_XDECREF(result);
    /* A slice of the memoryview does not keep that from being released, but would write into what
     * is published, or unmapped. */
    if (!result || self->exports > 0) {
        PyErr_Clear();
        cf_raise_error("StateError", "The loan was not published.",
                       "A memoryview or array of it is still in use.",
                       "Release it before the `with publisher.loan(...)` block ends.");
        return -1;
    }
    Py_CLEAR(self->view);
    return 0;
}

static PyObject *loan_exit(PyObject *object, PyObject *args) {
    struct loan_object *self = (struct loan_object *)object;
    struct publisher_object *publisher = self->publisher;
    PyObject *type = PyTuple_Size(args) > 0 ? PyTuple_GetItem(args, 0) : Py_None;
    if (self->state != LOAN_OPEN || recall(self) < 0)
        return self->state == LOAN_OPEN ? NULL : Py_NewRef(Py_False);
    if (type != Py_None || publisher->blocked & CF_PUBLISHER_CLOSING) {
        int closed = type == Py_None;
        abandon(self);
        return closed ? cf_bus_raise_blocked(publisher) : Py_NewRef(Py_False);
    }
    struct cf_ring_writer *writer = &publisher->publisher.writer;
    uint64_t tick = cf_ticks();
    uint64_t hlc = cf_hlc_node_tick(&cf_hlc_process, cf_hlc_node_now(&cf_hlc_process, tick));
    cf_ring_commit(writer, self->size, tick, hlc);
    cf_bus_published(publisher, 1, self->size, tick);
    self->id = cf_bus_message_id(writer->publisher, writer->tail);
    end(self, LOAN_PUBLISHED);
    Py_RETURN_FALSE;
}

static int loan_get_buffer(PyObject *object, Py_buffer *view, int flags) {
    struct loan_object *self = (struct loan_object *)object;
    if (self->state != LOAN_OPEN) {
        PyErr_SetString(PyExc_BufferError, "the loan has ended");
        return -1;
    }
    int error = PyBuffer_FillInfo(view, object, self->memory, (Py_ssize_t)self->size, 0, flags);
    self->exports += error == 0;
    return error;
}

static void loan_release_buffer(PyObject *object, Py_buffer *view) {
    (void)view;
    ((struct loan_object *)object)->exports--;
}

static PyObject *loan_get_id(PyObject *object, void *closure) {
    (void)closure;
    struct loan_object *self = (struct loan_object *)object;
    if (self->id == 0)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(self->id);
}

static int loan_traverse(PyObject *object, visitproc visit, void *arg) {
    struct loan_object *self = (struct loan_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->view);
    Py_VISIT((PyObject *)self->publisher);
    return 0;
}

static int loan_clear(PyObject *object) {
    Py_CLEAR(((struct loan_object *)object)->view);
    return 0;
}

static void loan_dealloc(PyObject *object) {
    struct loan_object *self = (struct loan_object *)object;
    PyObject_GC_UnTrack(object);
    Py_CLEAR(self->view);
    if (self->state == LOAN_OPEN)
        abandon(self);
    Py_XDECREF((PyObject *)self->publisher);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMethodDef loan_methods[] = {
    {"__enter__", loan_enter, METH_NOARGS, "Return the memory as a memoryview."},
    {"__exit__", loan_exit, METH_VARARGS, "Publish it; give it back on an exception."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef loan_properties[] = {
    {"id", loan_get_id, NULL, "The message's id; None until it is published.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot loan_slots[] = {
    {Py_tp_doc, (void *)"A message's place in the ring, made by Publisher.loan."},
    {Py_tp_dealloc, (void *)loan_dealloc},
    {Py_tp_traverse, (void *)loan_traverse},
    {Py_tp_clear, (void *)loan_clear},
    {Py_tp_methods, loan_methods},
    {Py_tp_getset, loan_properties},
    {Py_bf_getbuffer, (void *)loan_get_buffer},
    {Py_bf_releasebuffer, (void *)loan_release_buffer},
    {0, NULL},
};

static PyType_Spec loan_spec = {
    .name = "cfctl.bus.Loan",
    .basicsize = sizeof(struct loan_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = loan_slots,
};

int cf_add_bus_loan(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->loan_type = cf_add_type(module, &loan_spec);
    return state->loan_type ? 0 : -1;
}
