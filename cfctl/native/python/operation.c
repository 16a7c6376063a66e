/* Operation: a named operation with its context manager. */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "operation.h"
#include "span.h"

struct operation_object {
    PyObject_HEAD uint32_t instrument;
    int64_t ns_instrument; /* of the values given in ns; -1 until the first */
    PyObject *name;
    PyObject *labels; /* tuple of (key, value) */
    struct cf_module_state *state;
    PyObject *kept[2]; /* the bound methods of kept_methods */
};

int64_t cf_operation_id(struct cf_module_state *state, PyObject *operation) {
    if (!PyObject_TypeCheck(operation, state->operation_type)) {
        PyErr_SetString(PyExc_TypeError, "an Operation is needed");
        return -1;
    }
    return ((struct operation_object *)operation)->instrument;
}

struct cf_module_state *cf_operation_state(PyObject *operation) {
    return ((struct operation_object *)operation)->state;
}

struct cf_module_state *cf_find_state(PyTypeObject *type) {
    struct cf_module_state *state;
    while (type && !(state = PyType_GetModuleState(type))) {
        PyErr_Clear();
        type = PyType_GetSlot(type, Py_tp_base);
    }
    return type ? state : NULL;
}

/* Appends the UTF-8 of a text and, for labels, its NUL. -1 with an exception. */
static int append_text(PyObject *text, char *buffer, size_t *used, int terminated) {
    Py_ssize_t length;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &length);
    if (!utf8)
        return -1;
    if (memchr(utf8, '\0', (size_t)length)) {
        PyErr_SetString(PyExc_ValueError, "names and labels can not hold a NUL character");
        return -1;
    }
    if (*used + (size_t)length + 1 > CF_NAME_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a name or its labels take more than 1024 bytes");
        return -1;
    }
    memcpy(buffer + *used, utf8, (size_t)length);
    *used += (size_t)length;
    if (terminated)
        buffer[(*used)++] = '\0';
    return 0;
}

/* Writes labels as key NUL value NUL. -1 with an exception. */
static int append_labels(PyObject *labels, char *buffer, size_t *used) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(labels); i++) {
        PyObject *pair = PyTuple_GetItem(labels, i);
        if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "labels are (key, value) tuples of str");
            return -1;
        }
        if (append_text(PyTuple_GetItem(pair, 0), buffer, used, 1) < 0 ||
            append_text(PyTuple_GetItem(pair, 1), buffer, used, 1) < 0)
            return -1;
    }
    return 0;
}

/* Registers the instrument; its id, or -1 with an exception. */
static int64_t register_operation(const struct cf_kind *kind, PyObject *name, PyObject *labels) {
    char name_text[CF_NAME_BYTES], label_text[CF_NAME_BYTES];
    size_t name_bytes = 0, label_bytes = 0;
    if (append_text(name, name_text, &name_bytes, 0) < 0 ||
        append_labels(labels, label_text, &label_bytes) < 0)
        return -1;
    if (name_bytes == 0) {
        PyErr_SetString(PyExc_ValueError, "an operation needs a name");
        return -1;
    }
    int64_t id = cf_process_instrument(kind, name_text, (uint32_t)name_bytes, label_text,
                                       (uint32_t)label_bytes);
    if (id < 0)
        PyErr_NoMemory();
    return id;
}

static PyObject *operation_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"name", "labels", NULL};
    PyObject *name, *labels_in = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "U|O:Operation", names, &name, &labels_in))
        return NULL;
    PyObject *labels = labels_in ? PySequence_Tuple(labels_in) : PyTuple_New(0);
    if (!labels)
        return NULL;
    int64_t id = register_operation(&cf_kind_operation, name, labels);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct operation_object *self = id < 0 ? NULL : (void *)allocate(type, 0);
    if (!self) {
        Py_DECREF(labels);
        return NULL;
    }
    self->instrument = (uint32_t)id;
    self->ns_instrument = -1;
    self->state = cf_find_state(type);
    self->name = Py_NewRef(name);
    self->labels = labels;
    return (PyObject *)self;
}

