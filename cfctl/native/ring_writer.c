#include "ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tick.h"

enum { LOOK_FOR_DEAD_EVERY_NS = 1000000 };

static uint64_t slots_bytes(const struct cf_ring_writer *writer) {
    return (writer->mask + 1) * writer->slot_bytes;
}

uint64_t cf_ring_max_payload(const struct cf_ring_writer *writer) {
    uint64_t in_slot = writer->slot_bytes - sizeof(struct cf_ring_slot);
    uint64_t in_arena = writer->arena_bytes / 2;
    return in_arena > in_slot ? in_arena : in_slot;
}

static uint32_t lines_used(const struct cf_ring_writer *writer) {
    uint32_t used = cf_load_relaxed(&writer->readers->lines_used);
    return used < CF_TOPIC_SEATS ? used : CF_TOPIC_SEATS;
}

/* Returns whether the reader of a line may still come back for its messages. */
static int is_alive(const struct cf_ring_writer *writer, uint32_t index, uint64_t reader,
                    uint64_t participant) {
    /* Who has given up its seat does not: it could not open this ring when it left. */
    if (cf_load_acquire(&writer->topic->seats[index].subscription) != reader)
        return 0;
    if (participant != 0)
        return cf_participant_lives(writer->participant, participant) != 0;
    return cf_load_relaxed(&writer->topic->seats[index].kind) == CF_SEAT_GROUP &&
           cf_topic_seat_lives(writer->topic, writer->participant, index) != 0;
}

unsigned cf_ring_remove_dead_readers(struct cf_ring_writer *writer) {
    unsigned removed = 0;
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC);
    if (now_ns < writer->next_look_ns)
        return 0;
    writer->next_look_ns = now_ns + LOOK_FOR_DEAD_EVERY_NS;
    for (uint32_t i = 0; i < lines_used(writer); i++) {
        struct cf_ring_reader_line *line = &writer->readers->lines[i];
        uint64_t reader = __atomic_load_n(&line->subscription, CF_RING_GATE_READ);
        if (reader == 0 || is_alive(writer, i, reader, cf_load_relaxed(&line->participant)))
            continue;
        /* Only that one: another may have taken the line meanwhile. */
        if (__atomic_compare_exchange_n(&line->subscription, &reader, UINT64_C(0), 0,
                                        CF_MEMORY_SEQ_CST, CF_MEMORY_RELAXED)) {
            cf_bump(&writer->header->orphaned, 1);
            removed++;
        }
    }
    return removed;
}

uint32_t cf_ring_count_readers(const struct cf_ring_writer *writer) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < lines_used(writer); i++)
        count += __atomic_load_n(&writer->readers->lines[i].subscription, CF_RING_GATE_READ) != 0;
    return count;
}

/* Returns the lowest position of the readers that the ring waits for, the tail without any. */
static uint64_t lowest_position(struct cf_ring_writer *writer) {
    uint64_t lowest = writer->tail;
    cf_ring_fence(CF_RING_JOIN_FENCE); /* Partner: the fence in cf_ring_join. */
    for (uint32_t i = 0; i < lines_used(writer); i++) {
        const struct cf_ring_reader_line *line = &writer->readers->lines[i];
        if (__atomic_load_n(&line->subscription, CF_RING_GATE_READ) == 0 ||
            cf_load_relaxed(&line->flags) & CF_SEAT_LOSSY)
            continue;
        uint64_t position = __atomic_load_n(&line->position, CF_RING_POSITION_READ);
        if (position < lowest)
            lowest = position;
    }
    return lowest;
}

