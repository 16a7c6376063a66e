/* What the files of a subscription share. */
#ifndef CF_SUBSCRIPTION_RINGS_H
#define CF_SUBSCRIPTION_RINGS_H

#include <unistd.h>

#include "subscription.h"

/* Returns how many messages that were this reader's own it has taken. */
static inline uint64_t cf_ring_delivered(const struct cf_ring_reader *reader) {
    if (reader->member)
        return reader->taken;
    uint64_t taken = reader->position > reader->joined ? reader->position - reader->joined : 0;
    return taken > reader->dropped ? taken - reader->dropped : 0;
}

/* Adds an item; 0 or -ENOMEM. A waiting thread may read the array meanwhile. */
int cf_growing_add(struct cf_growing *array, void *item);

/* After a topic, reader or pattern was added or removed. */
void cf_subscription_note_only(struct cf_subscription *subscription);

/* Frees the arrays, not the items. */
void cf_growing_free(struct cf_growing *array);

#endif
