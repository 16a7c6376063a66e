/* What the bus's endpoints count in their own process's segment. */
#ifndef CF_BUS_H
#define CF_BUS_H

#include <stdint.h>

#include "atomic.h"
#include "histogram.h"
#include "hlc.h"
#include "process.h"

/* Of a publisher; the ring's own header holds tail, rejected and orphaned beside it. */
struct cf_bus_published {
    uint64_t published; /* accepted by the ring */
    uint64_t rejected;  /* refused: the ring was full */
    uint64_t bytes;
    uint64_t high_water; /* most messages that waited for the slowest reader, at a look for room */
    uint64_t first_tick; /* UINT64_MAX = none */
    uint64_t last_tick;
};

/* Of a subscription, over all rings it ever joined. Latency is receiving minus publishing tick. */
struct cf_bus_received {
    uint64_t delivered;
    uint64_t dropped; /* overwritten before they were taken */
    uint64_t bytes;
    uint64_t high_water; /* most messages that waited */
    uint64_t sum;        /* ticks */
    uint64_t min;        /* ticks; UINT64_MAX = none */
    uint64_t max;        /* ticks */
    uint64_t out_of_range;
    uint64_t first_tick; /* UINT64_MAX = none */
    uint64_t last_tick;
    uint64_t history; /* of the delivered, published before it joined */
    uint64_t histogram[CF_HISTOGRAM_BUCKETS];
};

/* Of a bus: its subscriptions, and what went through its temporal queues. Sums but for
 * quantum and high_water; the phases are the sums of cos and sin of the dispatches' angles in the
 * quantum. What goes up and down is signed: the threads' shards add up to the value of now.
 * `failed` met an error at their turn; `damaged` could not be decoded; `unsent` and `undelivered`
 * were still queued and held when the bus closed. `threads_failed` 1: the dispatcher's thread has
 * ended by an error, or could not be started, and the bus accepts nothing for it. */
/* clang-format off: it finds no rest in a list without commas */
#define CF_BUS_DISPATCHER_COUNTS(X) \
    X(accepted, "1")                \
    X(with_deadline, "1")           \
    X(refused, "1")                 \
    X(delivered, "1")               \
    X(late, "1")                    \
    X(expired, "1")                 \
    X(held_by_deps, "1")            \
    X(unmet_delivered, "1")         \
    X(dropped_by_deps, "1")         \
    X(fifo_violations, "1")         \
    X(dependency_violations, "1")   \
    X(hlc_order_violations, "1")    \
    X(busy, "ns")                   \
    X(overhead, "ns")               \
    X(idle_pending, "ns")           \
    X(dispatches, "1")              \
    X(received_due, "1")            \
    X(failed, "1")                  \
    X(damaged, "1")                 \
    X(unsent, "1")                  \
    X(undelivered, "1")             \
    X(unknown_dependencies, "1")    \
    X(not_held, "1")                \
    X(threads_started, "1")         \
    X(threads_ended, "1")           \
    X(threads_failed, "1")
/* clang-format on */

struct cf_bus_dispatched {
#define CF_COUNT(name, unit) uint64_t name;
    CF_BUS_DISPATCHER_COUNTS(CF_COUNT)
#undef CF_COUNT
    double cosines;
    double sines;
    int64_t queued;         /* messages that wait for their slot now */
    int64_t held;           /* received messages that wait for their dependencies now */
    int64_t oldest_unix_ns; /* since when the oldest of both waits; 0 = there is none */
    uint64_t thread_id;     /* of the thread that dispatches, as the kernel numbers it; 0 = none */
    uint64_t quantum_ns;
    uint64_t high_water; /* most messages in the queues */
    uint64_t subscribed; /* subscriptions that were made, and those that have ended */
    uint64_t unsubscribed;
};

/* Of a bus: by how much messages that were delivered missed their deadline. */
struct cf_bus_lateness {
    uint64_t late;
    uint64_t sum; /* ns */
    uint64_t max; /* ns */
    uint64_t out_of_range;
    uint64_t histogram[CF_HISTOGRAM_BUCKETS];
};

