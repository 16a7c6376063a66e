#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring.h"
#include "tick.h"

static int is_consistent(const struct cf_ring_header *header) {
    uint64_t fixed = 2 * (uint64_t)CF_RING_PAGE_BYTES;
    return header->version == CF_RING_VERSION && header->header_bytes == CF_RING_PAGE_BYTES &&
           header->capacity >= 2 && header->capacity <= CF_RING_MAX_CAPACITY &&
           (header->capacity & (header->capacity - 1)) == 0 &&
           (header->slot_bytes == 64 || header->slot_bytes == 128) &&
           header->arena_bytes % CF_RING_PAGE_BYTES == 0 &&
           header->arena_bytes <= CF_RING_MAX_ARENA && header->topic_bytes >= 1 &&
           header->topic_bytes <= CF_TOPIC_BYTES && header->publisher <= UINT16_MAX &&
           header->file_bytes ==
               fixed + (uint64_t)header->capacity * header->slot_bytes + header->arena_bytes;
}

int cf_ring_read_header(int fd, struct cf_ring_header *header) {
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid())
        return -EPERM;
    ssize_t got = pread(fd, header, sizeof *header, 0);
    if (got != (ssize_t)sizeof *header)
        return got < 0 ? -errno : -EAGAIN;
    if (memcmp(header->magic, CF_RING_MAGIC, sizeof header->magic) != 0)
        return header->magic[0] == '\0' ? -EAGAIN : -EINVAL;
    if (!is_consistent(header) || (uint64_t)status.st_size < header->file_bytes)
        return -EINVAL;
    return 0;
}

