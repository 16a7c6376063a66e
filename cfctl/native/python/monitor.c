/* Monitor: times functions that nobody edited, chosen by a Python callback once per code object. */
#include "binding.h"

#include <pthread.h>
#include <stdlib.h>

#include "span.h"

/* CPython 3.11 has no sys.monitoring; its profile function is in the full API only. */
#if !defined(Py_LIMITED_API) && PY_VERSION_HEX < 0x030c0000
#define CF_PROFILE_FUNCTION 1
#include <frameobject.h>
#else
#define CF_PROFILE_FUNCTION 0
#endif

#define LEFT_ALONE (-1)

struct known_code {
    PyObject *code; /* NULL = free; held, so that its address is not used again */
    int64_t instrument;
};

struct monitor_object {
    PyObject_HEAD PyObject *match;
    PyObject *disable; /* sys.monitoring.DISABLE, None before 3.12 */
    struct known_code *table;
    size_t capacity; /* a power of two */
    size_t used;
#ifdef Py_GIL_DISABLED
    pthread_mutex_t lock;
#endif
};

#ifdef Py_GIL_DISABLED
#define LOCK(self) pthread_mutex_lock(&(self)->lock)
#define UNLOCK(self) pthread_mutex_unlock(&(self)->lock)
#else
#define LOCK(self) ((void)0)
#define UNLOCK(self) ((void)0)
#endif

