/* The segment: a memory-mapped file into which a process's instruments write and which cfctl reads
 * from outside, while the process runs, after it ended, after it was killed.
 *
 * Layout, all numbers little-endian, all offsets from the start of the file:
 *   struct cf_segment_header                          4096 bytes
 *   then, in the order of their making, each aligned to 64 bytes:
 *     field tables   struct cf_field[n]
 *     entries        struct cf_entry, name bytes, label bytes
 *     shards         struct cf_shard, payload as the entry's fields say
 * Entries form a list from header.first_entry through entry.next, shards of an entry one from
 * entry.first_shard through shard.next. Entry offsets only grow along their list, and shard
 * offsets only grow along theirs, so a reader that demands this can not be sent in a circle.
 *
 * Publication: whatever an offset leads to is complete before the offset is stored with release;
 * the reader's acquire load of the offset is the partner. Counters are single-writer, relaxed.
 */
#ifndef CF_SEGMENT_H
#define CF_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#define CF_SEGMENT_MAGIC "CFCTLSEG"
/* 2: rings, the control word, a shard's entry. 3: a histogram's latest sample. */
#define CF_SEGMENT_VERSION 3u
#define CF_SEGMENT_HEADER_BYTES 4096u
#define CF_SEGMENT_ALIGNMENT 64u
#define CF_SEGMENT_DEFAULT_LIMIT (UINT64_C(32) << 20)
#define CF_SEGMENT_COMMAND_LINE_BYTES 3072u
#define CF_SEGMENT_PATH_BYTES 4096u
#define CF_NAME_BYTES 1024u /* longer names and label sets are refused with -ENAMETOOLONG */

enum cf_field_type {
    CF_FIELD_U64 = 1,
    CF_FIELD_I64 = 2,
    CF_FIELD_F64 = 3,
    CF_FIELD_HISTOGRAM = 4,
    CF_FIELD_RING = 5,
    CF_FIELD_LATEST =
        6 /* a u64: 1 + the bucket of the sample that its histogram does not hold yet */
};
enum cf_merge_rule {
    CF_MERGE_SUM = 1,
    CF_MERGE_MIN = 2,
    CF_MERGE_MAX = 3,
    CF_MERGE_LAST = 4,
    CF_MERGE_JOIN = 5
};
enum cf_control { CF_CONTROL_PAUSED = 1 };
enum cf_segment_state { CF_SEGMENT_OPEN = 1, CF_SEGMENT_CLOSED = 2 };

struct cf_segment_header {
    char magic[8]; /* stored last when a segment is made */
    uint32_t version;
    uint32_t header_bytes;
    uint64_t limit_bytes;    /* the file never grows beyond */
    uint64_t used_bytes;     /* release; all below is reserved on the file system */
    uint64_t first_entry;    /* release; 0 = none */
    uint64_t shards_refused; /* shards for which there was no space */
    uint64_t samples_lost;   /* samples that found no shard or no room on the span stack */
    uint64_t pid;            /* as the writer sees itself, in its pid namespace */
    uint64_t start_time;     /* /proc/self/stat field 22, clock ticks since boot; 0 = not read */
    uint64_t pid_namespace;  /* inode of /proc/self/ns/pid; 0 = not read */
    uint32_t uid;
    uint32_t tick_source;        /* enum cf_tick_source */
    uint64_t opened_tick;        /* this and the next: one pair, taken at opening */
    uint64_t opened_raw_ns;      /* CLOCK_MONOTONIC_RAW */
    uint64_t opened_realtime_ns; /* CLOCK_REALTIME, Unix epoch */
    uint64_t latest_tick;        /* this and the next: a later pair, taken when a shard was made */
    uint64_t latest_raw_ns;      /* and at closing; equal to the first pair until then */
    uint32_t state;              /* enum cf_segment_state; still open when the writer was killed */
    uint32_t command_line_bytes;
    char boot_id[40];   /* NUL-padded; empty = not read */
    char run_id[40];    /* NUL-padded; the `profile run` it belongs to */
    uint32_t control;   /* enum cf_control bits; another process may write it at any time */
    char reserved0[36]; /* up to byte 256 */
    char command_line[CF_SEGMENT_COMMAND_LINE_BYTES]; /* NUL-separated arguments */
    char reserved1[768];
};

