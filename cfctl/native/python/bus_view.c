/* MessageView: the next message's payload, in the ring itself. */
#include "bus_subscription_object.h"

#include "tick.h"

enum { VIEW_NEW, VIEW_OPEN, VIEW_ENDED };

struct view_object {
    PyObject_HEAD struct subscription_object *subscription;
    struct cf_ring_reader *reader; /* NULL = of a copy, or of nothing */
    struct cf_ring_message message;
    PyObject *copy; /* bytes, where the message cannot be held in its place; else NULL */
    PyObject *view; /* the memoryview that was given out */
    double timeout_s;
    Py_ssize_t exports; /* the memoryview and all that was made of it count as one */
    int state;
};

PyObject *cf_bus_recv_view(PyObject *object, PyObject *const *args, Py_ssize_t count,
                           PyObject *names) {
    struct subscription_object *subscription = (struct subscription_object *)object;
    double timeout_s;
    if (cf_bus_arguments("recv_view", 0, args, count, names, &timeout_s) < 0 ||
        !cf_bus_is_open(subscription))
        return NULL;
    struct view_object *self = (void *)PyType_GenericAlloc(subscription->state->view_type, 0);
    if (!self)
        return NULL;
    self->subscription = (void *)Py_NewRef(object);
    self->timeout_s = timeout_s;
    return (PyObject *)self;
}

/* Returns whether the ring waits for the reader, so that the message stays where it is. */
static int is_held(const struct cf_ring_reader *reader, const struct cf_ring_message *message) {
    return !reader->header->overwrite && message->seq > reader->joined &&
           !(cf_load_relaxed(&reader->line->flags) & CF_SEAT_LOSSY) &&
           !(message->flags & CF_MESSAGE_EXTENDED);
}

/* Finds the next message, and copies it where it cannot be held. 1, 0 when there is none, or -1
 * with an exception. */
static int find(struct view_object *self) {
    struct subscription_object *subscription = self->subscription;
    struct cf_ring_reader *reader;
    cf_subscription_finish(&subscription->subscription);
    while (PyList_Size(subscription->released) == 0) {
        reader = cf_subscription_poll(&subscription->subscription, &self->message);
        if (!reader)
            return 0;
        if (!is_held(reader, &self->message))
            break;
        /* A group's member makes it its own at once; others with the end of the view. */
        if (reader->member && !cf_ring_take(reader, &self->message))
            continue;
        self->reader = reader;
        return 1;
    }
    self->copy = cf_bus_take(subscription, 0);
    if (self->copy != Py_None)
        return self->copy ? 1 : -1;
    Py_CLEAR(self->copy);
    return 0;
}

/* As find, waiting as long as the time-out says. */
static int wait_for_message(struct view_object *self) {
    struct subscription_object *subscription = self->subscription;
    int found = find(self);
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC), end_ns = cf_bus_end_ns(self->timeout_s, now_ns);
    uint64_t spin_until_ns = now_ns + subscription->subscription.spin_ns;
    for (; found == 0 && now_ns < end_ns; now_ns = cf_os_ns(CLOCK_MONOTONIC)) {
        if (cf_bus_wait_slice(subscription, spin_until_ns, now_ns, end_ns) < 0)
            return -1;
        found = find(self);
    }
    return found;
}

/* Moves behind the message and lets the subscription go on. */
static void end(struct view_object *self) {
    struct subscription_object *subscription = self->subscription;
    self->state = VIEW_ENDED;
    if (self->reader && cf_participant_is_open(subscription->subscription.participant)) {
        if (self->reader->member)
            cf_ring_finish(self->reader);
        else
            cf_ring_take(self->reader, &self->message);
    }
    self->reader = NULL;
    Py_CLEAR(self->copy);
    subscription->viewed = 0;
    cf_bus_leave(subscription);
}

