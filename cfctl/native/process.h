/* The process's one segment and its instruments: opened by the first that records, by every forked
 * child anew. All functions are thread-safe; none may be called from a signal handler. */
#ifndef CF_PROCESS_H
#define CF_PROCESS_H

#include <stddef.h>
#include <stdint.h>

#include "atomic.h"
#include "segment.h"

/* Says where the segment shall be. Takes effect for the next opening: before the first record and
 * in forked children. 0 or -ENAMETOOLONG. */
int cf_process_configure(const char *directory, const char *run_id, uint64_t limit_bytes);

/* Opens the segment if it is not open. Returns 0, or the negative errno for which the segment is in
 * anonymous memory, where this process alone can see it; the same answer each time. -ENOMEM when
 * there is none at all. */
int cf_process_open(void);

/* Copies the path of the open segment's file, "" when there is none, and returns its length. */
size_t cf_process_path(char *path, size_t capacity);

/* Returns the header of the open segment, NULL before it is opened. Valid until a fork. */
struct cf_segment_header *cf_process_header(void);

/* Registers an instrument and returns its id >= 0, the same for the same kind, name and labels; or
 * -ENOMEM, -ENAMETOOLONG. The segment gets its entry with the first shard. */
int64_t cf_process_instrument(const struct cf_kind *kind, const char *name, uint32_t name_bytes,
                              const char *labels, uint32_t label_bytes);

/* Returns the calling thread's payload for an instrument, claimed on first use and given back when
 * the thread ends; NULL when it was refused (samples_lost is the caller's to count). */
void *cf_process_claim(uint32_t instrument);

/* Counts samples that could not be recorded. */
void cf_process_lost(uint64_t samples);

/* The calling thread's payloads by instrument id; cf_process_payload below reads it. */
struct cf_thread_payloads {
    void **items;
    uint8_t *refused; /* 1: refused until the next fork, so that a full segment costs no lock */
    uint32_t count;
};
extern _Thread_local struct cf_thread_payloads cf_thread_payloads;

/* Returns as cf_process_claim; a few instructions once claimed. */
static inline void *cf_process_payload(uint32_t instrument) {
    if (cf_likely(instrument < cf_thread_payloads.count)) {
        void *payload = cf_thread_payloads.items[instrument];
        if (cf_likely(payload != NULL))
            return payload;
    }
    return cf_process_claim(instrument);
}

#endif
