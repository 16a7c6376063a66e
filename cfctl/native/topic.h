/* A topic's page: where its publishers and subscribers find each other.
 *
 * The file "<hash>.topic" names the topic, lists its rings and its seats, and holds the futex word
 * that its subscribers sleep on. A subscriber's seat is its place in every ring of the topic: the
 * publisher of a new ring gates it for all that are seated before the first message, so that none
 * of them misses one. Seats and the list of rings change only between cf_topic_enter and
 * cf_topic_leave; everybody who has the page mapped has a seat or a ring, and the last one that
 * leaves removes the file.
 */
#ifndef CF_TOPIC_H
#define CF_TOPIC_H

#include <stdint.h>

#include "atomic.h"
#include "participant.h"
#include "ring_order.h"

#define CF_TOPIC_MAGIC "CFCTLTOP"
#define CF_TOPIC_VERSION 2u
#define CF_TOPIC_BYTES 1024u
#define CF_TOPIC_SEATS 256u
#define CF_TOPIC_RINGS 256u
#define CF_GROUP_BYTES 24u
#define CF_TOPIC_SLEEP_WORDS 128u
/* How long opening or ending an endpoint waits for another process that does the same. */
#define CF_TOPIC_LOCK_NS UINT64_C(2000000000)

enum cf_topic_ring_state {
    CF_TOPIC_RING_FREE = 0,
    CF_TOPIC_RING_OPEN = 1,
    CF_TOPIC_RING_CLOSED = 2
};
enum cf_seat_kind { CF_SEAT_READER = 1, CF_SEAT_GROUP = 2, CF_SEAT_MEMBER = 3 };
enum cf_seat_flag {
    CF_SEAT_LOSSY = 1,     /* publishers do not wait for it */
    CF_SEAT_SLEEPS = 2,    /* counted in `sleepers` */
    CF_SEAT_REDELIVER = 4, /* a group's: what a dead member had not finished goes to another one */
    CF_SEAT_PATTERN = 8,   /* of a subscription to a pattern */
    CF_SEAT_OWN = 16,      /* of cfctl's own commands */
};

struct cf_topic_ring {
    uint64_t ring_id;
    uint64_t participant;
    uint32_t state;  /* enum cf_topic_ring_state */
    uint32_t number; /* the publisher's */
    uint64_t reserved;
};

/* A group has a seat of its own, which gates the rings; its members have one each, which does not,
 * and says what they have taken and not finished. */
struct cf_seat {
    uint64_t subscription; /* id, never 0; 0: free. Stored last when a seat is taken */
    uint64_t participant;  /* 0 for a group, which lives as long as one of its members */
    uint64_t pid;          /* as the subscriber sees itself, in its pid namespace */
    uint64_t start_time;
    uint64_t pid_namespace;
    uint64_t taken_unix_ns;
    uint32_t kind;  /* enum cf_seat_kind */
    uint32_t group; /* a member's: the seat of its group */
    uint32_t flags; /* enum cf_seat_flag */
    uint32_t reserved0;
    uint64_t ring; /* a member's: 0 = none, and the messages of it that it has taken and works on */
    uint64_t from;
    uint64_t to;
    uint64_t abandoned;   /* a group's: messages that its dead members had not finished */
    uint64_t redelivered; /* of those, given to another member */
    char group_name[CF_GROUP_BYTES];
};

struct cf_topic_page {
    char magic[8]; /* stored last when a page is made */
    uint32_t version;
    uint32_t name_bytes;
    uint64_t hash;
    char reserved0[40];
    uint64_t generation; /* rings ever added */
    char reserved1[56];
    uint32_t waiters;  /* the futex word: odd = somebody sleeps or is about to; a wake-up adds 1 */
    uint32_t sleepers; /* seated subscriptions that may sleep */
    char reserved2[56];
    uint32_t seats_used; /* one above the highest seat ever taken */
    uint32_t rings_used;
    uint64_t departures; /* seats that were given up: for who watches the topic */
    char reserved3[816];
    char name[CF_TOPIC_BYTES]; /* UTF-8 */
    char reserved4[2048];
    struct cf_topic_ring rings[CF_TOPIC_RINGS];
    struct cf_seat seats[CF_TOPIC_SEATS];
};

_Static_assert(sizeof(struct cf_topic_ring) == 32, "pinned");
_Static_assert(sizeof(struct cf_seat) == 128, "two cache lines");
_Static_assert(offsetof(struct cf_topic_page, generation) == 64, "pinned");
_Static_assert(offsetof(struct cf_topic_page, waiters) == 128, "pinned");
_Static_assert(offsetof(struct cf_topic_page, seats_used) == 192, "pinned");
_Static_assert(offsetof(struct cf_topic_page, name) == 1024, "pinned");
_Static_assert(offsetof(struct cf_topic_page, rings) == 4096, "pinned");
_Static_assert(offsetof(struct cf_topic_page, seats) == 12288, "pinned");

