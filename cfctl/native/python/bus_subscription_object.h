/* What the files of RingSubscription share: the object, and its ways to receive. */
#ifndef CF_BUS_SUBSCRIPTION_OBJECT_H
#define CF_BUS_SUBSCRIPTION_OBJECT_H

#include "bus_types.h"

#include "subscription.h"

struct subscription_object {
    PyObject_HEAD struct cf_subscription subscription;
    struct cf_module_state *state;
    PyObject *hold;         /* called with each message that has an extension; returns it or None */
    PyObject *released;     /* list of messages that were held */
    PyObject *gone;         /* returns the exception for an ended subscription */
    uint64_t trusted_until; /* cf_bus_merge_stamp's */
    uint64_t high_water;    /* of the rings that messages were taken of */
    uint32_t instrument;
    uint8_t closing;
    uint8_t has_dropped; /* one of these rings has lost messages */
};

/* Sets the exception of a subscription that has ended or is another process's; returns 0. */
int cf_bus_raise_closed(const struct subscription_object *self);

/* Returns 1 when the subscription can be used, else 0 with an exception. */
static inline int cf_bus_is_open(const struct subscription_object *self) {
    if (cf_likely(self->subscription.topic.file.fd >= 0 && !self->closing))
        return 1;
    return cf_bus_raise_closed(self);
}

/* Leaves the rings, unless a thread is waiting in them: it does so then. */
void cf_bus_shut(struct subscription_object *self);

/* The methods that receive, and iteration; _native.pyi says what each returns. */
PyObject *cf_bus_try_recv(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *cf_bus_try_recv_message(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *cf_bus_recv(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *cf_bus_recv_message(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *cf_bus_recv_many(PyObject *object, PyObject *argument);
PyObject *cf_bus_wait(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *cf_bus_next(PyObject *object);

#endif
