/* The profile function of CPython 3.11: tells calls, steps and ends apart by the instruction that a
 * frame stands at, as 3.11 has no events for them. */
#include "monitor.h"

#if CF_PROFILE_FUNCTION

#include <frameobject.h>
#include <opcode.h>

#include "span.h"

/* How a frame was entered or left, which 3.11 says by the instruction it stands at only. */
static int instruction_at(PyFrameObject *frame, PyCodeObject *code) {
    int offset = PyFrame_GetLasti(frame);
    return offset < 0 ? -1 : _Py_OPCODE(_PyCode_CODE(code)[(size_t)offset / sizeof(_Py_CODEUNIT)]);
}

/* The interpreter replaces instructions of code that runs often; this one by a quick twin. */
static int is_resume(int instruction) {
    return instruction == RESUME || instruction == RESUME_QUICK;
}

/* Returns the thread's latest span if it is of that frame, else NULL. */
static struct cf_span *latest_of(const PyFrameObject *frame) {
    struct cf_span *top = cf_thread.depth > 0 ? &cf_thread.spans[cf_thread.depth - 1] : NULL;
    return top && (top->what & CF_SPAN_KEYED) && top->key == frame ? top : NULL;
}

static void enter_suspending(struct cf_monitor *self, const struct cf_known_code *known,
                             PyFrameObject *frame) {
    PyCodeObject *code = (PyCodeObject *)known->code;
    size_t at = (size_t)PyFrame_GetLasti(frame) / sizeof(_Py_CODEUNIT);
    int instruction = instruction_at(frame, code);
    /* RESUME 0 is the first step; an exception thrown in enters at the instruction it left at. */
    if (is_resume(instruction) && _Py_OPARG(_PyCode_CODE(code)[at]) == 0)
        cf_monitor_begin_suspending(self, known, frame);
    else
        cf_monitor_resume(self, known, frame);
    struct cf_span *top = latest_of(frame);
    if (top && !is_resume(instruction))
        top->what |= CF_SPAN_THROWN_INTO;
}

static void leave_suspending(struct cf_monitor *self, const struct cf_known_code *known,
                             PyFrameObject *frame, PyObject *value) {
    int instruction = instruction_at(frame, (PyCodeObject *)known->code);
    if (value && instruction == YIELD_VALUE) {
        cf_monitor_suspend(self, known, frame, value);
        return;
    }
    /* The exception is not to be seen here. One that comes out after one was thrown in is taken for
     * the GeneratorExit of an early close, which is no error. */
    const struct cf_span *top = latest_of(frame);
    int closed = known->sort != CF_COROUTINE && top && (top->what & CF_SPAN_THROWN_INTO);
    cf_monitor_end(known, frame, value == NULL && !closed);
}

int cf_profile_event(PyObject *object, PyFrameObject *frame, int event, PyObject *value) {
    if (event != PyTrace_CALL && event != PyTrace_RETURN)
        return 0;
    struct cf_monitor *self = (struct cf_monitor *)object;
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    struct cf_known_code known;
    int timed = cf_monitor_find(self, code, &known), result = 0;
    /* A frame that was entered before the monitor was installed returns unknown: ignored. */
    if (!known.code && event == PyTrace_CALL) {
        result = cf_monitor_ask(self, code, &known);
        timed = result == 0 && known.instrument != CF_LEFT_ALONE;
    }
    if (timed && known.sort == CF_FUNCTION && event == PyTrace_CALL)
        cf_monitor_begin(&known, NULL);
    else if (timed && known.sort == CF_FUNCTION) /* an exception leaves without a value */
        cf_monitor_end(&known, NULL, value == NULL);
    else if (timed && event == PyTrace_CALL)
        enter_suspending(self, &known, frame);
    else if (timed)
        leave_suspending(self, &known, frame, value);
    Py_DECREF(code);
    return result;
}
#endif
