/* How a ring's file is made, whom it expects, and its end; ring_writer.c publishes. */
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

static int usable(const struct cf_ring_config *config) {
    return config->capacity >= 2 && config->capacity <= CF_RING_MAX_CAPACITY &&
           (config->capacity & (config->capacity - 1)) == 0 &&
           (config->slot_bytes == 64 || config->slot_bytes == 128) &&
           config->arena_bytes % CF_RING_PAGE_BYTES == 0 &&
           config->arena_bytes <= CF_RING_MAX_ARENA && config->topic_bytes >= 1 &&
           config->topic_bytes <= CF_TOPIC_BYTES && config->publisher <= UINT16_MAX &&
           config->ring_id != 0;
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
    header->own = config->own;
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
    uint64_t slots_end = CF_RING_FIXED_BYTES + (uint64_t)config->capacity * config->slot_bytes;
    /* The header and the first lines; the slots. Other lines and the arena are reserved when they
     * are first needed. */
    int error = cf_place_reserve(fd, 0, 2 * (uint64_t)CF_RING_PAGE_BYTES);
    if (error == 0)
        error = cf_place_reserve(fd, CF_RING_FIXED_BYTES, slots_end);
    if (error == 0)
        error = cf_place_grow(fd, writer->file_bytes);
    if (error != 0)
        return error;
    char *base = mmap(NULL, writer->file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    /* Each page is touched now and not by a message; a kernel before 5.14 does it then. */
    madvise(base, 2 * (size_t)CF_RING_PAGE_BYTES, 23 /* MADV_POPULATE_WRITE */);
    madvise(base + CF_RING_FIXED_BYTES, (uint64_t)config->capacity * config->slot_bytes,
            23 /* MADV_POPULATE_WRITE */);
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

uint64_t cf_ring_make_id(void) {
    uint64_t ring_id = 0;
    return getrandom(&ring_id, sizeof ring_id, 0) == sizeof ring_id ? ring_id | 1 : 0;
}

int cf_ring_create(struct cf_ring_writer *writer, const struct cf_participant *participant,
                   const struct cf_ring_config *config, uint64_t topic_hash) {
    *writer = (struct cf_ring_writer){.participant = participant};
    if (!usable(config))
        return -EINVAL;
    uint64_t ring_id = config->ring_id;
    int fd = open_file(participant, topic_hash, ring_id, O_CREAT | O_EXCL);
    if (fd < 0)
        return fd;
    writer->mask = config->capacity - 1;
    writer->slot_bytes = config->slot_bytes;
    writer->publisher = config->publisher;
    writer->arena_bytes = config->arena_bytes;
    writer->file_bytes =
        CF_RING_FIXED_BYTES + (uint64_t)config->capacity * config->slot_bytes + config->arena_bytes;
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
    int error = cf_ring_reserve_lines(fd, seat);
    if (error != 0)
        return error;
    cf_store_relaxed(&line->participant,
                     of->kind == CF_SEAT_GROUP ? UINT64_C(0) : cf_load_relaxed(&of->participant));
    cf_store_relaxed(&line->flags, (uint64_t)(of->flags & CF_SEAT_LOSSY));
    cf_store_relaxed(&line->claim, CF_RING_CLAIM(0, seat));
    if (cf_load_relaxed(&writer->readers->lines_used) <= seat)
        cf_store_relaxed(&writer->readers->lines_used, seat + 1);
    /* Its reader may look before the ring is announced. */
    __atomic_store_n(&line->subscription, cf_load_relaxed(&of->subscription), CF_RING_GATE_PUBLISH);
    return 0;
}

void cf_ring_close(struct cf_ring_writer *writer) {
    if (!writer->header)
        return;
    if (cf_participant_is_open(writer->participant))
        cf_store_release(&writer->header->state, (uint32_t)CF_RING_CLOSED);
    munmap(writer->header, writer->file_bytes);
    free(writer->arena_starts);
    *writer = (struct cf_ring_writer){0};
}