struct cf_field {
    char name[32]; /* NUL-padded */
    char unit[16]; /* NUL-padded: "ticks", "1", "ns", "B" */
    uint16_t type;
    uint16_t merge;
    uint32_t offset;    /* from the start of the payload, a multiple of 8 */
    uint32_t count;     /* 1, or the number of buckets or of a ring's records */
    uint32_t parameter; /* of a histogram: its sub-bucket bits; of a ring: bytes between records;
                           of a latest sample: the offset of its histogram */
};

struct cf_entry {
    uint64_t next;        /* release */
    uint64_t first_shard; /* release */
    uint64_t fields;      /* offset of the field table */
    uint32_t field_count;
    uint32_t payload_bytes;
    uint32_t name_bytes;
    uint32_t label_bytes; /* "key\0value\0" for each label */
    char kind[16];        /* NUL-padded: "operation", "pool", ... */
    char reserved[8];
};

struct cf_shard {
    uint64_t next;      /* release */
    uint64_t owner_tid; /* 0 = its thread has ended; the next one continues it */
    uint64_t owners;    /* threads that ever owned it */
    uint64_t entry;     /* offset of the entry it belongs to */
    uint64_t reserved[4];
};

_Static_assert(sizeof(struct cf_segment_header) == CF_SEGMENT_HEADER_BYTES, "pinned");
_Static_assert(offsetof(struct cf_segment_header, control) == 216, "pinned");
_Static_assert(offsetof(struct cf_segment_header, boot_id) == 136, "pinned");
_Static_assert(offsetof(struct cf_segment_header, command_line) == 256, "pinned");
_Static_assert(sizeof(struct cf_field) == 64, "pinned");
_Static_assert(sizeof(struct cf_entry) == 64, "pinned");
_Static_assert(sizeof(struct cf_shard) == 64, "pinned");

/* A kind of instrument: its name and what a shard of it holds. Static, shared by all its entries.
 */
struct cf_kind {
    const char *name;
    const struct cf_field *fields;
    uint32_t field_count;
    uint32_t payload_bytes;
};

/* An open segment. Opaque to instruments but for `header`. */
struct cf_segment {
    struct cf_segment_header *header;
    uint64_t limit_bytes;    /* mapped */
    int fd;                  /* -1: in anonymous memory, seen by nobody else */
    uint64_t device;         /* this and the next tell whether `fd` still is the segment's file: */
    uint64_t inode;          /* the program may have closed it and opened another */
    uint64_t reserved_bytes; /* of the file: whole pages, so that few system calls are made */
    char path[CF_SEGMENT_PATH_BYTES];
};

/* Makes a segment in `directory` (made with mode 0700 if it is not there) and maps it.
 * `run_id` may be NULL. Returns 0, or a negative errno and leaves nothing behind: -EPERM when the
 * directory is a link or not this user's own and private, -ENOSPC, -EFBIG under RLIMIT_FSIZE, ...
 */
int cf_segment_open(struct cf_segment *segment, const char *directory, const char *run_id,
                    uint64_t limit_bytes);

/* As cf_segment_open in anonymous memory, for a process that can have no file. 0 or -ENOMEM. */
int cf_segment_open_anonymous(struct cf_segment *segment, uint64_t limit_bytes);

/* Stores the closing pair and state. The mapping stays: threads may still be recording. */
void cf_segment_close(struct cf_segment *segment);

/* Unmaps and forgets without touching the file: in a forked child, and in tests. */
void cf_segment_forget(struct cf_segment *segment);

/* Appends an entry; `*offset` is where it stands. Returns 0, -ENOSPC, -ENAMETOOLONG.
 * `fields` is in and out: the offset of the kind's field table in this segment, 0 before the first
 * entry of the kind. Callers serialise with each other; readers need not. */
int cf_segment_add_entry(struct cf_segment *segment, const struct cf_kind *kind, const char *name,
                         uint32_t name_bytes, const char *labels, uint32_t label_bytes,
                         uint64_t *fields, uint64_t *offset);

/* Returns a shard of the entry for thread `tid`: one whose thread has ended, or a new one whose
 * u64 fields merged by minimum hold UINT64_MAX and all others 0. NULL when there is no space: then
 * header.shards_refused was counted. Callers serialise with each other. */
struct cf_shard *cf_segment_claim_shard(struct cf_segment *segment, uint64_t entry, uint64_t tid);

/* Gives a shard back for the next thread. Any thread, no lock needed. */
void cf_segment_release_shard(struct cf_shard *shard);

static inline void *cf_shard_payload(struct cf_shard *shard) {
    return shard + 1;
}

#endif
