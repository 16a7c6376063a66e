/* The broadcast ring: one writer, up to 256 readers, each in any process, over one mapped file.
 *
 * Layout, little-endian:
 *   struct cf_ring_header    4096 bytes, written by the writer alone
 *   struct cf_ring_readers   20480 bytes, a line per seat of the topic, written by its reader; the
 *                            pages above the highest line that was used are holes
 *   slots                    capacity * slot_bytes
 *   arena                    payloads that do not fit into a slot
 * A reader maps the header, slots and arena read-only. Who lives is seen by its participant's lease
 * (participant.h). A ring's file goes when its writer has ended and no living reader has anything
 * left to take of it.
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
#include "participant.h"
#include "ring_order.h"
#include "topic.h"

#define CF_RING_MAGIC "CFCTLRNG"
#define CF_RING_VERSION 2u
#define CF_RING_PAGE_BYTES 4096u
#define CF_RING_READERS_BYTES 20480u
#define CF_RING_FIXED_BYTES (CF_RING_PAGE_BYTES + CF_RING_READERS_BYTES)
#define CF_RING_MAX_CAPACITY (UINT32_C(1) << 20)
#define CF_RING_MAX_ARENA (UINT64_C(1) << 30)
/* A reader stores its position after so many messages, and whenever it finds the ring empty. */
#define CF_RING_LAZY_MESSAGES 32u

enum cf_ring_state { CF_RING_OPEN = 1, CF_RING_CLOSED = 2 };
enum cf_ring_flag {
    CF_MESSAGE_ARENA = 1,
    CF_MESSAGE_EXTENDED = 2,
    CF_MESSAGE_REDELIVERED = 4, /* set by a reader: another one of its group had it and died */
};

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
    uint32_t state;       /* enum cf_ring_state; still open when the writer was killed */
    uint32_t scheduled;   /* 1: the messages' ids are tickets, which their extensions carry */
    uint64_t participant; /* the writer's */
    uint32_t own;         /* 1: of cfctl's own commands */
    char reserved0[324];
    char topic[CF_TOPIC_BYTES]; /* UTF-8 */
    char reserved1[512];
    uint64_t tail;        /* messages published */
    uint64_t arena_floor; /* arena positions below may be overwritten */
    uint64_t rejected;
    uint64_t orphaned; /* dead readers that were taken from the gate */
    char reserved2[2016];
};

/* The line of a seat. The writer waits for it as long as `subscription` is not 0. */
struct cf_ring_reader_line {
    uint64_t subscription; /* the gate: who reads here; its id, as in the segment's labels */
    uint64_t position;     /* messages below are done with */
    uint64_t joined;       /* the first message that was this reader's */
    uint64_t dropped;      /* messages that were overwritten before they were taken */
    uint64_t claim;        /* a group's: the first message that no member has taken, and who took
                            * the one before, CF_RING_CLAIM; a member's: one above the last message
                            * that it is known to have taken */
    uint64_t participant;  /* 0 for a group */
    uint64_t flags;        /* CF_SEAT_LOSSY: the writer does not wait for it */
    uint64_t reserved;
};

/* A group's claim: the first message that no member has taken, with the seat of the member that
 * took the one before, or the group's own. One word, so that there is no moment at which a message
 * is taken and nobody knows by whom. */
#define CF_RING_CLAIM(index, seat) ((uint64_t)(index) << 8 | (uint64_t)(seat))
#define CF_RING_CLAIM_INDEX(claim) ((claim) >> 8)
#define CF_RING_CLAIM_SEAT(claim) ((uint32_t)(claim) & 255u)

struct cf_ring_readers {
    uint32_t lines_used; /* one above the highest line ever used */
    char reserved[60];
    struct cf_ring_reader_line lines[CF_TOPIC_SEATS];
    char reserved1[CF_RING_READERS_BYTES - 64 - 64 * CF_TOPIC_SEATS];
};

struct cf_ring_slot {
    uint64_t seq; /* index + 1; 0 while it is written */
    uint64_t hlc;
    uint64_t tick;       /* the writer's, at publication */
    uint64_t properties; /* length | publisher << 32 | flags << 48 */
    uint64_t body[];     /* payload; with CF_MESSAGE_ARENA one word, its arena position */
};

_Static_assert(sizeof(struct cf_ring_header) == CF_RING_PAGE_BYTES, "pinned");
_Static_assert(offsetof(struct cf_ring_header, topic) == 512, "pinned");
_Static_assert(offsetof(struct cf_ring_header, tail) == 2048, "pinned");
_Static_assert(offsetof(struct cf_ring_header, participant) == 176, "pinned");
_Static_assert(sizeof(struct cf_ring_readers) == CF_RING_READERS_BYTES, "pinned");
_Static_assert(sizeof(struct cf_ring_reader_line) == 64, "one cache line");
_Static_assert(sizeof(struct cf_ring_slot) == 32, "pinned");
_Static_assert(CF_TOPIC_SEATS == 256, "a seat is 8 bits of a claim");

