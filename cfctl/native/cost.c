#include "cost.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tick.h"

static void read_once(enum cf_read_kind kind, uint32_t reads) {
    static const clockid_t clocks[CF_READ_KINDS] = {
        [CF_READ_RAW] = CLOCK_MONOTONIC_RAW,
        [CF_READ_MONOTONIC] = CLOCK_MONOTONIC,
        [CF_READ_REALTIME] = CLOCK_REALTIME,
        [CF_READ_BOOTTIME] = CLOCK_BOOTTIME,
        [CF_READ_MONOTONIC_COARSE] = CLOCK_MONOTONIC_COARSE,
    };
    struct timespec now;
    switch (kind) {
    case CF_READ_TICK:
        for (uint32_t i = 0; i < reads; i++)
            (void)cf_ticks();
        return;
    case CF_READ_TICK_ORDERED:
        for (uint32_t i = 0; i < reads; i++)
            (void)cf_ticks_ordered();
        return;
    case CF_READ_SYSCALL:
        for (uint32_t i = 0; i < reads; i++)
            (void)syscall(SYS_getppid);
        return;
    default:
        for (uint32_t i = 0; i < reads; i++)
            (void)cf_os_gettime(clocks[kind], &now);
    }
}

int cf_read_costs(enum cf_read_kind kind, uint32_t reads, uint64_t *elapsed_ns, uint32_t batches) {
    if ((unsigned)kind >= CF_READ_KINDS)
        return -EINVAL;
    read_once(kind, reads); /* warm caches and the vDSO page */
    for (uint32_t batch = 0; batch < batches; batch++) {
        uint64_t start = cf_os_ns(CLOCK_MONOTONIC_RAW);
        if (start == 0)
            return -errno;
        read_once(kind, reads);
        elapsed_ns[batch] = cf_os_ns(CLOCK_MONOTONIC_RAW) - start;
    }
    return 0;
}

void cf_tick_increments(uint32_t *counts, uint32_t size, uint32_t reads) {
    uint32_t random = 1;
    for (uint32_t i = 0; i < reads; i++) {
        /* A linear congruential pause (Numerical Recipes): increments of a counter that
         * advances by single ticks then spread over all values, those of a coarse one do not. */
        random = random * 1664525u + 1013904223u;
        uint64_t before = cf_ticks_ordered();
        for (uint32_t spin = random >> 25; spin > 0; spin--)
            __asm__ volatile("");
        uint64_t increment = cf_ticks_ordered() - before;
        if (increment < size)
            counts[increment]++;
    }
}