/* As cf_ring_look; dead readers are looked for when the slots are full, or the arena is. */
static int look(struct cf_ring_writer *writer, int arena_is_full) {
    if (writer->header->overwrite)
        return 1;
    uint64_t lowest = lowest_position(writer);
    if ((writer->tail - lowest >= writer->mask + 1 || arena_is_full) &&
        cf_ring_remove_dead_readers(writer) > 0)
        lowest = lowest_position(writer);
    if (writer->tail - lowest > writer->high_water)
        writer->high_water = writer->tail - lowest;
    /* A position that is further back than any slot is a reader's nonsense: nothing is released. */
    if (writer->tail - lowest > writer->mask + 1)
        return 0;
    writer->released = lowest;
    writer->limit = lowest + writer->mask + 1;
    return writer->tail < writer->limit;
}

int cf_ring_look(struct cf_ring_writer *writer) {
    return writer->loan.slot ? 0 : look(writer, 0);
}

/* Starts to use the arena: reserves it and the table of its parts. */
static int open_arena(struct cf_ring_writer *writer) {
    uint64_t from = CF_RING_FIXED_BYTES + slots_bytes(writer);
    int fd = cf_ring_reopen(writer);
    int error = fd < 0 ? fd : cf_place_reserve(fd, from, writer->file_bytes);
    if (fd >= 0)
        close(fd);
    if (error != 0)
        return error;
    writer->arena_starts = calloc(writer->mask + 1, sizeof *writer->arena_starts);
    return writer->arena_starts ? 0 : -ENOMEM;
}

/* Returns where the arena's oldest payload in use starts. */
static uint64_t arena_head(const struct cf_ring_writer *writer) {
    if (writer->released == writer->tail)
        return writer->arena_tail;
    return writer->arena_starts[writer->released & writer->mask];
}

/* Finds `length` bytes in one piece. 0 and their position, or a negative errno. */
static int take_arena(struct cf_ring_writer *writer, uint64_t length, uint64_t *position) {
    int error = writer->arena_starts ? 0 : open_arena(writer);
    if (error != 0)
        return error;
    uint64_t size = writer->arena_bytes;
    uint64_t padded = (length + 7) & ~UINT64_C(7);
    uint64_t start = writer->arena_tail;
    if (start % size + padded > size)
        start += size - start % size;
    uint64_t end = start + padded;
    if (!writer->header->overwrite && end - arena_head(writer) > size &&
        (!look(writer, 1) || end - arena_head(writer) > size))
        return -EAGAIN;
    if (end > size && end - size > cf_load_relaxed(&writer->header->arena_floor)) {
        /* Also where full rings refuse: a reader that joins at a message from before it was there
         * has to see that its payload has given way. Partner: the fence in cf_ring_take. */
        cf_store_relaxed(&writer->header->arena_floor, end - size);
        cf_ring_fence(CF_RING_OVERWRITE_FENCE);
    }
    *position = start;
    return 0;
}

/* Copies into words that a reader may read meanwhile; the last one is filled up with zeros. */
static void copy_words(uint64_t *into, const char *from, size_t length) {
    size_t whole = length / 8;
    for (size_t i = 0; i < whole; i++) {
        uint64_t word;
        memcpy(&word, from + 8 * i, 8);
        __atomic_store_n(&into[i], word, CF_RING_BODY);
    }
    size_t rest = length % 8;
    if (rest == 0)
        return;
    uint64_t word = 0;
    if (length >= 8) {
        memcpy(&word, from + length - 8, 8);
        word >>= 64 - 8 * rest;
    } else {
        memcpy(&word, from, rest);
    }
    __atomic_store_n(&into[whole], word, CF_RING_BODY);
}

/* Finds the next slot and the place of a payload outside of it, and takes from the slot's readers
 * what was there. 0 or a negative errno, and nothing has changed. */
