/* What reading a clock costs, and the increments in which the tick counter advances. */
#ifndef CF_COST_H
#define CF_COST_H

#include <stdint.h>

enum cf_read_kind {
    CF_READ_TICK = 0,
    CF_READ_TICK_ORDERED,
    CF_READ_RAW,
    CF_READ_MONOTONIC,
    CF_READ_REALTIME,
    CF_READ_BOOTTIME,
    CF_READ_MONOTONIC_COARSE,
    CF_READ_SYSCALL, /* getppid: the cheapest real syscall */
    CF_READ_KINDS,
};

/* Stores the nanoseconds (CLOCK_MONOTONIC_RAW) that each of `batches` batches of `reads` reads
 * took. Returns 0, -EINVAL for an unknown kind, or -errno when the clock does not exist. The loop
 * around a read adds under 0.5 ns. */
int cf_read_costs(enum cf_read_kind kind, uint32_t reads, uint64_t *elapsed_ns, uint32_t batches);

/* Counts the increments between neighbouring tick reads with a random pause between them:
 * counts[d] is how many were `d` ticks; larger ones, and decreases, are not counted. */
void cf_tick_increments(uint32_t *counts, uint32_t size, uint32_t reads);

#endif
