/* Wake-up: how late a cyclic timer wakes its thread, counted from the intended time. */
#ifndef CF_PROBE_WAKEUP_H
#define CF_PROBE_WAKEUP_H

#include "probe.h"

struct cf_wakeup_result {
    uint64_t start_ns; /* CLOCK_MONOTONIC */
    uint64_t end_ns;
    uint64_t overruns; /* wake-ups later than a whole interval */
    struct cf_thread_load load;
    struct cf_distribution latency; /* ns */
};

/* Sleeps with clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME) to every multiple of `interval_ns`
 * for `duration_ns`. The next intended time follows from the last intended one, never from the
 * actual one: a late wake-up counts against every period it delayed (no coordinated omission). The
 * policy and slack are those of the calling thread. Returns 0 or a negative errno. */
int cf_probe_wakeup(uint64_t interval_ns, uint64_t duration_ns, const uint32_t *stop,
                    struct cf_wakeup_result *result);

#endif
