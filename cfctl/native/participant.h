/* A bus's presence in a directory: the lock that shows others that it lives, and what its endpoints
 * share. Two descriptors, however many endpoints there are.
 *
 * The file "bus.leases" is empty; locks on its bytes are what counts, and the kernel gives them up
 * when their holder dies:
 *   bytes 16 .. 65535     publisher numbers, in blocks of 16
 *   byte  participant id  the participant lives; ids are random, from 2^32 below 2^62
 *   byte  2^62 + n        held while a topic's page, by its hash, is changed
 */
#ifndef CF_PARTICIPANT_H
#define CF_PARTICIPANT_H

#include <pthread.h>
#include <stdint.h>

#include "place.h"

#define CF_PARTICIPANT_NUMBERS 65520u

/* Must stay where it is while it is open. */
struct cf_participant {
    struct cf_held_file leases; /* -1 when closed, and in a forked child */
    int directory_fd;
    uint64_t id;
    pthread_mutex_t guard;   /* among this bus's threads: whose descriptor holds a lock, holds it */
    uint32_t next_number;    /* of the block of publisher numbers that was taken last */
    uint32_t unused_numbers; /* of that block */
    uint16_t *returned;      /* numbers of closed publishers, the first that was returned first */
    uint32_t first_returned;
    uint32_t returned_count;
    uint8_t blocks[512]; /* bit b: block b of the numbers is this one's */
};

/* Opens the directory, made private if it is not there, and takes a lease. 0 or a negative errno,
 * -EPERM as cf_place_open. */
int cf_participant_open(struct cf_participant *participant, const char *directory);

/* Gives everything up; idempotent. In a forked child only the memory. */
void cf_participant_close(struct cf_participant *participant);

/* Returns whether the participant is usable: open, and not a forked child's copy. */
static inline int cf_participant_is_open(const struct cf_participant *participant) {
    return participant->leases.fd >= 0;
}

/* Returns 1 when the participant of an id lives, 0 when it has ended, or a negative errno: what
 * cannot be known must be taken for living. One syscall; none for itself. */
int cf_participant_lives(const struct cf_participant *participant, uint64_t id);

/* Takes the lock on a topic's page, waiting at most `timeout_ns` for others. 0, -EBUSY after that,
 * -ECHILD in a forked child, or another negative errno. Thread-safe; not recursive. */
int cf_participant_lock(struct cf_participant *participant, uint64_t hash, uint64_t timeout_ns);

void cf_participant_unlock(struct cf_participant *participant, uint64_t hash);

/* Finds a publisher number, 16..65535, that no other live publisher of the directory has. The
 * number or a negative errno, -EAGAIN when there is none. Under cf_participant_lock. */
int cf_participant_take_number(struct cf_participant *participant);

/* Gives a number back; it comes again after all others that are free. Under cf_participant_lock. */
void cf_participant_return_number(struct cf_participant *participant, uint16_t number);

/* Opens a file of this user in the directory, made if it is not there and `create` says so. A
 * descriptor or a negative errno: -EPERM for a link, another's file, or no regular file. */
int cf_participant_open_file(const struct cf_participant *participant, const char *name,
                             int create);

#endif
