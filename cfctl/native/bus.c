#include "bus.h"

#include <stddef.h>

#define FIELD(type, member, unit, rule) \
    {#member, unit, CF_FIELD_U64, rule, offsetof(struct type, member), 1, 0}

static const struct cf_field published_fields[] = {
    FIELD(cf_bus_published, published, "1", CF_MERGE_SUM),
    FIELD(cf_bus_published, rejected, "1", CF_MERGE_SUM),
    FIELD(cf_bus_published, bytes, "B", CF_MERGE_SUM),
    FIELD(cf_bus_published, high_water, "1", CF_MERGE_MAX),
    FIELD(cf_bus_published, first_tick, "ticks", CF_MERGE_MIN),
    FIELD(cf_bus_published, last_tick, "ticks", CF_MERGE_MAX),
};

static const struct cf_field received_fields[] = {
    FIELD(cf_bus_received, delivered, "1", CF_MERGE_SUM),
    FIELD(cf_bus_received, dropped, "1", CF_MERGE_SUM),
    FIELD(cf_bus_received, bytes, "B", CF_MERGE_SUM),
    FIELD(cf_bus_received, high_water, "1", CF_MERGE_MAX),
    FIELD(cf_bus_received, sum, "ticks", CF_MERGE_SUM),
    FIELD(cf_bus_received, min, "ticks", CF_MERGE_MIN),
    FIELD(cf_bus_received, max, "ticks", CF_MERGE_MAX),
    FIELD(cf_bus_received, out_of_range, "1", CF_MERGE_SUM),
    FIELD(cf_bus_received, first_tick, "ticks", CF_MERGE_MIN),
    FIELD(cf_bus_received, last_tick, "ticks", CF_MERGE_MAX),
    FIELD(cf_bus_received, history, "1", CF_MERGE_SUM),
    {"histogram", "ticks", CF_FIELD_HISTOGRAM, CF_MERGE_SUM,
     offsetof(struct cf_bus_received, histogram), CF_HISTOGRAM_BUCKETS, CF_HISTOGRAM_SUB_BITS},
};

const struct cf_kind cf_kind_bus_publisher = {
    .name = "bus_publisher",
    .fields = published_fields,
    .field_count = sizeof published_fields / sizeof published_fields[0],
    .payload_bytes = sizeof(struct cf_bus_published),
};

const struct cf_kind cf_kind_bus_subscriber = {
    .name = "bus_subscriber",
    .fields = received_fields,
    .field_count = sizeof received_fields / sizeof received_fields[0],
    .payload_bytes = sizeof(struct cf_bus_received),
};

#define COUNT(name, unit) FIELD(cf_bus_dispatched, name, unit, CF_MERGE_SUM),
static const struct cf_field dispatched_fields[] = {
    CF_BUS_DISPATCHER_COUNTS(COUNT){"cosines", "1", CF_FIELD_F64, CF_MERGE_SUM,
                                    offsetof(struct cf_bus_dispatched, cosines), 1, 0},
    {"sines", "1", CF_FIELD_F64, CF_MERGE_SUM, offsetof(struct cf_bus_dispatched, sines), 1, 0},
    {"queued", "1", CF_FIELD_I64, CF_MERGE_SUM, offsetof(struct cf_bus_dispatched, queued), 1, 0},
    {"held", "1", CF_FIELD_I64, CF_MERGE_SUM, offsetof(struct cf_bus_dispatched, held), 1, 0},
    {"oldest_unix_ns", "ns", CF_FIELD_I64, CF_MERGE_SUM,
     offsetof(struct cf_bus_dispatched, oldest_unix_ns), 1, 0},
    FIELD(cf_bus_dispatched, thread_id, "1", CF_MERGE_MAX),
    FIELD(cf_bus_dispatched, quantum_ns, "ns", CF_MERGE_MAX),
    FIELD(cf_bus_dispatched, high_water, "1", CF_MERGE_MAX),
    FIELD(cf_bus_dispatched, subscribed, "1", CF_MERGE_SUM),
    FIELD(cf_bus_dispatched, unsubscribed, "1", CF_MERGE_SUM),
};

const struct cf_kind cf_kind_bus_dispatcher = {
    .name = "bus_dispatcher",
    .fields = dispatched_fields,
    .field_count = sizeof dispatched_fields / sizeof dispatched_fields[0],
    .payload_bytes = sizeof(struct cf_bus_dispatched),
};

static const struct cf_field lateness_fields[] = {
    FIELD(cf_bus_lateness, late, "1", CF_MERGE_SUM),
    FIELD(cf_bus_lateness, sum, "ns", CF_MERGE_SUM),
    FIELD(cf_bus_lateness, max, "ns", CF_MERGE_MAX),
    FIELD(cf_bus_lateness, out_of_range, "1", CF_MERGE_SUM),
    {"histogram", "ns", CF_FIELD_HISTOGRAM, CF_MERGE_SUM,
     offsetof(struct cf_bus_lateness, histogram), CF_HISTOGRAM_BUCKETS, CF_HISTOGRAM_SUB_BITS},
};

const struct cf_kind cf_kind_bus_lateness = {
    .name = "bus_lateness",
    .fields = lateness_fields,
    .field_count = sizeof lateness_fields / sizeof lateness_fields[0],
    .payload_bytes = sizeof(struct cf_bus_lateness),
};
