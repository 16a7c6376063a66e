#include "pool.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define VALUE(member, unit, rule) \
    {#member, unit, CF_FIELD_U64, rule, offsetof(struct cf_pool, member), 1, 0}
#define COUNT(member) VALUE(member, "1", CF_MERGE_SUM)

static const struct cf_field fields[] = {
    COUNT(hits),
    COUNT(misses),
    COUNT(created),
    COUNT(released),
    COUNT(discarded),
    COUNT(lost),
    COUNT(abandoned),
    COUNT(factory_errors),
    COUNT(reset_errors),
    COUNT(misuses),
    COUNT(in_use),
    COUNT(idle),
    VALUE(high_water, "1", CF_MERGE_MAX),
    VALUE(max_idle, "1", CF_MERGE_MAX),
    VALUE(item_bytes, "B", CF_MERGE_MAX),
    VALUE(watched, "1", CF_MERGE_MAX),
};

const struct cf_kind cf_kind_pool = {
    .name = "pool",
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .payload_bytes = sizeof(struct cf_pool),
};

enum { FIRST_CAPACITY = 16 };

void cf_slots_init(struct cf_slots *table) {
    *table =
        (struct cf_slots){.free_head = CF_NO_SLOT, .idle_head = CF_NO_SLOT, .latest = CF_NO_SLOT};
}

void cf_slots_free(struct cf_slots *table) {
    free(table->slots);
    free(table->index);
    cf_slots_init(table);
}

/* The golden ratio's multiplier spreads addresses that differ in few bits (Knuth, vol. 3, 6.4). */
static inline uint32_t place(const struct cf_slots *table, const void *item) {
    return (uint32_t)(((uint64_t)(uintptr_t)item * UINT64_C(0x9e3779b97f4a7c15)) >> 32) &
           table->index_mask;
}

static void enter(struct cf_slots *table, uint32_t slot) {
    uint32_t at = place(table, table->slots[slot].item);
    while (table->index[at] != 0)
        at = (at + 1) & table->index_mask;
    table->index[at] = slot + 1;
}

int cf_slots_reserve(struct cf_slots *table) {
    if (table->free_head != CF_NO_SLOT)
        return 0;
    uint32_t capacity = table->capacity ? table->capacity * 2 : FIRST_CAPACITY;
    if (capacity > UINT32_MAX / 4)
        return -ENOMEM;
    /* At most half full, so that probes are short. */
    uint32_t *index = calloc((size_t)capacity * 2, sizeof *index);
    struct cf_slot *slots = realloc(table->slots, capacity * sizeof *slots);
    if (slots)
        table->slots = slots;
    if (!index || !slots) {
        free(index);
        return -ENOMEM;
    }
    for (uint32_t slot = capacity; slot-- > table->capacity;) {
        slots[slot] = (struct cf_slot){.next = table->free_head, .state = CF_SLOT_FREE};
        table->free_head = slot;
    }
    free(table->index);
    table->index = index;
    table->index_mask = capacity * 2 - 1;
    /* All old slots were taken, or there would have been a free one. */
    for (uint32_t slot = 0; slot < table->capacity; slot++)
        enter(table, slot);
    table->capacity = capacity;
    return 0;
}

uint32_t cf_slots_add(struct cf_slots *table, void *item, void *watch) {
    uint32_t slot = table->free_head;
    table->free_head = table->slots[slot].next;
    table->slots[slot] =
        (struct cf_slot){.item = item, .watch = watch, .next = CF_NO_SLOT, .state = CF_SLOT_OUT};
    table->latest = slot;
    enter(table, slot);
    return slot;
}

/* Returns where the index names an item, CF_NO_SLOT when it does not. */
static uint32_t find_place(const struct cf_slots *table, const void *item) {
    if (table->capacity == 0)
        return CF_NO_SLOT;
    for (uint32_t at = place(table, item); table->index[at] != 0;
         at = (at + 1) & table->index_mask) {
        if (table->slots[table->index[at] - 1].item == item)
            return at;
    }
    return CF_NO_SLOT;
}

uint32_t cf_slots_find(const struct cf_slots *table, const void *item) {
    uint32_t at = find_place(table, item);
    return at == CF_NO_SLOT ? CF_NO_SLOT : table->index[at] - 1;
}

void cf_slots_remove(struct cf_slots *table, uint32_t slot) {
    uint32_t hole = find_place(table, table->slots[slot].item);
    uint32_t mask = table->index_mask;
    /* What was pushed past the hole moves back into it (Knuth, vol. 3, 6.4, algorithm R). */
    for (uint32_t at = (hole + 1) & mask; table->index[at] != 0; at = (at + 1) & mask) {
        uint32_t home = place(table, table->slots[table->index[at] - 1].item);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->index[hole] = table->index[at];
            hole = at;
        }
    }
    table->index[hole] = 0;
    table->slots[slot] = (struct cf_slot){.next = table->free_head, .state = CF_SLOT_FREE};
    table->free_head = slot;
}
