/* A ring of raw stamps: an id and a tick, recorded in a few nanoseconds and converted later. */
#ifndef CF_STAMP_H
#define CF_STAMP_H

#include <stdint.h>

#include "atomic.h"

struct cf_stamp {
    uint64_t id;
    uint64_t tick;
};

/* The slots belong to the owner; capacity is mask + 1, a power of two. */
struct cf_stamp_ring {
    struct cf_stamp *slots;
    uint64_t mask;
    uint64_t recorded; /* since the ring was made; beyond the capacity the oldest are overwritten */
};

/* Stores a stamp in the slot of its number. Readers may run at the same time: a slot that is
 * overwritten meanwhile shows the old or the new id beside the old or the new tick. */
static inline void cf_stamp_store(struct cf_stamp_ring *ring, uint64_t number, uint64_t id,
                                  uint64_t tick) {
    struct cf_stamp *slot = &ring->slots[number & ring->mask];
    cf_store_relaxed(&slot->id, id);
    cf_store_relaxed(&slot->tick, tick);
}

/* Records a stamp; for one writer at a time, such as the holder of a lock. Read the tick first
 * thing: the counter's 10 ns then pass while the rest goes on. */
static inline void cf_stamp_record(struct cf_stamp_ring *ring, uint64_t id, uint64_t tick) {
    uint64_t number = cf_load_relaxed(&ring->recorded);
    cf_store_relaxed(&ring->recorded, number + 1);
    cf_stamp_store(ring, number, id, tick);
}

/* Records a stamp; for any number of writers, each in a slot of its own. 5 ns dearer. */
static inline void cf_stamp_record_shared(struct cf_stamp_ring *ring, uint64_t id, uint64_t tick) {
    cf_stamp_store(ring, cf_add_relaxed(&ring->recorded, 1), id, tick);
}

#endif
