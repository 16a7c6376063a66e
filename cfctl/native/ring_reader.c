/* How a reader takes messages; ring_join.c brings it to the ring. */
#include <string.h>

#include "ring_group.h"

uint64_t cf_ring_pending(const struct cf_ring_reader *reader) {
    uint64_t next = cf_ring_next(reader), tail = cf_load_relaxed(&reader->header->tail);
    return tail > next ? tail - next : 0;
}

void cf_ring_store_position(struct cf_ring_reader *reader) {
    /* The line is the parent's, who has not copied what its child has. */
    if (!cf_participant_is_open(reader->participant))
        return;
    if (reader->member) {
        cf_ring_store_group_position(reader);
        return;
    }
    uint64_t position = reader->position;
    /* What lies before it was never waited for. */
    if (position < reader->joined)
        return;
    /* Partner: the writer's look; what lies before is copied. */
    __atomic_store_n(&reader->line->position, position, CF_RING_POSITION_PUBLISH);
    /* The tail's line is the writer's: looking at it each time would cost both. */
    if (((position ^ reader->stored) & ~(reader->mask >> 2)) != 0) {
        uint64_t waiting = cf_load_relaxed(&reader->header->tail) - position;
        if (waiting > reader->high_water && waiting <= UINT32_MAX)
            reader->high_water = waiting;
    }
    reader->stored = position;
}

static void drop_in_group(struct cf_ring_reader *reader, uint64_t position, uint64_t end) {
    if (!cf_participant_is_open(reader->participant))
        return;
    if (reader->redo < reader->redo_end) {
        end = end < reader->redo_end ? end : reader->redo_end;
        reader->redo = end;
    } else if (!cf_ring_pass_in_group(reader, position, end)) {
        return; /* another member has taken them or passed them by */
    }
    reader->dropped += end - position;
    cf_add_relaxed(&reader->line->dropped, end - position);
}

/* Passes messages by that are not there any more. Those from before it joined are history. */
static void drop(struct cf_ring_reader *reader, uint64_t messages) {
    uint64_t position = reader->position, end = position + messages;
    if (reader->member) {
        drop_in_group(reader, position, end);
        return;
    }
    uint64_t old = 0;
    if (position < reader->joined)
        old = (end < reader->joined ? end : reader->joined) - position;
    reader->skipped += old;
    reader->dropped += messages - old;
    cf_store_relaxed(&reader->position, end);
    if (cf_participant_is_open(reader->participant))
        cf_store_relaxed(&reader->line->dropped, reader->dropped);
}

/* The writer has lapped this reader: goes on half a ring behind it, or at the oldest message when
 * only history is lost. */
static void catch_up(struct cf_ring_reader *reader) {
    uint64_t tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
    uint64_t behind = (reader->mask + 1) / 2, target = tail > behind ? tail - behind : 0;
    if (reader->position < reader->joined) {
        uint64_t oldest = tail > reader->mask ? tail - reader->mask : 0;
        target = oldest < reader->joined ? oldest : reader->joined;
    }
    drop(reader, target > reader->position ? target - reader->position : 1);
}

static void refresh_position(struct cf_ring_reader *reader) {
    if (cf_unlikely(reader->member != NULL))
        cf_store_relaxed(&reader->position,
                         reader->redo < reader->redo_end ? reader->redo : cf_ring_next(reader));
}

/* Returns whether the slot of a message is, or was, used for a later one. */
static int is_lapped(const struct cf_ring_reader *reader, uint64_t position, uint64_t seq) {
    if (seq != 0)
        return seq > position + 1;
    /* Of a slot that is being written only the tail tells which lap it is in, and only one from
     * before the slot was looked at: between the two a whole ring may have been published, all of
     * which is there (tests/models/ring_join.pml, BUG_TAIL_AFTER_SEQ). */
    uint64_t tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
    seq = __atomic_load_n(&cf_ring_slot_at(reader, position)->seq, CF_RING_SEQ_READ);
    return seq > position + 1 || (seq == 0 && tail > position + reader->mask);
}

int cf_ring_peek_other(struct cf_ring_reader *reader, struct cf_ring_message *message) {
    for (int attempt = 0; attempt < 8; attempt++) {
        refresh_position(reader);
        uint64_t position = reader->position;
        uint64_t seq = __atomic_load_n(&cf_ring_slot_at(reader, position)->seq, CF_RING_SEQ_READ);
        if (seq == position + 1)
            return cf_ring_peek(reader, message);
        if (!is_lapped(reader, position, seq))
            break;
        catch_up(reader);
    }
    /* What holds a group's position back may be done since, or dead and buried. */
    uint64_t stored = cf_unlikely(reader->member != NULL) ? cf_load_relaxed(&reader->line->position)
                                                          : reader->stored;
    if (stored != reader->position)
        cf_ring_store_position(reader);
    return 0;
}

