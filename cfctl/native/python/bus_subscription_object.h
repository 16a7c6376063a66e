/* What the files of RingSubscription share: the object, and its ways to receive. */
#ifndef CF_BUS_SUBSCRIPTION_OBJECT_H
#define CF_BUS_SUBSCRIPTION_OBJECT_H

#include "bus_types.h"

#include "notifier.h"
#include "subscription.h"

struct subscription_object {
    PyObject_HEAD struct cf_subscription subscription;
    struct cf_module_state *state;
    struct cf_notifier *notifier; /* NULL = no descriptor was asked for */
    PyObject *participant;        /* kept as long as this */
    PyObject *topics;             /* list of str, in the subscription's order */
    PyObject
        *hold; /* called with each message that has an extension; returns it or None. Or None */
    PyObject *released;   /* list of messages that were held */
    uint64_t looked_tick; /* cf_bus_merge_stamp's */
    uint64_t high_water;  /* of the rings that messages were taken of */
    uint32_t instrument;
    uint8_t is_open;
    uint8_t closing;
    uint8_t viewed;    /* a message is lent out by recv_view */
    uint8_t has_extra; /* one of these rings has lost messages, or given some of before */
};

/* Sets the exception of a subscription that cannot be used; returns 0. */
int cf_bus_raise_closed(const struct subscription_object *self);

/* Returns 1 when the subscription can be used, else 0 with an exception. */
static inline int cf_bus_is_open(const struct subscription_object *self) {
    if (cf_likely(self->is_open && !self->closing &&
                  cf_participant_is_open(self->subscription.participant)))
        return 1;
    return cf_bus_raise_closed(self);
}

/* Begins a call in which what the subscription holds must not go: 1, or 0 with an exception. Each
 * that gave 1 is ended by cf_bus_leave. Between the two close() only marks it. */
static inline int cf_bus_enter(struct subscription_object *self) {
    if (cf_unlikely(!cf_bus_is_open(self)))
        return 0;
    self->subscription.busy++;
    return 1;
}

/* As cf_bus_enter, for a call that takes messages: not while one is lent out. */
int cf_bus_enter_to_receive(struct subscription_object *self);

/* Leaves the topics, unless a call is in progress, which does it then. */
void cf_bus_shut(struct subscription_object *self);

static inline void cf_bus_leave(struct subscription_object *self) {
    if (cf_unlikely(--self->subscription.busy == 0 && self->closing))
        cf_bus_shut(self);
}

/* Counts messages that were taken, and merges the latest of their stamps into the clock. */
void cf_bus_account(struct subscription_object *self, const struct cf_ring_message *messages,
                    size_t size, uint64_t tick);

/* Returns the name of the topic a reader reads, borrowed; NULL with an exception. */
PyObject *cf_bus_topic_of(struct subscription_object *self, const struct cf_ring_reader *reader);

/* Waits once without the interpreter lock, at most 100 ms. 0, or -1 with an exception. Entered. */
int cf_bus_wait_slice(struct subscription_object *self, uint64_t spin_until_ns, uint64_t now_ns,
                      uint64_t end_ns);

/* Takes a message as try_recv or try_recv_message do: Py_None when there is none; NULL with an
 * exception. Entered. */
PyObject *cf_bus_take(struct subscription_object *self, int whole);

/* The methods that receive, and iteration; _native.pyi says what each returns. */
PyObject *cf_bus_try_recv(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *cf_bus_try_recv_message(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *cf_bus_recv(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names);
PyObject *cf_bus_recv_message(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names);
PyObject *cf_bus_recv_many(PyObject *object, PyObject *argument);
PyObject *cf_bus_recv_view(PyObject *object, PyObject *const *args, Py_ssize_t count,
                           PyObject *names);
PyObject *cf_bus_wait(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names);

#endif
