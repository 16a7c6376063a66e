/* Hybrid logical clocks as Python sees them. */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"

enum { HIGHEST_NODE = 65535 };

struct hlc_object {
    PyObject_HEAD struct cf_hlc_node *node; /* the process's, or this object's own */
    struct cf_hlc_node *owned;              /* to be freed; NULL for the process's */
};

/* Takes an int of `lowest` to `highest`. 0, or -1 with InputError or, for what is not an int,
 * TypeError.
 */
static int number_of(PyObject *given, const char *name, uint64_t lowest, uint64_t highest,
                     uint64_t *into) {
    *into = PyLong_AsUnsignedLongLong(given);
    if (*into == UINT64_MAX && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
    } else if (*into >= lowest && *into <= highest)
        return 0;
    PyObject *what = PyUnicode_FromFormat("%s %R cannot be used.", name, given);
    PyObject *why = PyUnicode_FromFormat("It is an int of %llu to %llu.",
                                         (unsigned long long)lowest, (unsigned long long)highest);
    const char *what_text = what ? PyUnicode_AsUTF8AndSize(what, NULL) : NULL;
    const char *why_text = why ? PyUnicode_AsUTF8AndSize(why, NULL) : NULL;
    if (what_text && why_text)
        cf_raise_error("InputError", what_text, why_text, "");
    Py_XDECREF(what);
    Py_XDECREF(why);
    return -1;
}

static int node_id_of(PyObject *given, uint32_t *id) {
    uint64_t number;
    if (number_of(given, "Node id", 1, HIGHEST_NODE, &number) < 0)
        return -1;
    *id = (uint32_t)number;
    return 0;
}

/* Opens the process's segment as every instrument does that is made from Python: what records
 * first must not open it before its directory is known. 0, or -1 with an exception. */
static int open_segment(void) {
    PyObject *module = PyImport_ImportModule("cfctl.segment.process");
    PyObject *result = module ? PyObject_CallMethod(module, "open_segment", NULL) : NULL;
    Py_XDECREF(result);
    Py_XDECREF(module);
    return result ? 0 : -1;
}

static struct cf_hlc_node *make_node(void) {
    struct cf_hlc_node *node = aligned_alloc(_Alignof(struct cf_hlc_node), sizeof *node);
    if (node)
        memset(node, 0, sizeof *node);
    return node;
}

static PyObject *hlc_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"node", "max_offset_ns", NULL};
    PyObject *node, *offset = NULL;
    uint32_t id;
    uint64_t max_offset_ns = CF_HLC_MAX_OFFSET_NS;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:Hlc", names, &node, &offset) ||
        node_id_of(node, &id) < 0 ||
        (offset && number_of(offset, "max_offset_ns", 0, UINT64_MAX, &max_offset_ns) < 0) ||
        open_segment() < 0)
        return NULL;
    struct hlc_object *self = (struct hlc_object *)PyType_GenericNew(type, NULL, NULL);
    if (!self)
        return NULL;
    self->owned = self->node = make_node();
    if (!self->owned || cf_hlc_node_initialise(self->owned, id, max_offset_ns) != 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void hlc_dealloc(PyObject *self) {
    free(((struct hlc_object *)self)->owned);
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
    return number_of(given, "Time", 0, UINT64_MAX, now_ns);
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
    uint64_t now_ns, stamp, message;
    uint32_t sender;
    if (count != 2 && count != 3) {
        PyErr_SetString(PyExc_TypeError, "receive() takes a stamp, its sender and at most a time");
        return NULL;
    }
    if (number_of(args[0], "Stamp", 0, UINT64_MAX, &message) < 0 ||
        node_id_of(args[1], &sender) < 0)
        return NULL;
    struct cf_hlc_node *node = usable(self);
    if (!node || time_of(node, count == 3 ? args[2] : NULL, &now_ns) < 0)
        return NULL;
    if (cf_hlc_node_receive(node, now_ns, message, sender, &stamp) != 0)
        return refuse(node, message, sender, now_ns);
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
    PyObject *node, *offset;
    uint32_t id;
    uint64_t max_offset_ns;
    if (!PyArg_ParseTuple(args, "OO:process_hlc_initialise", &node, &offset) ||
        node_id_of(node, &id) < 0 ||
        number_of(offset, "max_offset_ns", 0, UINT64_MAX, &max_offset_ns) < 0)
        return NULL;
    if (cf_hlc_node_initialise(&cf_hlc_process, id, max_offset_ns) != 0)
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
