#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic.h"
#include "place.h"
#include "tick.h"

enum {
    NAME_ATTEMPTS = 100,
    NAME_BYTES = 80, /* three numbers of 64 bits, one of an attempt, separators and suffix */
    PAGE_BYTES = 4096,
    /* Reserved at once, where there is room: each call costs 3 us, and few segments hold less. */
    RESERVED_BYTES = 16384,
    /* Where the file's descriptor is out of the way: a shell gives low numbers to redirections, and
     * a program may expect the next one to be free. */
    HIGH_DESCRIPTOR = 960,
    HIGH_DESCRIPTOR_OF_FEW = 200,
};

/* What names a process for good, read once for the file's name and the header. */
struct identity {
    uint64_t pid, start_time, pid_namespace;
};

static struct identity own_identity(void) {
    return (struct identity){(uint64_t)getpid(), cf_place_start_time(), cf_place_pid_namespace()};
}

static void fill_identity(struct cf_segment_header *header, const struct identity *identity,
                          const char *run_id) {
    header->pid = identity->pid;
    header->uid = (uint32_t)geteuid();
    header->start_time = identity->start_time;
    header->pid_namespace = identity->pid_namespace;
    cf_place_boot_id(header->boot_id, sizeof header->boot_id);
    header->command_line_bytes =
        (uint32_t)cf_place_command_line(header->command_line, sizeof header->command_line);
    if (run_id)
        cf_place_copy(header->run_id, sizeof header->run_id, run_id);
}

static void take_pair(uint64_t *tick, uint64_t *raw_ns) {
    uint64_t before = cf_ticks_ordered();
    uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC_RAW);
    uint64_t after = cf_ticks_ordered();
    cf_store_relaxed(tick, before + (after - before) / 2);
    cf_store_relaxed(raw_ns, now_ns);
}

static void fill_header(struct cf_segment_header *header, const struct identity *identity,
                        const char *run_id, uint64_t limit) {
    fill_identity(header, identity, run_id);
    header->version = CF_SEGMENT_VERSION;
    header->header_bytes = CF_SEGMENT_HEADER_BYTES;
    header->limit_bytes = limit;
    header->tick_source = (uint32_t)cf_tick_select();
    header->opened_realtime_ns = cf_os_ns(CLOCK_REALTIME);
    take_pair(&header->opened_tick, &header->opened_raw_ns);
    header->latest_tick = header->opened_tick;
    header->latest_raw_ns = header->opened_raw_ns;
    header->state = CF_SEGMENT_OPEN;
    cf_store_release(&header->used_bytes, (uint64_t)CF_SEGMENT_HEADER_BYTES);
    /* A reader takes the file for a segment only once the magic stands; partner: its acquire. */
    uint64_t magic;
    memcpy(&magic, CF_SEGMENT_MAGIC, sizeof magic);
    cf_store_release((uint64_t *)(void *)header->magic, magic);
}

/* Returns whether a descriptor leads to the segment's file. */
static bool leads_to(const struct cf_segment *segment, int fd) {
    struct stat status;
    return fd >= 0 && fstat(fd, &status) == 0 && (uint64_t)status.st_dev == segment->device &&
           (uint64_t)status.st_ino == segment->inode;
}

/* As cf_place_reserve, also when the program has closed the segment's descriptor or put another
 * file there.
 */
static int reserve_in_file(const struct cf_segment *segment, uint64_t from, uint64_t to) {
    if (leads_to(segment, segment->fd))
        return cf_place_reserve(segment->fd, from, to);
    int fd = open(segment->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    int error = leads_to(segment, fd) ? cf_place_reserve(fd, from, to) : -EBADF;
    if (fd >= 0)
        close(fd);
    return error;
}

/* Reserves the file up to `to`, rounded up to whole steps as far as the limit allows. */
static int reserve_in_steps(struct cf_segment *segment, uint64_t to, uint64_t step) {
    uint64_t steps = (to + step - 1) / step * step;
    uint64_t end = steps < segment->limit_bytes ? steps : segment->limit_bytes;
    int error = reserve_in_file(segment, segment->reserved_bytes, end);
    if (error == 0)
        segment->reserved_bytes = end;
    return error;
}

/* Reserves the file up to `to`, and some more where there is room. */
static int reserve_up_to(struct cf_segment *segment, uint64_t to) {
    if (segment->fd < 0 || to <= segment->reserved_bytes)
        return 0;
    int error = reserve_in_steps(segment, to, RESERVED_BYTES);
    return error == -ENOSPC || error == -EFBIG ? reserve_in_steps(segment, to, PAGE_BYTES) : error;
}

static int move_up(int fd) {
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR);
    if (moved < 0)
        moved = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR_OF_FEW);
    if (moved < 0)
        return fd;
    close(fd);
    return moved;
}

