/* The offset between the tick counters of two CPUs, by ping-pong over one cache line each way. */
#ifndef CF_OFFSET_H
#define CF_OFFSET_H

#include <stdint.h>

/* Differences are in ticks, receiver's counter minus sender's: the way plus, or minus, the offset.
 * The offset of b against a is (min_ab - min_ba) / 2 and can not be told from an asymmetric way
 * closer than (min_ab + min_ba) / 2. */
struct cf_offset {
    int64_t min_ab, min_ba;
    uint64_t warps;     /* messages that arrived before they were sent, by the two counters */
    uint32_t exchanges; /* round trips made; fewer than asked for after a timeout */
};

/* Runs ping-pongs between two CPUs, each side a thread of its own that is pinned to its CPU and
 * spins. Returns 0; -EINVAL for one and the same CPU; -errno when a thread can not be made or
 * pinned (the CPU is outside the cpuset); -ETIMEDOUT when not one round trip was made in
 * `timeout_ns`. About 0.2 us a round trip. Call it from one thread at a time per CPU. */
int cf_offset_measure(int cpu_a, int cpu_b, uint32_t exchanges, uint64_t timeout_ns,
                      struct cf_offset *offset);

#endif
