/* How the members of a group share a ring: one claim, and what each works on in its seat. */
#include "ring_group.h"

/* Returns the first message that the group is not done with. Any member; about 2 ns a seat. */
static uint64_t reached(const struct cf_ring_reader *reader) {
    /* Before the seats: see CF_RING_CLAIM_TAKE. */
    uint64_t claim = __atomic_load_n(&reader->line->claim, CF_RING_CLAIM_READ);
    uint64_t lowest = CF_RING_CLAIM_INDEX(claim);
    uint32_t group = (uint32_t)(reader->line - reader->readers->lines);
    uint32_t used = cf_load_acquire(&reader->topic->seats_used);
    for (uint32_t i = 0; i < used && i < CF_TOPIC_SEATS; i++) {
        const struct cf_seat *seat = &reader->topic->seats[i];
        if (cf_load_acquire(&seat->subscription) == 0 ||
            cf_load_relaxed(&seat->kind) != CF_SEAT_MEMBER ||
            cf_load_relaxed(&seat->group) != group ||
            cf_load_acquire(&seat->ring) != reader->ring_id)
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

/* Writes down that the claim's member took the message before it: nothing once it is known, or when
 * it was passed by and not taken. */
static void confirm(struct cf_ring_reader *reader, uint64_t claim) {
    struct cf_ring_reader_line *taker = &reader->readers->lines[CF_RING_CLAIM_SEAT(claim)];
    if (taker == reader->line)
        return;
    uint64_t known = cf_load_relaxed(&taker->claim);
    while (known < CF_RING_CLAIM_INDEX(claim) &&
           !__atomic_compare_exchange_n(&taker->claim, &known, CF_RING_CLAIM_INDEX(claim), 1,
                                        CF_RING_CLAIM_TAKE, CF_MEMORY_RELAXED))
        ;
}

/* Moves the claim from `index` on, in a seat's name. 0 when another member was faster. */
static int move_claim(struct cf_ring_reader *reader, uint64_t index, uint64_t end, uint32_t seat) {
    uint64_t claim = __atomic_load_n(&reader->line->claim, CF_RING_CLAIM_READ);
    if (CF_RING_CLAIM_INDEX(claim) != index)
        return 0;
    confirm(reader, claim);
    return __atomic_compare_exchange_n(&reader->line->claim, &claim, CF_RING_CLAIM(end, seat), 0,
                                       CF_RING_CLAIM_TAKE, CF_MEMORY_RELAXED);
}

int cf_ring_pass_in_group(struct cf_ring_reader *reader, uint64_t index, uint64_t end) {
    return move_claim(reader, index, end, (uint32_t)(reader->line - reader->readers->lines));
}

uint64_t cf_ring_taken_until(struct cf_ring_reader *reader, uint32_t seat) {
    const struct cf_seat *dead = &reader->topic->seats[seat];
    uint64_t claim = __atomic_load_n(&reader->line->claim, CF_RING_CLAIM_READ);
    if (CF_RING_CLAIM_SEAT(claim) == seat)
        confirm(reader, claim);
    uint64_t known = cf_load_acquire(&reader->readers->lines[seat].claim);
    uint64_t from = cf_load_relaxed(&dead->from), to = cf_load_relaxed(&dead->to);
    if (cf_load_acquire(&dead->ring) != reader->ring_id || known <= from || to <= from)
        return from;
    return known < to ? known : to;
}

void cf_ring_disown(struct cf_ring_reader *reader) {
    /* As if it were dead: the group finds the seat as it found it before. */
    if (reader->inherited && cf_participant_is_open(reader->participant))
        cf_store_release(&reader->inherited->participant, UINT64_C(0));
    reader->inherited = NULL;
    reader->redo = reader->redo_end = 0;
}

void cf_ring_finish(struct cf_ring_reader *reader) {
    if (!reader->member || !cf_participant_is_open(reader->participant))
        return;
    if (cf_load_relaxed(&reader->member->ring) == reader->ring_id)
        cf_store_release(&reader->member->ring, UINT64_C(0));
    if (cf_unlikely(reader->inherited != NULL)) {
        cf_store_release(&reader->inherited->from, reader->redo);
        if (reader->redo >= reader->redo_end) {
            cf_store_release(&reader->inherited->ring, UINT64_C(0));
            cf_ring_disown(reader);
        }
    }
    uint64_t claim = __atomic_load_n(&reader->line->claim, CF_RING_CLAIM_READ);
    if (CF_RING_CLAIM_INDEX(claim) - cf_load_relaxed(&reader->line->position) >=
        reader->lazy_messages)
        cf_ring_store_group_position(reader);
}

/* Gives out again what a dead member had not finished: its seat goes on naming it. With `more` what
 * was given out before is not finished yet. */
static int take_again(struct cf_ring_reader *reader, int more) {
    if (!more)
        cf_store_release(&reader->inherited->from, reader->redo);
    reader->redo++;
    reader->taken++;
    return 1;
}

/* Takes message `index`, which the seat names already, if nobody else has. */
static int claim_message(struct cf_ring_reader *reader, uint64_t index) {
    if (!move_claim(reader, index, index + 1, reader->seat))
        return 0;
    reader->taken++;
    if (reader->taken - reader->stored >= reader->lazy_messages)
        cf_ring_store_group_position(reader);
    return 1;
}

int cf_ring_take_in_group(struct cf_ring_reader *reader, uint64_t index) {
    struct cf_seat *member = reader->member;
    if (!cf_participant_is_open(reader->participant))
        return 0;
    /* In this order, whenever it dies: no ring is named with the messages of another one. */
    cf_store_release(&member->ring, UINT64_C(0));
    if (reader->redo < reader->redo_end)
        return take_again(reader, 0);
    cf_store_release(&member->from, index);
    cf_store_release(&member->to, index + 1);
    cf_store_release(&member->ring, reader->ring_id);
    if (claim_message(reader, index))
        return 1;
    cf_store_release(&member->ring, UINT64_C(0));
    return 0;
}

int cf_ring_take_next(struct cf_ring_reader *reader, const struct cf_ring_message *message) {
    struct cf_seat *member = reader->member;
    uint64_t index = message->seq - 1;
    if (!member)
        return cf_ring_take(reader, message);
    if (!cf_participant_is_open(reader->participant) || !cf_ring_is_whole(reader, message))
        return 0;
    if (reader->redo < reader->redo_end)
        return take_again(reader, 1);
    if (cf_load_relaxed(&member->ring) != reader->ring_id || cf_load_relaxed(&member->to) != index)
        return 0;
    cf_store_release(&member->to, index + 1);
    if (claim_message(reader, index))
        return 1;
    cf_store_release(&member->to, index);
    return 0;
}
