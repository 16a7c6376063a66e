/* The timeline: each thread's recent samples, in a ring of fixed size. Off until it is asked for.
 *
 * A record is four words; the last one is 0 while the record is being written and holds its number
 * afterwards, so that a reader, also one of a killed program, takes whole records only.
 */
#ifndef CF_TIMELINE_H
#define CF_TIMELINE_H

#include <stdint.h>

#include "atomic.h"
#include "process.h"

#define CF_TIMELINE_RECORDS 8192u /* 256 KiB per thread */

struct cf_timeline_record {
    uint64_t end_tick;
    uint64_t ticks;
    uint64_t operations; /* offset of the operation's entry; in the upper half, of its parent's */
    uint64_t status;     /* number + 1 << 33 | failed << 32 | thread id; 0 = being written */
};

struct cf_timeline {
    uint64_t written; /* samples ever, the overwritten ones too */
    uint64_t reserved[7];
    struct cf_timeline_record records[CF_TIMELINE_RECORDS];
};

extern const struct cf_kind cf_kind_timeline;

/* Instrument of the timeline; UINT32_MAX while it is off. */
extern uint32_t cf_timeline_instrument;

/* Turns the timeline on for the rest of the process; 0 or a negative errno. */
int cf_timeline_start(void);

static inline int cf_timeline_is_on(void) {
    return cf_load_relaxed(&cf_timeline_instrument) != UINT32_MAX;
}

/* Adds a sample of a shard whose parent is another shard, or NULL. Only the shards' thread. */
void cf_timeline_add(const void *shard, const void *parent, uint64_t ticks, uint64_t end_tick,
                     int failed);

#endif
