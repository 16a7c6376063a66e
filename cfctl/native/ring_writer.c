#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tick.h"

enum { LOOK_FOR_DEAD_EVERY_NS = 1000000 };

static uint64_t slots_bytes(const struct cf_ring_writer *writer) {
    return (writer->mask + 1) * writer->slot_bytes;
}

static int usable(const struct cf_ring_config *config) {
    return config->capacity >= 2 && config->capacity <= CF_RING_MAX_CAPACITY &&
           (config->capacity & (config->capacity - 1)) == 0 &&
           (config->slot_bytes == 64 || config->slot_bytes == 128) &&
           config->arena_bytes % CF_RING_PAGE_BYTES == 0 &&
           config->arena_bytes <= CF_RING_MAX_ARENA && config->topic_bytes >= 1 &&
           config->topic_bytes <= CF_TOPIC_BYTES && config->publisher <= UINT16_MAX;
}

static void fill_header(struct cf_ring_header *header, const struct cf_ring_config *config,
                        uint64_t ring_id, uint64_t topic_hash, uint64_t participant) {
    uint64_t slots_bytes = (uint64_t)config->capacity * config->slot_bytes;
    header->version = CF_RING_VERSION;
    header->header_bytes = CF_RING_PAGE_BYTES;
    header->ring_id = ring_id;
    header->topic_hash = topic_hash;
    header->capacity = config->capacity;
    header->slot_bytes = config->slot_bytes;
    header->arena_bytes = config->arena_bytes;
    header->file_bytes = CF_RING_FIXED_BYTES + slots_bytes + config->arena_bytes;
    header->overwrite = config->overwrite;
    header->priority = config->priority;
    header->publisher = config->publisher;
    header->scheduled = config->scheduled;
    header->uid = (uint32_t)geteuid();
    header->pid = (uint64_t)getpid();
    header->start_time = cf_place_start_time();
    header->pid_namespace = cf_place_pid_namespace();
    header->participant = participant;
    cf_place_boot_id(header->boot_id, sizeof header->boot_id);
    header->topic_bytes = config->topic_bytes;
    memcpy(header->topic, config->topic, config->topic_bytes);
    header->tick_source = (uint32_t)cf_tick_select();
    header->opened_realtime_ns = cf_os_ns(CLOCK_REALTIME);
    header->opened_tick = cf_ticks_ordered();
    header->opened_raw_ns = cf_os_ns(CLOCK_MONOTONIC_RAW);
    header->state = CF_RING_OPEN;
    uint64_t magic;
    memcpy(&magic, CF_RING_MAGIC, sizeof magic);
    /* Partner: a reader takes the file for a ring only once the magic stands. */
    cf_store_release((uint64_t *)(void *)header->magic, magic);
}

static int map_new(struct cf_ring_writer *writer, int fd, const struct cf_ring_config *config,
                   uint64_t ring_id, uint64_t topic_hash) {
    uint64_t slots_end = CF_RING_FIXED_BYTES + slots_bytes(writer);
    uint64_t file_bytes = slots_end + config->arena_bytes;
    /* The header and the first lines; the slots. Other lines and the arena are reserved when they
     * are first needed. */
    int error = cf_place_reserve(fd, 0, 2 * (uint64_t)CF_RING_PAGE_BYTES);
    if (error == 0)
        error = cf_place_reserve(fd, CF_RING_FIXED_BYTES, slots_end);
    if (error == 0 && ftruncate(fd, (off_t)file_bytes) != 0)
        error = -errno;
    if (error != 0)
        return error;
    char *base = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    /* Each page is touched now and not by a message; a kernel before 5.14 does it then. */
    madvise(base, 2 * (size_t)CF_RING_PAGE_BYTES, 23 /* MADV_POPULATE_WRITE */);
    madvise(base + CF_RING_FIXED_BYTES, slots_bytes(writer), 23 /* MADV_POPULATE_WRITE */);
    writer->header = (void *)base;
    writer->readers = (void *)(base + CF_RING_PAGE_BYTES);
    writer->slots = base + CF_RING_FIXED_BYTES;
    writer->arena = base + slots_end;
    fill_header(writer->header, config, ring_id, topic_hash, writer->participant->id);
    return 0;
}

static int open_file(const struct cf_participant *participant, uint64_t topic_hash,
                     uint64_t ring_id, int flags) {
    char name[64];
    cf_ring_name(name, sizeof name, topic_hash, ring_id);
    int fd = openat(participant->directory_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags,
                    S_IRUSR | S_IWUSR);
    return fd < 0 ? -errno : fd;
}

int cf_ring_reopen(const struct cf_ring_writer *writer) {
    return open_file(writer->participant, writer->header->topic_hash, writer->header->ring_id, 0);
}

