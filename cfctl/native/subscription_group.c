#include "subscription_group.h"

static uint32_t group_of(const struct cf_subscription_topic *of) {
    return cf_load_relaxed(&of->topic.page->seats[of->seat].group);
}

/* Returns the first seat from `first` on of a dead member of the group, or -1. */
static int find_dead(const struct cf_subscription *subscription,
                     const struct cf_subscription_topic *of, uint32_t first) {
    const struct cf_topic_page *page = of->topic.page;
    uint32_t used = cf_load_acquire(&page->seats_used), group = group_of(of);
    for (uint32_t i = first; i < used && i < CF_TOPIC_SEATS; i++) {
        const struct cf_seat *seat = &page->seats[i];
        if (i != of->seat && cf_load_acquire(&seat->subscription) != 0 &&
            cf_load_relaxed(&seat->kind) == CF_SEAT_MEMBER &&
            cf_load_relaxed(&seat->group) == group &&
            cf_participant_lives(subscription->participant, cf_load_acquire(&seat->participant)) ==
                0)
            return (int)i;
    }
    return -1;
}

static struct cf_ring_reader *reader_of(const struct cf_subscription *subscription,
                                        uint64_t ring_id) {
    for (uint32_t i = 0; i < subscription->readers.count; i++) {
        struct cf_ring_reader *reader = cf_subscription_reader(subscription, i);
        if (reader->ring_id == ring_id)
            return reader;
    }
    return NULL;
}

static int is_listed(const struct cf_topic_page *page, uint64_t ring_id) {
    for (uint32_t i = 0; i < CF_TOPIC_RINGS && i < cf_load_acquire(&page->rings_used); i++) {
        if (cf_load_acquire(&page->rings[i].ring_id) == ring_id)
            return 1;
    }
    return 0;
}

/* Gives a dead member's messages to this one. The seat goes on naming them, and from one store on
 * it is this one's: there is no moment at which nobody has them, or two have. */
static void take_over(struct cf_subscription *subscription, struct cf_ring_reader *reader,
                      struct cf_seat *dead, uint64_t end) {
    const struct cf_seat_request *own = &subscription->seat;
    cf_store_relaxed(&dead->to, end);
    cf_store_relaxed(&dead->pid, own->pid);
    cf_store_relaxed(&dead->start_time, own->start_time);
    cf_store_relaxed(&dead->pid_namespace, own->pid_namespace);
    cf_store_release(&dead->participant, own->participant);
    reader->redo = cf_load_relaxed(&dead->from);
    reader->redo_end = end;
    reader->inherited = dead;
}

/* Looks at what a dead member had not finished. Returns whether its seat is needed no longer. */
static int bury(struct cf_subscription *subscription, struct cf_subscription_topic *of,
                uint32_t index) {
    struct cf_topic_page *page = of->topic.page;
    struct cf_seat *dead = &page->seats[index],
                   *group = &page->seats[group_of(of) % CF_TOPIC_SEATS];
    uint64_t ring_id = cf_load_acquire(&dead->ring);
    struct cf_ring_reader *reader = ring_id == 0 ? NULL : reader_of(subscription, ring_id);
    if (!reader) /* Of a ring that this one has not opened, another time or another member. */
        return ring_id == 0 || !is_listed(page, ring_id);
    uint64_t from = cf_load_relaxed(&dead->from), end = cf_ring_taken_until(reader, index);
    int is_redelivered = end > from && group->flags & CF_SEAT_REDELIVER;
    if (is_redelivered && reader->inherited)
        return 0;
    cf_add_relaxed(&group->abandoned, end - from);
    if (is_redelivered) {
        take_over(subscription, reader, dead, end);
        cf_add_relaxed(&group->redelivered, end - from);
        return 0;
    }
    /* Before the ring's position is stored without it. */
    cf_store_release(&dead->ring, UINT64_C(0));
    cf_ring_store_position(reader);
    return 1;
}

void cf_subscription_inherit(struct cf_subscription *subscription) {
    if (subscription->seat.group_bytes == 0)
        return;
    for (uint32_t i = 0; i < subscription->topics.count; i++) {
        struct cf_subscription_topic *of = cf_subscription_topic(subscription, i);
        if (find_dead(subscription, of, 0) < 0 || cf_topic_reenter(&of->topic, 0) != 0)
            continue;
        int dead = -1;
        while ((dead = find_dead(subscription, of, (uint32_t)(dead + 1))) >= 0) {
            if (bury(subscription, of, (uint32_t)dead))
                cf_topic_free_seat(&of->topic, (uint32_t)dead);
        }
        cf_topic_leave(&of->topic);
    }
}
