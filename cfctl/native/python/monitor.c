/* Monitor: times functions that nobody edited, chosen by a Python callback once per code object. */
#include "binding.h"

#include <pthread.h>
#include <stdlib.h>

#include "parked.h"
#include "span.h"

/* CPython 3.11 has no sys.monitoring; its profile function is in the full API only. */
#if !defined(Py_LIMITED_API) && PY_VERSION_HEX < 0x030c0000
#define CF_PROFILE_FUNCTION 1
#include <frameobject.h>
#include <opcode.h>
#else
#define CF_PROFILE_FUNCTION 0
#endif

#define LEFT_ALONE (-1)

/* What a call of the code makes, from its flags (inspect.CO_*). */
enum sort { FUNCTION, GENERATOR, COROUTINE, ASYNC_GENERATOR };

struct known_code {
    PyObject *code; /* NULL = free; held, so that its address is not used again */
    int64_t instrument;
    enum sort sort;
};

struct monitor_object {
    PyObject_HEAD PyObject *match;
    PyObject *disable; /* sys.monitoring.DISABLE, None before 3.12 */
    struct known_code *table;
    size_t capacity; /* a power of two */
    size_t used;
    struct cf_parked_table parked;
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

/* Returns whether the code object is known and timed, and fills in what is known. */
static int find(struct monitor_object *self, PyObject *code, struct known_code *found) {
    LOCK(self);
    *found = self->table[slot_of(self->table, self->capacity, code)];
    UNLOCK(self);
    return found->code != NULL && found->instrument != LEFT_ALONE;
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

static int remember(struct monitor_object *self, const struct known_code *code) {
    LOCK(self);
    int result = self->used * 2 < self->capacity ? 0 : grow(self);
    if (result == 0) {
        struct known_code *slot = &self->table[slot_of(self->table, self->capacity, code->code)];
        if (!slot->code) {
            Py_INCREF(code->code);
            self->used++;
        }
        *slot = *code;
    }
    UNLOCK(self);
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
    return flags & 0x20    ? GENERATOR
           : flags & 0x80  ? COROUTINE
           : flags & 0x200 ? ASYNC_GENERATOR
                           : 0;
}

/* Asks `match` for a code object seen for the first time. 0, or -1 with an exception. */
static int ask(struct monitor_object *self, PyObject *code, struct known_code *known) {
    *known = (struct known_code){.code = code, .instrument = LEFT_ALONE, .sort = FUNCTION};
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
        known->sort = (enum sort)sort;
    }
    Py_DECREF(operation);
    if (PyErr_Occurred())
        return -1;
    return remember(self, known);
}

/* Whether somebody outside has switched instrumentation off for now; one load. */
static int is_paused(void) {
    const struct cf_segment_header *header = cf_process_header();
    return header && (cf_load_relaxed(&header->control) & CF_CONTROL_PAUSED);
}

static void begin_unrecorded(uint32_t instrument, const void *frame) {
    struct cf_span *span = cf_span_push(&cf_thread, instrument, frame);
    if (span)
        span->unrecorded = 1;
}

/* A call begins; `frame` is NULL for a plain function. While paused the span is there, so that its
 * end finds it, and is not recorded. */
static void begin(const struct known_code *known, const void *frame) {
    uint32_t instrument = (uint32_t)known->instrument;
    if (cf_unlikely(is_paused())) {
        begin_unrecorded(instrument, frame);
        return;
    }
    struct cf_span *span = cf_span_push(&cf_thread, instrument, frame);
    if (cf_likely(span != NULL))
        span->start_tick = cf_ticks();
}

static int take_parked(struct monitor_object *self, const void *frame, struct cf_parked *parked) {
    LOCK(self);
    int found = cf_parked_take(&self->parked, frame, parked);
    UNLOCK(self);
    return found;
}

/* Records a generator that was dropped without an event: with the time it had spent by then. */
static void record_dropped(const struct cf_parked *parked) {
    if (parked->stopped)
        cf_operation_record(parked->instrument, parked->parked_tick - parked->ticks,
                            parked->parked_tick, 0);
}

/* The first step of a generator or coroutine. */
static void begin_suspending(struct monitor_object *self, const struct known_code *known,
                             const void *frame) {
    struct cf_parked dropped;
    if (take_parked(self, frame, &dropped))
        record_dropped(&dropped);
    begin(known, frame);
}

/* A later step: the span goes on where it was suspended. One whose begin was not seen is there, so
 * that its end finds it, and is not recorded. */
static void resume(struct monitor_object *self, const struct known_code *known, const void *frame) {
    struct cf_parked parked;
    uint32_t instrument = (uint32_t)known->instrument;
    if (!take_parked(self, frame, &parked)) {
        begin_unrecorded(instrument, frame);
        return;
    }
    struct cf_span *span = cf_span_push(&cf_thread, instrument, frame);
    if (!span)
        return;
    span->child_ticks = parked.child_ticks;
    span->start_tick = parked.stopped ? cf_ticks() - parked.ticks : parked.ticks;
}

/* Whether the time until the next step belongs to the consumer: after a value, not while waiting.
 */
static int gives_a_value(const struct known_code *known, PyObject *value) {
    if (known->sort != ASYNC_GENERATOR)
        return known->sort == GENERATOR;
    PyObject *name = PyType_GetName(Py_TYPE(value));
    int wrapped =
        name && PyUnicode_CompareWithASCIIString(name, "async_generator_wrapped_value") == 0;
    if (!name)
        PyErr_Clear();
    Py_XDECREF(name);
    return wrapped;
}

static void suspend(struct monitor_object *self, const struct known_code *known, const void *frame,
                    PyObject *value) {
    uint64_t now = cf_ticks();
    struct cf_span span;
    if (!cf_span_take(&cf_thread, (uint32_t)known->instrument, frame, &span) || span.unrecorded)
        return;
    int stopped = gives_a_value(known, value);
    struct cf_parked parked = {
        .frame = frame,
        .ticks = stopped ? cf_elapsed(span.start_tick, now) : span.start_tick,
        .child_ticks = span.child_ticks,
        .parked_tick = now,
        .instrument = span.instrument,
        .stopped = (uint32_t)stopped,
    };
    LOCK(self);
    int result = cf_parked_add(&self->parked, &parked);
    UNLOCK(self);
    if (result < 0)
        cf_process_lost(1);
}

static void end(const struct known_code *known, const void *frame, int failed) {
    uint64_t end_tick = cf_ticks();
    struct cf_span span;
    if (known->sort == FUNCTION)
        cf_span_end(&cf_thread, (uint32_t)known->instrument, end_tick, failed);
    else if (cf_span_take(&cf_thread, (uint32_t)known->instrument, frame, &span) &&
             !span.unrecorded)
        cf_span_record(&cf_thread, &span, end_tick, failed);
}

/* The frame that the callback was called from; it stays the same from step to step. */
static const void *current_frame(const struct known_code *known) {
    return known->sort == FUNCTION ? NULL : (const void *)PyEval_GetFrame();
}

static PyObject *monitor_start(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct monitor_object *self = (struct monitor_object *)object;
    struct known_code known;
    if (count < 1)
        Py_RETURN_NONE;
    if (!find(self, args[0], &known)) {
        if (!known.code && ask(self, args[0], &known) < 0)
            return NULL;
        if (known.instrument == LEFT_ALONE)
            return Py_NewRef(self->disable);
    }
    if (cf_likely(known.sort == FUNCTION))
        begin(&known, NULL);
    else
        begin_suspending(self, &known, current_frame(&known));
    Py_RETURN_NONE;
}

static PyObject *monitor_finish(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct known_code known;
    if (count > 0 && find((struct monitor_object *)object, args[0], &known))
        end(&known, current_frame(&known), 0);
    Py_RETURN_NONE;
}

static PyObject *monitor_unwind(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct known_code known;
    if (count > 0 && find((struct monitor_object *)object, args[0], &known)) {
        int closed = (known.sort == GENERATOR || known.sort == ASYNC_GENERATOR) && count > 2 &&
                     PyErr_GivenExceptionMatches(args[2], PyExc_GeneratorExit);
        end(&known, current_frame(&known), !closed);
    }
    Py_RETURN_NONE;
}

static PyObject *monitor_suspend(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct monitor_object *self = (struct monitor_object *)object;
    struct known_code known;
    if (count > 2 && find(self, args[0], &known) && known.sort != FUNCTION)
        suspend(self, &known, current_frame(&known), args[2]);
    Py_RETURN_NONE;
}

static PyObject *monitor_resume(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    struct monitor_object *self = (struct monitor_object *)object;
    struct known_code known;
    if (count > 0 && find(self, args[0], &known) && known.sort != FUNCTION)
        resume(self, &known, current_frame(&known));
    Py_RETURN_NONE;
}

/* Records the generators that are suspended, or were dropped without an event: at the end of the
 * program they are not told apart, and each was called once. */
static PyObject *monitor_flush(PyObject *object, PyObject *unused) {
    (void)unused;
    struct monitor_object *self = (struct monitor_object *)object;
    for (size_t i = 0; i < self->parked.capacity; i++) {
        if (self->parked.slots[i].frame)
            record_dropped(&self->parked.slots[i]);
    }
    cf_parked_free(&self->parked);
    Py_RETURN_NONE;
}

#if CF_PROFILE_FUNCTION
/* How a frame was entered or left, which 3.11 says by the instruction it stands at only. */
static int instruction_at(PyFrameObject *frame, PyCodeObject *code) {
    int offset = PyFrame_GetLasti(frame);
    return offset < 0 ? -1 : _Py_OPCODE(_PyCode_CODE(code)[(size_t)offset / sizeof(_Py_CODEUNIT)]);
}

/* The interpreter replaces instructions of code that runs often; this one by a quick twin. */
static int is_resume(int instruction) {
    return instruction == RESUME || instruction == RESUME_QUICK;
}

static void enter_suspending(struct monitor_object *self, const struct known_code *known,
                             PyFrameObject *frame) {
    PyCodeObject *code = (PyCodeObject *)known->code;
    size_t at = (size_t)PyFrame_GetLasti(frame) / sizeof(_Py_CODEUNIT);
    int instruction = instruction_at(frame, code);
    /* RESUME 0 is the first step; an exception thrown in enters at the instruction it left at. */
    if (is_resume(instruction) && _Py_OPARG(_PyCode_CODE(code)[at]) == 0)
        begin_suspending(self, known, frame);
    else
        resume(self, known, frame);
    struct cf_span *top = cf_thread.depth > 0 ? &cf_thread.spans[cf_thread.depth - 1] : NULL;
    if (top && top->key == frame)
        top->thrown_into = !is_resume(instruction);
}

static void leave_suspending(struct monitor_object *self, const struct known_code *known,
                             PyFrameObject *frame, PyObject *value) {
    int instruction = instruction_at(frame, (PyCodeObject *)known->code);
    if (value && instruction == YIELD_VALUE) {
        suspend(self, known, frame, value);
        return;
    }
    /* The exception is not to be seen here. One that comes out after one was thrown in is taken for
     * the GeneratorExit of an early close, which is no error. */
    const struct cf_span *top = cf_thread.depth > 0 ? &cf_thread.spans[cf_thread.depth - 1] : NULL;
    int closed = known->sort != COROUTINE && top && top->key == frame && top->thrown_into;
    end(known, frame, value == NULL && !closed);
}

static int profile_event(PyObject *object, PyFrameObject *frame, int event, PyObject *value) {
    if (event != PyTrace_CALL && event != PyTrace_RETURN)
        return 0;
    struct monitor_object *self = (struct monitor_object *)object;
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    struct known_code known;
    int timed = find(self, code, &known), result = 0;
    /* A frame that was entered before the monitor was installed returns unknown: ignored. */
    if (!known.code && event == PyTrace_CALL) {
        result = ask(self, code, &known);
        timed = result == 0 && known.instrument != LEFT_ALONE;
    }
    if (timed && known.sort == FUNCTION && event == PyTrace_CALL)
        begin(&known, NULL);
    else if (timed && known.sort == FUNCTION) /* an exception leaves without a value */
        end(&known, NULL, value == NULL);
    else if (timed && event == PyTrace_CALL)
        enter_suspending(self, &known, frame);
    else if (timed)
        leave_suspending(self, &known, frame, value);
    Py_DECREF(code);
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
    Py_XDECREF((PyObject *)type);
    return type ? 0 : -1;
}

const struct cf_binding_topic cf_topic_monitor = {NULL, monitor_add};
