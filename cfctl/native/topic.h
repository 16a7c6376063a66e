/* A topic's rendezvous: one page that all its publishers and subscribers share.
 *
 * Its zeroes are its first state, so whoever opens it first makes it. It tells subscribers, by one
 * load and no syscall, that a ring was added, and it is what they sleep on: a futex word for all
 * rings of the topic. Whoever has it open holds a read lock on it; the reaper removes it under a
 * write lock.
 */
#ifndef CF_TOPIC_H
#define CF_TOPIC_H

#include <stdint.h>

#include "atomic.h"
#include "place.h"
#include "ring_order.h"

struct cf_topic_page {
    uint64_t generation; /* rings ever added */
    char reserved0[56];
    uint32_t
        waiters; /* the futex word: odd = somebody sleeps, or is about to; each wake-up adds 1 */
    uint32_t
        sleepers; /* subscriptions that may sleep; too high after a kill, which costs a fence */
    char reserved1[56];
};
_Static_assert(sizeof(struct cf_topic_page) == 128, "pinned");

struct cf_topic {
    struct cf_held_file file;
    struct cf_topic_page *page;
    uint64_t hash;
};

/* Returns the hash of a topic's name, FNV-1a of 64 bits; file names start with it. */
uint64_t cf_topic_hash(const char *topic, uint32_t bytes);

/* Opens or makes the topic's page in an open directory. 0 or a negative errno. The struct must stay
 * where it is until it is closed. */
int cf_topic_open(struct cf_topic *topic, int directory_fd, uint64_t hash);

void cf_topic_close(struct cf_topic *topic);

/* Wakes all that sleep. What they shall see has to be stored before. */
void cf_topic_wake(struct cf_topic_page *page);

/* Says that a ring was added, and wakes. */
void cf_topic_announce(struct cf_topic_page *page);

/* After a message was published: wakes if somebody sleeps. 1 to 8 ns when nobody does. */
static inline void cf_topic_notify(struct cf_topic_page *page) {
    if (__atomic_load_n(&page->sleepers, CF_RING_WAITERS) == 0)
        return;
    cf_ring_fence(CF_RING_WAKE_FENCE); /* Partner: the fence in cf_topic_prepare. */
    if (cf_unlikely(__atomic_load_n(&page->waiters, CF_RING_WAITERS) & 1))
        cf_topic_wake(page);
}

/* Before sleeping: after it, look once more whether there is something to take. Returns the word to
 * sleep on. It is another one after each wake-up: with a mere flag, a reader that was about to
 * sleep when it was woken would sleep all the same if another reader had set the flag again
 * meanwhile (tests/models/ring.pml, BUG_FLAG). */
static inline uint32_t cf_topic_prepare(struct cf_topic_page *page) {
    uint32_t word = __atomic_fetch_or(&page->waiters, 1, CF_RING_WAITERS) | 1;
    cf_ring_fence(CF_RING_WAKE_FENCE); /* Partner: the fence in cf_topic_notify. */
    return word;
}

/* Sleeps until woken, at most `timeout_ns`; returns at once if somebody woke since
 * cf_topic_prepare returned `word`. 0 or a negative errno: -ETIMEDOUT, -EINTR. */
int cf_topic_sleep(struct cf_topic_page *page, uint32_t word, uint64_t timeout_ns);

/* Finds a publisher number, 1..65535, that no live ring of the directory has; `file` holds it until
 * it is released. Returns the number or a negative errno, -EAGAIN when a thousand tries failed. */
int cf_publisher_number(struct cf_held_file *file, int directory_fd);

#endif