static size_t slot_of(const struct known_code *table, size_t capacity, const PyObject *code) {
    /* Fibonacci hashing; objects are 16-byte aligned, so the low bits say nothing. */
    size_t slot = (size_t)(((uintptr_t)code >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 20);
    for (slot &= capacity - 1; table[slot].code && table[slot].code != code;)
        slot = (slot + 1) & (capacity - 1);
    return slot;
}

/* Returns whether the code object is known, and its instrument or LEFT_ALONE. */
static int find(struct monitor_object *self, PyObject *code, int64_t *instrument) {
    LOCK(self);
    const struct known_code *known = &self->table[slot_of(self->table, self->capacity, code)];
    int found = known->code != NULL;
    *instrument = known->instrument;
    UNLOCK(self);
    return found;
}

static int grow(struct monitor_object *self) {
    size_t capacity = self->capacity * 2;
    struct known_code *table = calloc(capacity, sizeof *table);
    if (!table)
        return -1;
    for (size_t i = 0; i < self->capacity; i++) {
        if (self->table[i].code)
            table[slot_of(table, capacity, self->table[i].code)] = self->table[i];
    }
    free(self->table);
    self->table = table;
    self->capacity = capacity;
    return 0;
}

static int remember(struct monitor_object *self, PyObject *code, int64_t instrument) {
    LOCK(self);
    int result = self->used * 2 < self->capacity ? 0 : grow(self);
    if (result == 0) {
        struct known_code *known = &self->table[slot_of(self->table, self->capacity, code)];
        if (!known->code) {
            known->code = Py_NewRef(code);
            self->used++;
        }
        known->instrument = instrument;
    }
    UNLOCK(self);
    if (result < 0)
        PyErr_NoMemory();
    return result;
}

/* Asks `match` for a code object seen for the first time. 0, or -1 with an exception. */
static int ask(struct monitor_object *self, PyObject *code, int64_t *instrument) {
    PyObject *globals = PyEval_GetGlobals();
    PyObject *module_name = globals ? PyDict_GetItemString(globals, "__name__") : NULL;
    if (!module_name || !PyUnicode_Check(module_name)) {
        *instrument = LEFT_ALONE;
        return remember(self, code, LEFT_ALONE);
    }
    PyObject *operation = PyObject_CallFunctionObjArgs(self->match, code, module_name, NULL);
    if (!operation)
        return -1;
    *instrument = LEFT_ALONE;
    if (operation != Py_None)
        *instrument = cf_operation_id(cf_type_state(Py_TYPE((PyObject *)self)), operation);
    Py_DECREF(operation);
    if (PyErr_Occurred())
        return -1;
    return remember(self, code, *instrument);
}

static PyObject *monitor_start(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct monitor_object *self = (struct monitor_object *)object;
    int64_t instrument;
    if (count < 1)
        Py_RETURN_NONE;
    if (!find(self, args[0], &instrument) && ask(self, args[0], &instrument) < 0)
        return NULL;
    if (instrument == LEFT_ALONE)
        return Py_NewRef(self->disable);
    cf_span_begin(&cf_thread, (uint32_t)instrument);
    Py_RETURN_NONE;
}

static PyObject *end_span(PyObject *object, PyObject *const *args, Py_ssize_t count, int failed) {
    int64_t instrument;
    if (count > 0 && find((struct monitor_object *)object, args[0], &instrument) &&
        instrument != LEFT_ALONE)
        cf_span_end(&cf_thread, (uint32_t)instrument, cf_ticks(), failed);
    Py_RETURN_NONE;
}

static PyObject *monitor_finish(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    return end_span(object, args, count, 0);
}

static PyObject *monitor_unwind(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    return end_span(object, args, count, 1);
}

#if CF_PROFILE_FUNCTION
static int profile_event(PyObject *object, PyFrameObject *frame, int event, PyObject *value) {
    if (event != PyTrace_CALL && event != PyTrace_RETURN)
        return 0;
    struct monitor_object *self = (struct monitor_object *)object;
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    int64_t instrument = LEFT_ALONE;
    int result = 0;
    if (!find(self, code, &instrument)) {
        /* A frame that was entered before the monitor was installed returns unknown: ignored. */
        instrument = LEFT_ALONE;
        if (event == PyTrace_CALL)
            result = ask(self, code, &instrument);
    }
    Py_DECREF(code);
    if (result == 0 && instrument != LEFT_ALONE) {
        if (event == PyTrace_CALL)
            cf_span_begin(&cf_thread, (uint32_t)instrument);
        else /* an exception leaves without a value */
            cf_span_end(&cf_thread, (uint32_t)instrument, cf_ticks(), value == NULL);
    }
    return result;
}
#endif

static PyObject *monitor_install(PyObject *object, PyObject *unused) {
    (void)unused;
#if CF_PROFILE_FUNCTION
    PyEval_SetProfile(profile_event, object);
    Py_RETURN_NONE;
#else
    (void)object;
    PyErr_SetString(PyExc_RuntimeError, "use sys.monitoring with start, finish and unwind");
    return NULL;
#endif
}

static PyObject *monitor_uninstall(PyObject *object, PyObject *unused) {
    (void)object, (void)unused;
#if CF_PROFILE_FUNCTION
    PyEval_SetProfile(NULL, NULL);
#endif
    Py_RETURN_NONE;
}

/* Returns sys.monitoring.DISABLE, or None where there is no sys.monitoring. */
static PyObject *find_disable(void) {
    PyObject *monitoring = PySys_GetObject("monitoring");
    return monitoring ? PyObject_GetAttrString(monitoring, "DISABLE") : Py_NewRef(Py_None);
}

static PyObject *monitor_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    enum { FIRST_CAPACITY = 1024 };
    static char *names[] = {"match", NULL};
    PyObject *match;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O:Monitor", names, &match))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct monitor_object *self = (void *)allocate(type, 0);
    if (!self)
        return NULL;
#ifdef Py_GIL_DISABLED
    pthread_mutex_init(&self->lock, NULL);
#endif
    self->match = Py_NewRef(match);
    self->disable = find_disable();
    self->table = calloc(FIRST_CAPACITY, sizeof *self->table);
    self->capacity = self->table ? FIRST_CAPACITY : 0;
    if (self->table && self->disable)
        return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

static int monitor_traverse(PyObject *object, visitproc visit, void *arg) {
    struct monitor_object *self = (struct monitor_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->match);
    return 0;
}

static int monitor_clear(PyObject *object) {
    struct monitor_object *self = (struct monitor_object *)object;
    Py_CLEAR(self->match);
    Py_CLEAR(self->disable);
    return 0;
}

static void monitor_dealloc(PyObject *object) {
    struct monitor_object *self = (struct monitor_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    monitor_clear(object);
    for (size_t i = 0; i < self->capacity; i++)
        Py_XDECREF(self->table[i].code);
    free(self->table);
#ifdef Py_GIL_DISABLED
    pthread_mutex_destroy(&self->lock);
#endif
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef monitor_methods[] = {
    {"start", CF_FASTCALL(monitor_start), METH_FASTCALL, "PY_START."},
    {"finish", CF_FASTCALL(monitor_finish), METH_FASTCALL, "PY_RETURN."},
    {"unwind", CF_FASTCALL(monitor_unwind), METH_FASTCALL, "PY_UNWIND."},
    {"install", monitor_install, METH_NOARGS, "Set the calling thread's profile function (3.11)."},
    {"uninstall", monitor_uninstall, METH_NOARGS, "Remove it."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot monitor_slots[] = {
    {Py_tp_new, (void *)monitor_new},
    {Py_tp_dealloc, (void *)monitor_dealloc},
    {Py_tp_traverse, (void *)monitor_traverse},
    {Py_tp_clear, (void *)monitor_clear},
    {Py_tp_methods, monitor_methods},
    {Py_tp_doc, (void *)"Times functions chosen by a callback."},
    {0, NULL},
};

static PyType_Spec monitor_spec = {
    .name = "cfctl._native.Monitor",
    .basicsize = sizeof(struct monitor_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = monitor_slots,
};

static int monitor_add(PyObject *module) {
    PyTypeObject *type = cf_add_type(module, &monitor_spec);
    Py_XDECREF(type);
    return type ? 0 : -1;
}

const struct cf_binding_topic cf_topic_monitor = {NULL, monitor_add};
