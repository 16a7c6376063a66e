#include "subscription.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tick.h"

enum { CHECK_EVERY_NS = 100000000, LOOKS_A_CLOCK = 32 };

static void insert(struct cf_subscription *subscription, struct cf_ring_reader *reader) {
    uint32_t at = subscription->count;
    while (at > 0 && subscription->readers[at - 1]->priority < reader->priority) {
        subscription->readers[at] = subscription->readers[at - 1];
        at--;
    }
    subscription->readers[at] = reader;
    /* Partner: the acquire in cf_subscription_wait, which may look meanwhile. */
    cf_store_release(&subscription->count, subscription->count + 1);
}

static void leave(struct cf_subscription *subscription, uint32_t at) {
    struct cf_ring_reader *reader = subscription->readers[at];
    subscription->left_copies += reader->position - reader->joined;
    subscription->left_dropped += reader->dropped;
    subscription->left_damaged += reader->damaged;
    subscription->left_ids[subscription->left++ % CF_SUBSCRIPTION_LEFT] = reader->ring_id;
    subscription->count--;
    for (uint32_t i = at; i < subscription->count; i++)
        subscription->readers[i] = subscription->readers[i + 1];
    cf_ring_detach(reader);
    free(reader);
}

static void leave_ended(struct cf_subscription *subscription) {
    if (subscription->watchers > 0)
        return;
    for (uint32_t i = subscription->count; i-- > 0;) {
        struct cf_ring_reader *reader = subscription->readers[i];
        /* In this order: what it published before it ended is seen. */
        if (!cf_ring_has_message(reader) && !cf_ring_writer_lives(reader) &&
            !cf_ring_has_message(reader))
            leave(subscription, i);
    }
}

/* Returns whether the ring is joined, or was and has been left. */
static int is_known(const struct cf_subscription *subscription, uint64_t ring_id) {
    for (uint64_t i = 0; i < subscription->left && i < CF_SUBSCRIPTION_LEFT; i++) {
        if (subscription->left_ids[i] == ring_id)
            return 1;
    }
    for (uint32_t i = 0; i < subscription->count; i++) {
        if (subscription->readers[i]->ring_id == ring_id)
            return 1;
    }
    return 0;
}

/* Reads a ring's id off its file's name: "<topic hash>-<ring id>.ring". */
static int parse_name(const char *name, uint64_t topic_hash, uint64_t *ring_id) {
    char expected[18];
    snprintf(expected, sizeof expected, "%016llx-", (unsigned long long)topic_hash);
    if (strlen(name) != 38 || strncmp(name, expected, 17) != 0 || strcmp(name + 33, ".ring") != 0)
        return 0;
    char *end;
    *ring_id = strtoull(name + 17, &end, 16);
    return end == name + 33;
}

static void join(struct cf_subscription *subscription, const char *name) {
    struct cf_ring_reader *reader = malloc(sizeof *reader);
    int error = reader == NULL ? -ENOMEM
                               : cf_ring_attach(reader, subscription->directory_fd, name,
                                                subscription->name, subscription->name_bytes,
                                                subscription->id, subscription->since_raw_ns);
    if (error == 0)
        insert(subscription, reader);
    else
        free(reader);
    /* Ended, of another topic, or not finished: its maker announces it again. */
    if (error != 0 && error != -ESTALE && error != -EAGAIN && error != -ENOENT)
        subscription->refused++;
}

void cf_subscription_refresh(struct cf_subscription *subscription) {
    /* Before the directory is read: what is added meanwhile is looked for again. */
    subscription->seen_generation = cf_load_acquire(&subscription->topic.page->generation);
    leave_ended(subscription);
    int fd = dup(subscription->directory_fd);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        if (fd >= 0)
            close(fd);
        subscription->refused++;
        return;
    }
    rewinddir(directory);
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        uint64_t ring_id;
        if (!parse_name(entry->d_name, subscription->topic.hash, &ring_id) ||
            is_known(subscription, ring_id))
            continue;
        if (subscription->count == CF_SUBSCRIPTION_RINGS) {
            subscription->refused++;
            break;
        }
        join(subscription, entry->d_name);
    }
    closedir(directory);
}

