#include "publisher.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "pattern.h"

static void remove_ring(struct cf_topic *topic, uint64_t ring_id) {
    char name[64];
    cf_ring_name(name, sizeof name, topic->hash, ring_id);
    unlinkat(topic->participant->directory_fd, name, 0);
}

/* Returns whether a file may be a ring with messages left: what cannot be looked at now is taken
 * for one. Where the writer died early there is no file, or one that never became a ring. */
static int may_be_needed(int outcome) {
    return outcome != 0 && outcome != -ENOENT && outcome != -EINVAL && outcome != -EPERM &&
           outcome != -EAGAIN;
}

void cf_topic_remove_ended_rings(struct cf_topic *topic) {
    struct cf_topic_page *page = topic->page;
    uint64_t alive = 0; /* the participant that was asked about last */
    for (uint32_t i = 0; i < CF_TOPIC_RINGS && i < page->rings_used; i++) {
        struct cf_topic_ring *ring = &page->rings[i];
        if (ring->ring_id == 0)
            continue;
        int is_open = cf_load_acquire(&ring->state) == CF_TOPIC_RING_OPEN;
        uint64_t writer = cf_load_relaxed(&ring->participant);
        if (is_open && ((alive != 0 && writer == alive) ||
                        cf_participant_lives(topic->participant, writer) != 0)) {
            alive = writer;
            continue;
        }
        if (may_be_needed(cf_ring_is_needed(topic, ring->ring_id)))
            continue;
        remove_ring(topic, ring->ring_id);
        cf_topic_remove_ring(topic, i);
    }
}

/* Lets the new ring wait for all who are seated. 0 or a negative errno. */
static int expect_readers(struct cf_publisher *publisher) {
    const struct cf_topic_page *page = publisher->topic.page;
    int error = 0, fd = cf_ring_reopen(&publisher->writer);
    if (fd < 0)
        return fd;
    for (uint32_t i = 0; i < CF_TOPIC_SEATS && i < page->seats_used && error == 0; i++) {
        const struct cf_seat *seat = &page->seats[i];
        if (seat->subscription != 0 && seat->kind != CF_SEAT_MEMBER)
            error = cf_ring_expect(&publisher->writer, fd, i, seat);
    }
    close(fd);
    return error;
}

/* Makes the file of a ring that is listed, and lets it wait for all who are seated. 0 or a negative
 * errno. */
static int make_file(struct cf_publisher *publisher, const struct cf_ring_config *config) {
    struct cf_topic *topic = &publisher->topic;
    int error = cf_ring_create(&publisher->writer, topic->participant, config, topic->hash);
    publisher->writer.topic = topic->page;
    return error != 0 ? error : expect_readers(publisher);
}

static int make_ring(struct cf_publisher *publisher, const struct cf_ring_config *config) {
    struct cf_topic *topic = &publisher->topic;
    int error = cf_pattern_seat_all(topic);
    if (error != 0)
        return error;
    /* First listed, then made: the file of a process that is killed in between is found. */
    int index =
        cf_topic_add_ring(topic, config->ring_id, topic->participant->id, config->publisher);
    if (index < 0)
        return index;
    publisher->ring = (uint32_t)index;
    error = make_file(publisher, config);
    if (error != 0) {
        cf_ring_close(&publisher->writer);
        remove_ring(topic, config->ring_id);
        cf_topic_remove_ring(topic, publisher->ring);
        return error;
    }
    cf_topic_announce(topic->page);
    return 0;
}

int cf_publisher_open(struct cf_publisher *publisher, struct cf_participant *participant,
                      struct cf_ring_config config) {
    *publisher = (struct cf_publisher){.topic.fd = -1};
    struct cf_topic *topic = &publisher->topic;
    int error =
        cf_topic_enter(topic, participant, config.topic, config.topic_bytes, 1, CF_TOPIC_LOCK_NS);
    if (error != 0)
        return error;
    cf_topic_remove_dead_seats(topic);
    cf_topic_remove_ended_rings(topic);
    int number = cf_participant_take_number(participant);
    if (number > 0) {
        config.publisher = (uint32_t)number;
        config.ring_id = cf_ring_make_id();
        error = make_ring(publisher, &config);
        if (error != 0)
            cf_participant_return_number(participant, (uint16_t)number);
    }
    cf_topic_leave(topic);
    if (number < 0 || error != 0)
        cf_topic_close(topic);
    return number < 0 ? number : error;
}

void cf_publisher_close(struct cf_publisher *publisher) {
    struct cf_topic *topic = &publisher->topic;
    if (!publisher->writer.header)
        return;
    uint32_t number = publisher->writer.publisher;
    int is_open = cf_participant_is_open(topic->participant);
    cf_ring_close(&publisher->writer);
    if (is_open) {
        /* Where the lock cannot be had, whoever opens the topic next finds that the ring has ended.
         */
        cf_store_release(&topic->page->rings[publisher->ring].state,
                         (uint32_t)CF_TOPIC_RING_CLOSED);
        cf_topic_wake(topic->page);
        if (cf_topic_reenter(topic, CF_TOPIC_LOCK_NS) == 0) {
            /* Nobody else may come, who would. */
            cf_topic_remove_dead_seats(topic);
            cf_topic_remove_ended_rings(topic);
            cf_participant_return_number(topic->participant, (uint16_t)number);
            cf_topic_leave(topic);
        }
    }
    cf_topic_close(topic);
}
