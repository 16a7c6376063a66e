/* The process's one segment: where it shall be, its mapping, and the lock of all who add to it.
 *
 * The LD_PRELOAD library is there first and exports its owner; the Python extension finds it and
 * uses it in place of its own, so that a process has one segment however many parts record. */
#ifndef CF_OWNER_H
#define CF_OWNER_H

#include <pthread.h>
#include <stdint.h>

#include "atomic.h"
#include "segment.h"

#define CF_OWNER_VERSION 1u
#define CF_OWNER_SYMBOL "cfctl_segment_owner"

struct cf_owner {
    uint32_t version; /* this and the next: who finds others than its own uses its own owner */
    uint32_t bytes;
    pthread_mutex_t lock; /* guards all below but open_header */
    char directory[CF_SEGMENT_PATH_BYTES];
    char run_id[40];
    uint64_t limit_bytes;
    struct cf_segment segment;
    int open_result;
    uint32_t control;                      /* what a new segment's control word starts with */
    struct cf_segment_header *open_header; /* read without the lock */
};

/* This module's own owner, which the preload library exports. */
extern struct cf_owner cf_owner_own;

/* The owner in use; written once, by cf_owner_find. */
extern struct cf_owner *cf_owner_in_use;

/* Returns the owner in use; this module's own before cf_owner_find. */
static inline struct cf_owner *cf_owner(void) {
    return cf_load_relaxed(&cf_owner_in_use);
}

/* Uses the owner that the process exports, if it is of this version. Once, before any other use. */
void cf_owner_find(void);

/* Registers what a fork and the process's end do to this module's own owner, if it is the one in
 * use. Once. Handlers for a fork that take other locks and then this one are registered later. */
void cf_owner_register(void);

/* As cf_process_configure. */
int cf_owner_configure(const char *directory, const char *run_id, uint64_t limit_bytes);

/* As cf_process_open, with the lock held. */
int cf_owner_open_locked(void);

/* Stores the closing pair and state of this module's own segment, if this process opened it and
 * nobody holds the lock: the end of a process waits for nobody, and vfork's child has the parent's
 * memory. The mapping stays: threads may still be recording. */
void cf_owner_close(void);

/* Takes a closing back: the process did not end. */
void cf_owner_reopen(void);

#endif