struct cf_ring_config {
    const char *topic; /* UTF-8 */
    uint32_t topic_bytes;
    uint64_t ring_id;     /* from cf_ring_make_id */
    uint32_t capacity;    /* a power of two from 2 on */
    uint32_t slot_bytes;  /* 64: payloads to 32 bytes stay in the slot; 128: to 96 bytes */
    uint64_t arena_bytes; /* a multiple of 4096; a payload may take half of it */
    uint32_t overwrite;
    uint32_t priority;
    uint32_t publisher;
    uint32_t scheduled;
    uint32_t own;
};

/* A slot that was given out to be filled in. */
struct cf_ring_loan {
    struct cf_ring_slot *slot; /* NULL = none */
    uint64_t position;         /* in the arena */
    size_t length;
    int in_arena;
};

/* One thread at a time. */
struct cf_ring_writer {
    struct cf_ring_header *header; /* NULL = not open */
    struct cf_ring_readers *readers;
    const struct cf_participant *participant;
    const struct cf_topic_page *topic; /* tells which groups live */
    char *slots;
    char *arena;
    uint64_t tail;
    uint64_t limit; /* the first index for which room has to be looked for */
    uint64_t mask;
    uint64_t released; /* messages that all readers are done with, when last looked */
    uint64_t arena_tail;
    uint64_t *arena_starts; /* by slot, the arena's tail before its message; NULL = none used yet */
    uint64_t next_look_ns;  /* for dead readers, CLOCK_MONOTONIC */
    uint64_t high_water;    /* most messages that waited for the slowest reader, at a look */
    struct cf_ring_loan loan;
    uint64_t arena_bytes; /* this and the next: as in the header, which others could change */
    uint64_t file_bytes;
    uint32_t slot_bytes;
    uint32_t publisher;
};

