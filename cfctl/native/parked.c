#include "parked.h"

#include <stdlib.h>

static size_t home_of(const struct cf_parked_table *table, const void *frame) {
    /* Fibonacci hashing; frames are 16-byte aligned, so the low bits say nothing. */
    return (size_t)(((uintptr_t)frame >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 20) &
           (table->capacity - 1);
}

static void insert(struct cf_parked_table *table, const struct cf_parked *parked) {
    size_t slot = home_of(table, parked->frame);
    while (table->slots[slot].frame)
        slot = (slot + 1) & (table->capacity - 1);
    table->slots[slot] = *parked;
    table->used++;
}

static int grow(struct cf_parked_table *table) {
    struct cf_parked_table grown = {.capacity = table->capacity ? table->capacity * 2 : 64};
    grown.slots = calloc(grown.capacity, sizeof *grown.slots);
    if (!grown.slots)
        return -1;
    for (size_t i = 0; i < table->capacity; i++) {
        if (table->slots[i].frame)
            insert(&grown, &table->slots[i]);
    }
    free(table->slots);
    *table = grown;
    return 0;
}

int cf_parked_add(struct cf_parked_table *table, const struct cf_parked *parked) {
    if (table->used >= CF_PARKED_LIMIT)
        return -1;
    if (table->used * 2 >= table->capacity && grow(table) < 0)
        return -1;
    insert(table, parked);
    return 0;
}

int cf_parked_take(struct cf_parked_table *table, const void *frame, struct cf_parked *taken) {
    if (table->used == 0)
        return 0;
    size_t mask = table->capacity - 1, slot = home_of(table, frame);
    while (table->slots[slot].frame != frame) {
        if (!table->slots[slot].frame)
            return 0;
        slot = (slot + 1) & mask;
    }
    *taken = table->slots[slot];
    /* Close the gap: move back whoever stands behind and may stand here (Knuth 6.4, algorithm R).
     */
    for (size_t next = (slot + 1) & mask; table->slots[next].frame; next = (next + 1) & mask) {
        size_t home = home_of(table, table->slots[next].frame);
        if (((next - home) & mask) >= ((next - slot) & mask)) {
            table->slots[slot] = table->slots[next];
            slot = next;
        }
    }
    table->slots[slot].frame = NULL;
    table->used--;
    return 1;
}

void cf_parked_free(struct cf_parked_table *table) {
    free(table->slots);
    *table = (struct cf_parked_table){0};
}
