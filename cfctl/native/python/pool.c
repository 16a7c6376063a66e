/* Pool: objects that are used again. Its lock is the GIL, or where there is none the critical
 * section of the object; no Python code runs while it is held. */
#include "binding.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"
#include "process.h"

#if PY_VERSION_HEX >= 0x030d0000 && !defined(Py_LIMITED_API)
#define LOCK(object) Py_BEGIN_CRITICAL_SECTION(object)
#define UNLOCK() Py_END_CRITICAL_SECTION()
#else
#define LOCK(object) {
#define UNLOCK() }
#endif

struct pool_object {
    PyObject_HEAD PyObject *factory; /* NULL once the collector cleared it */
    PyObject *reset;                 /* NULL = none */
    PyObject *name;
    PyTypeObject *lease_type;
    struct cf_slots slots;    /* idle items are owned, others are not */
    struct cf_pool *counters; /* in the segment, or `own` when it has no room */
    struct cf_shard *shard;   /* NULL with `own` */
    struct cf_pool own;
    struct cf_pool earlier;   /* what pools of this name counted in that place before */
    uint64_t misses_to_sweep; /* in debug mode: until dead items are looked for again */
    uint64_t unwatchable;     /* in debug mode: items that no weak reference can be made to */
    Py_ssize_t item_bytes;    /* of a pool of bytearrays; else 0 */
    uint32_t instrument;
    uint32_t generation; /* of the process that `shard` belongs to */
    uint32_t in_use, idle, max_idle, high_water;
    bool debug, zero;
};

struct lease_object {
    PyObject_HEAD struct pool_object *pool;
    PyObject *item; /* NULL outside of the block */
};

enum refusal { ACCEPTED, FOREIGN, RETURNED_TWICE, STILL_VIEWED, ALREADY_HELD };

static PyObject *raise_pool_error(enum refusal refusal) {
    static const char *const texts[][3] = {
        [FOREIGN] = {"The item is not released.", "This pool did not hand it out.",
                     "Release an item to the pool it was acquired from."},
        [RETURNED_TWICE] = {"The item is not released.", "It has been released already.",
                            "Release each item once, and do not use it afterwards."},
        [STILL_VIEWED] = {"The buffer is not released.",
                          "A memoryview or an array of it is still in use.",
                          "Release or drop all views of it first."},
        [ALREADY_HELD] = {"The pool has no new item.",
                          "Its factory returned one that the pool already holds.",
                          "Let the factory make a new object each time."},
    };
    PyObject *module = PyImport_ImportModule("cfctl.errors");
    PyObject *type = module ? PyObject_GetAttrString(module, "PoolError") : NULL;
    const char *const *text = texts[refusal];
    PyObject *error = type ? PyObject_CallFunction(type, "sss", text[0], text[1], text[2]) : NULL;
    if (error)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_XDECREF(type);
    Py_XDECREF(module);
    return NULL;
}

/* Finds the pool's counters a place in this process's segment, from zero but for what is in use and
 * idle now. Under the lock. */
static void attach(struct pool_object *self) {
    self->generation = cf_process_generation;
    self->shard = cf_process_claim_shard(self->instrument);
    self->own = (struct cf_pool){0};
    self->counters = self->shard ? cf_shard_payload(self->shard) : &self->own;
    struct cf_pool *counters = self->counters; /* may go on from an earlier pool of this name */
    self->earlier = *counters;
    self->high_water = self->in_use;
    cf_store_relaxed(&counters->in_use, self->in_use);
    cf_store_relaxed(&counters->idle, self->idle);
    if (self->in_use > cf_load_relaxed(&counters->high_water))
        cf_store_relaxed(&counters->high_water, self->in_use);
    if (self->max_idle > cf_load_relaxed(&counters->max_idle))
        cf_store_relaxed(&counters->max_idle, self->max_idle);
    cf_store_relaxed(&counters->item_bytes, (uint64_t)self->item_bytes);
    if (self->debug)
        cf_store_relaxed(&counters->watched, UINT64_C(1));
}

