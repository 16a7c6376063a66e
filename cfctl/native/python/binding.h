/* What the binding's files share. Each topic (clock, operation, ...) is one file that exports one
 * cf_binding_topic; module.c lists them. Python exceptions are raised in this folder only. */
#ifndef CF_BINDING_H
#define CF_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#include "segment.h"

struct cf_binding_topic {
    PyMethodDef *methods;         /* ends with a NULL entry; may be NULL */
    int (*add)(PyObject *module); /* adds types and constants; 0 or -1 with an exception; or NULL */
};

extern const struct cf_binding_topic cf_topic_clock;
extern const struct cf_binding_topic cf_topic_segment;
extern const struct cf_binding_topic cf_topic_operation;
extern const struct cf_binding_topic cf_topic_span;
extern const struct cf_binding_topic cf_topic_timed_function;
extern const struct cf_binding_topic cf_topic_monitor;
extern const struct cf_binding_topic cf_topic_probe;
extern const struct cf_binding_topic cf_topic_perf;
extern const struct cf_binding_topic cf_topic_sparse;
extern const struct cf_binding_topic cf_topic_histogram;
extern const struct cf_binding_topic cf_topic_pool;
extern const struct cf_binding_topic cf_topic_track;
extern const struct cf_binding_topic cf_topic_bus;
extern const struct cf_binding_topic cf_topic_hlc;
extern const struct cf_binding_topic cf_topic_outcome;

/* Types and objects that more than one topic needs; one per module, so per interpreter. */
struct cf_module_state {
    PyTypeObject *operation_type;
    PyTypeObject *span_type;
    PyTypeObject *lease_type;
    struct cf_shard *facts;   /* of the kind "interpreter"; NULL = none yet, or refused */
    uint32_t facts_asked_for; /* 1 + the process generation of `facts`; 0 = never */
    PyTypeObject *message_type;
    PyTypeObject *participant_type;
    PyTypeObject *view_type;
    PyTypeObject *loan_type;
    PyTypeObject *hlc_type;
    PyObject *method_type; /* types.MethodType */
};

/* Returns the state of the module that a heap type of ours was made for. */
struct cf_module_state *cf_type_state(PyTypeObject *type);

/* As cf_type_state, also of a class derived in Python: it belongs to no module, so its bases are
 * asked. NULL, with an exception, when there is none. */
struct cf_module_state *cf_find_state(PyTypeObject *type);

/* Makes a heap type, adds it to the module and returns a new reference; NULL with an exception. */
PyTypeObject *cf_add_type(PyObject *module, PyType_Spec *spec);

/* Frees an instance that Python's garbage collector does not track, and its reference to its heap
 * type. */
void cf_free_instance(PyObject *self);

/* Sets methods of a mutable heap type whose bound forms its instances keep: in one PyObject * for
 * each, one after the other from an offset, which the type's own functions visit and clear. The
 * definitions, which end with a NULL entry, are not copied. 0, or -1 with an exception. */
int cf_keep_methods(PyTypeObject *owner, PyMethodDef *definitions, Py_ssize_t first_offset);

/* Returns the instrument id of an Operation object; -1 with TypeError for anything else. */
int64_t cf_operation_id(struct cf_module_state *state, PyObject *operation);

/* Returns the state of the module whose type an Operation is, or derives from. */
struct cf_module_state *cf_operation_state(PyObject *operation);

/* Returns whether an exception, or the one that is raised, is a failure of what it leaves: any but
 * SystemExit with a status of 0 (sys.exit(), sys.exit(None), sys.exit(0)), by which a program ends
 * well. The exception that is raised stays. */
int cf_is_error(PyObject *exception);
int cf_raised_error(void);

/* Methods of Operation that return a handle: `begin()` a running one, `span()` one that __enter__
 * begins. */
PyObject *cf_span_begin_handle(PyObject *operation, PyObject *const *args, Py_ssize_t count);
PyObject *cf_span_new_handle(PyObject *operation, PyObject *const *args, Py_ssize_t count);

/* Raises OSError from a negative errno and returns NULL; `what` names the file or syscall. */
PyObject *cf_raise_errno(int negative_errno, const char *what);

/* Raises an exception of cfctl.errors by its name and returns NULL. */
PyObject *cf_raise_error(const char *name, const char *what, const char *why, const char *todo);

/* Casts a METH_FASTCALL function to what PyMethodDef holds, by way of the type that any function
 * pointer may be cast to. FASTCALL also where there is no argument: 7 to 12 ns cheaper per call
 * than NOARGS (measured on CPython 3.11 and 3.13), because the interpreter specialises it. */
#define CF_FASTCALL(function) ((PyCFunction)(void (*)(void))(function))

/* A METH_FASTCALL | METH_KEYWORDS function, likewise. */
#define CF_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

#endif