static inline int begin(struct cf_ring_writer *writer, size_t length, struct cf_ring_loan *loan) {
    uint64_t index = writer->tail;
    if (cf_unlikely(!cf_participant_is_open(writer->participant)))
        return -ECHILD;
    if (cf_unlikely(cf_ring_room(writer) == 0))
        return writer->loan.slot ? -EBUSY : -EAGAIN;
    struct cf_ring_slot *slot =
        (void *)(writer->slots + (index & writer->mask) * writer->slot_bytes);
    *loan = (struct cf_ring_loan){
        .slot = slot, .length = length, .in_arena = length > writer->slot_bytes - sizeof *slot};
    if (cf_unlikely(loan->in_arena)) {
        if (length > cf_ring_max_payload(writer))
            return -EMSGSIZE;
        int error = take_arena(writer, length, &loan->position);
        if (error != 0)
            return error;
    }
    __atomic_store_n(&slot->seq, UINT64_C(0), CF_RING_SEQ_INVALIDATE);
    cf_ring_fence(CF_RING_OVERWRITE_FENCE); /* Partner: the fence in cf_ring_take. */
    return 0;
}

static inline uint64_t *payload_of(const struct cf_ring_writer *writer,
                                   const struct cf_ring_loan *loan) {
    if (cf_likely(!loan->in_arena))
        return loan->slot->body;
    return (void *)(writer->arena + loan->position % writer->arena_bytes);
}

/* Publishes a slot whose payload stands. */
static inline void finish(struct cf_ring_writer *writer, const struct cf_ring_loan *loan,
                          uint64_t tick, uint64_t hlc, uint16_t flags) {
    struct cf_ring_slot *slot = loan->slot;
    uint64_t index = writer->tail;
    if (cf_unlikely(writer->arena_starts != NULL)) {
        writer->arena_starts[index & writer->mask] = writer->arena_tail;
        if (loan->in_arena)
            writer->arena_tail = loan->position + ((loan->length + 7) & ~(uint64_t)7);
    }
    if (cf_unlikely(loan->in_arena)) {
        __atomic_store_n(&slot->body[0], loan->position, CF_RING_BODY);
        flags |= CF_MESSAGE_ARENA;
    }
    __atomic_store_n(&slot->hlc, hlc, CF_RING_BODY);
    __atomic_store_n(&slot->properties,
                     loan->length | (uint64_t)writer->publisher << 32 | (uint64_t)flags << 48,
                     CF_RING_BODY);
    __atomic_store_n(&slot->tick, tick, CF_RING_BODY);
    __atomic_store_n(&slot->seq, index + 1, CF_RING_SEQ_PUBLISH);
    writer->tail = index + 1;
    __atomic_store_n(&writer->header->tail, index + 1, CF_RING_TAIL_PUBLISH);
}

int cf_ring_publish(struct cf_ring_writer *writer, const void *payload, size_t length,
                    uint64_t tick, uint64_t hlc, uint16_t flags) {
    struct cf_ring_loan loan;
    int error = begin(writer, length, &loan);
    if (cf_unlikely(error != 0))
        return error;
    copy_words(payload_of(writer, &loan), payload, length);
    finish(writer, &loan, tick, hlc, flags);
    return 0;
}

int cf_ring_loan(struct cf_ring_writer *writer, size_t length, void **payload) {
    struct cf_ring_loan loan;
    int error = begin(writer, length, &loan);
    if (error != 0)
        return error;
    writer->loan = loan;
    writer->limit = 0; /* nothing has room until it is back */
    *payload = payload_of(writer, &loan);
    return 0;
}

static void end_loan(struct cf_ring_writer *writer) {
    writer->loan.slot = NULL;
    writer->limit = writer->header->overwrite ? UINT64_MAX : writer->released + writer->mask + 1;
}

void cf_ring_commit(struct cf_ring_writer *writer, size_t length, uint64_t tick, uint64_t hlc) {
    if (!writer->loan.slot)
        return;
    if (length < writer->loan.length)
        writer->loan.length = length;
    finish(writer, &writer->loan, tick, hlc, 0);
    end_loan(writer);
}

void cf_ring_abandon(struct cf_ring_writer *writer) {
    if (writer->loan.slot)
        end_loan(writer);
}