/* Returns the counters. Under the lock; a forked child's are new ones. */
static inline struct cf_pool *counters_of(struct pool_object *self) {
    if (cf_unlikely(self->generation != cf_process_generation))
        attach(self);
    return self->counters;
}

static inline void set_in_use(struct pool_object *self, struct cf_pool *counters, uint32_t in_use) {
    self->in_use = in_use;
    cf_store_relaxed(&counters->in_use, in_use);
    if (cf_likely(in_use <= self->high_water))
        return;
    self->high_water = in_use;
    if (in_use > cf_load_relaxed(&counters->high_water))
        cf_store_relaxed(&counters->high_water, in_use);
}

static inline void set_idle(struct pool_object *self, struct cf_pool *counters, uint32_t idle) {
    self->idle = idle;
    cf_store_relaxed(&counters->idle, idle);
}

/* Whether an item that is out has been destroyed. A dead reference to it is what tells; without
 * one nothing does. The call is the one look that no version has deprecated. */
static bool is_dead(PyObject *watch) {
    PyObject *item = watch ? PyObject_CallNoArgs(watch) : NULL;
    bool dead = item == Py_None;
    Py_XDECREF(item);
    return dead;
}

static inline uint32_t out_or_less(uint32_t count) {
    return count > 0 ? count - 1 : 0;
}

/* Forgets an item and its weak reference, which has no callback: no Python code runs. */
static void forget(struct pool_object *self, uint32_t slot) {
    Py_XDECREF((PyObject *)self->slots.slots[slot].watch);
    cf_slots_remove(&self->slots, slot);
}

/* Forgets an item that was destroyed without having come back. Under the lock. */
static void count_lost(struct pool_object *self, uint32_t slot) {
    struct cf_pool *counters = counters_of(self);
    cf_bump(&counters->lost, 1);
    set_in_use(self, counters, out_or_less(self->in_use));
    forget(self, slot);
}

/* In debug mode: counts the items that were destroyed while they were out. Under the lock. Called
 * as often as there are items out, so that it costs a constant time per miss. */
static void sweep(struct pool_object *self) {
    uint64_t out = 0;
    for (uint32_t slot = 0; slot < self->slots.capacity; slot++) {
        if (self->slots.slots[slot].state != CF_SLOT_OUT)
            continue;
        if (is_dead(self->slots.slots[slot].watch))
            count_lost(self, slot);
        else
            out++;
    }
    self->misses_to_sweep = out + 16;
}

/* Enters a new item as one that is out. Under the lock; takes `watch`. -1 without an exception when
 * there is no memory, else 0 with `refusal` set. */
static int enter_item(struct pool_object *self, PyObject *item, PyObject *watch,
                      enum refusal *refusal) {
    uint32_t known = cf_slots_find(&self->slots, item);
    if (known != CF_NO_SLOT && self->slots.slots[known].state != CF_SLOT_OUT) {
        Py_XDECREF(watch);
        *refusal = ALREADY_HELD;
        return 0;
    }
    if (known != CF_NO_SLOT) {
        /* An earlier item was dropped without a release, and this one stands at its address. */
        if (is_dead(self->slots.slots[known].watch))
            count_lost(self, known);
        else
            forget(self, known);
    }
    if (cf_slots_reserve(&self->slots) != 0) {
        Py_XDECREF(watch);
        return -1;
    }
    cf_slots_add(&self->slots, item, watch);
    struct cf_pool *counters = counters_of(self);
    cf_bump(&counters->created, 1);
    set_in_use(self, counters, self->in_use + 1);
    return 0;
}

static void count_factory_error(struct pool_object *self) {
    LOCK((PyObject *)self);
    struct cf_pool *counters = counters_of(self);
    cf_bump(&counters->factory_errors, 1);
    UNLOCK();
}

/* Makes a weak reference to an item; NULL without an exception when its type allows none, and with
 * one when there is no memory. */
static PyObject *make_watch(struct pool_object *self, PyObject *item) {
    PyObject *watch = PyWeakref_NewRef(item, NULL);
    if (!watch && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        self->unwatchable++;
    }
    return watch;
}

