#include "probe_wakeup.h"

#include <errno.h>

static struct timespec timespec_of(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};
}

int cf_probe_wakeup(uint64_t interval_ns, uint64_t duration_ns, const uint32_t *stop,
                    struct cf_wakeup_result *result) {
    enum { WARM_UP = 10 };
    if (interval_ns == 0)
        return -EINVAL;
    *result = (struct cf_wakeup_result){0};
    cf_distribution_clear(&result->latency);
    cf_thread_load_read(&result->load);
    uint64_t intended_ns = cf_os_ns(CLOCK_MONOTONIC) + interval_ns;
    result->start_ns = intended_ns + WARM_UP * interval_ns;
    uint64_t end_ns = result->start_ns + duration_ns;
    for (; intended_ns < end_ns && !cf_load_relaxed(stop); intended_ns += interval_ns) {
        struct timespec until = timespec_of(intended_ns);
        int error;
        do {
            error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        } while (error == EINTR);
        if (error != 0)
            return -error;
        uint64_t now_ns = cf_os_ns(CLOCK_MONOTONIC);
        if (intended_ns < result->start_ns)
            continue;
        uint64_t late_ns = now_ns > intended_ns ? now_ns - intended_ns : 0;
        cf_distribution_add(&result->latency, late_ns);
        result->overruns += late_ns > interval_ns;
    }
    result->end_ns = cf_os_ns(CLOCK_MONOTONIC);
    cf_thread_load_since(&result->load);
    return 0;
}