/* Writes what stands before a number and the number; returns the end. */
static char *put_decimal(char *at, const char *before, uint64_t number) {
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
    } while (number /= 10);
    if (*before)
        *at++ = *before;
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

/* Creates the file under the first free name, which it writes to `name`: a program that replaced
 * itself by exec keeps its pid and start time, and finds its earlier segment there. */
static int create_file(int directory_fd, const struct identity *identity,
                       char name[static NAME_BYTES]) {
    for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
        const uint64_t numbers[] = {identity->pid, identity->start_time, identity->pid_namespace};
        char *end = name;
        for (size_t i = 0; i < 3; i++)
            end = put_decimal(end, i ? "-" : "", numbers[i]);
        if (attempt > 0)
            end = put_decimal(end, ".", (uint64_t)attempt);
        memcpy(end, ".seg", sizeof ".seg");
        int fd = openat(directory_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                        S_IRUSR | S_IWUSR);
        if (fd >= 0 || errno != EEXIST)
            return fd >= 0 ? move_up(fd) : -errno;
    }
    return -EEXIST;
}

static int map_file(struct cf_segment *segment, int fd, const struct identity *identity,
                    const char *run_id, uint64_t limit) {
    struct stat status;
    int error = fstat(fd, &status) == 0 ? cf_place_lock(fd, 0, 0) : -errno;
    if (error != 0)
        return error;
    segment->limit_bytes = limit;
    segment->fd = fd;
    segment->device = (uint64_t)status.st_dev;
    segment->inode = (uint64_t)status.st_ino;
    error = reserve_up_to(segment, CF_SEGMENT_HEADER_BYTES);
    if (error != 0)
        return error;
    void *base = mmap(NULL, limit, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    segment->header = base;
    fill_header(segment->header, identity, run_id, limit);
    return 0;
}

static uint64_t usable_limit(uint64_t limit_bytes) {
    uint64_t floor = CF_SEGMENT_HEADER_BYTES * UINT64_C(4);
    return limit_bytes < floor ? floor : limit_bytes;
}

static int set_path(struct cf_segment *segment, const char *directory, const char *name) {
    size_t length = strlen(directory);
    if (length + 1 + strlen(name) >= sizeof segment->path)
        return -ENAMETOOLONG;
    memcpy(segment->path, directory, length);
    segment->path[length] = '/';
    cf_place_copy(segment->path + length + 1, sizeof segment->path - length - 1, name);
    return 0;
}

int cf_segment_open(struct cf_segment *segment, const char *directory, const char *run_id,
                    uint64_t limit_bytes) {
    *segment = (struct cf_segment){.fd = -1};
    int directory_fd = cf_place_open(directory);
    if (directory_fd < 0)
        return directory_fd;
    char name[NAME_BYTES];
    struct identity identity = own_identity();
    int fd = create_file(directory_fd, &identity, name);
    int error = fd < 0 ? fd : map_file(segment, fd, &identity, run_id, usable_limit(limit_bytes));
    if (error == 0)
        error = set_path(segment, directory, name);
    if (error != 0 && fd >= 0) {
        unlinkat(directory_fd, name, 0);
        if (segment->header)
            cf_segment_forget(segment);
        else
            close(fd);
        *segment = (struct cf_segment){.fd = -1};
    }
    close(directory_fd);
    return error;
}

int cf_segment_open_anonymous(struct cf_segment *segment, uint64_t limit_bytes) {
    *segment = (struct cf_segment){.fd = -1};
    uint64_t limit = usable_limit(limit_bytes);
    void *base = mmap(NULL, limit, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return -ENOMEM;
    segment->header = base;
    segment->limit_bytes = limit;
    struct identity identity = own_identity();
    fill_header(segment->header, &identity, NULL, limit);
    return 0;
}

void cf_segment_close(struct cf_segment *segment) {
    take_pair(&segment->header->latest_tick, &segment->header->latest_raw_ns);
    cf_store_release(&segment->header->state, (uint32_t)CF_SEGMENT_CLOSED);
}

void cf_segment_forget(struct cf_segment *segment) {
    munmap(segment->header, segment->limit_bytes);
    if (leads_to(segment, segment->fd))
        close(segment->fd);
    *segment = (struct cf_segment){.fd = -1};
}

/* Takes `bytes` at the end of the segment, aligned; the memory reads as zero. */
static int take_space(struct cf_segment *segment, uint64_t bytes, uint64_t *offset) {
    struct cf_segment_header *header = segment->header;
    uint64_t used = cf_load_relaxed(&header->used_bytes);
    uint64_t aligned = (bytes + CF_SEGMENT_ALIGNMENT - 1) & ~(uint64_t)(CF_SEGMENT_ALIGNMENT - 1);
    if (aligned > segment->limit_bytes - used)
        return -ENOSPC;
    int error = reserve_up_to(segment, used + aligned);
    if (error != 0)
        return error;
    *offset = used;
    /* Partner: a reader's acquire; what lies below is reserved and zero or written. */
    cf_store_release(&header->used_bytes, used + aligned);
    return 0;
}

static void *at(struct cf_segment *segment, uint64_t offset) {
    return (char *)segment->header + offset;
}

static int add_fields(struct cf_segment *segment, const struct cf_kind *kind, uint64_t *fields) {
    if (*fields != 0)
        return 0;
    size_t bytes = kind->field_count * sizeof(struct cf_field);
    int error = take_space(segment, bytes, fields);
    if (error == 0)
        memcpy(at(segment, *fields), kind->fields, bytes);
    return error;
}

int cf_segment_add_entry(struct cf_segment *segment, const struct cf_kind *kind, const char *name,
                         uint32_t name_bytes, const char *labels, uint32_t label_bytes,
                         uint64_t *fields, uint64_t *offset) {
    if (name_bytes > CF_NAME_BYTES || label_bytes > CF_NAME_BYTES)
        return -ENAMETOOLONG;
    int error = add_fields(segment, kind, fields);
    if (error == 0)
        error = take_space(segment, sizeof(struct cf_entry) + name_bytes + label_bytes, offset);
    if (error != 0)
        return error;
    struct cf_entry *entry = at(segment, *offset);
    entry->fields = *fields;
    entry->field_count = kind->field_count;
    entry->payload_bytes = kind->payload_bytes;
    entry->name_bytes = name_bytes;
    entry->label_bytes = label_bytes;
    cf_place_copy(entry->kind, sizeof entry->kind, kind->name);
    memcpy(entry + 1, name, name_bytes);
    if (label_bytes > 0)
        memcpy((char *)(entry + 1) + name_bytes, labels, label_bytes);
    uint64_t *link = &segment->header->first_entry;
    while (*link != 0)
        link = &((struct cf_entry *)at(segment, *link))->next;
    /* Partner: the reader's acquire of the link; the entry stands complete before it is linked. */
    cf_store_release(link, *offset);
    return 0;
}

static void set_minimum_fields(const struct cf_field *fields, uint32_t count, char *payload) {
    for (uint32_t i = 0; i < count; i++) {
        if (fields[i].merge == CF_MERGE_MIN && fields[i].type == CF_FIELD_U64)
            *(uint64_t *)(void *)(payload + fields[i].offset) = UINT64_MAX;
    }
}

struct cf_shard *cf_segment_claim_shard(struct cf_segment *segment, uint64_t entry_offset,
                                        uint64_t tid) {
    struct cf_entry *entry = at(segment, entry_offset);
    uint64_t *link = &entry->first_shard;
    struct cf_shard *shard = NULL;
    for (; *link != 0; link = &shard->next) {
        shard = at(segment, *link);
        /* Partner: release in cf_segment_release_shard; the earlier owner's counters are seen. */
        if (cf_load_acquire(&shard->owner_tid) == 0) {
            cf_store_relaxed(&shard->owner_tid, tid);
            cf_bump(&shard->owners, 1);
            return shard;
        }
    }
    uint64_t offset;
    if (take_space(segment, sizeof *shard + entry->payload_bytes, &offset) != 0) {
        cf_add_relaxed(&segment->header->shards_refused, 1);
        return NULL;
    }
    shard = at(segment, offset);
    shard->owner_tid = tid;
    shard->owners = 1;
    shard->entry = entry_offset;
    set_minimum_fields(at(segment, entry->fields), entry->field_count, cf_shard_payload(shard));
    /* Partner: the reader's acquire of the link. */
    cf_store_release(link, offset);
    take_pair(&segment->header->latest_tick, &segment->header->latest_raw_ns);
    return shard;
}

void cf_segment_release_shard(struct cf_shard *shard) {
    /* Partner: the acquire in cf_segment_claim_shard. */
    cf_store_release(&shard->owner_tid, (uint64_t)0);
}
