/* How the members of a group share a ring: one claim, and what each works on in its seat. */
#include "ring_group.h"

/* Returns the first message that the group is not done with. Any member; about 2 ns a seat. */
static uint64_t reached(const struct cf_ring_reader *reader) {
    /* Before the seats: see CF_RING_CLAIM_TAKE. */
    uint64_t lowest = __atomic_load_n(&reader->line->claim, CF_RING_CLAIM_READ);
    uint32_t group = reader->member->group, used = cf_load_acquire(&reader->topic->seats_used);
    for (uint32_t i = 0; i < used && i < CF_TOPIC_SEATS; i++) {
        const struct cf_seat *seat = &reader->topic->seats[i];
        if (cf_load_acquire(&seat->subscription) == 0 || seat->kind != CF_SEAT_MEMBER ||
            seat->group != group || cf_load_acquire(&seat->ring) != reader->ring_id)
            continue;
        uint64_t from = cf_load_relaxed(&seat->from);
        if (from < lowest)
            lowest = from;
    }
    return lowest;
}

void cf_ring_store_group_position(struct cf_ring_reader *reader) {
    uint64_t lowest = reached(reader);
    uint64_t position = cf_load_relaxed(&reader->line->position);
    while (position < lowest &&
           !__atomic_compare_exchange_n(&reader->line->position, &position, lowest, 1,
                                        CF_RING_POSITION_PUBLISH, CF_MEMORY_RELAXED))
        ;
    reader->stored = reader->taken;
}

void cf_ring_finish(struct cf_ring_reader *reader) {
    if (reader->member && cf_load_relaxed(&reader->member->ring) == reader->ring_id &&
        reader->redo >= reader->redo_end)
        cf_store_release(&reader->member->ring, UINT64_C(0));
}

/* Gives out again what a dead member had not finished: the seat of this one names it already. */
static int take_again(struct cf_ring_reader *reader) {
    reader->redo++;
    reader->taken++;
    cf_store_relaxed(&reader->member->from, reader->redo - 1);
    return 1;
}

/* Takes message `index`, which the seat names already, if nobody else has. */
static int claim(struct cf_ring_reader *reader, uint64_t index) {
    if (!__atomic_compare_exchange_n(&reader->line->claim, &index, index + 1, 0, CF_RING_CLAIM_TAKE,
                                     CF_MEMORY_RELAXED))
        return 0;
    reader->taken++;
    if (reader->taken - reader->stored >= reader->lazy_messages)
        cf_ring_store_group_position(reader);
    return 1;
}

int cf_ring_take_in_group(struct cf_ring_reader *reader, uint64_t index) {
    struct cf_seat *member = reader->member;
    if (reader->redo < reader->redo_end)
        return take_again(reader);
    cf_store_relaxed(&member->from, index);
    cf_store_relaxed(&member->to, index + 1);
    cf_store_release(&member->ring, reader->ring_id);
    if (claim(reader, index))
        return 1;
    cf_store_release(&member->ring, UINT64_C(0));
    return 0;
}

int cf_ring_take_next(struct cf_ring_reader *reader, const struct cf_ring_message *message) {
    struct cf_seat *member = reader->member;
    uint64_t index = message->seq - 1;
    if (!member || reader->redo < reader->redo_end)
        return cf_ring_take(reader, message);
    if (cf_load_relaxed(&member->ring) != reader->ring_id || cf_load_relaxed(&member->to) != index)
        return 0;
    cf_store_release(&member->to, index + 1);
    if (claim(reader, index))
        return 1;
    cf_store_release(&member->to, index);
    return 0;
}
