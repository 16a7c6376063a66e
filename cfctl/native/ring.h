/* The broadcast ring: one writer, up to 63 readers, each in any process, over one mapped file.
 *
 * Layout, little-endian:
 *   struct cf_ring_header    4096 bytes, written by the writer alone
 *   struct cf_ring_readers   4096 bytes, one line per reader, written by the readers
 *   slots                    capacity * slot_bytes
 *   arena                    payloads that do not fit into a slot
 * A reader maps the header, slots and arena read-only. Who holds a lock on byte 0 of the file is
 * the writer, on byte 1 + i reader i: the kernel gives the lock up when its holder dies.
 *
 * A message's index counts from 0; its slot is index mod capacity and its seq index + 1. A writer
 * that died within a message never stored its seq, so the message does not exist. Memory orders and
 * their partners: ring_order.h.
 */
#ifndef CF_RING_H
#define CF_RING_H

#include <stddef.h>
#include <stdint.h>

#include "atomic.h"
#include "place.h"
#include "ring_order.h"

#define CF_RING_MAGIC "CFCTLRNG"
#define CF_RING_VERSION 1u
#define CF_RING_PAGE_BYTES 4096u
#define CF_RING_READERS 63u
#define CF_RING_MAX_CAPACITY (UINT32_C(1) << 20)
#define CF_RING_MAX_ARENA (UINT64_C(1) << 30)
#define CF_TOPIC_BYTES 1024u
/* A reader stores its position after so many messages, and whenever it finds the ring empty. */
#define CF_RING_LAZY_MESSAGES 32u

enum cf_ring_state { CF_RING_OPEN = 1, CF_RING_CLOSED = 2 };
enum cf_ring_flag { CF_MESSAGE_ARENA = 1, CF_MESSAGE_EXTENDED = 2 };

struct cf_ring_header {
    char magic[8]; /* stored last when a ring is made */
    uint32_t version;
    uint32_t header_bytes;
    uint64_t ring_id;    /* random */
    uint64_t topic_hash; /* of the file's name */
    uint32_t capacity;   /* slots, a power of two */
    uint32_t slot_bytes; /* 64 or 128 */
    uint64_t arena_bytes;
    uint64_t file_bytes;
    uint32_t overwrite; /* 1: the oldest messages give way; 0: a full ring refuses */
    uint32_t priority;  /* 0..255; a subscriber takes the higher one first */
    uint32_t publisher; /* 1..65535, unique among the live rings of a directory */
    uint32_t uid;
    uint64_t pid; /* as the writer sees itself, in its pid namespace */
    uint64_t start_time;
    uint64_t pid_namespace;
    uint32_t tick_source; /* enum cf_tick_source */
    uint32_t topic_bytes;
    uint64_t opened_tick; /* this and the next two: one moment */
    uint64_t opened_raw_ns;
    uint64_t opened_realtime_ns;
    char boot_id[40];
    uint32_t state;     /* enum cf_ring_state; still open when the writer was killed */
    uint32_t scheduled; /* 1: the messages' ids are tickets, which their extensions carry */
    char reserved0[336];
    char topic[CF_TOPIC_BYTES]; /* UTF-8 */
    char reserved1[512];
    uint64_t tail;        /* messages published */
    uint64_t arena_floor; /* arena positions below may be overwritten */
    uint64_t rejected;
    uint64_t orphaned; /* dead readers that were taken from the gate */
    char reserved2[2016];
};

/* A reader's line. All but `joined_tail` is also what an inspector sees. */
struct cf_ring_reader_line {
    uint64_t position;     /* messages below are taken */
    uint64_t joined;       /* the first message that was this reader's */
    uint64_t dropped;      /* messages that were overwritten before they were taken */
    uint64_t subscription; /* id, as in the segment's labels */
    uint64_t pid;
    uint64_t start_time;
    uint64_t pid_namespace;
    uint64_t reserved;
};

struct cf_ring_readers {
    uint64_t members; /* bit i: reader i gates the writer */
    char reserved[56];
    struct cf_ring_reader_line lines[CF_RING_READERS];
};