int cf_ring_create(struct cf_ring_writer *writer, const struct cf_participant *participant,
                   const struct cf_ring_config *config, uint64_t topic_hash) {
    *writer = (struct cf_ring_writer){.participant = participant};
    if (!usable(config))
        return -EINVAL;
    uint64_t ring_id = config->ring_id;
    if (ring_id == 0 && getrandom(&ring_id, sizeof ring_id, 0) != sizeof ring_id)
        return -EIO;
    ring_id |= config->ring_id == 0; /* never 0 */
    int fd = open_file(participant, topic_hash, ring_id, O_CREAT | O_EXCL);
    if (fd < 0)
        return fd;
    writer->mask = config->capacity - 1;
    writer->slot_bytes = config->slot_bytes;
    writer->publisher = config->publisher;
    /* Without a limit nothing is ever looked for: overwriting needs no room. */
    writer->limit = config->overwrite ? UINT64_MAX : config->capacity;
    int error = map_new(writer, fd, config, ring_id, topic_hash);
    close(fd);
    if (error != 0) {
        char name[64];
        cf_ring_name(name, sizeof name, topic_hash, ring_id);
        unlinkat(participant->directory_fd, name, 0);
    }
    return error;
}

int cf_ring_expect(struct cf_ring_writer *writer, int fd, uint32_t seat, const struct cf_seat *of) {
    struct cf_ring_reader_line *line = &writer->readers->lines[seat];
    uint64_t at = (uint64_t)((char *)line - (char *)writer->header);
    uint64_t page = at / CF_RING_PAGE_BYTES * CF_RING_PAGE_BYTES;
    int error = cf_place_reserve(fd, page, page + CF_RING_PAGE_BYTES);
    if (error != 0)
        return error;
    line->participant = of->kind == CF_SEAT_GROUP ? 0 : of->participant;
    line->flags = of->flags & CF_SEAT_LOSSY;
    /* Partner: the gate read of cf_ring_resume. */
    __atomic_store_n(&line->subscription, of->subscription, CF_RING_GATE_PUBLISH);
    if (writer->readers->lines_used <= seat)
        writer->readers->lines_used = seat + 1;
    return 0;
}

void cf_ring_close(struct cf_ring_writer *writer) {
    if (!writer->header)
        return;
    if (cf_participant_is_open(writer->participant))
        cf_store_release(&writer->header->state, (uint32_t)CF_RING_CLOSED);
    munmap(writer->header, writer->header->file_bytes);
    free(writer->arena_starts);
    *writer = (struct cf_ring_writer){0};
}

uint64_t cf_ring_max_payload(const struct cf_ring_writer *writer) {
    uint64_t in_slot = writer->slot_bytes - sizeof(struct cf_ring_slot);
    uint64_t in_arena = writer->header->arena_bytes / 2;
    return in_arena > in_slot ? in_arena : in_slot;
}

static uint32_t lines_used(const struct cf_ring_writer *writer) {
    uint32_t used = cf_load_relaxed(&writer->readers->lines_used);
    return used < CF_TOPIC_SEATS ? used : CF_TOPIC_SEATS;
}

/* Returns whether the reader of a line may still come back for its messages: it lives, and has not
 * given its seat up without having opened this ring. */
static int is_alive(const struct cf_ring_writer *writer, uint32_t index, uint64_t reader) {
    const struct cf_seat *seat = &writer->topic->seats[index];
    return cf_load_acquire(&seat->subscription) == reader &&
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
        if (reader == 0 || is_alive(writer, i, reader))
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
    return look(writer, 0);
}

/* Starts to use the arena: reserves it and the table of its parts. */
static int open_arena(struct cf_ring_writer *writer) {
    uint64_t from = CF_RING_FIXED_BYTES + slots_bytes(writer);
    int fd = cf_ring_reopen(writer);
    int error = fd < 0 ? fd : cf_place_reserve(fd, from, writer->header->file_bytes);
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
    uint64_t size = writer->header->arena_bytes;
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
        return -EAGAIN;
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
    return (void *)(writer->arena + loan->position % writer->header->arena_bytes);
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
    if (writer->loan.slot)
        return -EBUSY;
    int error = begin(writer, length, &writer->loan);
    if (error != 0)
        writer->loan.slot = NULL;
    else
        *payload = payload_of(writer, &writer->loan);
    return error;
}

void cf_ring_commit(struct cf_ring_writer *writer, size_t length, uint64_t tick, uint64_t hlc) {
    if (length < writer->loan.length)
        writer->loan.length = length;
    finish(writer, &writer->loan, tick, hlc, 0);
    writer->loan.slot = NULL;
}

void cf_ring_abandon(struct cf_ring_writer *writer) {
    writer->loan.slot = NULL;
}