static int operation_traverse(PyObject *object, visitproc visit, void *arg) {
    struct operation_object *self = (struct operation_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->labels);
    Py_VISIT(self->kept[0]);
    Py_VISIT(self->kept[1]);
    return 0;
}

static int operation_clear(PyObject *object) {
    struct operation_object *self = (struct operation_object *)object;
    Py_CLEAR(self->name);
    Py_CLEAR(self->labels);
    Py_CLEAR(self->kept[0]);
    Py_CLEAR(self->kept[1]);
    return 0;
}

static void operation_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    operation_clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *operation_repr(PyObject *object) {
    struct operation_object *self = (struct operation_object *)object;
    return PyUnicode_FromFormat("Operation(%R, %R)", self->name, self->labels);
}

static PyObject *operation_get_name(PyObject *object, void *closure) {
    (void)closure;
    return Py_NewRef(((struct operation_object *)object)->name);
}

static PyObject *operation_get_labels(PyObject *object, void *closure) {
    (void)closure;
    return Py_NewRef(((struct operation_object *)object)->labels);
}

static PyObject *operation_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    PyObject *self = Py_NewRef(object);
    cf_span_begin(&cf_thread, ((struct operation_object *)object)->instrument);
    return self;
}

static PyObject *operation_exit(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t end_tick = cf_ticks();
    cf_span_end(&cf_thread, ((struct operation_object *)object)->instrument, end_tick,
                count > 1 && args[1] != Py_None && cf_is_error(args[1]));
    Py_RETURN_NONE;
}

/* Reads (uint64, bool) positional arguments. 0, or -1 with an exception. */
static int read_sample(PyObject *const *args, Py_ssize_t count, uint64_t *ticks, int *failed) {
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "takes ticks and, optionally, whether it failed");
        return -1;
    }
    *ticks = PyLong_AsUnsignedLongLong(args[0]);
    if (*ticks == UINT64_MAX && PyErr_Occurred())
        return -1;
    *failed = count == 2 ? PyObject_IsTrue(args[1]) : 0;
    return *failed < 0 ? -1 : 0;
}

static PyObject *operation_record_ticks(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t ticks;
    int failed;
    if (read_sample(args, count, &ticks, &failed) < 0)
        return NULL;
    uint64_t end_tick = cf_ticks();
    uint64_t start_tick = ticks <= end_tick ? end_tick - ticks : 0;
    cf_operation_record(((struct operation_object *)object)->instrument, start_tick, end_tick,
                        failed);
    Py_RETURN_NONE;
}

static PyObject *operation_record_since(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t end_tick = cf_ticks();
    uint64_t start_tick;
    int failed;
    if (read_sample(args, count, &start_tick, &failed) < 0)
        return NULL;
    cf_operation_record(((struct operation_object *)object)->instrument, start_tick, end_tick,
                        failed);
    Py_RETURN_NONE;
}

/* Returns the instrument of values in ns, registered with the first of them; -1 with an exception.
 */
static int64_t ns_instrument(PyObject *object) {
    struct operation_object *self = (struct operation_object *)object;
    if (cf_unlikely(self->ns_instrument < 0))
        self->ns_instrument = register_operation(&cf_kind_operation_ns, self->name, self->labels);
    return self->ns_instrument;
}

static PyObject *operation_record(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t ns;
    int failed;
    int64_t id = ns_instrument(object);
    if (id < 0 || read_sample(args, count, &ns, &failed) < 0)
        return NULL;
    cf_operation_record_ns((uint32_t)id, ns, failed);
    Py_RETURN_NONE;
}

