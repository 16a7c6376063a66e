#include "operation.h"

#include <stddef.h>
#include <string.h>

#include "timeline.h"

#define VALUE(member, unit, rule) \
    {#member, unit, CF_FIELD_U64, rule, offsetof(struct cf_operation, member), 1, 0}
#define COUNT(member) VALUE(member, "1", CF_MERGE_SUM)

#define FIELDS(unit)                                                                               \
    {                                                                                              \
        COUNT(count),                                                                              \
        COUNT(errors),                                                                             \
        VALUE(sum, unit, CF_MERGE_SUM),                                                            \
        VALUE(min, unit, CF_MERGE_MIN),                                                            \
        VALUE(max, unit, CF_MERGE_MAX),                                                            \
        COUNT(out_of_range),                                                                       \
        VALUE(first_tick, "ticks", CF_MERGE_MIN),                                                  \
        VALUE(last_tick, "ticks", CF_MERGE_MAX),                                                   \
        {"histogram", unit, CF_FIELD_HISTOGRAM, CF_MERGE_SUM,                                      \
         offsetof(struct cf_operation, histogram), CF_HISTOGRAM_BUCKETS, CF_HISTOGRAM_SUB_BITS},   \
        VALUE(child_sum, unit, CF_MERGE_SUM),                                                      \
        {"latest", "bucket", CF_FIELD_LATEST, CF_MERGE_SUM, offsetof(struct cf_operation, latest), \
         1, offsetof(struct cf_operation, histogram)},                                             \
    }

static const struct cf_field tick_fields[] = FIELDS("ticks");
static const struct cf_field ns_fields[] = FIELDS("ns");
static const struct cf_field count_fields[] = {
    {"count", "1", CF_FIELD_U64, CF_MERGE_SUM, offsetof(struct cf_count, count), 1, 0},
};

const struct cf_kind cf_kind_operation = {
    .name = "operation",
    .fields = tick_fields,
    .field_count = sizeof tick_fields / sizeof tick_fields[0],
    .payload_bytes = sizeof(struct cf_operation),
};

const struct cf_kind cf_kind_operation_ns = {
    .name = "operation",
    .fields = ns_fields,
    .field_count = sizeof ns_fields / sizeof ns_fields[0],
    .payload_bytes = sizeof(struct cf_operation),
};

const struct cf_kind cf_kind_folded_labels = {
    .name = "folded_labels",
    .fields = count_fields,
    .field_count = 1,
    .payload_bytes = sizeof(struct cf_count),
};

void cf_operation_record(uint32_t instrument, uint64_t start_tick, uint64_t end_tick, int failed) {
    struct cf_operation *shard = cf_process_payload(&cf_thread, instrument);
    if (cf_unlikely(shard == NULL)) {
        cf_process_lost(1);
        return;
    }
    uint64_t ticks = cf_elapsed(start_tick, end_tick);
    cf_operation_add(shard, ticks, end_tick, failed);
    if (cf_unlikely(cf_timeline_is_on()))
        cf_timeline_add(shard, NULL, ticks, end_tick, failed);
}

#define TOO_LONG (UINT64_C(1) << 63)

/* Returns a value in ns, TOO_LONG or above for what is no duration. */
static inline uint64_t value_at(const void *values, size_t index, enum cf_value_type type) {
    if (type == CF_VALUE_F64) {
        double value;
        memcpy(&value, (const char *)values + index * sizeof value, sizeof value);
        /* Written so that a NaN fails. */
        return value >= 0 && value < (double)TOO_LONG ? (uint64_t)value : TOO_LONG;
    }
    uint64_t value; /* of a negative int64 the highest bit is set */
    memcpy(&value, (const char *)values + index * sizeof value, sizeof value);
    return value;
}

static inline int all_durations(const void *values, size_t count, enum cf_value_type type) {
    uint64_t seen = 0;
    for (size_t i = 0; i < count; i++)
        seen |= value_at(values, i, type);
    return (seen & TOO_LONG) == 0;
}

int cf_values_are_durations(const void *values, size_t count, enum cf_value_type type) {
    if (type == CF_VALUE_F64)
        return all_durations(values, count, CF_VALUE_F64);
    return all_durations(values, count, CF_VALUE_U64);
}

/* The counters are kept in registers and stored with each value, so that a kill in the middle
 * finds them in agreement as after any sample. */
static inline void add_all(struct cf_operation *shard, const void *values, size_t count,
                           enum cf_value_type type) {
    uint64_t total = cf_load_relaxed(&shard->count), sum = cf_load_relaxed(&shard->sum);
    uint64_t least = cf_load_relaxed(&shard->min), most = cf_load_relaxed(&shard->max);
    for (size_t i = 0; i < count; i++) {
        uint64_t value = value_at(values, i, type);
        if (cf_likely(value < (UINT64_C(1) << CF_HISTOGRAM_VALUE_BITS))) {
            cf_bump(&shard->histogram[cf_histogram_bucket(value)], 1);
        } else if (value >= TOO_LONG) {
            value = 0; /* changed since it was checked */
            cf_bump(&shard->histogram[0], 1);
        } else {
            cf_bump(&shard->out_of_range, 1);
        }
        cf_store_relaxed(&shard->count, ++total);
        cf_store_relaxed(&shard->sum, sum += value);
        if (cf_unlikely(value < least))
            cf_store_relaxed(&shard->min, least = value);
        if (cf_unlikely(value > most))
            cf_store_relaxed(&shard->max, most = value);
    }
}

void cf_operation_record_many(uint32_t instrument, const void *values, size_t count,
                              enum cf_value_type type) {
    struct cf_operation *shard = cf_process_payload(&cf_thread, instrument);
    if (shard == NULL) {
        cf_process_lost(count);
        return;
    }
    if (count == 0)
        return;
    uint64_t end_tick = cf_ticks();
    if (end_tick < cf_load_relaxed(&shard->first_tick))
        cf_store_relaxed(&shard->first_tick, end_tick);
    cf_store_relaxed(&shard->last_tick, end_tick);
    if (type == CF_VALUE_F64)
        add_all(shard, values, count, CF_VALUE_F64);
    else
        add_all(shard, values, count, CF_VALUE_U64);
}