int cf_subscription_open(struct cf_subscription *subscription, const char *directory,
                         const char *topic, uint32_t topic_bytes, uint64_t id, enum cf_wait wait,
                         uint64_t spin_ns, int ordered) {
    *subscription = (struct cf_subscription){.directory_fd = -1, .topic.file.fd = -1};
    if (topic_bytes < 1 || topic_bytes > CF_TOPIC_BYTES)
        return -EINVAL;
    memcpy(subscription->name, topic, topic_bytes);
    subscription->name_bytes = topic_bytes;
    subscription->wait = wait;
    subscription->spin_ns = wait == CF_WAIT_PARK ? 0 : spin_ns;
    subscription->id = id;
    subscription->ordered = ordered != 0;
    int fd = cf_place_open(directory);
    if (fd < 0)
        return fd;
    subscription->directory_fd = fd;
    int error = cf_topic_open(&subscription->topic, fd, cf_topic_hash(topic, topic_bytes));
    if (error != 0) {
        close(fd);
        subscription->directory_fd = -1;
        return error;
    }
    if (wait != CF_WAIT_SPIN)
        __atomic_fetch_add(&subscription->topic.page->sleepers, 1, __ATOMIC_SEQ_CST);
    subscription->since_raw_ns = cf_os_ns(CLOCK_MONOTONIC_RAW);
    cf_subscription_refresh(subscription);
    return 0;
}

void cf_subscription_close(struct cf_subscription *subscription) {
    if (!subscription->topic.page)
        return;
    while (subscription->count > 0)
        leave(subscription, subscription->count - 1);
    if (subscription->wait != CF_WAIT_SPIN && subscription->topic.file.fd >= 0)
        __atomic_fetch_sub(&subscription->topic.page->sleepers, 1, __ATOMIC_SEQ_CST);
    cf_topic_close(&subscription->topic);
    close(subscription->directory_fd);
    subscription->directory_fd = -1;
}

/* The next message of rings first..last-1, which have one priority, in turns. */
static struct cf_ring_reader *poll_in_turn(struct cf_subscription *subscription, uint32_t first,
                                           uint32_t last, struct cf_ring_message *message) {
    uint32_t width = last - first;
    for (uint32_t i = 0; i < width; i++) {
        struct cf_ring_reader *reader =
            subscription->readers[first + (subscription->turn + i) % width];
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
        struct cf_ring_reader *reader = subscription->readers[i];
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

struct cf_ring_reader *cf_subscription_poll(struct cf_subscription *subscription,
                                            struct cf_ring_message *message) {
    if (cf_unlikely(cf_load_acquire(&subscription->topic.page->generation) !=
                    subscription->seen_generation))
        cf_subscription_refresh(subscription);
    uint32_t count = subscription->count;
    if (cf_likely(count == 1))
        return cf_ring_peek(subscription->readers[0], message) ? subscription->readers[0] : NULL;
    struct cf_ring_reader *found = NULL;
    for (uint32_t first = 0, last; first < count && !found; first = last) {
        for (last = first + 1; last < count && subscription->readers[last]->priority ==
                                                   subscription->readers[first]->priority;)
            last++;
        found = subscription->ordered ? poll_by_hlc(subscription, first, last, message)
                                      : poll_in_turn(subscription, first, last, message);
    }
    return found;
}

static int is_ready(const struct cf_subscription *subscription) {
    if (cf_load_acquire(&subscription->attention) ||
        cf_load_acquire(&subscription->topic.page->generation) != subscription->seen_generation)
        return 1;
    uint32_t count = cf_load_acquire(&subscription->count);
    for (uint32_t i = 0; i < count; i++) {
        if (cf_ring_has_message(subscription->readers[i]))
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
    uint32_t word = cf_topic_prepare(subscription->topic.page);
    if (is_ready(subscription))
        return 1;
    int error = cf_topic_sleep(subscription->topic.page, word, end_ns - now_ns);
    return error == -EINTR ? -EINTR : is_ready(subscription);
}

void cf_subscription_check(struct cf_subscription *subscription, uint64_t now_ns) {
    if (now_ns < subscription->next_check_ns)
        return;
    subscription->next_check_ns = now_ns + CHECK_EVERY_NS;
    leave_ended(subscription);
}

void cf_subscription_count(const struct cf_subscription *subscription,
                           struct cf_subscription_counts *counts) {
    *counts = (struct cf_subscription_counts){.copies = subscription->left_copies,
                                              .dropped = subscription->left_dropped,
                                              .damaged = subscription->left_damaged};
    for (uint32_t i = 0; i < subscription->count; i++) {
        const struct cf_ring_reader *reader = subscription->readers[i];
        uint64_t tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
        uint64_t pending = tail > reader->position ? tail - reader->position : 0;
        counts->copies += reader->position + pending - reader->joined;
        counts->dropped += reader->dropped;
        counts->damaged += reader->damaged;
        counts->pending += pending;
        if (reader->high_water > counts->high_water)
            counts->high_water = reader->high_water;
        if (pending > counts->high_water)
            counts->high_water = pending;
        uint64_t tick = cf_load_relaxed(&cf_ring_slot_at(reader, reader->position)->tick);
        if (pending > 0 && (counts->oldest_tick == 0 || tick < counts->oldest_tick))
            counts->oldest_tick = tick;
    }
    counts->delivered = counts->copies - counts->dropped - counts->pending;
}