static PyObject *make_item(struct pool_object *self) {
    PyObject *factory = self->factory;
    if (!factory) {
        PyErr_SetString(PyExc_ReferenceError, "the pool is being destroyed");
        return NULL;
    }
    Py_INCREF(factory);
    PyObject *item = PyObject_CallNoArgs(factory);
    Py_DECREF(factory);
    PyObject *watch = item && self->debug ? make_watch(self, item) : NULL;
    if (!item || PyErr_Occurred()) {
        count_factory_error(self);
        Py_XDECREF(item);
        return NULL;
    }
    enum refusal refusal = ACCEPTED;
    int result;
    LOCK((PyObject *)self);
    result = enter_item(self, item, watch, &refusal);
    UNLOCK();
    if (result == 0 && refusal == ACCEPTED)
        return item;
    Py_DECREF(item);
    return result < 0 ? PyErr_NoMemory() : raise_pool_error(refusal);
}

static PyObject *acquire(struct pool_object *self) {
    PyObject *item = NULL;
    LOCK((PyObject *)self);
    struct cf_pool *counters = counters_of(self);
    uint32_t slot = cf_slots_pop_idle(&self->slots);
    if (cf_likely(slot != CF_NO_SLOT)) {
        item = self->slots.slots[slot].item;
        cf_bump(&counters->hits, 1);
        set_idle(self, counters, self->idle - 1);
        set_in_use(self, counters, self->in_use + 1);
    } else {
        cf_bump(&counters->misses, 1);
        if (self->debug && self->misses_to_sweep-- == 0)
            sweep(self);
    }
    UNLOCK();
    return item ? item : make_item(self);
}

/* Whether a memoryview or the like holds the buffer; then it can not be resized, and is not. The
 * byte that a shorter bytearray ends with is put back. */
static bool is_viewed(PyObject *buffer, Py_ssize_t bytes) {
    char last = PyByteArray_AsString(buffer)[bytes - 1];
    if (PyByteArray_Resize(buffer, bytes - 1) < 0) {
        PyErr_Clear();
        return true;
    }
    /* It has kept its memory. */
    if (PyByteArray_Resize(buffer, bytes) < 0)
        PyErr_Clear();
    else
        PyByteArray_AsString(buffer)[bytes - 1] = last;
    return false;
}

/* Finds the slot of an item that comes back, or why it is refused. Under the lock. */
static inline enum refusal find_returning(struct pool_object *self, PyObject *item,
                                          uint32_t *found) {
    struct cf_slots *table = &self->slots;
    uint32_t slot = table->latest;
    if (cf_unlikely(slot == CF_NO_SLOT || table->slots[slot].item != item))
        slot = cf_slots_find(table, item);
    if (cf_unlikely(slot == CF_NO_SLOT))
        return FOREIGN;
    if (cf_unlikely(table->slots[slot].state != CF_SLOT_OUT))
        return RETURNED_TWICE;
    if (cf_unlikely(self->debug) && is_dead(table->slots[slot].watch)) {
        count_lost(self, slot);
        return FOREIGN;
    }
    *found = slot;
    return ACCEPTED;
}

/* Of a pool of buffers: whether it can be used again, once all is done to it that has to be. */
static bool buffer_is_whole(struct pool_object *self, PyObject *buffer) {
    if (PyByteArray_Size(buffer) != self->item_bytes)
        return false;
    if (self->zero)
        memset(PyByteArray_AsString(buffer), 0, (size_t)self->item_bytes);
    return true;
}

/* Ends the return of an item: it becomes idle, or is forgotten. Under the lock. True when it was
 * kept, which takes a reference. */
static inline bool settle(struct pool_object *self, PyObject *item, uint32_t slot, bool whole) {
    struct cf_pool *counters = counters_of(self);
    cf_bump(&counters->released, 1);
    set_in_use(self, counters, out_or_less(self->in_use));
    if (cf_likely(whole && self->idle < self->max_idle)) {
        cf_slots_push_idle(&self->slots, slot);
        set_idle(self, counters, self->idle + 1);
        Py_INCREF(item);
        return true;
    }
    cf_bump(&counters->discarded, 1);
    forget(self, slot);
    return false;
}