static PyObject *view_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    struct view_object *self = (struct view_object *)object;
    struct subscription_object *subscription = self->subscription;
    if (self->state != VIEW_NEW)
        return cf_raise_error("StateError", "Nothing was received.", "The view has ended.",
                              "Take another: subscription.recv_view().");
    if (!cf_bus_enter_to_receive(subscription))
        return NULL;
    subscription->viewed = 1;
    self->state = VIEW_OPEN;
    int found = wait_for_message(self);
    if (found > 0 && self->reader)
        cf_bus_account(subscription, &self->message, 1, cf_ticks());
    if (found > 0)
        self->view =
            self->copy ? PyMemoryView_FromObject(self->copy) : PyMemoryView_FromObject(object);
    if (found > 0 && self->view)
        return Py_NewRef(self->view);
    end(self);
    return found == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *view_exit(PyObject *object, PyObject *args) {
    (void)args;
    struct view_object *self = (struct view_object *)object;
    if (self->state != VIEW_OPEN)
        Py_RETURN_FALSE;
    PyObject *result = PyObject_CallMethod(self->view, "release", NULL);
    Py_XDECREF(result);
    /* A slice of the memoryview does not keep that from being released, but reads the ring all the
     * same, which may be overwritten or unmapped. */
    if (!result || self->exports > 0) {
        PyErr_Clear();
        return cf_raise_error("StateError", "The message was not given back.",
                              "An array or memoryview of it outlived its `with` block.",
                              "Copy what you need inside the block, and delete the array there.");
    }
    Py_CLEAR(self->view);
    end(self);
    Py_RETURN_FALSE;
}

static int view_get_buffer(PyObject *object, Py_buffer *buffer, int flags) {
    struct view_object *self = (struct view_object *)object;
    if (self->state != VIEW_OPEN || !self->reader) {
        PyErr_SetString(PyExc_BufferError, "the view has ended");
        return -1;
    }
    void *payload = (void *)(uintptr_t)self->message.payload;
    int error =
        PyBuffer_FillInfo(buffer, object, payload, (Py_ssize_t)self->message.length, 1, flags);
    self->exports += error == 0;
    return error;
}

static void view_release_buffer(PyObject *object, Py_buffer *buffer) {
    (void)buffer;
    ((struct view_object *)object)->exports--;
}

static PyObject *view_get_id(PyObject *object, void *closure) {
    (void)closure;
    struct view_object *self = (struct view_object *)object;
    if (!self->reader)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(
        cf_bus_message_id(self->message.publisher, self->message.seq));
}

static int view_traverse(PyObject *object, visitproc visit, void *arg) {
    struct view_object *self = (struct view_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->view);
    Py_VISIT((PyObject *)self->subscription);
    return 0;
}

static int view_clear(PyObject *object) {
    Py_CLEAR(((struct view_object *)object)->view);
    return 0;
}

static void view_dealloc(PyObject *object) {
    struct view_object *self = (struct view_object *)object;
    PyObject_GC_UnTrack(object);
    Py_CLEAR(self->view);
    if (self->state == VIEW_OPEN)
        end(self);
    Py_XDECREF((PyObject *)self->subscription);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMethodDef view_methods[] = {
    {"__enter__", view_enter, METH_NOARGS, "Wait, and return the payload as a memoryview or None."},
    {"__exit__", view_exit, METH_VARARGS, "Give the message back."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef view_properties[] = {
    {"id", view_get_id, NULL, "The message's id, while it is lent out; None for a copy.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot view_slots[] = {
    {Py_tp_doc, (void *)"The next message's payload, in the ring, made by recv_view."},
    {Py_tp_dealloc, (void *)view_dealloc},
    {Py_tp_traverse, (void *)view_traverse},
    {Py_tp_clear, (void *)view_clear},
    {Py_tp_methods, view_methods},
    {Py_tp_getset, view_properties},
    {Py_bf_getbuffer, (void *)view_get_buffer},
    {Py_bf_releasebuffer, (void *)view_release_buffer},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "cfctl.bus.MessageView",
    .basicsize = sizeof(struct view_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};

int cf_add_bus_view(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->view_type = cf_add_type(module, &view_spec);
    return state->view_type ? 0 : -1;
}
