/* What the probes share: a histogram with its totals, and what the measuring thread itself
 * suffered.
 *
 * Every probe runs on the calling thread, which the caller has pinned, without the GIL, and touches
 * no memory for the first time inside a timed region. `stop` may be set by another thread at any
 * time (relaxed); the probe then returns what it has.
 */
#ifndef CF_PROBE_H
#define CF_PROBE_H

#include <stdint.h>

#include "atomic.h"
#include "histogram.h"
#include "tick.h"

struct cf_distribution {
    uint64_t count;
    uint64_t sum;
    uint64_t min; /* UINT64_MAX = none */
    uint64_t max;
    uint64_t out_of_range;
    uint64_t histogram[CF_HISTOGRAM_BUCKETS];
};

static inline void cf_distribution_clear(struct cf_distribution *distribution) {
    *distribution = (struct cf_distribution){.min = UINT64_MAX};
}

static inline void cf_distribution_add(struct cf_distribution *distribution, uint64_t value) {
    distribution->count++;
    distribution->sum += value;
    if (value < distribution->min)
        distribution->min = value;
    if (value > distribution->max)
        distribution->max = value;
    if (cf_likely(value < (UINT64_C(1) << CF_HISTOGRAM_VALUE_BITS)))
        distribution->histogram[cf_histogram_bucket(value)]++;
    else
        distribution->out_of_range++;
}

/* What happened to the measuring thread: counters since it began, or their difference. */
struct cf_thread_load {
    uint64_t involuntary_switches; /* getrusage(RUSAGE_THREAD) ru_nivcsw */
    uint64_t voluntary_switches;
    uint64_t minor_faults;
    uint64_t major_faults;
    uint64_t run_delay_ns; /* /proc/thread-self/schedstat field 2: runnable, waiting for a CPU */
    int32_t run_delay_known;
};

/* Reads the calling thread's counters; about 10 us. */
void cf_thread_load_read(struct cf_thread_load *load);

/* Turns `load`, read at the start, into the difference up to now. */
void cf_thread_load_since(struct cf_thread_load *load);

#endif
