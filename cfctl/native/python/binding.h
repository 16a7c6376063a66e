/* What the binding's files share. Each topic (clock, operation, ...) is one file that exports one
 * cf_binding_topic; module.c lists them. Python exceptions are raised in this folder only. */
#ifndef CF_BINDING_H
#define CF_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

struct cf_binding_topic {
    PyMethodDef *methods; /* ends with a NULL entry; may be NULL */
    int (*add)(
        PyObject *module); /* adds types and constants; 0 or -1 with an exception; may be NULL */
};

extern const struct cf_binding_topic cf_topic_clock;
extern const struct cf_binding_topic cf_topic_operation;

/* Raises OSError from a negative errno and returns NULL; `what` names the file or syscall. */
PyObject *cf_raise_errno(int negative_errno, const char *what);

#endif
