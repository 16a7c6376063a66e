#include "subscription.h"

#include <errno.h>
#include <string.h>

#include "subscription_rings.h"
#include "tick.h"

enum { LOOKS_A_CLOCK = 32, CHECK_EVERY_POLLS = 4096 };

void cf_subscription_init(struct cf_subscription *subscription, struct cf_participant *participant,
                          const struct cf_subscription_request *request) {
    *subscription = (struct cf_subscription){
        .participant = participant,
        .patterns.entry = -1,
        .wait = request->wait,
        .spin_ns = request->wait == CF_WAIT_PARK ? 0 : request->spin_ns,
        .history = request->history,
        .ordered = request->ordered != 0,
    };
    uint32_t bytes = request->group_bytes < CF_GROUP_BYTES ? request->group_bytes : CF_GROUP_BYTES;
    if (bytes > 0)
        memcpy(subscription->group_name, request->group, bytes);
    uint32_t sleeps = request->wait == CF_WAIT_SPIN ? 0 : CF_SEAT_SLEEPS;
    subscription->seat = (struct cf_seat_request){
        .subscription = request->id,
        .participant = participant->id,
        .pid = (uint64_t)getpid(),
        .start_time = cf_place_start_time(),
        .pid_namespace = cf_place_pid_namespace(),
        .flags = request->flags | sleeps,
        .group_bytes = bytes,
        .group_name = subscription->group_name,
    };
}

/* The next message of rings first..last-1, which have one priority, in turns. */
static struct cf_ring_reader *poll_in_turn(struct cf_subscription *subscription, uint32_t first,
                                           uint32_t last, struct cf_ring_message *message) {
    uint32_t width = last - first;
    for (uint32_t i = 0; i < width; i++) {
        struct cf_ring_reader *reader =
            cf_subscription_reader(subscription, first + (subscription->turn + i) % width);
        if (cf_ring_peek(reader, message)) {
            subscription->turn += i + 1;
            return reader;
        }
    }
    return NULL;
}

static struct cf_ring_reader *poll_by_hlc(struct cf_subscription *subscription, uint32_t first,
                                          uint32_t last, struct cf_ring_message *message) {
    struct cf_ring_reader *earliest = NULL;
    for (uint32_t i = first; i < last; i++) {
        struct cf_ring_message candidate;
        struct cf_ring_reader *reader = cf_subscription_reader(subscription, i);
        if (!cf_ring_peek(reader, &candidate))
            continue;
        if (!earliest || candidate.hlc < message->hlc ||
            (candidate.hlc == message->hlc && candidate.publisher < message->publisher)) {
            *message = candidate;
            earliest = reader;
        }
    }
    return earliest;
}

static struct cf_ring_reader *poll_all(struct cf_subscription *subscription,
                                       struct cf_ring_message *message) {
    uint32_t count = subscription->readers.count;
    struct cf_ring_reader *found = NULL;
    for (uint32_t first = 0, last; first < count && !found; first = last) {
        uint32_t priority = cf_subscription_reader(subscription, first)->priority;
        for (last = first + 1;
             last < count && cf_subscription_reader(subscription, last)->priority == priority;)
            last++;
        found = subscription->ordered ? poll_by_hlc(subscription, first, last, message)
                                      : poll_in_turn(subscription, first, last, message);
    }
    return found;
}

/* Returns whether a topic has a ring, or a pattern a topic, that was not looked at. */
static inline int has_news(const struct cf_subscription *subscription) {
    const struct cf_subscription_topic *only = cf_load_acquire(&subscription->only_topic);
    if (cf_likely(only != NULL))
        return cf_load_acquire(&only->topic.page->generation) != only->seen_generation;
    uint32_t count = cf_load_acquire(&subscription->topics.count);
    for (uint32_t i = 0; i < count; i++) {
        const struct cf_subscription_topic *each = cf_subscription_topic(subscription, i);
        if (cf_load_acquire(&each->topic.page->generation) != each->seen_generation)
            return 1;
    }
    return subscription->patterns.page &&
           cf_load_acquire(&subscription->patterns.page->generation) != subscription->seen_patterns;
}

struct cf_ring_reader *cf_subscription_poll(struct cf_subscription *subscription,
                                            struct cf_ring_message *message) {
    if (cf_unlikely(has_news(subscription)))
        cf_subscription_refresh(subscription);
    struct cf_ring_reader *reader = subscription->only_reader;
    if (cf_unlikely(!reader))
        reader = poll_all(subscription, message);
    else if (cf_unlikely(!cf_ring_peek(reader, message)))
        reader = NULL;
    if (cf_likely(reader != NULL))
        return reader;
    /* Who only polls never waits, and has to look for the dead all the same. */
    if (cf_unlikely(++subscription->empty_polls % CHECK_EVERY_POLLS == 0))
        cf_subscription_check(subscription, cf_os_ns(CLOCK_MONOTONIC));
    return NULL;
}

void cf_subscription_finish(struct cf_subscription *subscription) {
    if (cf_likely(subscription->seat.group_bytes == 0))
        return;
    for (uint32_t i = 0; i < subscription->readers.count; i++)
        cf_ring_finish(cf_subscription_reader(subscription, i));
}

