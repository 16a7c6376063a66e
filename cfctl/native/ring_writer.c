#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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
                        uint64_t ring_id, uint64_t topic_hash, uint64_t file_bytes) {
    header->version = CF_RING_VERSION;
    header->header_bytes = CF_RING_PAGE_BYTES;
    header->ring_id = ring_id;
    header->topic_hash = topic_hash;
    header->capacity = config->capacity;
    header->slot_bytes = config->slot_bytes;
    header->arena_bytes = config->arena_bytes;
    header->file_bytes = file_bytes;
    header->overwrite = config->overwrite;
    header->priority = config->priority;
    header->publisher = config->publisher;
    header->scheduled = config->scheduled;
    header->uid = (uint32_t)geteuid();
    header->pid = (uint64_t)getpid();
    header->start_time = cf_place_start_time();
    header->pid_namespace = cf_place_pid_namespace();
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
    uint64_t reserved = 2 * (uint64_t)CF_RING_PAGE_BYTES + slots_bytes(writer);
    uint64_t file_bytes = reserved + config->arena_bytes;
    int error = cf_place_lock(writer->file.fd, 0, 1);
    if (error == 0)
        error = cf_place_reserve(fd, 0, reserved);
    /* The arena's space is reserved with the first payload that needs it. */
    if (error == 0 && ftruncate(fd, (off_t)file_bytes) != 0)
        error = -errno;
    if (error != 0)
        return error;
    char *base = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    /* Each page is touched now and not by a message; a kernel before 5.14 does it then. */
    madvise(base, reserved, 23 /* MADV_POPULATE_WRITE */);
    writer->header = (void *)base;
    writer->readers = (void *)(base + CF_RING_PAGE_BYTES);
    writer->slots = base + 2 * (size_t)CF_RING_PAGE_BYTES;
    writer->arena = base + reserved;
    fill_header(writer->header, config, ring_id, topic_hash, file_bytes);
    return 0;
}

