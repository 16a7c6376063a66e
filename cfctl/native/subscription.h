/* A subscription: the rings of its topics' publishers, merged, and the wait for their next message.
 */
#ifndef CF_SUBSCRIPTION_H
#define CF_SUBSCRIPTION_H

#include <stdint.h>

#include "pattern.h"
#include "ring.h"
#include "topic.h"

enum cf_wait {
    CF_WAIT_SPIN = 0,     /* never sleeps; its publishers need no fence */
    CF_WAIT_ADAPTIVE = 1, /* spins for a time, then sleeps */
    CF_WAIT_PARK = 2,     /* sleeps at once */
};

struct cf_subscription_topic {
    struct cf_topic topic;
    uint32_t seat;
    uint64_t seen_generation;
};

/* An array that is replaced by a larger one while a waiting thread may read it: the old ones stay.
 */
struct cf_growing {
    void **items;
    uint32_t count;
    uint32_t room;
    void **outgrown[32];
    uint32_t outgrown_count;
};

/* How a subscription is to be. The texts must stay until cf_subscription_open returns. */
struct cf_subscription_request {
    uint64_t id;
    enum cf_wait wait;
    uint64_t spin_ns;
    int ordered;      /* by hlc and not in turns */
    uint32_t flags;   /* CF_SEAT_LOSSY, CF_SEAT_REDELIVER, CF_SEAT_OWN */
    uint64_t history; /* messages from before, of each publisher */
    const char *group;
    uint32_t group_bytes;
};

/* One thread at a time, but for the functions that say otherwise. Must stay where it is. */
struct cf_subscription {
    struct cf_participant *participant;
    struct cf_seat_request seat;
    struct cf_growing topics;  /* of struct cf_subscription_topic */
    struct cf_growing readers; /* of struct cf_ring_reader, higher priority first */
    /* Where there is one topic and no pattern, and one reader: what a poll looks at. NULL
     * otherwise.
     */
    const struct cf_subscription_topic *only_topic;
    struct cf_ring_reader *only_reader;
    struct cf_patterns patterns;
    char pattern[CF_PATTERN_BYTES];
    uint32_t pattern_bytes; /* 0 = none */
    char group_name[CF_GROUP_BYTES];
    enum cf_wait wait;
    uint64_t spin_ns;
    uint64_t history;
    uint64_t seen_patterns; /* generation of the page of patterns */
    uint64_t next_check_ns; /* for dead writers and members, CLOCK_MONOTONIC */
    uint32_t empty_polls;
    uint32_t turn;       /* the ring that is asked first, of equal priority */
    uint32_t ordered;    /* by hlc and not in turns */
    uint32_t watchers;   /* threads in cf_subscription_wait: no ring is left meanwhile */
    uint32_t busy;       /* calls in progress that hold a reader: as watchers, from 2 on */
    uint32_t attention;  /* 1: the waiting thread shall look up; any thread may set it */
    uint32_t unjoined;   /* rings that wait for this subscription, and could not be opened yet */
    uint64_t left_taken; /* of rings that were left */
    uint64_t left_dropped;
    uint64_t left_damaged;
    uint64_t left_history;
    uint64_t left_skipped;
};

/* What became of the copies that were this subscription's: copies = delivered + dropped + pending.
 * Messages from before it joined are no copies: they are history, or were skipped. */
struct cf_subscription_counts {
    uint64_t copies;
    uint64_t delivered;
    uint64_t dropped;
    uint64_t pending;
    uint64_t damaged; /* of the dropped */
    uint64_t history;
    uint64_t skipped;
    uint64_t high_water;
    uint64_t oldest_tick; /* of a pending message; 0 = none */
    uint32_t rings;
    uint32_t publishers; /* of those, the ones that still publish */
};

/* Makes a subscription without a topic. Then cf_subscription_add_topic or _follow. */
void cf_subscription_init(struct cf_subscription *subscription, struct cf_participant *participant,
                          const struct cf_subscription_request *request);

/* Takes a seat at a topic and joins its rings: from when it returns on nothing that is published is
 * missed. 0; -EUSERS when the topic has CF_TOPIC_SEATS seats; -EINTR and others; then the
 * subscription is as before. */
int cf_subscription_add_topic(struct cf_subscription *subscription, const char *name,
                              uint32_t bytes);

/* Subscribes to all topics that a pattern matches, those that are there and those that come. 0 or a
 * negative errno: -EUSERS as cf_pattern_add and cf_subscription_add_topic. */
int cf_subscription_follow(struct cf_subscription *subscription, const char *pattern,
                           uint32_t bytes);

/* Leaves everything; idempotent. In a forked child it only unmaps. */
void cf_subscription_close(struct cf_subscription *subscription);

/* Opens rings that were added, leaves those that have ended and are read to their end. */
void cf_subscription_refresh(struct cf_subscription *subscription);

/* Finds the next message: its reader, or NULL when there is none. Copy it, then cf_ring_take. */
struct cf_ring_reader *cf_subscription_poll(struct cf_subscription *subscription,
                                            struct cf_ring_message *message);

/* Says that a group's member is done with what it has taken; nothing for others. */
void cf_subscription_finish(struct cf_subscription *subscription);

/* Looks so often whether there is something to do: 1 when there is. No clock, about 3 ns a look:
 * for callers that meanwhile hold what others may want. Concurrency as cf_subscription_wait. */
int cf_subscription_spin(const struct cf_subscription *subscription, uint32_t looks);

/* Waits until there is something to do, at most `slice_ns`: 1 = poll again, 0 = not yet. Spins
 * until `spin_until_ns`, then sleeps, as the subscription's kind of waiting says; -EINTR for a
 * signal. May run beside the other functions as long as no ring is left meanwhile. */
int cf_subscription_wait(const struct cf_subscription *subscription, uint64_t spin_until_ns,
                         uint64_t slice_ns);

/* Before sleeping, as cf_topic_prepare, of all topics and the pattern: sets the words, at most
 * CF_TOPIC_SLEEP_WORDS, and the values to sleep on. Returns how many there are. */
uint32_t cf_subscription_prepare(const struct cf_subscription *subscription, uint32_t **words,
                                 uint32_t *values);

/* Wakes whoever waits, to look up. Any thread. */
void cf_subscription_wake(struct cf_subscription *subscription);

/* Looks for writers and members that have died: at most every 100 ms, when there is nothing to
 * take.
 */
void cf_subscription_check(struct cf_subscription *subscription, uint64_t now_ns);

void cf_subscription_count(const struct cf_subscription *subscription,
                           struct cf_subscription_counts *counts);

static inline struct cf_ring_reader *
cf_subscription_reader(const struct cf_subscription *subscription, uint32_t index) {
    return cf_load_acquire(&subscription->readers.items)[index];
}

static inline struct cf_subscription_topic *
cf_subscription_topic(const struct cf_subscription *subscription, uint32_t index) {
    return cf_load_acquire(&subscription->topics.items)[index];
}

#endif
