/* What the files of the bus's binding share. */
#ifndef CF_BUS_TYPES_H
#define CF_BUS_TYPES_H

#include "binding.h"

#include "ring.h"

/* Each adds its types to the module; 0, or -1 with an exception. */
int cf_add_bus_message(PyObject *module);
int cf_add_bus_publisher(PyObject *module);
int cf_add_bus_subscription(PyObject *module);
int cf_add_bus_record(PyObject *module);

/* Returns a new Message of a payload, whose reference is taken; NULL with an exception. */
PyObject *cf_bus_message(struct cf_module_state *state, const struct cf_ring_message *message,
                         uint64_t received_tick, PyObject *payload);

/* Returns the payload of a Message, a borrowed reference. */
PyObject *cf_bus_message_payload(PyObject *message);

/* Reads a timeout in seconds: None is none. 0 and the monotonic time it ends at (UINT64_MAX:
 * never), or -1 with an exception. */
int cf_bus_deadline(PyObject *timeout, uint64_t *end_ns);

/* Returns a message's id: who published it and its number there. */
static inline uint64_t cf_bus_message_id(uint64_t publisher, uint64_t seq) {
    return publisher << 48 | (seq & ((UINT64_C(1) << 48) - 1));
}

#endif
