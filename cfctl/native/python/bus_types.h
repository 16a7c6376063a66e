/* What the files of the bus's binding share. */
#ifndef CF_BUS_TYPES_H
#define CF_BUS_TYPES_H

#include "binding.h"

#include "participant.h"
#include "ring.h"

struct participant_object {
    PyObject_HEAD struct cf_participant participant;
};

/* Each adds its types to the module; 0, or -1 with an exception. */
int cf_add_bus_message(PyObject *module);
int cf_add_bus_participant(PyObject *module);
int cf_add_bus_publisher(PyObject *module);
int cf_add_bus_loan(PyObject *module);
int cf_add_bus_subscription(PyObject *module);
int cf_add_bus_view(PyObject *module);
int cf_add_bus_record(PyObject *module);

/* Returns a new Message of a ring: of a payload, whose reference is taken, and of a topic's name,
 * whose is not; NULL with an exception. */
PyObject *cf_bus_message(struct cf_module_state *state, const struct cf_ring_message *message,
                         uint64_t ring_id, uint64_t received_tick, PyObject *payload,
                         PyObject *topic);

/* Returns the payload of a Message, a borrowed reference. */
PyObject *cf_bus_message_payload(PyObject *message);

/* Reads a timeout in seconds: NULL and None are none, which is infinity. 0, or -1 with an
 * exception. */
int cf_bus_timeout(PyObject *timeout, double *timeout_s);

/* Reads the arguments of a method that takes `required` objects and then timeout_s, which may be
 * left out or named. 0, or -1 with an exception. */
int cf_bus_arguments(const char *method, Py_ssize_t required, PyObject *const *args,
                     Py_ssize_t count, PyObject *keywords, double *timeout_s);

/* Returns the CLOCK_MONOTONIC time a timeout ends at; UINT64_MAX: never. */
uint64_t cf_bus_end_ns(double timeout_s, uint64_t now_ns);

/* Raises the exception of cfctl.errors for a payload that is no bytes-like object, of whatever
 * Python said of it, and returns -1. */
int cf_bus_raise_payload(PyObject *data);

/* Returns a message's id: who published it and its number there. */
static inline uint64_t cf_bus_message_id(uint64_t publisher, uint64_t seq) {
    return publisher << 48 | (seq & ((UINT64_C(1) << 48) - 1));
}

#endif