/* One thread at a time. */
struct cf_ring_reader {
    const struct cf_ring_header *header; /* NULL = not open */
    struct cf_ring_reader_line *line;
    struct cf_ring_readers *readers;
    const struct cf_participant *participant;
    struct cf_topic_page *topic; /* of a group's member, else NULL */
    struct cf_seat *member;      /* its own seat, else NULL */
    struct cf_seat *inherited;   /* a dead member's, whose messages redo .. redo_end it gives out */
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
    uint64_t taken;      /* of a group's member: what it has taken itself */
    uint64_t redo;       /* of a group's member: messages from here .. redo_end are another's */
    uint64_t redo_end;   /*   that died, to be given out again */
    uint64_t history;    /* messages from before it joined that it has taken */
    uint64_t skipped;    /* those that had given way before it could */
    uint64_t high_water; /* most that waited, looked at every quarter of the ring */
    uint32_t slot_bytes;
    uint32_t seat;
    uint32_t topic_index; /* the subscription's */
    uint32_t priority;
    uint32_t publisher;
    uint32_t lazy_messages;
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

/* Writes the name of a ring's file, "<topic hash>-<ring id>.ring"; 64 bytes are enough. */
void cf_ring_name(char *name, size_t capacity, uint64_t topic_hash, uint64_t ring_id);

/* Returns a new ring's random id, never 0; 0 when there is no randomness. */
uint64_t cf_ring_make_id(void);

/* Makes a ring's file. 0, or a negative errno and nothing is left behind.
 * The participant must outlive the writer. */
int cf_ring_create(struct cf_ring_writer *writer, const struct cf_participant *participant,
                   const struct cf_ring_config *config, uint64_t topic_hash);

/* Lets the ring wait for a seated subscription from its first message on. Before the first message.
 * 0 or a negative errno. */
int cf_ring_expect(struct cf_ring_writer *writer, int fd, uint32_t seat, const struct cf_seat *of);

/* Opens the ring's own file again, by its name. A descriptor or a negative errno. */
int cf_ring_reopen(const struct cf_ring_writer *writer);

/* Says that no more comes, and unmaps. In a forked child it only unmaps. */
void cf_ring_close(struct cf_ring_writer *writer);

/* Looks how far the readers are and takes dead ones from the gate, at most every millisecond.
 * Returns whether the next message has room. For cf_ring_publish, and while waiting for room. */
int cf_ring_look(struct cf_ring_writer *writer);

/* Takes dead readers from the gate, at most every millisecond. Returns how many. */
unsigned cf_ring_remove_dead_readers(struct cf_ring_writer *writer);

/* Publishes a message. 0; -EAGAIN when the ring is full: nothing was accepted, and the caller
 * counts it with cf_ring_reject if that is its last word; -EMSGSIZE for a payload beyond
 * cf_ring_max_payload; -ENOSPC and others when the arena cannot be reserved; -ECHILD in a forked
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

/* Gives out the place of the next message's payload, `length` bytes in the ring itself; as
 * cf_ring_publish where that fails. Nothing else is published until cf_ring_commit or
 * cf_ring_abandon: -EBUSY for a second loan. */
int cf_ring_loan(struct cf_ring_writer *writer, size_t length, void **payload);

/* Publishes the loan, of which the first `length` bytes were used. */
void cf_ring_commit(struct cf_ring_writer *writer, size_t length, uint64_t tick, uint64_t hlc);

/* Takes the loan back: nothing was published. */
void cf_ring_abandon(struct cf_ring_writer *writer);

/* Returns how many subscriptions and groups the ring waits for or shows its messages to. */
uint32_t cf_ring_count_readers(const struct cf_ring_writer *writer);

/* Reads and checks a ring's header. 0, -EAGAIN while it is being made, -EPERM for another's file
 * or a link, -EINVAL for what is no ring. */
int cf_ring_read_header(int fd, struct cf_ring_header *header);

/* Returns whether a ring's file must stay: its writer lives and has not closed, or a living reader
 * has messages left to take. 1, 0, or a negative errno for a file that is no ring. Entered. */
int cf_ring_is_needed(const struct cf_topic *topic, uint64_t ring_id);

/* Reserves the pages of the lines up to `last`: of a full tmpfs even a look into a hole is SIGBUS.
 * 0 or a negative errno. */
int cf_ring_reserve_lines(int fd, uint32_t last);

/* Maps a ring of the topic for a seat. 0; -ENOENT when it is gone; or as cf_ring_read_header. Then
 * cf_ring_resume or cf_ring_join. */
int cf_ring_open(struct cf_ring_reader *reader, const struct cf_topic *topic, uint64_t ring_id,
                 uint32_t seat);

/* Goes on where the line stands, if the ring waits for this seat already. 0 or -ENOENT. */
int cf_ring_resume(struct cf_ring_reader *reader, const struct cf_topic *topic);

/* Joins a ring that may be written meanwhile: nothing published after it returns is missed. With
 * `history`, up to so many messages from before are there too, as far as they have not given way:
 * the writer does not wait for those, and a group has none. 0 or a negative errno. Entered. */
int cf_ring_join(struct cf_ring_reader *reader, const struct cf_topic *topic, uint64_t history);

/* Unmaps; with `for_good` the ring waits for this line no longer. In a forked child it only unmaps.
 */
void cf_ring_detach(struct cf_ring_reader *reader, int for_good);

/* Stores the reader's position, so that the writer may use the slots before it; for a group, the
 * position that all its members have reached. */
void cf_ring_store_position(struct cf_ring_reader *reader);

/* Says that a group's member is done with what it has taken; nothing for others. */
void cf_ring_finish(struct cf_ring_reader *reader);

/* Returns one above the last message that a dead member of the reader's group has taken and not
 * finished, of those that its seat names from `from` on: `from` when there is none. */
uint64_t cf_ring_taken_until(struct cf_ring_reader *reader, uint32_t seat);

/* Lets others give out what this reader had inherited and has not given out. */
void cf_ring_disown(struct cf_ring_reader *reader);

/* Returns whether the writer still runs: it lives and has not closed. One syscall at most. */
int cf_ring_writer_lives(const struct cf_ring_reader *reader);

/* Returns how many messages wait for the reader now. */
uint64_t cf_ring_pending(const struct cf_ring_reader *reader);

/* As cf_ring_peek, for a slot that does not hold the next message. */
int cf_ring_peek_other(struct cf_ring_reader *reader, struct cf_ring_message *message);

/* Copies the payload. The copy may be torn: cf_ring_take tells. */
void cf_ring_copy(const struct cf_ring_message *message, void *into);

static inline const struct cf_ring_slot *cf_ring_slot_at(const struct cf_ring_reader *reader,
                                                         uint64_t index) {
    return (const void *)(reader->slots + (index & reader->mask) * reader->slot_bytes);
}

/* Returns the next message's index. Any thread. */
static inline uint64_t cf_ring_next(const struct cf_ring_reader *reader) {
    if (cf_unlikely(reader->member != NULL) && reader->redo >= reader->redo_end)
        return CF_RING_CLAIM_INDEX(__atomic_load_n(&reader->line->claim, CF_RING_CLAIM_READ));
    return cf_load_relaxed(&reader->position);
}

/* Returns whether the next message is there, without looking into it. Any thread. */
static inline int cf_ring_has_message(const struct cf_ring_reader *reader) {
    uint64_t next = cf_ring_next(reader);
    return __atomic_load_n(&cf_ring_slot_at(reader, next)->seq, CF_RING_SEQ_READ) > next;
}

/* Finds the next message: 1 and the message, or 0 when the ring is empty. Messages that were
 * overwritten meanwhile are counted as dropped, exactly. */
int cf_ring_peek(struct cf_ring_reader *reader, struct cf_ring_message *message);

/* Moves behind a message that was copied. 1; or 0 when it is not this reader's: it was overwritten
 * while it was copied, so that the copy is torn and the message counted as dropped, or another
 * member of the group took it. */
int cf_ring_take(struct cf_ring_reader *reader, const struct cf_ring_message *message);

/* As cf_ring_take, for a message that a group's member takes on top of those it works on: only the
 * next one of the same ring. */
int cf_ring_take_next(struct cf_ring_reader *reader, const struct cf_ring_message *message);

#endif