/* Where the payload is; NULL when the message's words contradict each other. */
static const void *find_payload(const struct cf_ring_reader *reader,
                                struct cf_ring_message *message) {
    if (cf_likely(!(message->flags & CF_MESSAGE_ARENA)))
        return message->length <= reader->slot_bytes - sizeof *message->slot ? message->slot->body
                                                                             : NULL;
    message->arena_position = __atomic_load_n(&message->slot->body[0], CF_RING_BODY);
    uint64_t offset = reader->arena_bytes ? message->arena_position % reader->arena_bytes : 0;
    if (offset % 8 != 0 || message->length > reader->arena_bytes - offset)
        return NULL;
    return reader->arena + offset;
}

int cf_ring_is_whole(const struct cf_ring_reader *reader, const struct cf_ring_message *message) {
    cf_ring_fence(CF_RING_RECHECK_FENCE); /* Partner: the writer's fences before it overwrites. */
    if (cf_unlikely(__atomic_load_n(&message->slot->seq, CF_RING_SEQ_RECHECK) != message->seq))
        return 0;
    return !(message->flags & CF_MESSAGE_ARENA) ||
           cf_load_relaxed(&reader->header->arena_floor) <= message->arena_position;
}

int cf_ring_peek(struct cf_ring_reader *reader, struct cf_ring_message *message) {
    refresh_position(reader);
    uint64_t position = reader->position;
    const struct cf_ring_slot *slot = cf_ring_slot_at(reader, position);
    /* Partner: the writer's store of seq; the body is seen. */
    if (__atomic_load_n(&slot->seq, CF_RING_SEQ_READ) != position + 1)
        return cf_ring_peek_other(reader, message);
    uint64_t properties = __atomic_load_n(&slot->properties, CF_RING_BODY);
    message->slot = slot;
    message->seq = position + 1;
    message->hlc = __atomic_load_n(&slot->hlc, CF_RING_BODY);
    message->tick = __atomic_load_n(&slot->tick, CF_RING_BODY);
    message->length = (uint32_t)properties;
    message->publisher = (uint16_t)(properties >> 32);
    message->flags = (uint16_t)(properties >> 48);
    if (cf_unlikely(reader->redo < reader->redo_end))
        message->flags |= CF_MESSAGE_REDELIVERED;
    message->payload = find_payload(reader, message);
    if (cf_unlikely(message->payload == NULL)) {
        /* A torn read of a slot that is being overwritten looks the same. */
        reader->damaged += (uint64_t)cf_ring_is_whole(reader, message);
        drop(reader, 1);
        return 0;
    }
    return 1;
}

void cf_ring_copy(const struct cf_ring_message *message, void *into) {
    size_t length = message->length;
    const uint64_t *words = message->payload;
    uint64_t word = 0, before = 0;
    size_t i = 0;
    for (; i < length / 8; i++) {
        before = word = __atomic_load_n(&words[i], CF_RING_BODY);
        memcpy((char *)into + 8 * i, &word, 8);
    }
    size_t rest = length % 8;
    if (rest == 0)
        return;
    word = __atomic_load_n(&words[i], CF_RING_BODY);
    if (length < 8) {
        memcpy(into, &word, rest);
        return;
    }
    /* The last eight bytes at once: of the word before and this one. */
    word = before >> (8 * rest) | word << (64 - 8 * rest);
    memcpy((char *)into + length - 8, &word, 8);
}

int cf_ring_take(struct cf_ring_reader *reader, const struct cf_ring_message *message) {
    if (cf_unlikely(!cf_ring_is_whole(reader, message))) {
        drop(reader, 1);
        return 0;
    }
    if (cf_unlikely(reader->member != NULL))
        return cf_ring_take_in_group(reader, message->seq - 1);
    uint64_t position = reader->position + 1;
    cf_store_relaxed(&reader->position, position);
    if (cf_unlikely(position <= reader->joined))
        reader->history++;
    /* Large payloads fill the arena long before the slots: their space is given back at once. */
    else if (cf_unlikely(position - reader->stored >= reader->lazy_messages ||
                         message->flags & CF_MESSAGE_ARENA))
        cf_ring_store_position(reader);
    return 1;
}
