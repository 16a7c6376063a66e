/* Monitor: times functions that nobody edited, chosen by a Python callback once per code object. */
#include "monitor.h"

#include <stdlib.h>

#include "owner.h"
#include "span.h"

static size_t slot_of(const struct cf_known_code *table, size_t capacity, const PyObject *code) {
    /* Fibonacci hashing; objects are 16-byte aligned, so the low bits say nothing. */
    size_t slot = (size_t)(((uintptr_t)code >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 20);
    for (slot &= capacity - 1; table[slot].code && table[slot].code != code;)
        slot = (slot + 1) & (capacity - 1);
    return slot;
}

int cf_monitor_find(struct cf_monitor *self, PyObject *code, struct cf_known_code *found) {
    CF_LOCK(self);
    *found = self->table[slot_of(self->table, self->capacity, code)];
    CF_UNLOCK(self);
    return found->code != NULL && found->instrument != CF_LEFT_ALONE;
}

/* Returns the instrument of a plain function that is timed, which is what almost all events are of;
 * CF_LEFT_ALONE for all else. */
static inline int64_t plain_function(struct cf_monitor *self, PyObject *code) {
    CF_LOCK(self);
    const struct cf_known_code *known = &self->table[slot_of(self->table, self->capacity, code)];
    int64_t instrument =
        known->code && known->sort == CF_FUNCTION ? known->instrument : CF_LEFT_ALONE;
    CF_UNLOCK(self);
    return instrument;
}

static int grow(struct cf_monitor *self) {
    size_t capacity = self->capacity * 2;
    struct cf_known_code *table = calloc(capacity, sizeof *table);
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

static int remember(struct cf_monitor *self, const struct cf_known_code *code) {
    CF_LOCK(self);
    int result = self->used * 2 < self->capacity ? 0 : grow(self);
    if (result == 0) {
        struct cf_known_code *slot = &self->table[slot_of(self->table, self->capacity, code->code)];
        if (!slot->code) {
            Py_INCREF(code->code);
            self->used++;
        }
        *slot = *code;
    }
    CF_UNLOCK(self);
    if (result < 0)
        PyErr_NoMemory();
    return result;
}

/* Reads the sort of a code object. -1 with an exception. */
static int sort_of(PyObject *code) {
    PyObject *number = PyObject_GetAttrString(code, "co_flags");
    long flags = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if (flags == -1)
        return -1;
    return flags & 0x20    ? CF_GENERATOR
           : flags & 0x80  ? CF_COROUTINE
           : flags & 0x200 ? CF_ASYNC_GENERATOR
                           : 0;
}

int cf_monitor_ask(struct cf_monitor *self, PyObject *code, struct cf_known_code *known) {
    *known = (struct cf_known_code){.code = code, .instrument = CF_LEFT_ALONE, .sort = CF_FUNCTION};
    PyObject *globals = PyEval_GetGlobals();
    PyObject *module_name = globals ? PyDict_GetItemString(globals, "__name__") : NULL;
    if (!module_name || !PyUnicode_Check(module_name))
        return remember(self, known);
    PyObject *operation = PyObject_CallFunctionObjArgs(self->match, code, module_name, NULL);
    if (!operation)
        return -1;
    if (operation != Py_None) {
        int sort = sort_of(code);
        known->instrument = cf_operation_id(cf_type_state(Py_TYPE((PyObject *)self)), operation);
        known->sort = (enum cf_sort)sort;
    }
    Py_DECREF(operation);
    if (PyErr_Occurred())
        return -1;
    return remember(self, known);
}

/* Whether somebody outside has switched instrumentation off for now; three loads. */
static inline int is_paused(void) {
    const struct cf_segment_header *header = cf_load_acquire(&cf_owner()->open_header);
    return header && (cf_load_relaxed(&header->control) & CF_CONTROL_PAUSED);
}

void cf_monitor_begin_unrecorded(uint32_t instrument, const void *frame) {
    struct cf_span *span = cf_span_push(&cf_thread, instrument, frame);
    if (span)
        span->what |= CF_SPAN_UNRECORDED;
}

/* Returns the span that was begun, NULL for one that is not recorded or found no room. */
static inline struct cf_span *begin(uint32_t instrument, const void *frame) {
    if (cf_unlikely(is_paused())) {
        cf_monitor_begin_unrecorded(instrument, frame);
        return NULL;
    }
    struct cf_span *span = cf_span_push(cf_this_thread(), instrument, frame);
    if (cf_likely(span != NULL))
        span->start_tick = cf_ticks();
    return span;
}

void cf_monitor_begin(const struct cf_known_code *known, const void *frame) {
    begin((uint32_t)known->instrument, frame);
}

void cf_monitor_end(const struct cf_known_code *known, const void *frame, int failed) {
    uint64_t end_tick = cf_ticks();
    struct cf_span span;
    if (known->sort == CF_FUNCTION)
        cf_span_end(&cf_thread, (uint32_t)known->instrument, end_tick, failed);
    else if (cf_span_take(&cf_thread, (uint32_t)known->instrument, frame, &span) &&
             !(span.what & CF_SPAN_UNRECORDED))
        cf_span_record(&cf_thread, &span, end_tick, failed);
}

/* The frame that the callback was called from; it stays the same from step to step. */
static const void *current_frame(const struct cf_known_code *known) {
    return known->sort == CF_FUNCTION ? NULL : (const void *)PyEval_GetFrame();
}

/* The first step of a generator or coroutine, or what is seen for the first time or left alone. */
static PyObject *start_other(struct cf_monitor *self, PyObject *code) {
    struct cf_known_code known;
    if (!cf_monitor_find(self, code, &known)) {
        if (!known.code && cf_monitor_ask(self, code, &known) < 0)
            return NULL;
        if (known.instrument == CF_LEFT_ALONE)
            return Py_NewRef(self->disable);
    }
    if (known.sort == CF_FUNCTION)
        cf_monitor_begin(&known, NULL);
    else
        cf_monitor_begin_suspending(self, &known, current_frame(&known));
    Py_RETURN_NONE;
}

static PyObject *monitor_start(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct cf_monitor *self = (struct cf_monitor *)object;
    if (count < 1)
        Py_RETURN_NONE;
    int64_t instrument = plain_function(self, args[0]);
    if (cf_unlikely(instrument == CF_LEFT_ALONE))
        return start_other(self, args[0]);
    struct cf_span *span = begin((uint32_t)instrument, NULL);
    if (cf_likely(span != NULL))
        span->key = args[0];
    Py_RETURN_NONE;
}

static void finish_other(struct cf_monitor *self, PyObject *code) {
    struct cf_known_code known;
    if (cf_monitor_find(self, code, &known))
        cf_monitor_end(&known, current_frame(&known), 0);
}

static PyObject *monitor_finish(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    uint64_t end_tick = cf_ticks();
    struct cf_monitor *self = (struct cf_monitor *)object;
    if (count < 1)
        Py_RETURN_NONE;
    struct cf_thread *thread = cf_this_thread();
    /* A span that was begun for this code is the one to end: no need to look the code up again. */
    if (cf_likely(thread->depth > 0 && thread->overflow == 0 &&
                  thread->spans[thread->depth - 1].key == args[0])) {
        thread->depth--;
        cf_span_record(thread, &thread->spans[thread->depth], end_tick, 0);
        Py_RETURN_NONE;
    }
    int64_t instrument = plain_function(self, args[0]);
    if (instrument != CF_LEFT_ALONE)
        cf_span_end(thread, (uint32_t)instrument, end_tick, 0);
    else
        finish_other(self, args[0]);
    Py_RETURN_NONE;
}

static PyObject *monitor_unwind(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct cf_known_code known;
    if (count > 2 && cf_monitor_find((struct cf_monitor *)object, args[0], &known)) {
        int closed = (known.sort == CF_GENERATOR || known.sort == CF_ASYNC_GENERATOR) &&
                     PyErr_GivenExceptionMatches(args[2], PyExc_GeneratorExit);
        cf_monitor_end(&known, current_frame(&known), !closed && cf_is_error(args[2]));
    }
    Py_RETURN_NONE;
}

static PyObject *monitor_suspend(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct cf_monitor *self = (struct cf_monitor *)object;
    struct cf_known_code known;
    if (count > 2 && cf_monitor_find(self, args[0], &known) && known.sort != CF_FUNCTION)
        cf_monitor_suspend(self, &known, current_frame(&known), args[2]);
    Py_RETURN_NONE;
}

static PyObject *monitor_resume(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct cf_monitor *self = (struct cf_monitor *)object;
    struct cf_known_code known;
    if (count > 0 && cf_monitor_find(self, args[0], &known) && known.sort != CF_FUNCTION)
        cf_monitor_resume(self, &known, current_frame(&known));
    Py_RETURN_NONE;
}

static PyObject *monitor_flush(PyObject *object, PyObject *unused) {
    (void)unused;
    cf_monitor_flush((struct cf_monitor *)object);
    Py_RETURN_NONE;
}

static PyObject *monitor_forked(PyObject *object, PyObject *unused) {
    (void)unused;
    ((struct cf_monitor *)object)->forked_tick = cf_ticks();
    Py_RETURN_NONE;
}

static PyObject *monitor_install(PyObject *object, PyObject *unused) {
    (void)unused;
#if CF_PROFILE_FUNCTION
    PyEval_SetProfile(cf_profile_event, object);
    Py_RETURN_NONE;
#else
    (void)object;
    PyErr_SetString(PyExc_RuntimeError, "use sys.monitoring with start, finish, ...");
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
    struct cf_monitor *self = (void *)allocate(type, 0);
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
    struct cf_monitor *self = (struct cf_monitor *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->match);
    return 0;
}

static int monitor_clear(PyObject *object) {
    struct cf_monitor *self = (struct cf_monitor *)object;
    Py_CLEAR(self->match);
    Py_CLEAR(self->disable);
    return 0;
}

static void monitor_dealloc(PyObject *object) {
    struct cf_monitor *self = (struct cf_monitor *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    monitor_clear(object);
    for (size_t i = 0; i < self->capacity; i++)
        Py_XDECREF(self->table[i].code);
    free(self->table);
    cf_parked_free(&self->parked);
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
    {"suspend", CF_FASTCALL(monitor_suspend), METH_FASTCALL, "PY_YIELD."},
    {"resume", CF_FASTCALL(monitor_resume), METH_FASTCALL, "PY_RESUME and PY_THROW."},
    {"flush", monitor_flush, METH_NOARGS, "Record the generators that did not come to an end."},
    {"forked", monitor_forked, METH_NOARGS, "This process was just forked off."},
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
    .basicsize = sizeof(struct cf_monitor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = monitor_slots,
};

static int monitor_add(PyObject *module) {
    PyTypeObject *type = cf_add_type(module, &monitor_spec);
    Py_XDECREF((PyObject *)type);
    return type ? 0 : -1;
}

const struct cf_binding_topic cf_topic_monitor = {NULL, monitor_add};
