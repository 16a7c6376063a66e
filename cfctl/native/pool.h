/* Object pools without the objects: the counters of a pool in the segment, and the table of the
 * items it made, by address. What an item is, and when it lives, is the binding's. */
#ifndef CF_POOL_H
#define CF_POOL_H

#include <stdint.h>

#include "atomic.h"
#include "segment.h"

/* One shard per pool, not per thread: whoever holds the pool's lock (with a GIL: the GIL) is the
 * writer, readers look at any time. Pools of one name are one entry. */
struct cf_pool {
    uint64_t hits;           /* acquired an idle item */
    uint64_t misses;         /* found none: the factory was called */
    uint64_t created;        /* items the factory made */
    uint64_t released;       /* items that came back */
    uint64_t discarded;      /* dropped: more than max_idle, changed size, or its reset failed */
    uint64_t lost;           /* destroyed without having come back; seen in debug mode only */
    uint64_t abandoned;      /* in use when the pool itself went */
    uint64_t factory_errors; /* exceptions of the factory */
    uint64_t reset_errors;   /* exceptions of the reset */
    uint64_t misuses;        /* releases that were refused: double, foreign, or still viewed */
    uint64_t in_use;         /* now */
    uint64_t idle;           /* now */
    uint64_t high_water;     /* most that were in use at once, in one pool */
    uint64_t max_idle;       /* most that are kept, in one pool */
    uint64_t item_bytes;     /* of a buffer pool, else 0 */
    uint64_t watched;        /* 1: a pool was in debug mode */
};

extern const struct cf_kind cf_kind_pool;

#define CF_NO_SLOT UINT32_MAX

enum cf_slot_state { CF_SLOT_FREE, CF_SLOT_IDLE, CF_SLOT_OUT, CF_SLOT_RETURNING };

struct cf_slot {
    void *item;     /* its address, the key */
    void *watch;    /* whatever the binding keeps beside it */
    uint32_t next;  /* of the idle or the free list */
    uint32_t state; /* enum cf_slot_state */
};

/* The items of a pool by address. Not thread-safe: callers serialise. A slot's number is valid
 * until it is removed; pointers into `slots` until the next reserve. */
struct cf_slots {
    struct cf_slot *slots;
    uint32_t *index; /* slot number + 1 by hash, linear probing; 0 = empty */
    uint32_t capacity;
    uint32_t index_mask;
    uint32_t free_head; /* CF_NO_SLOT = none */
    uint32_t idle_head; /* CF_NO_SLOT = none; last in, first out: the warmest item */
    uint32_t latest;    /* the slot that left the idle list last */
};

/* Makes an empty table; it allocates nothing. */
void cf_slots_init(struct cf_slots *table);

/* Frees the table's memory, not the items. */
void cf_slots_free(struct cf_slots *table);

/* Makes room for one more item: 0 or -ENOMEM, and then the table is as it was. */
int cf_slots_reserve(struct cf_slots *table);

/* Adds an item that is not in the table, as CF_SLOT_OUT, after a reserve; returns its slot. */
uint32_t cf_slots_add(struct cf_slots *table, void *item, void *watch);

/* Returns the slot of an item, CF_NO_SLOT when it has none. About 2 ns. */
uint32_t cf_slots_find(const struct cf_slots *table, const void *item);

/* Removes a slot that is not on the idle list. */
void cf_slots_remove(struct cf_slots *table, uint32_t slot);

/* Takes the slot that became idle last off the list, as CF_SLOT_OUT; CF_NO_SLOT when there is none.
 */
static inline uint32_t cf_slots_pop_idle(struct cf_slots *table) {
    uint32_t slot = table->idle_head;
    if (cf_unlikely(slot == CF_NO_SLOT))
        return slot;
    table->idle_head = table->slots[slot].next;
    table->slots[slot].state = CF_SLOT_OUT;
    table->latest = slot;
    return slot;
}

/* Puts a slot on the idle list. */
static inline void cf_slots_push_idle(struct cf_slots *table, uint32_t slot) {
    table->slots[slot].next = table->idle_head;
    table->slots[slot].state = CF_SLOT_IDLE;
    table->idle_head = slot;
}

#endif