int cf_ring_create(struct cf_ring_writer *writer, int directory_fd,
                   const struct cf_ring_config *config, uint64_t topic_hash) {
    *writer = (struct cf_ring_writer){.file.fd = -1};
    if (!usable(config))
        return -EINVAL;
    uint64_t ring_id = 0;
    char name[64];
    if (getrandom(&ring_id, sizeof ring_id, 0) != sizeof ring_id)
        return -EIO;
    snprintf(name, sizeof name, "%016llx-%016llx.ring", (unsigned long long)topic_hash,
             (unsigned long long)ring_id);
    int fd = openat(directory_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    S_IRUSR | S_IWUSR);
    if (fd < 0)
        return -errno;
    /* Not the description that is mapped: a mapping keeps its locks, also a forked child's. */
    cf_hold_file(&writer->file, openat(directory_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    writer->mask = config->capacity - 1;
    writer->slot_bytes = config->slot_bytes;
    writer->publisher = config->publisher;
    /* Without a limit nothing is ever looked for: overwriting needs no room. */
    writer->limit = config->overwrite ? UINT64_MAX : config->capacity;
    int error = writer->file.fd < 0 ? -EMFILE : map_new(writer, fd, config, ring_id, topic_hash);
    close(fd);
    if (error != 0) {
        unlinkat(directory_fd, name, 0);
        cf_release_file(&writer->file);
    }
    return error;
}

void cf_ring_close(struct cf_ring_writer *writer) {
    if (!writer->header)
        return;
    if (writer->file.fd >= 0)
        cf_store_release(&writer->header->state, (uint32_t)CF_RING_CLOSED);
    munmap(writer->header, writer->header->file_bytes);
    cf_release_file(&writer->file);
    free(writer->arena_starts);
    *writer = (struct cf_ring_writer){.file.fd = -1};
}

uint64_t cf_ring_max_payload(const struct cf_ring_writer *writer) {
    uint64_t in_slot = writer->slot_bytes - sizeof(struct cf_ring_slot);
    uint64_t in_arena = writer->header->arena_bytes / 2;
    return in_arena > in_slot ? in_arena : in_slot;
}

/* Takes the readers whose locks are free from the gate. Returns how many. The writer holds such a
 * lock while it does, so that no new reader takes the line meanwhile. */
static unsigned remove_dead_readers(struct cf_ring_writer *writer) {
    unsigned removed = 0;
    uint64_t members = __atomic_load_n(&writer->readers->members, CF_RING_STATE_READ);
    for (uint32_t i = 0; i < CF_RING_READERS; i++) {
        if (!(members >> i & 1) || cf_place_lock(writer->file.fd, 1 + i, 1) != 0)
            continue;
        __atomic_fetch_and(&writer->readers->members, ~(UINT64_C(1) << i), CF_MEMORY_SEQ_CST);
        cf_bump(&writer->header->orphaned, 1);
        cf_place_unlock(writer->file.fd, 1 + i, 1);
        removed++;
    }
    return removed;
}

/* Returns the lowest position of the readers, the tail without any. */
static uint64_t lowest_position(struct cf_ring_writer *writer) {
    uint64_t lowest = writer->tail;
    cf_ring_fence(CF_RING_JOIN_FENCE); /* Partner: the fence in cf_ring_attach. */
    writer->members = __atomic_load_n(&writer->readers->members, CF_RING_STATE_READ);
    for (uint64_t rest = writer->members; rest; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctzll(rest);
        if (i >= CF_RING_READERS)
            break;
        uint64_t position =
            __atomic_load_n(&writer->readers->lines[i].position, CF_RING_POSITION_READ);
        if (position < lowest)
            lowest = position;
    }
    return lowest;
}

int cf_ring_look(struct cf_ring_writer *writer) {
    if (writer->header->overwrite)
        return 1;
    uint64_t lowest = lowest_position(writer);
    /* A position that is further back than any slot is a reader's nonsense: nothing is released. */
    if (writer->tail - lowest >= writer->mask + 1) {
        uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC);
        if (now_ns >= writer->next_look_ns) {
            writer->next_look_ns = now_ns + LOOK_FOR_DEAD_EVERY_NS;
            if (remove_dead_readers(writer))
                lowest = lowest_position(writer);
        }
    }
    if (writer->tail - lowest > writer->high_water)
        writer->high_water = writer->tail - lowest;
    if (writer->tail - lowest > writer->mask + 1)
        return 0;
    writer->released = lowest;
    writer->limit = lowest + writer->mask + 1;
    return writer->tail < writer->limit;
}

/* Starts to use the arena: reserves it and the table of its parts. */
static int open_arena(struct cf_ring_writer *writer) {
    uint64_t from = 2 * (uint64_t)CF_RING_PAGE_BYTES + slots_bytes(writer);
    int error = cf_place_reserve(writer->file.fd, from, writer->header->file_bytes);
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
        (!cf_ring_look(writer) || end - arena_head(writer) > size))
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

/* Puts the payload of a message outside of its slot. 0 or a negative errno. */
static int fill_arena(struct cf_ring_writer *writer, const void *payload, size_t length,
                      uint64_t *position) {
    int error = take_arena(writer, length, position);
    if (error != 0)
        return error;
    char *into = writer->arena + *position % writer->header->arena_bytes;
    copy_words((uint64_t *)(void *)into, payload, length);
    return 0;
}

int cf_ring_publish(struct cf_ring_writer *writer, const void *payload, size_t length,
                    uint64_t tick, uint64_t hlc, uint16_t flags) {
    uint64_t index = writer->tail;
    if (cf_unlikely(writer->file.fd < 0))
        return -ECHILD;
    if (cf_unlikely(cf_ring_room(writer) == 0))
        return -EAGAIN;
    struct cf_ring_slot *slot =
        (void *)(writer->slots + (index & writer->mask) * writer->slot_bytes);
    uint64_t position = 0;
    int in_arena = length > writer->slot_bytes - sizeof *slot;
    if (cf_unlikely(in_arena)) {
        if (length > cf_ring_max_payload(writer))
            return -EMSGSIZE;
        int error = fill_arena(writer, payload, length, &position);
        if (error != 0)
            return error;
        flags |= CF_MESSAGE_ARENA;
    }
    if (cf_unlikely(writer->limit == UINT64_MAX)) {
        __atomic_store_n(&slot->seq, UINT64_C(0), CF_RING_SEQ_INVALIDATE);
        cf_ring_fence(CF_RING_OVERWRITE_FENCE); /* Partner: the fence in cf_ring_take. */
    }
    if (cf_unlikely(writer->arena_starts != NULL)) {
        writer->arena_starts[index & writer->mask] = writer->arena_tail;
        if (in_arena)
            writer->arena_tail = position + ((length + 7) & ~(uint64_t)7);
    }
    if (cf_unlikely(in_arena))
        __atomic_store_n(&slot->body[0], position, CF_RING_BODY);
    else
        copy_words(slot->body, payload, length);
    __atomic_store_n(&slot->hlc, hlc, CF_RING_BODY);
    __atomic_store_n(&slot->properties,
                     length | (uint64_t)writer->publisher << 32 | (uint64_t)flags << 48,
                     CF_RING_BODY);
    __atomic_store_n(&slot->tick, tick, CF_RING_BODY);
    __atomic_store_n(&slot->seq, index + 1, CF_RING_SEQ_PUBLISH);
    writer->tail = index + 1;
    __atomic_store_n(&writer->header->tail, index + 1, CF_RING_TAIL_PUBLISH);
    return 0;
}
