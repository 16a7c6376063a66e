#include "participant.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tick.h"

/* A bus that keeps making publishers takes new numbers until so many were returned: a number that
 * comes again soon makes ids that messages of an ended ring had. */
enum { BLOCK = 16, BLOCKS = 65536 / BLOCK, RESTING = 256, ATTEMPTS = 1000 };
enum { RETRY_NS = 200000 };
#define TOPIC_LOCKS (UINT64_C(1) << 62)

static const char leases_name[] = "bus.leases";

int cf_participant_open_file(const struct cf_participant *participant, const char *name,
                             int create) {
    int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | (create ? O_CREAT : 0);
    int fd = openat(participant->directory_fd, name, flags, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return errno == ELOOP ? -EPERM : -errno;
    struct stat status;
    int error = fstat(fd, &status) != 0 ? -errno : 0;
    if (error == 0 && (!S_ISREG(status.st_mode) || status.st_uid != geteuid()))
        error = -EPERM;
    if (error != 0)
        close(fd);
    return error != 0 ? error : fd;
}

static int take_lease(struct cf_participant *participant) {
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        uint64_t id = 0;
        if (getrandom(&id, sizeof id, 0) != sizeof id)
            return -EIO;
        id &= TOPIC_LOCKS - 1;
        if (id < UINT64_C(1) << 32)
            continue;
        int error = cf_place_lock(participant->leases.fd, id, 1);
        if (error == 0)
            participant->id = id;
        if (error != -EAGAIN)
            return error;
    }
    return -EAGAIN;
}

int cf_participant_open(struct cf_participant *participant, const char *directory) {
    *participant = (struct cf_participant){.leases.fd = -1, .directory_fd = -1};
    int fd = cf_place_open(directory);
    if (fd < 0)
        return fd;
    participant->directory_fd = fd;
    fd = cf_participant_open_file(participant, leases_name, 1);
    if (fd >= 0)
        cf_hold_file(&participant->leases, fd);
    int error = fd < 0 ? fd : take_lease(participant);
    participant->returned = malloc(CF_PARTICIPANT_NUMBERS * sizeof *participant->returned);
    if (error == 0 && !participant->returned)
        error = -ENOMEM;
    pthread_mutex_init(&participant->guard, NULL);
    if (error != 0)
        cf_participant_close(participant);
    return error;
}

void cf_participant_close(struct cf_participant *participant) {
    if (participant->directory_fd < 0)
        return;
    close(participant->directory_fd);
    participant->directory_fd = -1;
    /* The locks go with the descriptor. In a forked child the mutex may be held for ever. */
    if (participant->leases.fd >= 0)
        pthread_mutex_destroy(&participant->guard);
    cf_release_file(&participant->leases);
    free(participant->returned);
    participant->returned = NULL;
}

int cf_participant_lives(const struct cf_participant *participant, uint64_t id) {
    /* Locks of its own description do not show. */
    if (id == participant->id)
        return cf_participant_is_open(participant);
    if (id < UINT64_C(1) << 32 || id >= TOPIC_LOCKS)
        return 0;
    return cf_place_is_locked(participant->leases.fd, id);
}

int cf_participant_lock(struct cf_participant *participant, uint64_t hash, uint64_t timeout_ns) {
    if (!cf_participant_is_open(participant))
        return -ECHILD;
    uint64_t end_ns = cf_os_ns(CLOCK_MONOTONIC) + timeout_ns;
    uint64_t byte = TOPIC_LOCKS + (hash & (TOPIC_LOCKS - 1));
    struct timespec pause = {.tv_nsec = RETRY_NS};
    for (;;) {
        int error = -EAGAIN;
        if (pthread_mutex_trylock(&participant->guard) == 0) {
            error = cf_place_lock(participant->leases.fd, byte, 1);
            if (error == 0)
                return 0;
            pthread_mutex_unlock(&participant->guard);
        }
        if (error != -EAGAIN)
            return error;
        if (cf_os_ns(CLOCK_MONOTONIC) >= end_ns)
            return -EBUSY;
        nanosleep(&pause, NULL);
    }
}

void cf_participant_unlock(struct cf_participant *participant, uint64_t hash) {
    cf_place_unlock(participant->leases.fd, TOPIC_LOCKS + (hash & (TOPIC_LOCKS - 1)), 1);
    pthread_mutex_unlock(&participant->guard);
}

/* Takes a block of numbers that nobody else has. 0 or a negative errno. */
static int take_block(struct cf_participant *participant) {
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        uint16_t block = 0;
        if (getrandom(&block, sizeof block, 0) != sizeof block)
            return -EIO;
        block %= BLOCKS;
        /* Only others' locks are refused: what is locked already may be this one's own. */
        if (block == 0 || participant->blocks[block / 8] & 1 << block % 8)
            continue;
        int error = cf_place_lock(participant->leases.fd, (uint64_t)block * BLOCK, BLOCK);
        if (error == -EAGAIN)
            continue;
        if (error != 0)
            return error;
        participant->blocks[block / 8] |= (uint8_t)(1 << block % 8);
        participant->next_number = (uint32_t)block * BLOCK;
        participant->unused_numbers = BLOCK;
        return 0;
    }
    return -EAGAIN;
}

int cf_participant_take_number(struct cf_participant *participant) {
    int error = 0;
    if (participant->unused_numbers == 0 && participant->returned_count < RESTING)
        error = take_block(participant);
    if (participant->unused_numbers > 0) {
        participant->unused_numbers--;
        return (int)participant->next_number++;
    }
    if (participant->returned_count == 0)
        return error;
    uint16_t number = participant->returned[participant->first_returned];
    participant->first_returned = (participant->first_returned + 1) % CF_PARTICIPANT_NUMBERS;
    participant->returned_count--;
    return number;
}

void cf_participant_return_number(struct cf_participant *participant, uint16_t number) {
    uint32_t last =
        (participant->first_returned + participant->returned_count) % CF_PARTICIPANT_NUMBERS;
    participant->returned[last] = number;
    participant->returned_count++;
}
