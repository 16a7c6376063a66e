/* How a reader comes to a ring and leaves it, and which ring files are needed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring.h"

static int is_consistent(const struct cf_ring_header *header) {
    return header->version == CF_RING_VERSION && header->header_bytes == CF_RING_PAGE_BYTES &&
           header->capacity >= 2 && header->capacity <= CF_RING_MAX_CAPACITY &&
           (header->capacity & (header->capacity - 1)) == 0 &&
           (header->slot_bytes == 64 || header->slot_bytes == 128) &&
           header->arena_bytes % CF_RING_PAGE_BYTES == 0 &&
           header->arena_bytes <= CF_RING_MAX_ARENA && header->topic_bytes >= 1 &&
           header->topic_bytes <= CF_TOPIC_BYTES && header->publisher <= UINT16_MAX &&
           header->file_bytes == CF_RING_FIXED_BYTES +
                                     (uint64_t)header->capacity * header->slot_bytes +
                                     header->arena_bytes;
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

void cf_ring_name(char *name, size_t capacity, uint64_t topic_hash, uint64_t ring_id) {
    snprintf(name, capacity, "%016llx-%016llx.ring", (unsigned long long)topic_hash,
             (unsigned long long)ring_id);
}

/* Maps the file read-only, but for the readers' lines. */
static int map_ring(struct cf_ring_reader *reader, const struct cf_ring_header *header, int fd) {
    char *base = mmap(NULL, header->file_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    /* Where a page holds more than the lines, all of it becomes writable. */
    int whole = page != CF_RING_PAGE_BYTES;
    if (mprotect(whole ? base : base + CF_RING_PAGE_BYTES,
                 whole ? header->file_bytes : CF_RING_READERS_BYTES, PROT_READ | PROT_WRITE) != 0) {
        int error = -errno;
        munmap(base, header->file_bytes);
        return error;
    }
    size_t slots_bytes = (size_t)header->capacity * header->slot_bytes;
    madvise(base + CF_RING_FIXED_BYTES, slots_bytes, 22 /* MADV_POPULATE_READ */);
    reader->header = (const void *)base;
    reader->readers = (void *)(base + CF_RING_PAGE_BYTES);
    reader->slots = base + CF_RING_FIXED_BYTES;
    reader->arena = reader->slots + slots_bytes;
    reader->mask = header->capacity - 1;
    reader->slot_bytes = header->slot_bytes;
    reader->arena_bytes = header->arena_bytes;
    reader->file_bytes = header->file_bytes;
    reader->ring_id = header->ring_id;
    reader->priority = header->priority;
    reader->publisher = header->publisher;
    reader->scheduled = header->scheduled != 0;
    reader->lazy_messages =
        header->capacity / 4 < CF_RING_LAZY_MESSAGES ? header->capacity / 4 : CF_RING_LAZY_MESSAGES;
    return 0;
}

static int open_ring(const struct cf_participant *participant, uint64_t topic_hash,
                     uint64_t ring_id, struct cf_ring_header *header) {
    char name[64];
    cf_ring_name(name, sizeof name, topic_hash, ring_id);
    int fd = cf_participant_open_file(participant, name, 0);
    int error = fd < 0 ? fd : cf_ring_read_header(fd, header);
    if (error != 0 && fd >= 0)
        close(fd);
    return error != 0 ? error : fd;
}

int cf_ring_reserve_lines(int fd, uint32_t last) {
    uint64_t end = CF_RING_PAGE_BYTES + offsetof(struct cf_ring_readers, lines) +
                   ((uint64_t)last + 1) * sizeof(struct cf_ring_reader_line);
    return cf_place_reserve(fd, CF_RING_PAGE_BYTES,
                            (end + CF_RING_PAGE_BYTES - 1) / CF_RING_PAGE_BYTES *
                                CF_RING_PAGE_BYTES);
}

int cf_ring_open(struct cf_ring_reader *reader, const struct cf_topic *topic, uint64_t ring_id,
                 uint32_t seat) {
    struct cf_ring_header header;
    *reader = (struct cf_ring_reader){.participant = topic->participant, .seat = seat};
    struct cf_seat *of = &topic->page->seats[seat];
    uint32_t line = of->kind == CF_SEAT_MEMBER ? of->group : seat;
    if (line >= CF_TOPIC_SEATS)
        return -EINVAL;
    int fd = open_ring(topic->participant, topic->hash, ring_id, &header);
    if (fd < 0)
        return fd;
    int same = header.ring_id == ring_id && header.topic_bytes == topic->page->name_bytes &&
               memcmp(header.topic, topic->page->name, header.topic_bytes) == 0;
    int error = same ? cf_ring_reserve_lines(fd, line > seat ? line : seat) : -EINVAL;
    if (error == 0)
        error = map_ring(reader, &header, fd);
    close(fd);
    if (error != 0)
        return error;
    reader->line = &reader->readers->lines[line];
    if (of->kind == CF_SEAT_MEMBER) {
        reader->topic = topic->page;
        reader->member = of;
        /* Nothing that an earlier owner of the seat took. */
        cf_store_relaxed(&reader->readers->lines[seat].claim, UINT64_C(0));
    }
    return 0;
}

/* The line's place: of this reader's seat, or of its group's. */
static uint32_t line_of(const struct cf_ring_reader *reader) {
    return (uint32_t)(reader->line - reader->readers->lines);
}

/* Who reads at the line: this seat's subscription, or its group. */
static uint64_t reader_id(const struct cf_ring_reader *reader, const struct cf_topic *topic) {
    return cf_load_relaxed(&topic->page->seats[line_of(reader)].subscription);
}

int cf_ring_resume(struct cf_ring_reader *reader, const struct cf_topic *topic) {
    uint64_t id = reader_id(reader, topic);
    if (id == 0 || __atomic_load_n(&reader->line->subscription, CF_RING_GATE_READ) != id)
        return -ENOENT;
    reader->joined = cf_load_relaxed(&reader->line->joined);
    uint64_t position = cf_load_relaxed(&reader->line->position);
    reader->position = position;
    reader->stored = reader->member ? 0 : position;
    return 0;
}

static void use_line(struct cf_ring_readers *readers, uint32_t line) {
    uint32_t used = cf_load_relaxed(&readers->lines_used);
    while (used < line + 1 && !cf_replace_relaxed(&readers->lines_used, &used, line + 1))
        ;
}

/* Lets a reader that has joined begin with messages from before, as far as the ring has them. */
static void go_back(struct cf_ring_reader *reader, uint64_t history) {
    uint64_t wanted = history < reader->joined ? history : reader->joined;
    uint64_t kept = wanted <= reader->mask ? wanted : reader->mask + 1;
    reader->position = reader->joined - kept;
    reader->skipped = wanted - kept;
}

int cf_ring_join(struct cf_ring_reader *reader, const struct cf_topic *topic, uint64_t history) {
    const struct cf_seat *seat = &topic->page->seats[reader->seat];
    int is_member = reader->member != NULL;
    struct cf_ring_reader_line *line = reader->line;
    uint64_t id = reader_id(reader, topic);
    if (id == 0)
        return -EINVAL;
    /* Whose line it was is dead, and the writer may be taking it out at this moment. */
    __atomic_store_n(&line->subscription, UINT64_C(0), CF_RING_GATE_PUBLISH);
    uint64_t tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
    cf_store_relaxed(&line->participant, is_member ? UINT64_C(0) : seat->participant);
    cf_store_relaxed(&line->flags, (uint64_t)(seat->flags & CF_SEAT_LOSSY));
    cf_store_relaxed(&line->dropped, UINT64_C(0));
    /* Not ahead of what it will be, so that the writer keeps too much rather than too little. */
    __atomic_store_n(&line->position, tail, CF_RING_POSITION_PUBLISH);
    use_line(reader->readers, line_of(reader));
    __atomic_store_n(&line->subscription, id, CF_RING_GATE_PUBLISH);
    cf_ring_fence(CF_RING_JOIN_FENCE); /* Partner: the fence in lowest_position of the writer. */
    tail = __atomic_load_n(&reader->header->tail, CF_RING_TAIL_READ);
    __atomic_store_n(&line->claim, CF_RING_CLAIM(tail, line_of(reader)), CF_RING_CLAIM_TAKE);
    cf_store_relaxed(&line->joined, tail);
    __atomic_store_n(&line->position, tail, CF_RING_POSITION_PUBLISH);
    reader->joined = reader->position = tail;
    reader->stored = is_member ? 0 : tail;
    if (!is_member)
        go_back(reader, history);
    return 0;
}

void cf_ring_detach(struct cf_ring_reader *reader, int for_good) {
    if (!reader->header)
        return;
    if (cf_participant_is_open(reader->participant) && reader->line) {
        cf_ring_finish(reader);
        cf_ring_disown(reader);
        cf_ring_store_position(reader);
        if (for_good)
            __atomic_store_n(&reader->line->subscription, UINT64_C(0), CF_RING_GATE_PUBLISH);
    }
    munmap((void *)(uintptr_t)reader->header, reader->file_bytes);
    *reader = (struct cf_ring_reader){0};
}

int cf_ring_writer_lives(const struct cf_ring_reader *reader) {
    return cf_load_acquire(&reader->header->state) == CF_RING_OPEN &&
           cf_participant_lives(reader->participant, reader->header->participant) != 0;
}

/* Returns whether a living reader of the line has messages left to take. */
static int has_unread(const struct cf_topic *topic, uint32_t line,
                      const struct cf_ring_reader_line *reader, uint64_t tail) {
    return reader->subscription != 0 && reader->position < tail &&
           cf_load_acquire(&topic->page->seats[line].subscription) == reader->subscription &&
           cf_topic_seat_lives(topic->page, topic->participant, line) != 0;
}

int cf_ring_is_needed(const struct cf_topic *topic, uint64_t ring_id) {
    struct cf_ring_header header;
    struct cf_ring_readers readers;
    int fd = open_ring(topic->participant, topic->hash, ring_id, &header);
    if (fd < 0)
        return fd;
    ssize_t got = pread(fd, &readers, sizeof readers, CF_RING_PAGE_BYTES);
    close(fd);
    if (got != (ssize_t)sizeof readers)
        return -EINVAL;
    if (header.state == CF_RING_OPEN &&
        cf_participant_lives(topic->participant, header.participant) != 0)
        return 1;
    for (uint32_t i = 0; i < CF_TOPIC_SEATS && i < readers.lines_used; i++) {
        if (has_unread(topic, i, &readers.lines[i], header.tail))
            return 1;
    }
    return 0;
}
