#include "alloc.h"

#define FIELD(member, unit, type) \
    {#member, unit, type, CF_MERGE_SUM, offsetof(struct cf_allocations, member), 1, 0}

/* A reader adds each shard's pending word to its fields before it merges them. */
static const struct cf_field allocation_fields[] = {
    FIELD(tells_ended, "1", CF_FIELD_U64),
    FIELD(pending, "packed", CF_FIELD_U64),
    FIELD(allocations, "1", CF_FIELD_U64),
    FIELD(deallocations, "1", CF_FIELD_U64),
    FIELD(reallocations, "1", CF_FIELD_U64),
    FIELD(failures, "1", CF_FIELD_U64),
    FIELD(bytes_allocated, "B", CF_FIELD_U64),
    FIELD(net_bytes, "B", CF_FIELD_I64),
    {"sizes", "B", CF_FIELD_HISTOGRAM, CF_MERGE_SUM, offsetof(struct cf_allocations, sizes),
     CF_ALLOC_SIZES, CF_ALLOC_SUB_BITS},
    FIELD(tells_begun, "1", CF_FIELD_U64),
};

#define PROCESS(member, unit, type) \
    {#member, unit, type, CF_MERGE_LAST, offsetof(struct cf_alloc_process, member), 1, 0}

static const struct cf_field process_fields[] = {
    PROCESS(live_bytes, "B", CF_FIELD_I64),       PROCESS(peak_bytes, "B", CF_FIELD_I64),
    PROCESS(peak_ns, "ns", CF_FIELD_U64),         PROCESS(inherited_bytes, "B", CF_FIELD_I64),
    PROCESS(inherited_blocks, "1", CF_FIELD_I64), PROCESS(began_ns, "ns", CF_FIELD_U64),
    PROCESS(batch_bytes, "B", CF_FIELD_U64),      PROCESS(bypass, "bits", CF_FIELD_U64),
    PROCESS(children, "1", CF_FIELD_U64),
};

#define COLUMN(member, unit)                                                               \
    {#member,                                                                              \
     unit,                                                                                 \
     CF_FIELD_RING,                                                                        \
     CF_MERGE_JOIN,                                                                        \
     offsetof(struct cf_alloc_timeline, points) + offsetof(struct cf_alloc_point, member), \
     CF_ALLOC_POINTS,                                                                      \
     sizeof(struct cf_alloc_point)}

static const struct cf_field timeline_fields[] = {
    {"written", "1", CF_FIELD_U64, CF_MERGE_SUM, offsetof(struct cf_alloc_timeline, written), 1, 0},
    COLUMN(time_ns, "ns"),
    COLUMN(live_bytes, "B"),
};

#define KIND(kind_name, table, payload)             \
    {.name = kind_name,                             \
     .fields = table,                               \
     .field_count = sizeof table / sizeof table[0], \
     .payload_bytes = sizeof(payload)}

const struct cf_kind cf_kind_allocations =
    KIND("allocations", allocation_fields, struct cf_allocations);
const struct cf_kind cf_kind_alloc_process =
    KIND("alloc_process", process_fields, struct cf_alloc_process);
const struct cf_kind cf_kind_alloc_timeline =
    KIND("alloc_timeline", timeline_fields, struct cf_alloc_timeline);
