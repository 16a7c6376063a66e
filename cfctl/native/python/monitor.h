/* What the two ways of timing functions by name share: sys.monitoring's callbacks (monitor.c) and
 * the profile function of CPython 3.11 (profile_function.c). Interpreter lock held, but for find.
 */
#ifndef CF_MONITOR_H
#define CF_MONITOR_H

#include "binding.h"

#include <pthread.h>

#include "parked.h"

/* CPython 3.11 has no sys.monitoring; its profile function is in the full API only. */
#if !defined(Py_LIMITED_API) && PY_VERSION_HEX < 0x030c0000
#define CF_PROFILE_FUNCTION 1
#else
#define CF_PROFILE_FUNCTION 0
#endif

#define CF_LEFT_ALONE (-1)

/* What a call of the code makes, from its flags (inspect.CO_*). */
enum cf_sort { CF_FUNCTION, CF_GENERATOR, CF_COROUTINE, CF_ASYNC_GENERATOR };

struct cf_known_code {
    PyObject *code; /* NULL = free; held, so that its address is not used again */
    int64_t instrument;
    enum cf_sort sort;
};

struct cf_monitor {
    PyObject_HEAD PyObject *match;
    PyObject *disable; /* sys.monitoring.DISABLE, None before 3.12 */
    struct cf_known_code *table;
    size_t capacity; /* a power of two */
    size_t used;
    struct cf_parked_table parked;
    uint64_t forked_tick; /* this process began as a fork then; 0 = it did not */
#ifdef Py_GIL_DISABLED
    pthread_mutex_t lock;
#endif
};

/* Around all use of the table and of `parked`. */
#ifdef Py_GIL_DISABLED
#define CF_LOCK(self) pthread_mutex_lock(&(self)->lock)
#define CF_UNLOCK(self) pthread_mutex_unlock(&(self)->lock)
#else
#define CF_LOCK(self) ((void)0)
#define CF_UNLOCK(self) ((void)0)
#endif

/* Returns whether the code object is known and timed, and fills in what is known. */
int cf_monitor_find(struct cf_monitor *self, PyObject *code, struct cf_known_code *found);

/* Asks `match` for a code object seen for the first time, whose globals are the running frame's.
 * 0, or -1 with an exception. */
int cf_monitor_ask(struct cf_monitor *self, PyObject *code, struct cf_known_code *known);

/* A call begins; `frame` is NULL for a plain function. While paused the span is there, so that its
 * end finds it, and is not recorded. */
void cf_monitor_begin(const struct cf_known_code *known, const void *frame);

/* A call begins that is not to be recorded: its end finds a span all the same. */
void cf_monitor_begin_unrecorded(uint32_t instrument, const void *frame);

/* The first step of a generator or coroutine. */
void cf_monitor_begin_suspending(struct cf_monitor *self, const struct cf_known_code *known,
                                 const void *frame);

/* A later step: the span goes on where it was suspended. One whose begin was not seen is there, so
 * that its end finds it, and is not recorded. */
void cf_monitor_resume(struct cf_monitor *self, const struct cf_known_code *known,
                       const void *frame);

/* A generator or coroutine gives a value, or waits. */
void cf_monitor_suspend(struct cf_monitor *self, const struct cf_known_code *known,
                        const void *frame, PyObject *value);

/* Records the generators that are suspended, or were dropped without an event: at the end of the
 * program they are not told apart, and each was called once. */
void cf_monitor_flush(struct cf_monitor *self);

/* A call ends; `frame` as it began with. */
void cf_monitor_end(const struct cf_known_code *known, const void *frame, int failed);

#if CF_PROFILE_FUNCTION
/* The profile function of 3.11, for PyEval_SetProfile; `object` is the monitor. */
int cf_profile_event(PyObject *object, PyFrameObject *frame, int event, PyObject *value);
#endif

#endif
