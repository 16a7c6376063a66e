/* Message: a payload with its stamps. */
#include "bus_types.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <structmember.h>

#include "tick.h"

struct message_object {
    PyObject_HEAD PyObject *payload;
    unsigned long long id;
    unsigned long long hlc;
    unsigned long long published_tick;
    unsigned long long received_tick;
    unsigned long long sequence;
    unsigned long long ring_id;
    PyObject *topic;
    char extended;
    char redelivered;
};

PyObject *cf_bus_message(struct cf_module_state *state, const struct cf_ring_message *message,
                         uint64_t ring_id, uint64_t received_tick, PyObject *payload,
                         PyObject *topic) {
    struct message_object *self =
        payload ? (void *)PyType_GenericAlloc(state->message_type, 0) : NULL;
    if (!self) {
        Py_XDECREF(payload);
        return NULL;
    }
    self->payload = payload;
    self->id = cf_bus_message_id(message->publisher, message->seq);
    self->hlc = message->hlc;
    self->published_tick = message->tick;
    self->received_tick = received_tick;
    self->sequence = message->seq;
    self->ring_id = ring_id;
    self->topic = Py_XNewRef(topic);
    self->extended = (message->flags & CF_MESSAGE_EXTENDED) != 0;
    self->redelivered = (message->flags & CF_MESSAGE_REDELIVERED) != 0;
    return (PyObject *)self;
}

PyObject *cf_bus_message_payload(PyObject *message) {
    return ((struct message_object *)message)->payload;
}

int cf_bus_timeout(PyObject *timeout, double *timeout_s) {
    *timeout_s = INFINITY;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    *timeout_s = PyFloat_AsDouble(timeout);
    if (*timeout_s == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(*timeout_s)) {
        cf_raise_error("InputError", "The timeout cannot be used.", "It is not a number.",
                       "Give seconds, or None to wait as long as it takes.");
        return -1;
    }
    return 0;
}

int cf_bus_arguments(const char *method, Py_ssize_t required, PyObject *const *args,
                     Py_ssize_t count, PyObject *keywords, double *timeout_s) {
    PyObject *timeout = count > required ? args[required] : NULL;
    Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
    if (count < required || count > required + 1 || named > (timeout ? 0 : 1)) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments and timeout_s, not %zd", method,
                     required, count + named);
        return -1;
    }
    if (named == 1) {
        if (PyUnicode_CompareWithASCIIString(PyTuple_GetItem(keywords, 0), "timeout_s") != 0) {
            PyErr_Format(PyExc_TypeError, "%s() has no argument %R", method,
                         PyTuple_GetItem(keywords, 0));
            return -1;
        }
        timeout = args[count];
    }
    return cf_bus_timeout(timeout, timeout_s);
}

int cf_bus_raise_payload(PyObject *data) {
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    PyErr_Clear();
    const char *text = name ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    char why[160];
    snprintf(why, sizeof why, "It is of type %.80s, which holds no bytes in one piece.",
             text ? text : "?");
    PyErr_Clear();
    cf_raise_error("InputError", "The payload cannot be published.", why,
                   "Pass bytes, or encode it first: text.encode(), struct.pack(), msgspec.");
    Py_XDECREF(name);
    return -1;
}

uint64_t cf_bus_end_ns(double timeout_s, uint64_t now_ns) {
    if (timeout_s >= 1e9)
        return UINT64_MAX;
    return now_ns + (timeout_s > 0 ? (uint64_t)(timeout_s * 1e9) : 0);
}

static void message_dealloc(PyObject *object) {
    Py_XDECREF(((struct message_object *)object)->payload);
    Py_XDECREF(((struct message_object *)object)->topic);
    cf_free_instance(object);
}

static PyObject *message_repr(PyObject *object) {
    struct message_object *self = (struct message_object *)object;
    return PyUnicode_FromFormat("Message(%R, id=%llu, hlc=%llu)", self->payload, self->id,
                                self->hlc);
}

static PyMemberDef message_members[] = {
    {"payload", T_OBJECT, offsetof(struct message_object, payload), READONLY, "bytes"},
    {"id", T_ULONGLONG, offsetof(struct message_object, id), READONLY,
     "publisher << 48 | its number"},
    {"hlc", T_ULONGLONG, offsetof(struct message_object, hlc), READONLY, "the publisher's stamp"},
    {"published_tick", T_ULONGLONG, offsetof(struct message_object, published_tick), READONLY, ""},
    {"received_tick", T_ULONGLONG, offsetof(struct message_object, received_tick), READONLY, ""},
    {"sequence", T_ULONGLONG, offsetof(struct message_object, sequence), READONLY,
     "its number on its ring, from 1"},
    {"ring_id", T_ULONGLONG, offsetof(struct message_object, ring_id), READONLY, "its ring"},
    {"topic", T_OBJECT, offsetof(struct message_object, topic), READONLY, "str"},
    {"redelivered", T_BOOL, offsetof(struct message_object, redelivered), READONLY,
     "another member of the group had it and died"},
    {"extended", T_BOOL, offsetof(struct message_object, extended), READONLY,
     "the payload starts with an extension"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot message_slots[] = {
    {Py_tp_doc, (void *)"A payload with its id and stamps."},
    {Py_tp_dealloc, (void *)message_dealloc},
    {Py_tp_repr, (void *)message_repr},
    {Py_tp_members, message_members},
    {0, NULL},
};

static PyType_Spec message_spec = {
    .name = "cfctl._native.Message",
    .basicsize = sizeof(struct message_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = message_slots,
};

int cf_add_bus_message(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->message_type = cf_add_type(module, &message_spec);
    return state->message_type ? 0 : -1;
}

static int bus_add(PyObject *module) {
    static int (*const adders[])(PyObject *) = {
        cf_add_bus_message,      cf_add_bus_participant, cf_add_bus_publisher, cf_add_bus_loan,
        cf_add_bus_subscription, cf_add_bus_view,        cf_add_bus_record,
    };
    for (size_t i = 0; i < sizeof adders / sizeof adders[0]; i++) {
        if (adders[i](module) < 0)
            return -1;
    }
    return 0;
}

const struct cf_binding_topic cf_topic_bus = {NULL, bus_add};
