#include "pool_object.h"

#include <string.h>

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
    const char *const *text = texts[refusal];
    return cf_raise_error("PoolError", text[0], text[1], text[2]);
}

void cf_pool_attach(struct cf_pool_object *self) {
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

static inline void store_in_use(struct cf_pool_object *self, struct cf_pool *counters,
                                uint32_t in_use) {
    self->in_use = in_use;
    cf_store_relaxed(&counters->in_use, in_use);
}

static inline void count_taken(struct cf_pool_object *self, struct cf_pool *counters) {
    uint32_t in_use = self->in_use + 1;
    store_in_use(self, counters, in_use);
    if (cf_likely(in_use <= self->high_water))
        return;
    self->high_water = in_use;
    if (in_use > cf_load_relaxed(&counters->high_water))
        cf_store_relaxed(&counters->high_water, in_use);
}

/* Stops at none, as a count that wraps would read as four billion. */
static inline void count_returned(struct cf_pool_object *self, struct cf_pool *counters) {
    store_in_use(self, counters, self->in_use > 0 ? self->in_use - 1 : 0);
}

static inline void set_idle(struct cf_pool_object *self, struct cf_pool *counters, uint32_t idle) {
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

/* Forgets an item and its weak reference, which has no callback: no Python code runs. */
static void forget(struct cf_pool_object *self, uint32_t slot) {
    Py_XDECREF((PyObject *)self->slots.slots[slot].watch);
    cf_slots_remove(&self->slots, slot);
}

/* Forgets an item that was destroyed without having come back. Under the lock. */
static void count_lost(struct cf_pool_object *self, uint32_t slot) {
    struct cf_pool *counters = cf_pool_counters(self);
    cf_bump(&counters->lost, 1);
    count_returned(self, counters);
    forget(self, slot);
}

/* In debug mode: counts the items that were destroyed while they were out. Under the lock. Called
 * as often as there are items out, so that it costs a constant time per miss. */
void cf_pool_sweep(struct cf_pool_object *self) {
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
static int enter_item(struct cf_pool_object *self, PyObject *item, PyObject *watch,
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
    struct cf_pool *counters = cf_pool_counters(self);
    cf_bump(&counters->created, 1);
    count_taken(self, counters);
    return 0;
}

static void count_factory_error(struct cf_pool_object *self) {
    CF_LOCK_POOL(self);
    struct cf_pool *counters = cf_pool_counters(self);
    cf_bump(&counters->factory_errors, 1);
    CF_UNLOCK_POOL();
}

/* Makes a weak reference to an item; NULL without an exception when its type allows none, and with
 * one when there is no memory. */
static PyObject *make_watch(struct cf_pool_object *self, PyObject *item) {
    PyObject *watch = PyWeakref_NewRef(item, NULL);
    if (!watch && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        self->unwatchable++;
    }
    return watch;
}

static PyObject *make_item(struct cf_pool_object *self) {
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
    CF_LOCK_POOL(self);
    result = enter_item(self, item, watch, &refusal);
    CF_UNLOCK_POOL();
    if (result == 0 && refusal == ACCEPTED)
        return item;
    Py_DECREF(item);
    return result < 0 ? PyErr_NoMemory() : raise_pool_error(refusal);
}

/* Counts an item that leaves the idle list; its reference goes with it. Under the lock. */
static inline PyObject *hand_out(struct cf_pool_object *self, struct cf_pool *counters,
                                 uint32_t slot) {
    cf_bump(&counters->hits, 1);
    set_idle(self, counters, self->idle - 1);
    count_taken(self, counters);
    return self->slots.slots[slot].item;
}

/* As cf_pool_acquire, whatever the pool has, and in a forked child. Out of line, as the usual case
 * then saves no registers: 2 ns. */
static __attribute__((noinline)) PyObject *acquire_slowly(struct cf_pool_object *self) {
    PyObject *item = NULL;
    CF_LOCK_POOL(self);
    struct cf_pool *counters = cf_pool_counters(self);
    uint32_t slot = cf_slots_pop_idle(&self->slots);
    if (slot != CF_NO_SLOT) {
        item = hand_out(self, counters, slot);
    } else {
        cf_bump(&counters->misses, 1);
        if (self->debug && self->misses_to_sweep-- == 0)
            cf_pool_sweep(self);
    }
    CF_UNLOCK_POOL();
    return item ? item : make_item(self);
}

PyObject *cf_pool_acquire(struct cf_pool_object *self) {
    PyObject *item = NULL;
    CF_LOCK_POOL(self);
    if (cf_likely(self->generation == cf_process_generation)) {
        uint32_t slot = cf_slots_pop_idle(&self->slots);
        if (cf_likely(slot != CF_NO_SLOT))
            item = hand_out(self, self->counters, slot);
    }
    CF_UNLOCK_POOL();
    return cf_likely(item != NULL) ? item : acquire_slowly(self);
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
static inline enum refusal find_returning(struct cf_pool_object *self, PyObject *item,
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
static bool buffer_is_whole(struct cf_pool_object *self, PyObject *buffer) {
    if (PyByteArray_Size(buffer) != self->item_bytes)
        return false;
    if (self->zero)
        memset(PyByteArray_AsString(buffer), 0, (size_t)self->item_bytes);
    return true;
}

/* Makes an item that came back idle, which takes a reference. Under the lock. */
static inline void keep(struct cf_pool_object *self, struct cf_pool *counters, PyObject *item,
                        uint32_t slot) {
    cf_bump(&counters->released, 1);
    count_returned(self, counters);
    cf_slots_push_idle(&self->slots, slot);
    set_idle(self, counters, self->idle + 1);
    Py_INCREF(item);
}

/* Ends the return of an item: it becomes idle, or is forgotten. Under the lock. */
static void settle(struct cf_pool_object *self, PyObject *item, uint32_t slot, bool whole) {
    struct cf_pool *counters = cf_pool_counters(self);
    if (whole && self->idle < self->max_idle) {
        keep(self, counters, item, slot);
        return;
    }
    cf_bump(&counters->released, 1);
    cf_bump(&counters->discarded, 1);
    count_returned(self, counters);
    forget(self, slot);
}

static int release_with_reset(struct cf_pool_object *self, PyObject *item, uint32_t slot) {
    PyObject *reset = Py_NewRef(self->reset);
    PyObject *result = PyObject_Vectorcall(reset, &item, 1, NULL);
    Py_DECREF(reset);
    CF_LOCK_POOL(self);
    if (!result) {
        struct cf_pool *counters = cf_pool_counters(self);
        cf_bump(&counters->reset_errors, 1);
    }
    settle(self, item, slot, result != NULL);
    CF_UNLOCK_POOL();
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* As cf_pool_release, of any item. */
static __attribute__((noinline)) int release_carefully(struct cf_pool_object *self,
                                                       PyObject *item) {
    uint32_t slot = CF_NO_SLOT;
    enum refusal refusal;
    bool has_reset = false;
    CF_LOCK_POOL(self);
    refusal = find_returning(self, item, &slot);
    if (refusal == ACCEPTED && self->item_bytes > 0 && PyByteArray_Size(item) == self->item_bytes &&
        is_viewed(item, self->item_bytes))
        refusal = STILL_VIEWED;
    if (cf_unlikely(refusal != ACCEPTED)) {
        struct cf_pool *counters = cf_pool_counters(self);
        cf_bump(&counters->misuses, 1);
    } else if (self->reset) {
        has_reset = true;
        self->slots.slots[slot].state = CF_SLOT_RETURNING;
    } else {
        settle(self, item, slot, self->item_bytes == 0 || buffer_is_whole(self, item));
    }
    CF_UNLOCK_POOL();
    if (cf_unlikely(refusal != ACCEPTED)) {
        raise_pool_error(refusal);
        return -1;
    }
    return has_reset ? release_with_reset(self, item, slot) : 0;
}

int cf_pool_release(struct cf_pool_object *self, PyObject *item) {
    bool done = false;
    CF_LOCK_POOL(self);
    /* Mostly it is the one that was handed out last, and is kept. */
    struct cf_slots *table = &self->slots;
    uint32_t slot = table->latest;
    if (cf_likely(self->simple && slot != CF_NO_SLOT && table->slots[slot].item == item &&
                  table->slots[slot].state == CF_SLOT_OUT && self->idle < self->max_idle &&
                  self->generation == cf_process_generation)) {
        keep(self, self->counters, item, slot);
        done = true;
    }
    CF_UNLOCK_POOL();
    return cf_likely(done) ? 0 : release_carefully(self, item);
}

PyObject *cf_pool_acquire_method(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args;
    if (count != 0) {
        PyErr_SetString(PyExc_TypeError, "acquire takes no arguments");
        return NULL;
    }
    return cf_pool_acquire((struct cf_pool_object *)object);
}

PyObject *cf_pool_release_method(PyObject *object, PyObject *item) {
    if (cf_pool_release((struct cf_pool_object *)object, item) < 0)
        return NULL;
    Py_RETURN_NONE;
}

void cf_pool_drop_idle(struct cf_pool_object *self) {
    PyObject *item;
    do {
        item = NULL;
        CF_LOCK_POOL(self);
        uint32_t slot = cf_slots_pop_idle(&self->slots);
        if (slot != CF_NO_SLOT) {
            struct cf_pool *counters = cf_pool_counters(self);
            item = self->slots.slots[slot].item;
            set_idle(self, counters, self->idle - 1);
            cf_bump(&counters->discarded, 1);
            forget(self, slot);
        }
        CF_UNLOCK_POOL();
        Py_XDECREF(item);
    } while (item);
}
