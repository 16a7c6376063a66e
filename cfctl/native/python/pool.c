/* Pool: objects that are used again. */
#include "pool_object.h"

#include <string.h>

static PyObject *pool_clear_idle(PyObject *object, PyObject *unused) {
    (void)unused;
    cf_pool_drop_idle((struct cf_pool_object *)object);
    Py_RETURN_NONE;
}

/* Adds a number to a dictionary. -1 with an exception. */
static int put(PyObject *into, const char *name, uint64_t value) {
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int result = number ? PyDict_SetItemString(into, name, number) : -1;
    Py_XDECREF(number);
    return result;
}

static PyObject *pool_counters(PyObject *object, PyObject *unused) {
    (void)unused;
    struct cf_pool_object *self = (struct cf_pool_object *)object;
    struct cf_pool seen;
    bool in_segment;
    uint64_t unwatchable;
    CF_LOCK_POOL(object);
    if (self->debug)
        cf_pool_sweep(self);
    seen = *cf_pool_counters(self);
    seen.high_water = self->high_water;
    seen.max_idle = self->max_idle;
    seen.watched = self->debug;
    in_segment = self->shard != NULL;
    unwatchable = self->unwatchable;
    CF_UNLOCK_POOL();
    PyObject *result = PyDict_New();
    for (uint32_t i = 0; result && i < cf_kind_pool.field_count; i++) {
        const struct cf_field *field = &cf_kind_pool.fields[i];
        uint64_t value, earlier;
        memcpy(&value, (const char *)&seen + field->offset, sizeof value);
        memcpy(&earlier, (const char *)&self->earlier + field->offset, sizeof earlier);
        if (field->merge == CF_MERGE_SUM)
            value -= earlier;
        if (put(result, field->name, value) < 0)
            Py_CLEAR(result);
    }
    if (result &&
        (put(result, "unwatchable", unwatchable) < 0 || put(result, "in_segment", in_segment) < 0))
        Py_CLEAR(result);
    return result;
}

/* Registers the instrument of a pool; its id, or -1 with an exception. */
static int64_t register_pool(PyObject *name) {
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(name, &bytes);
    if (!text)
        return -1;
    if (bytes == 0 || bytes > CF_NAME_BYTES || memchr(text, '\0', (size_t)bytes)) {
        PyErr_SetString(PyExc_ValueError,
                        "a pool's name is 1 to 1024 bytes without a NUL character");
        return -1;
    }
    int64_t id = cf_process_instrument(&cf_kind_pool, text, (uint32_t)bytes, NULL, 0);
    if (id < 0)
        PyErr_NoMemory();
    return id;
}

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"factory", "reset",      "max_idle", "name",
                            "debug",   "item_bytes", "zero",     NULL};
    PyObject *factory, *reset, *name;
    Py_ssize_t max_idle, item_bytes = 0;
    int debug = 0, zero = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOnU|pnp:Pool", names, &factory, &reset,
                                     &max_idle, &name, &debug, &item_bytes, &zero))
        return NULL;
    if (!PyCallable_Check(factory) || (reset != Py_None && !PyCallable_Check(reset))) {
        PyErr_SetString(PyExc_TypeError, "factory and reset are called: functions are needed");
        return NULL;
    }
    if (max_idle < 0 || (uint64_t)max_idle > UINT32_MAX / 4 || item_bytes < 0) {
        PyErr_SetString(PyExc_ValueError, "max_idle is 0 to 1073741823, and no size is negative");
        return NULL;
    }
    struct cf_module_state *state = cf_find_state(type);
    int64_t id = state ? register_pool(name) : -1;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct cf_pool_object *self = id < 0 ? NULL : (void *)allocate(type, 0);
    if (!self)
        return NULL;
    cf_slots_init(&self->slots);
    self->factory = Py_NewRef(factory);
    self->reset = reset == Py_None ? NULL : Py_NewRef(reset);
    self->name = Py_NewRef(name);
    self->lease_type = (PyTypeObject *)Py_NewRef((PyObject *)state->lease_type);
    self->max_idle = (uint32_t)max_idle;
    self->item_bytes = item_bytes;
    self->debug = debug != 0;
    self->zero = zero != 0;
    self->simple = !self->debug && !self->reset && item_bytes == 0;
    self->instrument = (uint32_t)id;
    cf_pool_attach(self);
    return (PyObject *)self;
}

