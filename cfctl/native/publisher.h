/* A publisher: a topic's ring and its writer. */
#ifndef CF_PUBLISHER_H
#define CF_PUBLISHER_H

#include "ring.h"
#include "topic.h"

/* Publishing itself is for one thread at a time; must stay where it is. */
struct cf_publisher {
    struct cf_topic topic;
    struct cf_ring_writer writer;
    uint32_t ring; /* its place in the topic's list */
};

/* Makes a ring that waits for all who are seated at its topic. 0 or a negative errno: -EUSERS when
 * the topic has CF_TOPIC_RINGS rings, -EAGAIN when no publisher number is free, and as
 * cf_topic_enter and cf_ring_create. `config.publisher` and `ring_id` are found, not taken. */
int cf_publisher_open(struct cf_publisher *publisher, struct cf_participant *participant,
                      struct cf_ring_config config);

/* Says that no more comes. The ring's file stays as long as somebody has messages of it to take. In
 * a forked child it only unmaps. */
void cf_publisher_close(struct cf_publisher *publisher);

/* Removes the rings of a topic that nobody writes or has left to read, and their files. Entered. */
void cf_topic_remove_ended_rings(struct cf_topic *topic);

#endif
