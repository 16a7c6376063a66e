/* What the C tests of the bus share: a directory, a participant, and messages that show by every
 * byte which one they are. Who dies here closes its participant and nothing else: its locks go, and
 * all that it wrote stays as it was. */
#ifndef BUS_FIXTURE_H
#define BUS_FIXTURE_H

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pattern.h"
#include "publisher.h"
#include "ring.h"
#include "subscription.h"
#include "subscription_group.h"
#include "tick.h"
#include "topic.h"

#define UNUSED __attribute__((unused))

static char directory[] = "/tmp/cf-bus-XXXXXX";
static struct cf_participant own;
enum { LONGEST = 300, NONE = -1 };

static UNUSED void open_bus(void) {
    cf_tick_select();
    CHECK(mkdtemp(directory) != NULL);
    CHECK(cf_participant_open(&own, directory) == 0);
}

/* Counts the files whose name ends so. */
static UNUSED int count_files(const char *ending) {
    DIR *open = opendir(directory);
    CHECK(open != NULL);
    int count = 0;
    const struct dirent *entry;
    while ((entry = readdir(open)) != NULL) {
        size_t length = strlen(entry->d_name), tail = strlen(ending);
        count += length >= tail && strcmp(entry->d_name + length - tail, ending) == 0;
    }
    closedir(open);
    return count;
}

static UNUSED void remove_file(const char *name) {
    CHECK(unlinkat(own.directory_fd, name, 0) == 0);
}

/* Ends the test program: nothing may be left but the leases. */
static UNUSED int close_bus(void) {
    CHECK(count_files(".ring") == 0 && count_files(".topic") == 0);
    if (count_files("bus.patterns") > 0)
        remove_file("bus.patterns");
    remove_file("bus.leases");
    cf_participant_close(&own);
    CHECK(rmdir(directory) == 0);
    return 0;
}

static UNUSED void be_born(struct cf_participant *participant) {
    CHECK(cf_participant_open(participant, directory) == 0);
}

static UNUSED void die(struct cf_participant *participant) {
    cf_participant_close(participant);
}

static UNUSED struct cf_ring_config config_of(const char *topic, uint32_t capacity, int overwrite) {
    return (struct cf_ring_config){.topic = topic,
                                   .topic_bytes = (uint32_t)strlen(topic),
                                   .capacity = capacity,
                                   .slot_bytes = 64,
                                   .arena_bytes = 16384,
                                   .overwrite = (uint32_t)overwrite};
}

static UNUSED void open_publisher(struct cf_publisher *publisher,
                                  struct cf_participant *participant, const char *topic,
                                  uint32_t capacity) {
    CHECK(cf_publisher_open(publisher, participant, config_of(topic, capacity, 0)) == 0);
}

/* 0 to 299 bytes, so slots and arena, whose every byte follows from the number. */
static UNUSED size_t fill(char *payload, uint64_t number) {
    size_t length = (size_t)(number * 7 % LONGEST);
    for (size_t i = 0; i < length; i++)
        payload[i] = (char)(number + i * 3);
    return length;
}

static UNUSED int publish(struct cf_publisher *publisher, uint64_t number) {
    char payload[LONGEST];
    int error =
        cf_ring_publish(&publisher->writer, payload, fill(payload, number), cf_ticks(), number, 0);
    if (error == 0)
        cf_topic_notify(publisher->topic.page);
    return error;
}

/* Publishes from `first` on until the ring is full, at most `most`. How many were accepted. */
static UNUSED uint64_t publish_until_full(struct cf_publisher *publisher, uint64_t first,
                                          uint64_t most) {
    uint64_t accepted = 0;
    while (accepted < most && publish(publisher, first + accepted) == 0)
        accepted++;
    return accepted;
}

static UNUSED void subscribe_as(struct cf_subscription *subscription,
                                struct cf_participant *participant, const char *topic,
                                const struct cf_subscription_request *request) {
    cf_subscription_init(subscription, participant, request);
    CHECK(cf_subscription_add_topic(subscription, topic, (uint32_t)strlen(topic)) == 0);
}

static UNUSED uint64_t new_id(void) {
    static uint64_t last = 1000;
    return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

static UNUSED void subscribe(struct cf_subscription *subscription,
                             struct cf_participant *participant, const char *topic) {
    struct cf_subscription_request request = {.id = new_id()};
    subscribe_as(subscription, participant, topic, &request);
}

static UNUSED void join_group(struct cf_subscription *subscription,
                              struct cf_participant *participant, const char *topic,
                              uint32_t flags) {
    struct cf_subscription_request request = {
        .id = new_id(), .flags = flags, .group = "workers", .group_bytes = 7};
    subscribe_as(subscription, participant, topic, &request);
}

static UNUSED void check_content(const char *payload, size_t length, uint64_t number) {
    char expected[LONGEST];
    CHECK(fill(expected, number) == length && memcmp(expected, payload, length) == 0);
}

/* Takes the next message, checks every byte of it, and writes its flags. Its number, or NONE. */
static UNUSED int64_t take_with_flags(struct cf_subscription *subscription, uint16_t *flags) {
    struct cf_ring_message message;
    struct cf_ring_reader *reader;
    while ((reader = cf_subscription_poll(subscription, &message)) != NULL) {
        char payload[LONGEST];
        CHECK(message.length < sizeof payload || reader->line->flags & CF_SEAT_LOSSY ||
              reader->header->overwrite || message.seq <= reader->joined);
        if (message.length < sizeof payload)
            cf_ring_copy(&message, payload);
        if (!cf_ring_take(reader, &message))
            continue;
        CHECK(message.length < sizeof payload);
        check_content(payload, message.length, message.hlc);
        *flags = message.flags;
        return (int64_t)message.hlc;
    }
    return NONE;
}

static UNUSED int64_t take(struct cf_subscription *subscription) {
    uint16_t flags;
    return take_with_flags(subscription, &flags);
}

static UNUSED struct cf_subscription_counts counts_of(const struct cf_subscription *subscription) {
    struct cf_subscription_counts counts;
    cf_subscription_count(subscription, &counts);
    CHECK(counts.copies == counts.delivered + counts.dropped + counts.pending);
    return counts;
}

/* Lets a subscription look for the dead now. */
static UNUSED void look_for_the_dead(struct cf_subscription *subscription) {
    subscription->next_check_ns = 0;
    cf_subscription_check(subscription, cf_os_ns(CLOCK_MONOTONIC));
}

/* Lets a writer look for the dead now, and not in a millisecond. */
static UNUSED void let_look(struct cf_publisher *publisher) {
    publisher->writer.next_look_ns = 0;
}

#endif
