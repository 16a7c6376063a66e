/* The hybrid logical clock: a stamp that reads as a time and never contradicts cause and effect.
 *
 * A stamp is Unix nanoseconds whose low four bits count the stamps of one grain of 16 ns; a full
 * count carries on into the time, so stamps simply go up by one. Good until the year 2554. Stamps
 * of one clock never repeat and only grow; those of different clocks are ordered by (stamp, node).
 * Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks" (OPODIS 2014), with
 * the 64-bit form of its section 6; the refusal of stamps too far ahead is CockroachDB's and
 * uhlc's.
 */
#ifndef CF_HLC_H
#define CF_HLC_H

#include <stdint.h>

#include "atomic.h"
#include "histogram.h"
#include "process.h"
#include "wall.h"

#define CF_HLC_COUNTER_BITS 4
#define CF_HLC_GRAIN_NS (UINT64_C(1) << CF_HLC_COUNTER_BITS)
/* A message stamped later than this is refused, so that a clock cannot be driven to its end. */
#define CF_HLC_LAST_ACCEPTED (UINT64_MAX - (UINT64_C(1) << 60))

struct cf_hlc {
    uint64_t last; /* the last stamp given; atomic, any thread */
};

/* Takes `count` stamps in a row and returns the first: at least `floor`, and above the last; by
 * compare-and-swap. */
static inline uint64_t cf_hlc_advance(struct cf_hlc *hlc, uint64_t floor, uint64_t count) {
    uint64_t last = cf_load_relaxed(&hlc->last), next;
    do {
        next = floor > last ? floor : last + 1;
    } while (cf_unlikely(!cf_replace_relaxed(&hlc->last, &last, next + count - 1)));
    return next;
}

/* Returns the stamp of a local event at physical time `now_ns` (Unix ns): max(now, last + 1). Any
 * thread; lock-free; about 6 ns. A clock that goes backwards is fine: the stamp still grows. */
static inline uint64_t cf_hlc_tick(struct cf_hlc *hlc, uint64_t now_ns) {
    return cf_hlc_advance(hlc, now_ns & ~(CF_HLC_GRAIN_NS - 1), 1);
}

/* Stores the stamp of the receipt of a message stamped `message`: max(now, last + 1, message + 1).
 * Returns 0; -ERANGE, and then the clock is untouched, when the message's stamp is more than
 * `max_offset_ns` ahead of `now_ns` or beyond CF_HLC_LAST_ACCEPTED. Any thread; lock-free. */
int cf_hlc_receive(struct cf_hlc *hlc, uint64_t now_ns, uint64_t message, uint64_t max_offset_ns,
                   uint64_t *stamp);

/* What a thread counts of a clock, in its segment. Kind "hlc". */
struct cf_hlc_counts {
    uint64_t stamps;       /* given, for local events and receipts */
    uint64_t received;     /* messages accepted */
    uint64_t refused;      /* messages refused: stamped too far ahead */
    uint64_t ahead;        /* messages accepted whose stamp was ahead of this host's clock */
    uint64_t steps_back;   /* backward steps of CLOCK_REALTIME seen */
    uint64_t drift_max_ns; /* largest stamp - physical time since the start */
    uint64_t refused_node; /* the sender of the last refused message; 0 = none */
    uint64_t ahead_node;   /* the sender of the last message that was ahead; 0 = none */
    uint64_t drift_ns[CF_HISTOGRAM_BUCKETS]; /* stamp - physical time, of stamps ahead of it */
};
extern const struct cf_kind cf_kind_hlc;

/* A clock with its node id, counted in the segment. */
struct cf_hlc_node {
    struct cf_hlc clock;
    uint64_t max_offset_ns;
    uint64_t trusted_ns; /* stamps to there were within max_offset_ns at the last look; atomic */
    uint32_t instrument; /* id + 1; 0 = none: nothing is counted */
    uint32_t node;       /* 1 to 65535; 0 = none: no stamp may leave this process */
} __attribute__((aligned(64)));

#define CF_HLC_MAX_OFFSET_NS UINT64_C(500000000) /* the default; of uhlc and CockroachDB */

/* The clock of this process. Its node is 0 until Python's initialize_global_hlc, and again in a
 * forked child; the stamps of a child stay above its parent's up to the fork. */
extern struct cf_hlc_node cf_hlc_process;

/* Gives a clock its node id and registers its counters as "node ID". Returns 0 or -ENOMEM. Not
 * while other threads use the clock for the first time. */
int cf_hlc_node_initialise(struct cf_hlc_node *node, uint32_t id, uint64_t max_offset_ns);

/* As cf_hlc_tick and cf_hlc_receive, counted for the calling thread; a refused shard of the segment
 * counts nothing. About 10 and 12 ns. */
uint64_t cf_hlc_node_tick(struct cf_hlc_node *node, uint64_t now_ns);
int cf_hlc_node_receive(struct cf_hlc_node *node, uint64_t now_ns, uint64_t message,
                        uint32_t sender, uint64_t *stamp);

/* As cf_hlc_node_receive of a stamp that only has to be below all that is stamped from now on, at
 * the wall clock of `tick`, a tick of now; and notes up to which stamp others can be merged without
 * a look at the wall clock. Returns 0 or -ERANGE. */
int cf_hlc_node_merge(struct cf_hlc_node *node, uint64_t tick, uint64_t message, uint32_t sender);

/* As cf_hlc_node_tick, `count` stamps in a row, counted as so many; returns the first. */
uint64_t cf_hlc_node_tick_many(struct cf_hlc_node *node, uint64_t now_ns, uint64_t count);

/* Returns the wall clock at a tick of now, and counts steps backwards with the node's counters. */
uint64_t cf_hlc_node_now(struct cf_hlc_node *node, uint64_t tick);

#endif
