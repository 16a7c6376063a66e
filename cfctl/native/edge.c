#include "edge.h"

#include <stddef.h>
#include <string.h>

#include "atomic.h"

static const struct cf_field fields[] = {
    {"count", "1", CF_FIELD_U64, CF_MERGE_SUM, offsetof(struct cf_edge, count), 1, 0},
    {"sum", "ticks", CF_FIELD_U64, CF_MERGE_SUM, offsetof(struct cf_edge, sum), 1, 0},
};

const struct cf_kind cf_kind_edge = {
    .name = "edge",
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .payload_bytes = sizeof(struct cf_edge),
};

/* A text that grows up to a bound; `full` once something found no room. */
struct text {
    char bytes[CF_NAME_BYTES];
    uint32_t used;
    int full;
};

static void append(struct text *text, const char *bytes, size_t length) {
    if (length > sizeof text->bytes - text->used) {
        text->full = 1;
        return;
    }
    memcpy(text->bytes + text->used, bytes, length);
    text->used += (uint32_t)length;
}

/* Appends an operation's labels with a prefix before each key. */
static void append_labels(struct text *text, const char *prefix,
                          const struct cf_instrument_text *operation) {
    const char *label = operation->text + operation->name_bytes;
    const char *end = label + operation->label_bytes;
    while (label < end) {
        size_t key_bytes = strlen(label) + 1;
        size_t value_bytes = strlen(label + key_bytes) + 1;
        append(text, prefix, strlen(prefix));
        append(text, label, key_bytes + value_bytes);
        label += key_bytes + value_bytes;
    }
}

/* Registers the edge; its instrument, or UINT32_MAX when the texts or the memory do not suffice. */
static uint32_t register_edge(uint32_t parent_id, uint32_t child_id) {
    struct cf_instrument_text parent, child;
    if (cf_process_describe(parent_id, &parent) != 0 || cf_process_describe(child_id, &child) != 0)
        return UINT32_MAX;
    struct text labels = {.used = 0};
    append(&labels, "parent", sizeof "parent");
    append(&labels, parent.text, parent.name_bytes);
    append(&labels, "", 1);
    append_labels(&labels, "parent.", &parent);
    append_labels(&labels, "child.", &child);
    if (labels.full)
        return UINT32_MAX;
    int64_t id = cf_process_instrument(&cf_kind_edge, child.text, child.name_bytes, labels.bytes,
                                       labels.used);
    return id < 0 ? UINT32_MAX : (uint32_t)id;
}

void cf_edge_add(struct cf_thread *thread, uint32_t parent, uint32_t child, uint64_t ticks) {
    uint32_t hash = (parent * 0x9E3779B1u ^ child) * 0x85EBCA6Bu;
    struct cf_edge_slot *slot = &thread->edges[hash >> 16 & (CF_EDGE_CACHE - 1)];
    if (cf_unlikely(slot->edge == 0 || slot->parent != parent || slot->child != child))
        *slot = (struct cf_edge_slot){parent, child, register_edge(parent, child)};
    if (cf_unlikely(slot->edge == UINT32_MAX))
        return;
    struct cf_edge *edge = cf_process_payload(thread, slot->edge);
    if (cf_unlikely(edge == NULL))
        return; /* header.shards_refused says so */
    cf_bump(&edge->count, 1);
    cf_bump(&edge->sum, ticks);
}
