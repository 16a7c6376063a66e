#include "timeline.h"

#include <stddef.h>

#define COLUMN(member, unit)                                                              \
    {#member,                                                                             \
     unit,                                                                                \
     CF_FIELD_RING,                                                                       \
     CF_MERGE_JOIN,                                                                       \
     offsetof(struct cf_timeline, records) + offsetof(struct cf_timeline_record, member), \
     CF_TIMELINE_RECORDS,                                                                 \
     sizeof(struct cf_timeline_record)}

static const struct cf_field fields[] = {
    {"written", "1", CF_FIELD_U64, CF_MERGE_SUM, offsetof(struct cf_timeline, written), 1, 0},
    COLUMN(end_tick, "ticks"),
    COLUMN(ticks, "ticks"),
    COLUMN(operations, "entries"),
    COLUMN(status, "status"),
};

const struct cf_kind cf_kind_timeline = {
    .name = "timeline",
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .payload_bytes = sizeof(struct cf_timeline),
};

uint32_t cf_timeline_instrument = UINT32_MAX;

int cf_timeline_start(void) {
    int64_t id = cf_process_instrument(&cf_kind_timeline, "timeline", 8, NULL, 0);
    if (id < 0)
        return (int)id;
    cf_store_relaxed(&cf_timeline_instrument, (uint32_t)id);
    return 0;
}

static uint64_t entry_of(const void *payload) {
    return payload ? ((const struct cf_shard *)payload - 1)->entry : 0;
}

void cf_timeline_add(const void *shard, const void *parent, uint64_t ticks, uint64_t end_tick,
                     int failed) {
    struct cf_timeline *timeline =
        cf_process_payload(&cf_thread, cf_load_relaxed(&cf_timeline_instrument));
    if (timeline == NULL)
        return; /* header.shards_refused says so */
    uint64_t number = cf_load_relaxed(&timeline->written);
    uint64_t tid = ((const struct cf_shard *)(const void *)timeline - 1)->owner_tid;
    struct cf_timeline_record *record = &timeline->records[number % CF_TIMELINE_RECORDS];
    cf_store_relaxed(&record->status, UINT64_C(0));
    /* Release, so that no field is overwritten while the status still stands. Partner: the reader,
     * who takes a record only with its status; a killed writer's page stays as it is. */
    cf_store_release(&record->end_tick, end_tick);
    cf_store_release(&record->ticks, ticks);
    cf_store_release(&record->operations, entry_of(parent) << 32 | entry_of(shard));
    cf_store_release(&record->status,
                     (number + 1) << 33 | (uint64_t)(failed != 0) << 32 | (tid & UINT32_MAX));
    cf_store_release(&timeline->written, number + 1);
}
