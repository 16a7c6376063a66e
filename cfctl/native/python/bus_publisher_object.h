/* What the files of Publisher share. */
#ifndef CF_BUS_PUBLISHER_OBJECT_H
#define CF_BUS_PUBLISHER_OBJECT_H

#include "bus_types.h"

#include "publisher.h"

enum { CF_PUBLISHER_CLOSING = 1, CF_PUBLISHER_LOANED = 2 };

struct publisher_object {
    PyObject_HEAD struct cf_publisher publisher;
    PyObject *participant; /* kept as long as this */
    PyObject *topic;       /* str */
    struct cf_module_state *state;
    uint64_t spin_ns;
    uint32_t instrument;
    uint32_t busy;    /* calls in progress that gave up the interpreter lock or called Python */
    uint32_t blocked; /* CF_PUBLISHER_...: nothing can be published */
};

/* Ends the publisher unless a call is in progress, which does it then. */
void cf_bus_shut_publisher(struct publisher_object *self);

/* Sets the exception of a publisher that cannot publish now; returns NULL. */
PyObject *cf_bus_raise_blocked(const struct publisher_object *self);

/* Sets the exception of a failed publication, counts a refused one, and returns NULL. */
PyObject *cf_bus_raise_unpublished(struct publisher_object *self, int error, size_t length);

/* Wakes who sleeps, and counts messages that were published. */
void cf_bus_published(struct publisher_object *self, uint64_t messages, uint64_t bytes,
                      uint64_t tick);

/* Sets the exception for a payload that the ring cannot take; returns NULL. */
PyObject *cf_bus_raise_too_large(const struct publisher_object *self, size_t length);

/* Publisher.publish_many(payloads). */
PyObject *cf_bus_publisher_publish_many(PyObject *object, PyObject *sequence);

/* Publisher.loan(size). */
PyObject *cf_bus_publisher_loan(PyObject *object, PyObject *argument);

static inline int cf_bus_is_publishing(const struct publisher_object *self) {
    if (cf_likely(self->publisher.writer.header != NULL && !self->blocked))
        return 1;
    cf_bus_raise_blocked(self);
    return 0;
}

#endif