static int pool_traverse(PyObject *object, visitproc visit, void *arg) {
    struct cf_pool_object *self = (struct cf_pool_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->factory);
    Py_VISIT(self->reset);
    Py_VISIT(self->lease_type);
    for (uint32_t slot = 0; slot < self->slots.capacity; slot++) {
        if (self->slots.slots[slot].state == CF_SLOT_IDLE)
            Py_VISIT((PyObject *)self->slots.slots[slot].item);
        Py_VISIT((PyObject *)self->slots.slots[slot].watch);
    }
    return 0;
}

static int pool_tp_clear(PyObject *object) {
    struct cf_pool_object *self = (struct cf_pool_object *)object;
    self->max_idle = 0;
    cf_pool_drop_idle(self);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->reset);
    return 0;
}

/* Gives the counters' place to the next pool of this name, which adds to them. */
static void detach(struct cf_pool_object *self) {
    struct cf_pool *counters = cf_pool_counters(self);
    cf_bump(&counters->abandoned, self->in_use);
    cf_store_relaxed(&counters->in_use, 0);
    cf_store_relaxed(&counters->idle, 0);
    if (self->shard)
        cf_segment_release_shard(self->shard);
}

static void pool_dealloc(PyObject *object) {
    struct cf_pool_object *self = (struct cf_pool_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->debug)
        cf_pool_sweep(self);
    pool_tp_clear(object);
    detach(self);
    for (uint32_t slot = 0; slot < self->slots.capacity; slot++)
        Py_XDECREF((PyObject *)self->slots.slots[slot].watch);
    cf_slots_free(&self->slots);
    Py_CLEAR(self->name);
    Py_CLEAR(self->lease_type);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *pool_get_name(PyObject *object, void *closure) {
    (void)closure;
    return Py_NewRef(((struct cf_pool_object *)object)->name);
}

static PyObject *pool_repr(PyObject *object) {
    struct cf_pool_object *self = (struct cf_pool_object *)object;
    return PyUnicode_FromFormat("<Pool %R: %u in use, %u idle>", self->name, self->in_use,
                                self->idle);
}

static PyObject *pool_reduce(PyObject *object, PyObject *unused) {
    (void)object, (void)unused;
    PyErr_SetString(PyExc_TypeError, "a Pool can not be copied or pickled: make one per process");
    return NULL;
}

static PyMethodDef pool_methods[] = {
    {"acquire", CF_FASTCALL(cf_pool_acquire_method), METH_FASTCALL,
     "Return an idle item, or a new one."},
    {"release", cf_pool_release_method, METH_O, "Take an item back."},
    {"item", CF_FASTCALL(cf_pool_item_method), METH_FASTCALL,
     "Return a context manager: acquire at its beginning, release at its end."},
    {"clear", pool_clear_idle, METH_NOARGS, "Drop all idle items."},
    {"counters", pool_counters, METH_NOARGS, "Return all counters as a dict."},
    {"__reduce__", pool_reduce, METH_NOARGS, "Refuse."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pool_properties[] = {
    {"name", pool_get_name, NULL, "The name of its row in the report.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_new, (void *)pool_new},
    {Py_tp_dealloc, (void *)pool_dealloc},
    {Py_tp_traverse, (void *)pool_traverse},
    {Py_tp_clear, (void *)pool_tp_clear},
    {Py_tp_repr, (void *)pool_repr},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_properties},
    {Py_tp_doc, (void *)"Objects that are used again."},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "cfctl._native.Pool",
    .basicsize = sizeof(struct cf_pool_object),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

static int pool_add(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->lease_type = cf_add_type(module, &cf_lease_spec);
    PyTypeObject *pool = state->lease_type ? cf_add_type(module, &pool_spec) : NULL;
    if (!pool)
        return -1;
    Py_DECREF((PyObject *)pool);
    return 0;
}

const struct cf_binding_topic cf_topic_pool = {NULL, pool_add};