static int release_with_reset(struct pool_object *self, PyObject *item, uint32_t slot) {
    PyObject *reset = Py_NewRef(self->reset);
    PyObject *result = PyObject_Vectorcall(reset, &item, 1, NULL);
    Py_DECREF(reset);
    LOCK((PyObject *)self);
    if (!result) {
        struct cf_pool *counters = counters_of(self);
        cf_bump(&counters->reset_errors, 1);
    }
    settle(self, item, slot, result != NULL);
    UNLOCK();
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* Takes an item back, whose reference stays the caller's. -1 with an exception. */
static int release(struct pool_object *self, PyObject *item) {
    uint32_t slot = CF_NO_SLOT;
    enum refusal refusal;
    bool has_reset = false;
    LOCK((PyObject *)self);
    refusal = find_returning(self, item, &slot);
    if (refusal == ACCEPTED && self->item_bytes > 0 && PyByteArray_Size(item) == self->item_bytes &&
        is_viewed(item, self->item_bytes))
        refusal = STILL_VIEWED;
    if (cf_unlikely(refusal != ACCEPTED)) {
        struct cf_pool *counters = counters_of(self);
        cf_bump(&counters->misuses, 1);
    } else if (self->reset) {
        has_reset = true;
        self->slots.slots[slot].state = CF_SLOT_RETURNING;
    } else {
        settle(self, item, slot, self->item_bytes == 0 || buffer_is_whole(self, item));
    }
    UNLOCK();
    if (cf_unlikely(refusal != ACCEPTED)) {
        raise_pool_error(refusal);
        return -1;
    }
    return has_reset ? release_with_reset(self, item, slot) : 0;
}

static PyObject *pool_acquire(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args;
    if (count != 0) {
        PyErr_SetString(PyExc_TypeError, "acquire takes no arguments");
        return NULL;
    }
    return acquire((struct pool_object *)object);
}

static PyObject *pool_release(PyObject *object, PyObject *item) {
    if (release((struct pool_object *)object, item) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *pool_item(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args;
    if (count != 0) {
        PyErr_SetString(PyExc_TypeError, "item takes no arguments");
        return NULL;
    }
    struct pool_object *self = (struct pool_object *)object;
    struct lease_object *lease = PyObject_GC_New(struct lease_object, self->lease_type);
    if (!lease)
        return NULL;
    lease->pool = (struct pool_object *)Py_NewRef(object);
    lease->item = NULL;
    PyObject_GC_Track((PyObject *)lease);
    return (PyObject *)lease;
}

/* Takes all idle items off the pool, one after the other: a destructor may use the pool. */
static void drop_idle(struct pool_object *self) {
    PyObject *item;
    do {
        item = NULL;
        LOCK((PyObject *)self);
        uint32_t slot = cf_slots_pop_idle(&self->slots);
        if (slot != CF_NO_SLOT) {
            struct cf_pool *counters = counters_of(self);
            item = self->slots.slots[slot].item;
            set_idle(self, counters, self->idle - 1);
            cf_bump(&counters->discarded, 1);
            forget(self, slot);
        }
        UNLOCK();
        Py_XDECREF(item);
    } while (item);
}

static PyObject *pool_clear_idle(PyObject *object, PyObject *unused) {
    (void)unused;
    drop_idle((struct pool_object *)object);
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
    struct pool_object *self = (struct pool_object *)object;
    struct cf_pool seen;
    bool in_segment;
    uint64_t unwatchable;
    LOCK(object);
    if (self->debug)
        sweep(self);
    seen = *counters_of(self);
    seen.high_water = self->high_water;
    seen.max_idle = self->max_idle;
    seen.watched = self->debug;
    in_segment = self->shard != NULL;
    unwatchable = self->unwatchable;
    UNLOCK();
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
    struct pool_object *self = id < 0 ? NULL : (void *)allocate(type, 0);
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
    self->instrument = (uint32_t)id;
    attach(self);
    return (PyObject *)self;
}

static int pool_traverse(PyObject *object, visitproc visit, void *arg) {
    struct pool_object *self = (struct pool_object *)object;
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
    struct pool_object *self = (struct pool_object *)object;
    self->max_idle = 0;
    drop_idle(self);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->reset);
    return 0;
}

/* Gives the counters' place to the next pool of this name, which adds to them. */
static void detach(struct pool_object *self) {
    struct cf_pool *counters = counters_of(self);
    cf_bump(&counters->abandoned, self->in_use);
    cf_store_relaxed(&counters->in_use, 0);
    cf_store_relaxed(&counters->idle, 0);
    if (self->shard)
        cf_segment_release_shard(self->shard);
}

static void pool_dealloc(PyObject *object) {
    struct pool_object *self = (struct pool_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->debug)
        sweep(self);
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
    return Py_NewRef(((struct pool_object *)object)->name);
}

static PyObject *pool_repr(PyObject *object) {
    struct pool_object *self = (struct pool_object *)object;
    return PyUnicode_FromFormat("<Pool %R: %u in use, %u idle>", self->name, self->in_use,
                                self->idle);
}

static PyObject *pool_reduce(PyObject *object, PyObject *unused) {
    (void)object, (void)unused;
    PyErr_SetString(PyExc_TypeError, "a Pool can not be copied or pickled: make one per process");
    return NULL;
}

static PyMethodDef pool_methods[] = {
    {"acquire", CF_FASTCALL(pool_acquire), METH_FASTCALL, "Return an idle item, or a new one."},
    {"release", pool_release, METH_O, "Take an item back."},
    {"item", CF_FASTCALL(pool_item), METH_FASTCALL,
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
    .basicsize = sizeof(struct pool_object),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

static PyObject *lease_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    struct lease_object *lease = (struct lease_object *)object;
    if (lease->item) {
        PyErr_SetString(PyExc_RuntimeError, "the block has begun: take a new item() for each");
        return NULL;
    }
    PyObject *item = acquire(lease->pool);
    if (item && lease->item) {
        /* The factory entered this very lease. */
        int released = release(lease->pool, item);
        Py_DECREF(item);
        if (released == 0)
            PyErr_SetString(PyExc_RuntimeError, "the block has begun in the factory");
        return NULL;
    }
    lease->item = item;
    return item ? Py_NewRef(item) : NULL;
}

static PyObject *lease_exit(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args, (void)count;
    struct lease_object *lease = (struct lease_object *)object;
    PyObject *item = lease->item;
    if (!item) {
        PyErr_SetString(PyExc_RuntimeError, "the block has not begun");
        return NULL;
    }
    lease->item = NULL;
    int released = release(lease->pool, item);
    Py_DECREF(item);
    if (released < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int lease_traverse(PyObject *object, visitproc visit, void *arg) {
    struct lease_object *lease = (struct lease_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)lease->pool);
    Py_VISIT(lease->item);
    return 0;
}

static int lease_clear(PyObject *object) {
    Py_CLEAR(((struct lease_object *)object)->item);
    return 0;
}

static void lease_dealloc(PyObject *object) {
    struct lease_object *lease = (struct lease_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    lease_clear(object);
    Py_DECREF((PyObject *)lease->pool);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMethodDef lease_methods[] = {
    {"__enter__", lease_enter, METH_NOARGS, "Acquire."},
    {"__exit__", CF_FASTCALL(lease_exit), METH_FASTCALL, "Release."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lease_slots[] = {
    {Py_tp_dealloc, (void *)lease_dealloc},
    {Py_tp_traverse, (void *)lease_traverse},
    {Py_tp_clear, (void *)lease_clear},
    {Py_tp_methods, lease_methods},
    {Py_tp_doc, (void *)"One block's use of an item; made by Pool.item."},
    {0, NULL},
};

static PyType_Spec lease_spec = {
    .name = "cfctl._native.Lease",
    .basicsize = sizeof(struct lease_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lease_slots,
};

static int pool_add(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    state->lease_type = cf_add_type(module, &lease_spec);
    PyTypeObject *pool = state->lease_type ? cf_add_type(module, &pool_spec) : NULL;
    if (!pool)
        return -1;
    Py_DECREF((PyObject *)pool);
    return 0;
}

const struct cf_binding_topic cf_topic_pool = {NULL, pool_add};
