#include "subscription_group.h"

/* Returns a dead member of the group in whose name something is unfinished, or -1. */
static int find_dead(const struct cf_subscription *subscription,
                     const struct cf_subscription_topic *of) {
    const struct cf_topic_page *page = of->topic.page;
    uint32_t used = cf_load_acquire(&page->seats_used), group = page->seats[of->seat].group;
    for (uint32_t i = 0; i < used && i < CF_TOPIC_SEATS; i++) {
        const struct cf_seat *seat = &page->seats[i];
        if (i != of->seat && cf_load_acquire(&seat->subscription) != 0 &&
            seat->kind == CF_SEAT_MEMBER && seat->group == group &&
            cf_participant_lives(subscription->participant, seat->participant) == 0)
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

/* Gives a dead member's messages to this one, whose seat names them from then on. */
static void take_over(struct cf_subscription *subscription, struct cf_subscription_topic *of,
                      struct cf_seat *dead) {
    struct cf_seat *own = &of->topic.page->seats[of->seat];
    struct cf_seat *group = &of->topic.page->seats[own->group];
    struct cf_ring_reader *reader = reader_of(subscription, dead->ring);
    uint64_t count = dead->to - dead->from;
    if (reader && group->flags & CF_SEAT_REDELIVER) {
        cf_store_relaxed(&own->from, dead->from);
        cf_store_relaxed(&own->to, dead->to);
        cf_store_release(&own->ring, dead->ring);
        reader->redo = dead->from;
        reader->redo_end = dead->to;
        cf_add_relaxed(&group->redelivered, count);
    }
    cf_add_relaxed(&group->abandoned, count);
    cf_store_release(&dead->ring, UINT64_C(0));
    cf_store_relaxed(&dead->to, dead->from);
}

static int is_free(const struct cf_subscription *subscription,
                   const struct cf_subscription_topic *of) {
    for (uint32_t i = 0; i < subscription->readers.count; i++) {
        const struct cf_ring_reader *reader = cf_subscription_reader(subscription, i);
        if (reader->redo < reader->redo_end)
            return 0;
    }
    return cf_load_relaxed(&of->topic.page->seats[of->seat].ring) == 0;
}

void cf_subscription_inherit(struct cf_subscription *subscription) {
    if (subscription->seat.group_bytes == 0)
        return;
    for (uint32_t i = 0; i < subscription->topics.count; i++) {
        struct cf_subscription_topic *of = cf_subscription_topic(subscription, i);
        if (!is_free(subscription, of) || find_dead(subscription, of) < 0)
            continue;
        if (cf_topic_reenter(&of->topic, 0) != 0)
            continue;
        int dead = find_dead(subscription, of);
        struct cf_seat *seat = dead < 0 ? NULL : &of->topic.page->seats[dead];
        if (seat && cf_load_acquire(&seat->ring) != 0 && seat->to > seat->from)
            take_over(subscription, of, seat);
        if (seat)
            cf_topic_free_seat(&of->topic, (uint32_t)dead);
        cf_topic_leave(&of->topic);
    }
}
