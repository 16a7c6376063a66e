/* Operations: how often, how long, how many failed. One shard per thread, 0 bytes per sample. */
#ifndef CF_OPERATION_H
#define CF_OPERATION_H

#include <stdint.h>

#include "atomic.h"
#include "histogram.h"
#include "process.h"
#include "tick.h"

/* `unit` is ticks or nanoseconds, as the kind says; the moments are ticks in both. */
struct cf_operation {
    uint64_t count;
    uint64_t errors;
    uint64_t sum;          /* unit */
    uint64_t min;          /* unit; UINT64_MAX = none */
    uint64_t max;          /* unit */
    uint64_t out_of_range; /* samples of 2^40 and more: in all fields but the histogram */
    uint64_t first_tick;   /* end of the first sample; UINT64_MAX = none */
    uint64_t last_tick;    /* end of the last sample */
    uint64_t histogram[CF_HISTOGRAM_BUCKETS];
    uint64_t child_sum; /* unit; of samples that ended directly inside of this one's */
    uint64_t latest; /* 1 + the bucket of the latest sample, in the histogram with the next one */
    uint64_t brisk;  /* of values in ns: whether they come faster than CF_BRISK_TICKS; no field */
};

/* Values measured elsewhere that come faster than this, at most 0.3 ms (10 ms for a counter of
 * 25 MHz), share the moment of one in eight: reading the counter is more than half of the cost. */
#define CF_BRISK_TICKS (UINT64_C(1) << 18)
#define CF_BRISK_VALUES 8u

/* Both are named "operation"; they differ in the unit their fields state. */
extern const struct cf_kind cf_kind_operation;
extern const struct cf_kind cf_kind_operation_ns;

/* A count of events under a name, such as label sets that were folded into one row. */
struct cf_count {
    uint64_t count;
};
extern const struct cf_kind cf_kind_folded_labels;

/* Adds a sample to a shard. Only the shard's thread; readers may look at any time and can see a
 * sample in some fields and not yet in others. About 3 ns.
 *
 * The histogram gets the sample before: a store whose address hangs on the tick that was just read
 * holds up what comes after it, which costs 6 ns (AMD Zen 3). Readers add `latest` themselves.
 *
 * The order of the stores is what a reader finds after a kill. After each of them the histogram
 * with `latest` holds every sample that is in another field, and at most one more: the sample
 * before twice until `latest` is replaced, then the new one. A sample that is counted has its
 * moments. */
static inline void cf_operation_add(struct cf_operation *shard, uint64_t value, uint64_t end_tick,
                                    int failed) {
    uint64_t before = cf_load_relaxed(&shard->latest);
    if (cf_likely(before != 0))
        cf_bump(&shard->histogram[before - 1], 1);
    if (cf_likely(value < (UINT64_C(1) << CF_HISTOGRAM_VALUE_BITS))) {
        cf_store_relaxed(&shard->latest, cf_histogram_bucket(value) + UINT64_C(1));
    } else {
        cf_store_relaxed(&shard->latest, UINT64_C(0));
        cf_bump(&shard->out_of_range, 1);
    }
    uint64_t count = cf_load_relaxed(&shard->count);
    if (cf_unlikely(count == 0))
        cf_store_relaxed(&shard->first_tick, end_tick);
    cf_store_relaxed(&shard->last_tick, end_tick);
    cf_store_relaxed(&shard->count, count + 1);
    cf_bump(&shard->sum, value);
    if (cf_unlikely(value < cf_load_relaxed(&shard->min)))
        cf_store_relaxed(&shard->min, value);
    if (cf_unlikely(value > cf_load_relaxed(&shard->max)))
        cf_store_relaxed(&shard->max, value);
    if (cf_unlikely(failed))
        cf_bump(&shard->errors, 1);
}

/* A clock that steps backwards between two CPUs must not become 584 years. */
static inline uint64_t cf_elapsed(uint64_t start_tick, uint64_t end_tick) {
    return end_tick >= start_tick ? end_tick - start_tick : 0;
}

/* Adds a sample of ticks for the calling thread, outside of the span stack; a refused shard counts
 * it as lost. */
void cf_operation_record(uint32_t instrument, uint64_t start_tick, uint64_t end_tick, int failed);

/* Returns the moment of a value that ends now, which for brisk ones is that of up to seven values
 * before. */
static inline uint64_t cf_operation_moment(struct cf_operation *shard) {
    uint64_t last_tick = cf_load_relaxed(&shard->last_tick);
    if (cf_load_relaxed(&shard->brisk) && cf_load_relaxed(&shard->count) % CF_BRISK_VALUES != 0)
        return last_tick;
    uint64_t now = cf_ticks();
    cf_store_relaxed(&shard->brisk, (uint64_t)(now - last_tick < CF_BRISK_TICKS));
    return now;
}

/* Adds a sample in nanoseconds that ends now, to an instrument of cf_kind_operation_ns. */
static inline void cf_operation_record_ns(uint32_t instrument, uint64_t ns, int failed) {
    struct cf_operation *shard = cf_process_payload(&cf_thread, instrument);
    if (cf_unlikely(shard == NULL))
        cf_process_lost(1);
    else
        cf_operation_add(shard, ns, cf_operation_moment(shard), failed);
}

enum cf_value_type { CF_VALUE_I64, CF_VALUE_U64, CF_VALUE_F64 };

/* Returns whether all values are nanoseconds: not negative, no NaN, below 2^63. */
int cf_values_are_durations(const void *values, size_t count, enum cf_value_type type);

/* Adds values in nanoseconds that end now; those that are no durations (the buffer may change
 * meanwhile) count as 0. At most 2 ns each; needs no interpreter lock. */
void cf_operation_record_many(uint32_t instrument, const void *values, size_t count,
                              enum cf_value_type type);

#endif
