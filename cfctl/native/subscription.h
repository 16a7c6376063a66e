/* A subscription: the rings of a topic's publishers, merged, and the wait for their next message.
 */
#ifndef CF_SUBSCRIPTION_H
#define CF_SUBSCRIPTION_H

#include <stdint.h>

#include "ring.h"
#include "topic.h"

#define CF_SUBSCRIPTION_RINGS 64u
/* Rings that were left, whose files may still be there: they are not read a second time. */
#define CF_SUBSCRIPTION_LEFT 1024u

enum cf_wait {
    CF_WAIT_SPIN = 0,     /* never sleeps; its publishers need no fence */
    CF_WAIT_ADAPTIVE = 1, /* spins for a time, then sleeps */
    CF_WAIT_PARK = 2,     /* sleeps at once */
};

/* One thread at a time, but for the functions that say otherwise. Must stay where it is. */
struct cf_subscription {
    struct cf_topic topic;
    int directory_fd;
    char name[CF_TOPIC_BYTES];
    uint32_t name_bytes;
    enum cf_wait wait;
    uint64_t spin_ns;
    uint64_t id;
    uint64_t since_raw_ns; /* rings made later are read from their start */
    uint64_t seen_generation;
    uint64_t next_check_ns; /* for dead writers, CLOCK_MONOTONIC */
    uint32_t count;
    uint32_t turn;        /* the ring that is asked first, of equal priority */
    uint32_t ordered;     /* by hlc and not in turns */
    uint32_t watchers;    /* threads in cf_subscription_wait: no ring is left meanwhile */
    uint32_t attention;   /* 1: the waiting thread shall look up; any thread may set it */
    uint32_t refused;     /* rings that could not be joined */
    uint64_t left_copies; /* messages of rings that were left, and the dropped of them */
    uint64_t left_dropped;
    uint64_t left_damaged;
    uint64_t left; /* rings that were left */
    uint64_t left_ids[CF_SUBSCRIPTION_LEFT];
    struct cf_ring_reader *readers[CF_SUBSCRIPTION_RINGS]; /* higher priority first */
};

/* What became of the copies that were this subscription's: copies = delivered + dropped + pending.
 */
struct cf_subscription_counts {
    uint64_t copies;
    uint64_t delivered;
    uint64_t dropped;
    uint64_t pending;
    uint64_t damaged; /* of the dropped */
    uint64_t high_water;
    uint64_t oldest_tick; /* of a pending message; 0 = none */
};

/* Opens a subscription in a directory and joins the rings that are there. 0 or a negative errno. */
int cf_subscription_open(struct cf_subscription *subscription, const char *directory,
                         const char *topic, uint32_t topic_bytes, uint64_t id, enum cf_wait wait,
                         uint64_t spin_ns, int ordered);

void cf_subscription_close(struct cf_subscription *subscription);

/* Joins rings that were added, leaves those that have ended and are read to their end. */
void cf_subscription_refresh(struct cf_subscription *subscription);

/* Finds the next message: its reader, or NULL when there is none. Copy it, then cf_ring_take. */
struct cf_ring_reader *cf_subscription_poll(struct cf_subscription *subscription,
                                            struct cf_ring_message *message);

/* Looks so often whether there is something to do: 1 when there is. No clock, about 3 ns a look:
 * for callers that meanwhile hold what others may want. Concurrency as cf_subscription_wait. */
int cf_subscription_spin(const struct cf_subscription *subscription, uint32_t looks);

/* Waits until there is something to do, at most `slice_ns`: 1 = poll again, 0 = not yet. Spins
 * until `spin_until_ns`, then sleeps, as the subscription's kind of waiting says; -EINTR for a
 * signal. May run beside the other functions as long as no ring is left meanwhile. */
int cf_subscription_wait(const struct cf_subscription *subscription, uint64_t spin_until_ns,
                         uint64_t slice_ns);

/* Looks for writers that have died: at most every 100 ms, when there is nothing to take. */
void cf_subscription_check(struct cf_subscription *subscription, uint64_t now_ns);

void cf_subscription_count(const struct cf_subscription *subscription,
                           struct cf_subscription_counts *counts);

#endif
