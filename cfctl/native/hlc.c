#include "hlc.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#define VALUE(member, unit, rule) \
    {#member, unit, CF_FIELD_U64, rule, offsetof(struct cf_hlc_counts, member), 1, 0}

static const struct cf_field fields[] = {
    VALUE(stamps, "1", CF_MERGE_SUM),
    VALUE(received, "1", CF_MERGE_SUM),
    VALUE(refused, "1", CF_MERGE_SUM),
    VALUE(ahead, "1", CF_MERGE_SUM),
    VALUE(steps_back, "1", CF_MERGE_SUM),
    VALUE(drift_max_ns, "ns", CF_MERGE_MAX),
    VALUE(refused_node, "1", CF_MERGE_MAX),
    VALUE(ahead_node, "1", CF_MERGE_MAX),
    {"drift_ns", "ns", CF_FIELD_HISTOGRAM, CF_MERGE_SUM, offsetof(struct cf_hlc_counts, drift_ns),
     CF_HISTOGRAM_BUCKETS, CF_HISTOGRAM_SUB_BITS},
};

const struct cf_kind cf_kind_hlc = {
    .name = "hlc",
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .payload_bytes = sizeof(struct cf_hlc_counts),
};

struct cf_hlc_node cf_hlc_process = {.max_offset_ns = CF_HLC_MAX_OFFSET_NS};

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A node id belongs to one process. */
static void forget_node_in_child(void) {
    cf_store_relaxed(&cf_hlc_process.node, 0u);
}

static void initialise(void) {
    pthread_atfork(NULL, NULL, forget_node_in_child);
}

int cf_hlc_receive(struct cf_hlc *hlc, uint64_t now_ns, uint64_t message, uint64_t max_offset_ns,
                   uint64_t *stamp) {
    uint64_t latest = now_ns + max_offset_ns;
    if (latest < now_ns || latest > CF_HLC_LAST_ACCEPTED)
        latest = CF_HLC_LAST_ACCEPTED;
    if (message > latest)
        return -ERANGE;
    uint64_t floor = now_ns & ~(CF_HLC_GRAIN_NS - 1);
    *stamp = cf_hlc_advance(hlc, floor > message ? floor : message + 1, 1);
    return 0;
}

int cf_hlc_node_initialise(struct cf_hlc_node *node, uint32_t id, uint64_t max_offset_ns) {
    char name[16];
    int length = snprintf(name, sizeof name, "node %u", (unsigned)id);
    int64_t instrument = cf_process_instrument(&cf_kind_hlc, name, (uint32_t)length, NULL, 0);
    if (instrument < 0)
        return (int)instrument;
    pthread_once(&once, initialise);
    cf_store_relaxed(&node->instrument, (uint32_t)instrument + 1);
    cf_store_relaxed(&node->max_offset_ns, max_offset_ns);
    cf_store_relaxed(&node->trusted_ns, (uint64_t)0);
    cf_store_release(&node->node, id);
    return 0;
}

/* The calling thread's counters; NULL without, as before the clock of the process has a node. */
static inline struct cf_hlc_counts *counts_of(const struct cf_hlc_node *node) {
    uint32_t instrument = cf_load_relaxed(&node->instrument);
    return cf_likely(instrument != 0) ? cf_process_payload(&cf_thread, instrument - 1) : NULL;
}

/* Counts stamps in a row, of which `stamp` is the last. */
static inline void count_stamps(struct cf_hlc_counts *counts, uint64_t stamp, uint64_t now_ns,
                                uint64_t stamps) {
    cf_bump(&counts->stamps, stamps);
    if (stamp <= now_ns)
        return;
    uint64_t drift_ns = stamp - now_ns;
    if (cf_unlikely(drift_ns > cf_load_relaxed(&counts->drift_max_ns)))
        cf_store_relaxed(&counts->drift_max_ns, drift_ns);
    /* After a step backwards by more than 18 minutes: the last bucket holds what is beyond. */
    if (cf_unlikely(drift_ns >= UINT64_C(1) << CF_HISTOGRAM_VALUE_BITS))
        drift_ns = (UINT64_C(1) << CF_HISTOGRAM_VALUE_BITS) - 1;
    cf_bump(&counts->drift_ns[cf_histogram_bucket(drift_ns)], 1);
}

uint64_t cf_hlc_node_tick(struct cf_hlc_node *node, uint64_t now_ns) {
    uint64_t stamp = cf_hlc_tick(&node->clock, now_ns);
    struct cf_hlc_counts *counts = counts_of(node);
    if (cf_likely(counts != NULL))
        count_stamps(counts, stamp, now_ns, 1);
    return stamp;
}

uint64_t cf_hlc_node_tick_many(struct cf_hlc_node *node, uint64_t now_ns, uint64_t count) {
    uint64_t first = cf_hlc_advance(&node->clock, now_ns & ~(CF_HLC_GRAIN_NS - 1), count);
    struct cf_hlc_counts *counts = counts_of(node);
    if (cf_likely(counts != NULL))
        count_stamps(counts, first + count - 1, now_ns, count);
    return first;
}

int cf_hlc_node_receive(struct cf_hlc_node *node, uint64_t now_ns, uint64_t message,
                        uint32_t sender, uint64_t *stamp) {
    int error =
        cf_hlc_receive(&node->clock, now_ns, message, cf_load_relaxed(&node->max_offset_ns), stamp);
    struct cf_hlc_counts *counts = counts_of(node);
    if (cf_unlikely(counts == NULL))
        return error;
    if (cf_unlikely(error != 0)) {
        cf_bump(&counts->refused, 1);
        cf_store_relaxed(&counts->refused_node, (uint64_t)sender);
        return error;
    }
    cf_bump(&counts->received, 1);
    if (message > now_ns) {
        cf_bump(&counts->ahead, 1);
        cf_store_relaxed(&counts->ahead_node, (uint64_t)sender);
    }
    count_stamps(counts, *stamp, now_ns, 1);
    return 0;
}

int cf_hlc_node_merge(struct cf_hlc_node *node, uint64_t tick, uint64_t message, uint32_t sender) {
    uint64_t now_ns = cf_hlc_node_now(node, tick), unused;
    uint64_t trusted_ns = now_ns + cf_load_relaxed(&node->max_offset_ns);
    if (trusted_ns < now_ns || trusted_ns > CF_HLC_LAST_ACCEPTED)
        trusted_ns = CF_HLC_LAST_ACCEPTED;
    cf_store_relaxed(&node->trusted_ns, trusted_ns);
    return cf_hlc_node_receive(node, now_ns, message, sender, &unused);
}

uint64_t cf_hlc_node_now(struct cf_hlc_node *node, uint64_t tick) {
    uint32_t stepped_back;
    uint64_t now_ns = cf_wall_at(&cf_wall_process, tick, &stepped_back);
    if (cf_unlikely(stepped_back)) {
        struct cf_hlc_counts *counts = counts_of(node);
        if (counts != NULL)
            cf_bump(&counts->steps_back, 1);
    }
    return now_ns;
}