struct cf_ring_slot {
    uint64_t seq; /* index + 1; in overwrite mode 0 while it is written */
    uint64_t hlc;
    uint64_t tick;       /* the writer's, at publication */
    uint64_t properties; /* length | publisher << 32 | flags << 48 */
    uint64_t body[];     /* payload; with CF_MESSAGE_ARENA one word, its arena position */
};

_Static_assert(sizeof(struct cf_ring_header) == CF_RING_PAGE_BYTES, "pinned");
_Static_assert(offsetof(struct cf_ring_header, topic) == 512, "pinned");
_Static_assert(offsetof(struct cf_ring_header, tail) == 2048, "pinned");
_Static_assert(sizeof(struct cf_ring_readers) == CF_RING_PAGE_BYTES, "pinned");
_Static_assert(sizeof(struct cf_ring_reader_line) == 64, "one cache line");
_Static_assert(sizeof(struct cf_ring_slot) == 32, "pinned");

struct cf_ring_config {
    const char *topic; /* UTF-8 */
    uint32_t topic_bytes;
    uint32_t capacity;    /* a power of two from 2 on */
    uint32_t slot_bytes;  /* 64: payloads to 32 bytes stay in the slot; 128: to 96 bytes */
    uint64_t arena_bytes; /* a multiple of 4096; a payload may take half of it */
    uint32_t overwrite;
    uint32_t priority;
    uint32_t publisher;
    uint32_t scheduled;
};

/* One thread at a time. Must stay where it is while it is open. */
struct cf_ring_writer {
    struct cf_held_file file;
    struct cf_ring_header *header;
    struct cf_ring_readers *readers;
    char *slots;
    char *arena;
    uint64_t tail;
    uint64_t limit; /* the first index for which room has to be looked for */
    uint64_t mask;
    uint64_t released; /* messages that all readers have taken, when last looked */
    uint64_t arena_tail;
    uint64_t *arena_starts; /* by slot, the arena's tail before its message; NULL = none used yet */
    uint64_t next_look_ns;  /* for dead readers, CLOCK_MONOTONIC */
    uint64_t members;       /* of the last look */
    uint64_t high_water;    /* most messages that waited for the slowest reader, at a look */
    uint32_t slot_bytes;
    uint32_t publisher;
};

/* One thread at a time. Must stay where it is while it is open. */
struct cf_ring_reader {
    struct cf_held_file file;
    const struct cf_ring_header *header;
    struct cf_ring_reader_line *line;
    struct cf_ring_readers *readers;
    const char *slots;
    const char *arena;
    uint64_t position;
    uint64_t stored; /* of `position`, in the line */
    uint64_t mask;
    uint64_t arena_bytes;
    uint64_t file_bytes;
    uint64_t ring_id;
    uint64_t joined;
    uint64_t dropped;
    uint64_t damaged;    /* messages whose words contradict each other; each is dropped too */
    uint64_t high_water; /* most that waited, looked at every quarter of the ring */
    uint32_t slot_bytes;
    uint32_t index;
    uint32_t priority;
    uint32_t publisher;
    uint32_t lazy_messages;
    uint8_t overwrite;
    uint8_t scheduled;
};

/* A message that is there to be taken. */
struct cf_ring_message {
    const struct cf_ring_slot *slot;
    const void *payload; /* in the mapping: copy with cf_ring_copy */
    uint64_t seq;
    uint64_t hlc;
    uint64_t tick;
    uint64_t arena_position;
    uint32_t length;
    uint16_t publisher;
    uint16_t flags; /* enum cf_ring_flag */
};

/* Makes a ring's file in an open directory under the name "<topic hash>-<ring id>.ring".
 * 0, or a negative errno and nothing is left behind. */
int cf_ring_create(struct cf_ring_writer *writer, int directory_fd,
                   const struct cf_ring_config *config, uint64_t topic_hash);

/* Says that no more comes, and unmaps. The file stays for readers that have not read all of it. In
 * a forked child it only unmaps. */
