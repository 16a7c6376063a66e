/* Hybrid logical clocks as Python sees them. */
#include "binding.h"

#include <errno.h>

#include "hlc.h"

enum { HIGHEST_NODE = 65535 };

struct hlc_object {
    PyObject_HEAD struct cf_hlc_node *node; /* the process's, or this object's own */
    struct cf_hlc_node *owned;              /* to be freed; NULL for the process's */
};

static int is_node_id(long id) {
    if (id >= 1 && id <= HIGHEST_NODE)
        return 1;
    PyErr_Format(PyExc_ValueError, "a node id is 1 to %d", HIGHEST_NODE);
    return 0;
}

static PyObject *hlc_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"node", "max_offset_ns", NULL};
    long id;
    unsigned long long max_offset_ns = CF_HLC_MAX_OFFSET_NS;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "l|K:Hlc", names, &id, &max_offset_ns) ||
        !is_node_id(id))
        return NULL;
    struct hlc_object *self = (struct hlc_object *)PyType_GenericNew(type, NULL, NULL);
    if (!self)
        return NULL;
    self->owned = self->node = PyMem_Calloc(1, sizeof *self->owned);
    if (!self->owned || cf_hlc_node_initialise(self->owned, (uint32_t)id, max_offset_ns) != 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void hlc_dealloc(PyObject *self) {
    PyMem_Free(((struct hlc_object *)self)->owned);
    cf_free_instance(self);
}

/* The clock of `self`, if stamps may be given in its node's name; NULL with StateError. */
static struct cf_hlc_node *usable(PyObject *self) {
    struct cf_hlc_node *node = ((struct hlc_object *)self)->node;
    if (cf_likely(cf_load_acquire(&node->node) != 0))
        return node;
    cf_raise_error("StateError", "This process has no node id, so its clock gives no stamp.",
                   "It was not initialised, or this is a forked child that found no free id.",
                   "Call initialize_global_hlc().");
    return NULL;
}

/* The time given as an argument, or the wall clock. 0 with an exception on -1. */
static int time_of(struct cf_hlc_node *node, PyObject *given, uint64_t *now_ns) {
    if (given == NULL || given == Py_None) {
        *now_ns = cf_hlc_node_now(node, cf_ticks());
        return 0;
    }
    *now_ns = PyLong_AsUnsignedLongLong(given);
    return *now_ns == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

static PyObject *hlc_tick(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    uint64_t now_ns;
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "tick() takes at most the time");
        return NULL;
    }
    struct cf_hlc_node *node = usable(self);
    if (!node || time_of(node, count == 1 ? args[0] : NULL, &now_ns) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(cf_hlc_node_tick(node, now_ns));
}

static PyObject *refuse(struct cf_hlc_node *node, uint64_t message, unsigned long sender,
                        uint64_t now_ns) {
    uint64_t ahead_ns = message - now_ns;
    PyObject *what = PyUnicode_FromFormat("A message of node %lu was refused.", sender);
    PyObject *why = PyUnicode_FromFormat(
        "Its stamp is %llu ns ahead of this host's clock; at most %llu ns are accepted.",
        (unsigned long long)ahead_ns, (unsigned long long)cf_load_relaxed(&node->max_offset_ns));
    const char *what_text = what ? PyUnicode_AsUTF8AndSize(what, NULL) : NULL;
    const char *why_text = why ? PyUnicode_AsUTF8AndSize(why, NULL) : NULL;
    if (what_text && why_text)
        cf_raise_error("ClockOffsetError", what_text, why_text,
                       "Synchronise the sender's clock (NTP, PTP), or allow a larger offset.");
    Py_XDECREF(what);
    Py_XDECREF(why);
    return NULL;
}

static PyObject *hlc_receive(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    uint64_t now_ns, stamp;
    if (count != 2 && count != 3) {
        PyErr_SetString(PyExc_TypeError, "receive() takes a stamp, its sender and at most a time");
        return NULL;
    }
    uint64_t message = PyLong_AsUnsignedLongLong(args[0]);
    if (message == UINT64_MAX && PyErr_Occurred())
        return NULL;
    long sender = PyLong_AsLong(args[1]);
    if ((sender == -1 && PyErr_Occurred()) || !is_node_id(sender))
        return NULL;
    struct cf_hlc_node *node = usable(self);
    if (!node || time_of(node, count == 3 ? args[2] : NULL, &now_ns) < 0)
        return NULL;
    if (cf_hlc_node_receive(node, now_ns, message, (uint32_t)sender, &stamp) != 0)
        return refuse(node, message, (unsigned long)sender, now_ns);
    return PyLong_FromUnsignedLongLong(stamp);
}

static PyObject *hlc_now_ns(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(
        cf_hlc_node_now(((struct hlc_object *)self)->node, cf_ticks()));
}

static PyObject *hlc_node(PyObject *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLong(cf_load_relaxed(&((struct hlc_object *)self)->node->node));
}

static PyObject *hlc_last(PyObject *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(
        cf_load_relaxed(&((struct hlc_object *)self)->node->clock.last));
}

static PyObject *hlc_max_offset_ns(PyObject *self, void *closure) {
    (void)closure;
    return PyLong_FromUnsignedLongLong(
        cf_load_relaxed(&((struct hlc_object *)self)->node->max_offset_ns));
}

static PyMethodDef hlc_object_methods[] = {
    {"tick", CF_FASTCALL(hlc_tick), METH_FASTCALL, "Return the stamp of a local event."},
    {"receive", CF_FASTCALL(hlc_receive), METH_FASTCALL, "Return the stamp of a receipt."},
    {"now_ns", hlc_now_ns, METH_NOARGS, "Return the wall clock it runs on, Unix ns."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef hlc_properties[] = {
    {"node", hlc_node, NULL, "The node id; 0 = none.", NULL},
    {"last", hlc_last, NULL, "The last stamp given, 0 before the first.", NULL},
    {"max_offset_ns", hlc_max_offset_ns, NULL, "How far ahead a message may be stamped.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot hlc_slots[] = {
    {Py_tp_doc, (void *)"Hlc(node, max_offset_ns=500000000): a hybrid logical clock."},
    {Py_tp_new, (void *)hlc_new},
    {Py_tp_dealloc, (void *)hlc_dealloc},
    {Py_tp_methods, hlc_object_methods},
    {Py_tp_getset, hlc_properties},
    {0, NULL},
};

static PyType_Spec hlc_spec = {
    .name = "cfctl._native.Hlc",
    .basicsize = sizeof(struct hlc_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = hlc_slots,
};

static PyObject *process_hlc(PyObject *module, PyObject *unused) {
    (void)unused;
    struct cf_module_state *state = PyModule_GetState(module);
    struct hlc_object *self = (struct hlc_object *)PyType_GenericNew(state->hlc_type, NULL, NULL);
    if (self)
        self->node = &cf_hlc_process;
    return (PyObject *)self;
}

static PyObject *process_hlc_initialise(PyObject *module, PyObject *args) {
    (void)module;
    long id;
    unsigned long long max_offset_ns;
    if (!PyArg_ParseTuple(args, "lK:process_hlc_initialise", &id, &max_offset_ns) ||
        !is_node_id(id))
        return NULL;
    if (cf_hlc_node_initialise(&cf_hlc_process, (uint32_t)id, max_offset_ns) != 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef hlc_methods[] = {
    {"process_hlc", process_hlc, METH_NOARGS, "Return the clock of this process."},
    {"process_hlc_initialise", process_hlc_initialise, METH_VARARGS,
     "Give this process's clock its node id."},
    {NULL, NULL, 0, NULL},
};

static int hlc_add(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->hlc_type = cf_add_type(module, &hlc_spec);
    if (!state->hlc_type ||
        PyModule_AddIntConstant(module, "HLC_MAX_OFFSET_NS", (long)CF_HLC_MAX_OFFSET_NS) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "HLC_GRAIN_NS", (long)CF_HLC_GRAIN_NS);
}

const struct cf_binding_topic cf_topic_hlc = {hlc_methods, hlc_add};