/* Reads the type of a buffer's values. -1 with an exception. */
static int value_type(const Py_buffer *view) {
    const char *format = view->format ? view->format : "B";
    if (*format == '@' || *format == '=' || *format == '<')
        format++;
    if (view->itemsize == 8 && format[0] != '\0' && format[1] == '\0') {
        if (format[0] == 'q' || format[0] == 'l')
            return CF_VALUE_I64;
        if (format[0] == 'Q' || format[0] == 'L')
            return CF_VALUE_U64;
        if (format[0] == 'd')
            return CF_VALUE_F64;
    }
    PyErr_SetString(PyExc_TypeError, "record_many takes a buffer of int64, uint64 or float64");
    return -1;
}

/* Records the values of a buffer; beyond a size the interpreter is left to others meanwhile. */
static int record_buffer(uint32_t instrument, const Py_buffer *view) {
    enum { LARGE = 4096 };
    int type = value_type(view);
    if (type < 0)
        return -1;
    size_t count = (size_t)view->len / 8;
    PyThreadState *released = count >= LARGE ? PyEval_SaveThread() : NULL;
    int valid = cf_values_are_durations(view->buf, count, type);
    if (valid)
        cf_operation_record_many(instrument, view->buf, count, type);
    if (released)
        PyEval_RestoreThread(released);
    if (!valid)
        PyErr_SetString(PyExc_ValueError, "a duration is negative, not a number or too large");
    return valid ? 0 : -1;
}

static PyObject *operation_record_many(PyObject *object, PyObject *values) {
    int64_t id = ns_instrument(object);
    Py_buffer view;
    if (id < 0 || PyObject_GetBuffer(values, &view, PyBUF_ND | PyBUF_FORMAT) < 0)
        return NULL;
    int result = record_buffer((uint32_t)id, &view);
    PyBuffer_Release(&view);
    if (result < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef kept_methods[] = {
    {"__enter__", operation_enter, METH_NOARGS, "Begin a sample on this thread."},
    {"__exit__", CF_FASTCALL(operation_exit), METH_FASTCALL, "End the sample; errors are counted."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef operation_methods[] = {
    {"record_ticks", CF_FASTCALL(operation_record_ticks), METH_FASTCALL,
     "Add a sample of so many ticks that ends now."},
    {"record_since", CF_FASTCALL(operation_record_since), METH_FASTCALL,
     "Add a sample that began at a tick and ends now."},
    {"record", CF_FASTCALL(operation_record), METH_FASTCALL,
     "Add a sample of so many nanoseconds that ends now."},
    {"record_many", operation_record_many, METH_O,
     "Add a buffer of durations in nanoseconds that end now."},
    {"begin", CF_FASTCALL(cf_span_begin_handle), METH_FASTCALL,
     "Return a handle that was begun; its end() records."},
    {"span", CF_FASTCALL(cf_span_new_handle), METH_FASTCALL,
     "Return a context manager that may be left on another thread or task."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef operation_properties[] = {
    {"name", operation_get_name, NULL, "Its name.", NULL},
    {"labels", operation_get_labels, NULL, "Its labels, (key, value) pairs.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot operation_slots[] = {
    {Py_tp_new, (void *)operation_new},
    {Py_tp_dealloc, (void *)operation_dealloc},
    {Py_tp_traverse, (void *)operation_traverse},
    {Py_tp_clear, (void *)operation_clear},
    {Py_tp_repr, (void *)operation_repr},
    {Py_tp_methods, operation_methods},
    {Py_tp_getset, operation_properties},
    {Py_tp_doc, (void *)"A named operation of this process."},
    {0, NULL},
};

static PyType_Spec operation_spec = {
    .name = "cfctl._native.Operation",
    .basicsize = sizeof(struct operation_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = operation_slots,
};

static int operation_add(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->operation_type = cf_add_type(module, &operation_spec);
    if (!state->operation_type)
        return -1;
    Py_ssize_t kept = offsetof(struct operation_object, kept);
    return cf_keep_methods(state->operation_type, kept_methods, kept);
}

const struct cf_binding_topic cf_topic_operation = {NULL, operation_add};