void cf_ring_close(struct cf_ring_writer *writer);

/* Looks how far the readers are and takes dead ones from the gate, at most every millisecond.
 * Returns whether the next message has room. For cf_ring_publish, and while waiting for room. */
int cf_ring_look(struct cf_ring_writer *writer);

/* Publishes a message. 0; -EAGAIN when the ring is full: nothing was accepted, and the caller
 * counts it with cf_ring_reject if that is its last word; -EMSGSIZE for a payload beyond
 * cf_ring_max_payload; -ENOSPC and others when the arena can not be reserved; -ECHILD in a forked
 * child. 10 ns for a small payload. */
int cf_ring_publish(struct cf_ring_writer *writer, const void *payload, size_t length,
                    uint64_t tick, uint64_t hlc, uint16_t flags);

/* Returns how many messages have room for sure, and looks when none has. */
static inline uint64_t cf_ring_room(struct cf_ring_writer *writer) {
    if (cf_unlikely(writer->tail >= writer->limit) && !cf_ring_look(writer))
        return 0;
    return writer->limit - writer->tail;
}

/* Counts a message that was refused. */
static inline void cf_ring_reject(struct cf_ring_writer *writer) {
    cf_bump(&writer->header->rejected, 1);
}

/* Returns the largest payload the ring takes, in bytes. */
uint64_t cf_ring_max_payload(const struct cf_ring_writer *writer);

/* Reads and checks a ring's header. 0, -EAGAIN while it is being made, -EPERM for another's file
 * or a link, -EINVAL for what is no ring. */
int cf_ring_read_header(int fd, struct cf_ring_header *header);

/* Joins a ring as a reader: at its tail, or from its first message that is still there when the
 * ring was made after `since_raw_ns` (CLOCK_MONOTONIC_RAW). 0, -EUSERS when 63 read it already,
 * -ESTALE when its topic is another or its writer has ended before `since_raw_ns`, or as
 * cf_ring_read_header. */
int cf_ring_attach(struct cf_ring_reader *reader, int directory_fd, const char *name,
                   const char *topic, uint32_t topic_bytes, uint64_t subscription,
                   uint64_t since_raw_ns);

/* Leaves the gate and unmaps; in a forked child it only unmaps. */
void cf_ring_detach(struct cf_ring_reader *reader);

/* Stores the reader's position, so that the writer may use the slots before it. */
void cf_ring_store_position(struct cf_ring_reader *reader);

/* Returns whether the writer still runs: it holds its lock and has not closed. One syscall. */
int cf_ring_writer_lives(const struct cf_ring_reader *reader);

/* As cf_ring_peek, for a slot that does not hold the next message. */
int cf_ring_peek_other(struct cf_ring_reader *reader, struct cf_ring_message *message);

/* Copies the payload. The copy may be torn: cf_ring_take tells. */
void cf_ring_copy(const struct cf_ring_message *message, void *into);

static inline const struct cf_ring_slot *cf_ring_slot_at(const struct cf_ring_reader *reader,
                                                         uint64_t index) {
    return (const void *)(reader->slots + (index & reader->mask) * reader->slot_bytes);
}

/* Returns whether the next message is there, without looking into it. Any thread. */
static inline int cf_ring_has_message(const struct cf_ring_reader *reader) {
    uint64_t position = cf_load_relaxed(&reader->position);
    return __atomic_load_n(&cf_ring_slot_at(reader, position)->seq, CF_RING_SEQ_READ) > position;
}

/* Finds the next message: 1 and the message, or 0 when the ring is empty. Messages that were
 * overwritten meanwhile are counted as dropped, exactly. */
int cf_ring_peek(struct cf_ring_reader *reader, struct cf_ring_message *message);

/* Moves behind a message that was copied. 1; or 0 when it was overwritten while it was copied: the
 * copy is torn and the message counted as dropped. */
int cf_ring_take(struct cf_ring_reader *reader, const struct cf_ring_message *message);

#endif