struct cf_topic {
    struct cf_topic_page *page; /* NULL = not open */
    struct cf_participant *participant;
    uint64_t hash;
    int fd; /* of the page's file, from cf_topic_enter to cf_topic_leave, else -1 */
};

/* What a subscription wants of its seat. */
struct cf_seat_request {
    uint64_t subscription;
    uint64_t participant;
    uint64_t pid; /* this and the next two: of the subscriber */
    uint64_t start_time;
    uint64_t pid_namespace;
    uint32_t flags;         /* enum cf_seat_flag */
    uint32_t group_bytes;   /* 0 = no group */
    const char *group_name; /* UTF-8, at most CF_GROUP_BYTES */
};

/* Returns the hash of a topic's name, FNV-1a of 64 bits; file names start with it. */
uint64_t cf_topic_hash(const char *topic, uint32_t bytes);

/* Takes the topic's lock and opens its page, made if it is not there and `create` says so. 0 or a
 * negative errno: -EBUSY as cf_participant_lock, -ENOENT, -EINVAL for a page that is none or
 * another topic's. After 0 cf_topic_leave must follow. */
int cf_topic_enter(struct cf_topic *topic, struct cf_participant *participant, const char *name,
                   uint32_t bytes, int create, uint64_t timeout_ns);

/* Takes the lock of an open topic again, to give up what one has there: no seat or ring can be
 * added. 0 or a negative errno. After 0 cf_topic_leave must follow. */
int cf_topic_reenter(struct cf_topic *topic, uint64_t timeout_ns);

/* Gives the lock back; removes the file when nobody has a seat or a ring any more. */
void cf_topic_leave(struct cf_topic *topic);

/* Unmaps the page; idempotent. */
void cf_topic_close(struct cf_topic *topic);

/* Frees the seats of the dead, but for those whose unfinished messages their group has to look at.
 * Entered. */
void cf_topic_remove_dead_seats(struct cf_topic *topic);

/* Takes a seat; a group's member has its group's made with it. The seat's index, -EUSERS when all
 * are taken, -EINVAL for a page that contradicts itself, or another negative errno. Entered. */
int cf_topic_take_seat(struct cf_topic *topic, const struct cf_seat_request *request);

/* Gives a seat up; the last member's group goes with it. Entered. */
void cf_topic_free_seat(struct cf_topic *topic, uint32_t seat);

/* Returns the index of a subscription's seat, or -ENOENT. */
int cf_topic_find_seat(const struct cf_topic_page *page, uint64_t subscription);

/* Returns 1 when a seat's subscription lives, of a group: one of its members; 0 or a negative errno
 * else, as cf_participant_lives. */
int cf_topic_seat_lives(const struct cf_topic_page *page, const struct cf_participant *participant,
                        uint32_t seat);

/* Lists a ring. Its index, -EUSERS when there are CF_TOPIC_RINGS, or another negative errno.
 * Entered; its file may be made after it, then announce it. */
int cf_topic_add_ring(struct cf_topic *topic, uint64_t ring_id, uint64_t participant,
                      uint32_t number);

/* Takes a ring off the list. Entered. */
void cf_topic_remove_ring(struct cf_topic *topic, uint32_t index);

/* Wakes all that sleep. What they shall see has to be stored before. */
void cf_topic_wake(struct cf_topic_page *page);

/* Says that a ring was added, and wakes. */
void cf_topic_announce(struct cf_topic_page *page);

/* After a message was published: wakes if somebody sleeps. 1 to 8 ns when nobody does. */
static inline void cf_topic_notify(struct cf_topic_page *page) {
    if (__atomic_load_n(&page->sleepers, CF_RING_WAITERS) == 0)
        return;
    cf_ring_fence(CF_RING_WAKE_FENCE); /* Partner: the fence in cf_topic_prepare. */
    if (cf_unlikely(__atomic_load_n(&page->waiters, CF_RING_WAITERS) & 1))
        cf_topic_wake(page);
}

/* Before sleeping: after it, look once more whether there is something to take. Returns the word to
 * sleep on. It is another one after each wake-up: with a mere flag, a reader that was about to
 * sleep when it was woken would sleep all the same if another reader had set the flag again
 * meanwhile (tests/models/ring.pml, BUG_FLAG). */
static inline uint32_t cf_topic_prepare(struct cf_topic_page *page) {
    uint32_t word = __atomic_fetch_or(&page->waiters, 1, CF_RING_WAITERS) | 1;
    cf_ring_fence(CF_RING_WAKE_FENCE); /* Partner: the fence in cf_topic_notify. */
    return word;
}

/* Sleeps until one of the words is another one than cf_topic_prepare returned, at most
 * `timeout_ns`. 0 or a negative errno: -ETIMEDOUT, -EINTR. Of more than CF_TOPIC_SLEEP_WORDS words,
 * and of more than one before Linux 5.16, it looks again after a millisecond. */
int cf_topic_sleep(uint32_t *const *words, const uint32_t *values, uint32_t count,
                   uint64_t timeout_ns);

#endif
