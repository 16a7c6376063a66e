/* Jitter: a busy loop that reads the tick counter and notes every gap above a threshold.
 *
 * The loop is one plain read, a subtraction and two compares: about 10 ns per turn, so that a gap
 * is known to one turn. A gap's start is the last read before it.
 */
#ifndef CF_PROBE_JITTER_H
#define CF_PROBE_JITTER_H

#include "probe.h"

struct cf_gap {
    uint64_t start_tick;
    uint64_t ticks;
    uint32_t involuntary_switches; /* of this thread, during the gap */
    uint32_t minor_faults;
};

struct cf_jitter_result {
    uint64_t start_tick;
    uint64_t end_tick;
    uint64_t turns;
    uint64_t handling_ticks; /* spent noting gaps; neither measured nor lost */
    uint64_t kept;           /* gaps in the caller's array: all, or the largest */
    struct cf_thread_load load;
    struct cf_distribution gaps; /* ticks */
};

/* Runs from `start_tick` (waited for, so that several CPUs begin together) for `duration_ticks`.
 * `kept` holds `capacity` gaps and must have been touched; when it is full the smallest gives way
 * (a min-heap by ticks, so unordered). `inspect` != 0 reads getrusage after each gap (320 ns),
 * which tells a switch or a fault from an interrupt. No locks, no allocation. */
void cf_probe_jitter(uint64_t start_tick, uint64_t duration_ticks, uint64_t threshold_ticks,
                     int inspect, struct cf_gap *kept, uint64_t capacity, const uint32_t *stop,
                     struct cf_jitter_result *result);

#endif
