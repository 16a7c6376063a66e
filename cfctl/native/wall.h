/* The wall clock at the price of a counter read: CLOCK_REALTIME carried on by the tick counter.
 *
 * Every millisecond one caller reads the OS clocks anew (the anchor); in between ticks are scaled,
 * at the rate of the published calibration, else at that of the last two anchors once it agrees
 * with the two before within 0.2 %. So a slewed clock is followed within 0.5 us (at most 500 ppm of
 * 1 ms) beside the error of one reading (half its bracket, below 0.5 us, as a rule 50 ns; three
 * such errors at the anchors' own rate), and a step within 1 ms. Before there is a rate each call
 * is a clock_gettime.
 *
 * A step is told from CLOCK_REALTIME - CLOCK_MONOTONIC, which nothing else changes: both are slewed
 * alike, and CLOCK_MONOTONIC is never set.
 */
#ifndef CF_WALL_H
#define CF_WALL_H

#include <stdint.h>

#include "clock.h"

/* All words are atomic: any thread may use a wall clock at any time. Zero is a usable one. */
struct cf_wall {
    uint64_t sequence; /* odd while one thread writes the words below */
    uint64_t base_tick, base_ns, mult, shift;
    uint64_t span_ticks;   /* how far from base_tick the line is used; 0 = there is none */
    uint64_t checked_ns;   /* CLOCK_REALTIME when the words were last written; 0 = never */
    uint64_t offset_ns;    /* CLOCK_REALTIME - CLOCK_MONOTONIC then, modulo 2^64 */
    uint64_t checked_tick; /* the tick of that moment */
    uint64_t own_mult;     /* the rate of the last two anchors; 0 = none */
    uint64_t steps_back;   /* steps backwards that were seen */
} __attribute__((aligned(64)));

/* What the OS clocks showed at one moment. */
struct cf_wall_reading {
    uint64_t tick;
    uint64_t realtime_ns;
    uint64_t offset_ns; /* realtime - monotonic, modulo 2^64 */
};

#define CF_WALL_SPAN_NS (UINT64_C(1) << 20)
#define CF_WALL_STEP_NS UINT64_C(10000) /* a reading's offset is good to 1 us */

/* The clock of this process. A forked child's starts anew. */
extern struct cf_wall cf_wall_process;

/* Returns CLOCK_REALTIME at `tick`, a tick of now, in Unix ns. *stepped_back is 1 when this call
 * found that the clock was set backwards since the last look, else 0. Never waits: who finds
 * another thread at the anchor reads the OS clock. About 3 ns, and 0.5 us once a millisecond. */
uint64_t cf_wall_at(struct cf_wall *wall, uint64_t tick, uint32_t *stepped_back);

/* Takes a reading as the new anchor, with the rate of `line` (NULL: that of the anchors; while
 * there is none, no line is used). Returns 1 when the clock was set backwards since the last
 * anchor, else 0; -EBUSY when another thread is at it. cf_wall_at does this by itself. */
int cf_wall_anchor(struct cf_wall *wall, const struct cf_wall_reading *reading,
                   const struct cf_clock_line *line);

#endif
