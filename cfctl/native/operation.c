#include "operation.h"

#include <stddef.h>

#define TICKS(member, rule) \
    {#member, "ticks", CF_FIELD_U64, rule, offsetof(struct cf_operation, member), 1, 0}
#define COUNT(member) \
    {#member, "1", CF_FIELD_U64, CF_MERGE_SUM, offsetof(struct cf_operation, member), 1, 0}

static const struct cf_field fields[] = {
    COUNT(count),
    COUNT(errors),
    TICKS(sum, CF_MERGE_SUM),
    TICKS(min, CF_MERGE_MIN),
    TICKS(max, CF_MERGE_MAX),
    COUNT(out_of_range),
    TICKS(first_tick, CF_MERGE_MIN),
    TICKS(last_tick, CF_MERGE_MAX),
    {"histogram", "ticks", CF_FIELD_HISTOGRAM, CF_MERGE_SUM,
     offsetof(struct cf_operation, histogram), CF_HISTOGRAM_BUCKETS, CF_HISTOGRAM_SUB_BITS},
};

const struct cf_kind cf_kind_operation = {
    .name = "operation",
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .payload_bytes = sizeof(struct cf_operation),
};