/* Maps the file read-only, but for the readers' lines. */
static int map_ring(struct cf_ring_reader *reader, const struct cf_ring_header *header, int fd) {
    char *base = mmap(NULL, header->file_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    /* Where a page holds more than the lines, all of it becomes writable. */
    int whole = page != CF_RING_PAGE_BYTES;
    if (mprotect(whole ? base : base + CF_RING_PAGE_BYTES, whole ? header->file_bytes : page,
                 PROT_READ | PROT_WRITE) != 0) {
        int error = -errno;
        munmap(base, header->file_bytes);
        return error;
    }
    size_t slots_bytes = (size_t)header->capacity * header->slot_bytes;
    madvise(base, 2 * (size_t)CF_RING_PAGE_BYTES + slots_bytes, 22 /* MADV_POPULATE_READ */);
    reader->header = (const void *)base;
    reader->readers = (void *)(base + CF_RING_PAGE_BYTES);
    reader->slots = base + 2 * (size_t)CF_RING_PAGE_BYTES;
    reader->arena = reader->slots + slots_bytes;
    reader->mask = header->capacity - 1;
    reader->slot_bytes = header->slot_bytes;
    reader->arena_bytes = header->arena_bytes;
    reader->file_bytes = header->file_bytes;
    reader->ring_id = header->ring_id;
    reader->priority = header->priority;
    reader->publisher = header->publisher;
    reader->overwrite = header->overwrite != 0;
    reader->scheduled = header->scheduled != 0;
    reader->lazy_messages =
        header->capacity / 4 < CF_RING_LAZY_MESSAGES ? header->capacity / 4 : CF_RING_LAZY_MESSAGES;
    return 0;
}

/* Takes a free line: one whose lock nobody holds. */
static int claim_line(struct cf_ring_reader *reader, uint64_t subscription) {
    for (uint32_t i = 0; i < CF_RING_READERS; i++) {
        int error = cf_place_lock(reader->file.fd, 1 + i, 1);
        if (error == -EAGAIN)
            continue;
        if (error != 0)
            return error;
        struct cf_ring_reader_line *line = &reader->readers->lines[i];
        reader->index = i;
        reader->line = line;
        cf_store_relaxed(&line->subscription, subscription);
        cf_store_relaxed(&line->pid, (uint64_t)getpid());
        cf_store_relaxed(&line->start_time, cf_place_start_time());
        cf_store_relaxed(&line->pid_namespace, cf_place_pid_namespace());
        cf_store_relaxed(&line->dropped, UINT64_C(0));
        return 0;
    }
    return -EUSERS;
}

/* Becomes one of those the writer waits for. While `position` is provisional it is not ahead of
 * what it will be, so that the writer keeps too much rather than too little. */
static void join(struct cf_ring_reader *reader, int from_start) {
    uint64_t capacity = reader->mask + 1;
    uint64_t tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
    uint64_t position = from_start && tail <= capacity ? 0 : tail;
    __atomic_store_n(&reader->line->position, position, CF_RING_POSITION_PUBLISH);
    __atomic_fetch_or(&reader->readers->members, UINT64_C(1) << reader->index, CF_MEMORY_SEQ_CST);
    cf_ring_fence(CF_RING_JOIN_FENCE); /* Partner: the fence in cf_ring_look. */
    tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
    /* A writer that has not filled the ring once will look before it uses a slot again. */
    if (position != 0 || !from_start || tail >= capacity)
        position = tail;
    if (from_start && !cf_ring_writer_lives(reader)) {
        /* Nothing is overwritten any more: all that the ring holds is there. */
        tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
        position = tail > capacity ? tail - capacity : 0;
    }
    __atomic_store_n(&reader->line->position, position, CF_RING_POSITION_PUBLISH);
    cf_store_relaxed(&reader->line->joined, position);
    reader->position = reader->stored = reader->joined = position;
}

static int attach_open(struct cf_ring_reader *reader, int fd, const char *topic,
                       uint32_t topic_bytes, uint64_t subscription, uint64_t since_raw_ns) {
    struct cf_ring_header header;
    int error = cf_ring_read_header(fd, &header);
    if (error != 0)
        return error;
    if (header.topic_bytes != topic_bytes || memcmp(header.topic, topic, topic_bytes) != 0)
        return -ESTALE;
    int made_later = header.opened_raw_ns >= since_raw_ns;
    if (!made_later && cf_place_is_locked(fd, 0) == 0)
        return -ESTALE;
    error = map_ring(reader, &header, fd);
    if (error == 0)
        error = claim_line(reader, subscription);
    if (error == 0)
        join(reader, made_later);
    else if (reader->header)
        munmap((void *)(uintptr_t)reader->header, reader->file_bytes);
    return error;
}

int cf_ring_attach(struct cf_ring_reader *reader, int directory_fd, const char *name,
                   const char *topic, uint32_t topic_bytes, uint64_t subscription,
                   uint64_t since_raw_ns) {
    *reader = (struct cf_ring_reader){.file.fd = -1};
    int fd = openat(directory_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return errno == ELOOP ? -EPERM : -errno;
    /* Not the description that is mapped: a mapping keeps its locks, also a forked child's. */
    cf_hold_file(&reader->file,
                 openat(directory_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    int error = reader->file.fd < 0
                    ? -errno
                    : attach_open(reader, fd, topic, topic_bytes, subscription, since_raw_ns);
    close(fd);
    if (error != 0) {
        cf_release_file(&reader->file);
        *reader = (struct cf_ring_reader){.file.fd = -1};
    }
    return error;
}

void cf_ring_detach(struct cf_ring_reader *reader) {
    if (!reader->header)
        return;
    if (reader->file.fd >= 0) {
        cf_ring_store_position(reader);
        __atomic_fetch_and(&reader->readers->members, ~(UINT64_C(1) << reader->index),
                           CF_MEMORY_SEQ_CST);
    }
    munmap((void *)(uintptr_t)reader->header, reader->file_bytes);
    cf_release_file(&reader->file);
    *reader = (struct cf_ring_reader){.file.fd = -1};
}

int cf_ring_writer_lives(const struct cf_ring_reader *reader) {
    return cf_load_acquire(&reader->header->state) == CF_RING_OPEN &&
           cf_place_is_locked(reader->file.fd, 0) != 0;
}

void cf_ring_store_position(struct cf_ring_reader *reader) {
    uint64_t position = reader->position;
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

static void drop(struct cf_ring_reader *reader, uint64_t messages) {
    reader->dropped += messages;
    cf_store_relaxed(&reader->line->dropped, reader->dropped);
    cf_store_relaxed(&reader->position, reader->position + messages);
}

/* The writer has lapped this reader: goes on half a ring behind it. */
static void catch_up(struct cf_ring_reader *reader) {
    uint64_t tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
    uint64_t behind = (reader->mask + 1) / 2;
    uint64_t target = tail > behind ? tail - behind : 0;
    drop(reader, target > reader->position ? target - reader->position : 1);
}

int cf_ring_peek_other(struct cf_ring_reader *reader, struct cf_ring_message *message) {
    for (int attempt = 0; attempt < 8; attempt++) {
        uint64_t position = reader->position;
        uint64_t seq = __atomic_load_n(&cf_ring_slot_at(reader, position)->seq, CF_RING_SEQ_READ);
        if (seq == position + 1)
            return cf_ring_peek(reader, message);
        /* Of a slot that is being overwritten only the tail tells which lap it is in. */
        int lapped =
            seq > position || (seq == 0 && reader->overwrite &&
                               cf_load_relaxed(&reader->header->tail) > position + reader->mask);
        if (!lapped)
            break;
        catch_up(reader);
    }
    if (reader->stored != reader->position)
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

int cf_ring_peek(struct cf_ring_reader *reader, struct cf_ring_message *message) {
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
    message->payload = find_payload(reader, message);
    if (cf_unlikely(message->payload == NULL)) {
        /* A torn read of a slot that is being overwritten looks the same, and is dropped as well.
         */
        reader->damaged += !reader->overwrite;
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
    if (cf_unlikely(reader->overwrite || message->flags & CF_MESSAGE_ARENA)) {
        cf_ring_fence(
            CF_RING_RECHECK_FENCE); /* Partner: the writer's fences before it overwrites. */
        int whole = __atomic_load_n(&message->slot->seq, CF_RING_SEQ_RECHECK) == message->seq;
        if (whole && message->flags & CF_MESSAGE_ARENA)
            whole = cf_load_relaxed(&reader->header->arena_floor) <= message->arena_position;
        if (!whole) {
            drop(reader, 1);
            return 0;
        }
    }
    uint64_t position = reader->position + 1;
    cf_store_relaxed(&reader->position, position);
    if (cf_unlikely(position - reader->stored >= reader->lazy_messages))
        cf_ring_store_position(reader);
    return 1;
}