static int is_ready(const struct cf_subscription *subscription) {
    if (cf_load_acquire(&subscription->attention) || has_news(subscription))
        return 1;
    uint32_t count = cf_load_acquire(&subscription->readers.count);
    for (uint32_t i = 0; i < count; i++) {
        if (cf_ring_has_message(cf_subscription_reader(subscription, i)))
            return 1;
    }
    return 0;
}

int cf_subscription_spin(const struct cf_subscription *subscription, uint32_t looks) {
    for (uint32_t look = 0; look < looks; look++) {
        if (is_ready(subscription))
            return 1;
        cf_relax();
    }
    return 0;
}

/* Spins until the time. 1 when there is something to do. */
static int spin(const struct cf_subscription *subscription, uint64_t until_ns) {
    while (!cf_subscription_spin(subscription, LOOKS_A_CLOCK)) {
        if (cf_os_ns(CLOCK_MONOTONIC) >= until_ns)
            return 0;
    }
    return 1;
}

uint32_t cf_subscription_prepare(const struct cf_subscription *subscription, uint32_t **words,
                                 uint32_t *values) {
    uint32_t used = 0, count = cf_load_acquire(&subscription->topics.count);
    for (uint32_t i = 0; i < count && used < CF_TOPIC_SLEEP_WORDS; i++) {
        struct cf_topic_page *page = cf_subscription_topic(subscription, i)->topic.page;
        words[used] = &page->waiters;
        values[used++] = cf_topic_prepare(page);
    }
    if (subscription->patterns.page && used < CF_TOPIC_SLEEP_WORDS) {
        uint32_t *word = &subscription->patterns.page->waiters;
        words[used] = word;
        values[used++] = __atomic_load_n(word, CF_RING_WAITERS);
        cf_ring_fence(CF_RING_WAKE_FENCE); /* Partner: the fence in cf_pattern_wake. */
    }
    return count + (subscription->patterns.page != NULL);
}

/* Sleeps on the words of all topics, and of the patterns. */
static int sleep_until(const struct cf_subscription *subscription, uint64_t sleep_ns) {
    uint32_t *words[CF_TOPIC_SLEEP_WORDS], values[CF_TOPIC_SLEEP_WORDS];
    uint32_t count = cf_subscription_prepare(subscription, words, values);
    if (is_ready(subscription))
        return 0;
    return count == 0 ? -EINVAL : cf_topic_sleep(words, values, count, sleep_ns);
}

int cf_subscription_wait(const struct cf_subscription *subscription, uint64_t spin_until_ns,
                         uint64_t slice_ns) {
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC), end_ns = now_ns + slice_ns;
    if (subscription->wait == CF_WAIT_SPIN)
        return spin(subscription, end_ns);
    if (now_ns < spin_until_ns &&
        spin(subscription, spin_until_ns < end_ns ? spin_until_ns : end_ns))
        return 1;
    now_ns = cf_os_ns(CLOCK_MONOTONIC);
    if (now_ns >= end_ns)
        return is_ready(subscription);
    int error = sleep_until(subscription, end_ns - now_ns);
    return error == -EINTR ? -EINTR : is_ready(subscription);
}

void cf_subscription_wake(struct cf_subscription *subscription) {
    cf_store_release(&subscription->attention, 1u);
    if (subscription->topics.count > 0)
        cf_topic_wake(cf_subscription_topic(subscription, 0)->topic.page);
    else if (subscription->patterns.page)
        cf_pattern_wake(subscription->patterns.page);
}

void cf_subscription_count(const struct cf_subscription *subscription,
                           struct cf_subscription_counts *counts) {
    *counts = (struct cf_subscription_counts){.delivered = subscription->left_taken,
                                              .dropped = subscription->left_dropped,
                                              .damaged = subscription->left_damaged,
                                              .history = subscription->left_history,
                                              .skipped = subscription->left_skipped,
                                              .rings = subscription->readers.count};
    for (uint32_t i = 0; i < subscription->readers.count; i++) {
        const struct cf_ring_reader *reader = cf_subscription_reader(subscription, i);
        const struct cf_ring_slot *slot = cf_ring_slot_at(reader, cf_ring_next(reader));
        uint64_t next = cf_ring_next(reader), tail = cf_load_relaxed(&reader->header->tail);
        uint64_t from = next > reader->joined ? next : reader->joined;
        uint64_t pending = tail > from ? tail - from : 0;
        counts->delivered += cf_ring_delivered(reader);
        counts->dropped += reader->dropped;
        counts->damaged += reader->damaged;
        counts->history += reader->history;
        counts->skipped += reader->skipped;
        counts->publishers += cf_load_relaxed(&reader->header->state) == CF_RING_OPEN;
        counts->pending += pending;
        if (reader->high_water > counts->high_water)
            counts->high_water = reader->high_water;
        uint64_t tick = cf_load_relaxed(&slot->tick);
        if (pending > 0 && (counts->oldest_tick == 0 || tick < counts->oldest_tick))
            counts->oldest_tick = tick;
    }
    counts->copies = counts->delivered + counts->dropped + counts->pending;
}
