/* Operations: how often, how long, how many failed. One shard per thread, 0 bytes per sample. */
#ifndef CF_OPERATION_H
#define CF_OPERATION_H

#include <stdint.h>

#include "atomic.h"
#include "histogram.h"
#include "process.h"

struct cf_operation {
    uint64_t count;
    uint64_t errors;
    uint64_t sum;          /* ticks */
    uint64_t min;          /* ticks; UINT64_MAX = none */
    uint64_t max;          /* ticks */
    uint64_t out_of_range; /* samples of 2^40 ticks and more: in all fields but the histogram */
    uint64_t first_tick;   /* end of the first sample; UINT64_MAX = none */
    uint64_t last_tick;    /* end of the last sample */
    uint64_t histogram[CF_HISTOGRAM_BUCKETS];
};

extern const struct cf_kind cf_kind_operation;

/* Adds a sample to a shard. Only the shard's thread; readers may look at any time and can see a
 * sample in some fields and not yet in others. About 3 ns. */
static inline void cf_operation_add(struct cf_operation *shard, uint64_t ticks, uint64_t end_tick,
                                    int failed) {
    if (cf_likely(ticks < (UINT64_C(1) << CF_HISTOGRAM_VALUE_BITS)))
        cf_bump(&shard->histogram[cf_histogram_bucket(ticks)], 1);
    else
        cf_bump(&shard->out_of_range, 1);
    cf_bump(&shard->count, 1);
    cf_bump(&shard->sum, ticks);
    if (cf_unlikely(ticks < cf_load_relaxed(&shard->min)))
        cf_store_relaxed(&shard->min, ticks);
    if (cf_unlikely(ticks > cf_load_relaxed(&shard->max)))
        cf_store_relaxed(&shard->max, ticks);
    if (cf_unlikely(end_tick < cf_load_relaxed(&shard->first_tick)))
        cf_store_relaxed(&shard->first_tick, end_tick);
    cf_store_relaxed(&shard->last_tick, end_tick);
    if (cf_unlikely(failed))
        cf_bump(&shard->errors, 1);
}

/* Adds a sample for the calling thread; a refused shard counts it as lost. */
static inline void cf_operation_record(uint32_t instrument, uint64_t start_tick, uint64_t end_tick,
                                       int failed) {
    struct cf_operation *shard = cf_process_payload(instrument);
    if (cf_unlikely(shard == NULL)) {
        cf_process_lost(1);
        return;
    }
    /* A clock that steps backwards between two CPUs must not become 584 years. */
    uint64_t ticks = end_tick >= start_tick ? end_tick - start_tick : 0;
    cf_operation_add(shard, ticks, end_tick, failed);
}

#endif
