/* The process's one segment and its instruments: opened by the first that records, by every forked
 * child anew. All functions are thread-safe; none may be called from a signal handler. */
#ifndef CF_PROCESS_H
#define CF_PROCESS_H

#include <stddef.h>
#include <stdint.h>

#include "atomic.h"
#include "segment.h"
#include "thread.h"

/* Says where the segment shall be. Takes effect for the next opening: before the first record and
 * in forked children. 0 or -ENAMETOOLONG. */
int cf_process_configure(const char *directory, const char *run_id, uint64_t limit_bytes);

/* Opens the segment if it is not open. Returns 0, or the negative errno for which the segment is in
 * anonymous memory, where this process alone can see it; the same answer each time. -ENOMEM when
 * there is none at all; -ENOENT, and nothing is opened, before cf_process_configure. */
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
 * the thread ends; NULL when it was refused (samples_lost is the caller's to count), and before
 * cf_process_configure, after which it is asked for again. */
void *cf_process_claim(uint32_t instrument);

/* Returns a shard of an instrument that belongs to an object and not to a thread, for the process
 * generation it was asked in; NULL when it was refused. Its writers serialise with each other and
 * give it back by cf_segment_release_shard, in that generation only. */
struct cf_shard *cf_process_claim_shard(uint32_t instrument);

/* How many forks lie between this process and the one that loaded the core. A forked child's shards
 * are gone: whoever keeps one compares before each use. */
extern uint32_t cf_process_generation;

/* Counts samples that could not be recorded. */
void cf_process_lost(uint64_t samples);

/* Gives the calling thread room for spans. False when there is no memory. */
int cf_process_make_spans(void);

/* An instrument's name and labels, as they were registered. */
struct cf_instrument_text {
    char text[2 * CF_NAME_BYTES]; /* the name, then the labels */
    uint32_t name_bytes;
    uint32_t label_bytes;
};

/* Copies the texts of an instrument; 0 or -ENOENT. */
int cf_process_describe(uint32_t instrument, struct cf_instrument_text *into);

/* Returns as cf_process_claim; a few instructions once claimed. */
static inline void *cf_process_payload(struct cf_thread *thread, uint32_t instrument) {
    if (cf_likely(instrument < thread->count)) {
        void *payload = thread->payloads[instrument];
        if (cf_likely(payload != NULL))
            return payload;
    }
    return cf_process_claim(instrument);
}

#endif