extern const struct cf_kind cf_kind_bus_dispatcher;
extern const struct cf_kind cf_kind_bus_lateness;
extern const struct cf_kind cf_kind_bus_publisher;
extern const struct cf_kind cf_kind_bus_subscriber;

/* Counts messages that were accepted, `bytes` in all. The shard's thread only; about 1 ns. */
static inline void cf_bus_published_add(struct cf_bus_published *shard, uint64_t messages,
                                        uint64_t bytes, uint64_t tick) {
    cf_bump(&shard->published, messages);
    cf_bump(&shard->bytes, bytes);
    if (cf_unlikely(tick < cf_load_relaxed(&shard->first_tick)))
        cf_store_relaxed(&shard->first_tick, tick);
    cf_store_relaxed(&shard->last_tick, tick);
}

/* Counts a message that was received. The shard's thread only; about 3 ns. */
static inline void cf_bus_received_add(struct cf_bus_received *shard, uint64_t bytes,
                                       uint64_t published_tick, uint64_t tick) {
    uint64_t latency = tick >= published_tick ? tick - published_tick : 0;
    cf_bump(&shard->delivered, 1);
    cf_bump(&shard->bytes, bytes);
    cf_bump(&shard->sum, latency);
    if (cf_likely(latency < (UINT64_C(1) << CF_HISTOGRAM_VALUE_BITS)))
        cf_bump(&shard->histogram[cf_histogram_bucket(latency)], 1);
    else
        cf_bump(&shard->out_of_range, 1);
    if (cf_unlikely(latency < cf_load_relaxed(&shard->min)))
        cf_store_relaxed(&shard->min, latency);
    if (cf_unlikely(latency > cf_load_relaxed(&shard->max)))
        cf_store_relaxed(&shard->max, latency);
    if (cf_unlikely(tick < cf_load_relaxed(&shard->first_tick)))
        cf_store_relaxed(&shard->first_tick, tick);
    cf_store_relaxed(&shard->last_tick, tick);
}

/* Counts a message that was delivered after its deadline. The shard's thread only. */
static inline void cf_bus_late_add(struct cf_bus_lateness *shard, uint64_t lateness_ns) {
    cf_bump(&shard->late, 1);
    cf_bump(&shard->sum, lateness_ns);
    if (lateness_ns < (UINT64_C(1) << CF_HISTOGRAM_VALUE_BITS))
        cf_bump(&shard->histogram[cf_histogram_bucket(lateness_ns)], 1);
    else
        cf_bump(&shard->out_of_range, 1);
    if (lateness_ns > cf_load_relaxed(&shard->max))
        cf_store_relaxed(&shard->max, lateness_ns);
}

/* Merges a message's stamp into this process's clock, so that what it stamps from now on is later.
 * `*looked_tick` is the caller's: when it last looked at the wall clock. For a millisecond, after
 * which a step backwards is seen, stamps within the maximal offset of that look are merged as they
 * are. Else the clock is looked at, and a stamp too far ahead is refused, counted with its
 * publisher's number, and the clock left alone. 3 ns. */
static inline void cf_bus_merge_stamp(uint64_t stamp, uint32_t publisher, uint64_t tick,
                                      uint64_t *looked_tick) {
    if (cf_likely(tick - *looked_tick < cf_load_relaxed(&cf_wall_process.span_ticks) &&
                  stamp <= cf_load_relaxed(&cf_hlc_process.trusted_ns))) {
        uint64_t last = cf_load_relaxed(&cf_hlc_process.clock.last);
        while (stamp > last && !cf_replace_relaxed(&cf_hlc_process.clock.last, &last, stamp))
            ;
        return;
    }
    *looked_tick = tick;
    cf_hlc_node_merge(&cf_hlc_process, tick, stamp, publisher);
}

#endif
