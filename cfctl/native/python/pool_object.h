/* What the files of the Pool type share: pool.c makes and reports, pool_items.c hands items out and
 * takes them back, pool_lease.c does both for a `with` block.
 *
 * A pool's lock is the GIL, or where there is none the critical section of the object; no Python
 * code runs while it is held. */
#ifndef CF_POOL_OBJECT_H
#define CF_POOL_OBJECT_H

#include "binding.h"

#include <stdbool.h>

#include "pool.h"
#include "process.h"

#if PY_VERSION_HEX >= 0x030d0000 && !defined(Py_LIMITED_API)
#define CF_LOCK_POOL(pool) Py_BEGIN_CRITICAL_SECTION((PyObject *)(pool))
#define CF_UNLOCK_POOL() Py_END_CRITICAL_SECTION()
#else
#define CF_LOCK_POOL(pool) {
#define CF_UNLOCK_POOL() }
#endif

/* What each acquire and release needs comes first, in one or two cache lines. */
struct cf_pool_object {
    PyObject_HEAD struct cf_pool *counters; /* in the segment, or `own` when it has no room */
    uint32_t generation;                    /* of the process that `shard` belongs to */
    uint32_t in_use, idle, max_idle, high_water;
    bool simple;           /* no reset, no debug mode, no buffers: nothing to do at a release */
    bool debug, zero;      /* `zero`: of buffers, when they are released */
    struct cf_slots slots; /* idle items are owned, others are not */
    PyObject *factory;     /* NULL once the collector cleared it */
    PyObject *reset;       /* NULL = none */
    PyObject *name;
    PyTypeObject *lease_type;
    struct cf_shard *shard; /* NULL with `own` */
    struct cf_pool own;
    struct cf_pool earlier;   /* what pools of this name counted in that place before */
    uint64_t misses_to_sweep; /* in debug mode: until dead items are looked for again */
    uint64_t unwatchable;     /* in debug mode: items that no weak reference can be made to */
    Py_ssize_t item_bytes;    /* of a pool of bytearrays; else 0 */
    uint32_t instrument;
};

/* Finds the pool's counters a place in this process's segment, from zero but for what is in use and
 * idle now. Under the lock. */
void cf_pool_attach(struct cf_pool_object *self);

/* Returns the counters. Under the lock; a forked child's are new ones. */
static inline struct cf_pool *cf_pool_counters(struct cf_pool_object *self) {
    if (cf_unlikely(self->generation != cf_process_generation))
        cf_pool_attach(self);
    return self->counters;
}

/* In debug mode: counts the items that were destroyed while they were out. Under the lock. Called
 * as often as there are items out, so that it costs a constant time per miss. */
void cf_pool_sweep(struct cf_pool_object *self);

/* Takes all idle items off the pool, one after the other: a destructor may use the pool. */
void cf_pool_drop_idle(struct cf_pool_object *self);

/* Returns a new reference to an idle item, or to one that the factory made; NULL with an exception.
 */
PyObject *cf_pool_acquire(struct cf_pool_object *self);

/* Takes an item back, whose reference stays the caller's. 0, or -1 with an exception. */
int cf_pool_release(struct cf_pool_object *self, PyObject *item);

/* The methods `acquire` and `release`, beside what they call: each is one jump from Python. */
PyObject *cf_pool_acquire_method(PyObject *object, PyObject *const *args, Py_ssize_t count);
PyObject *cf_pool_release_method(PyObject *object, PyObject *item);

/* The method `item`: a context manager for one block. */
PyObject *cf_pool_item_method(PyObject *object, PyObject *const *args, Py_ssize_t count);

extern PyType_Spec cf_lease_spec;

#endif
