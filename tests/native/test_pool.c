/* The table of a pool's items against a plain model, and its counters under readers. */
#include "check.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "pool.h"
#include "process.h"

enum { ITEMS = 300, STEPS = 200000, TURNS = 200000 };

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t limit) {
    random_state = random_state * UINT64_C(6364136223846793005) + 1;
    return (uint32_t)(random_state >> 33) % limit;
}

static enum cf_slot_state state_of(const struct cf_slots *table, char *item) {
    uint32_t slot = cf_slots_find(table, item);
    return slot == CF_NO_SLOT ? CF_SLOT_FREE : (enum cf_slot_state)table->slots[slot].state;
}

/* Random steps on both; after each the item in question, now and then all of them, agree. */
static void table_agrees_with_a_model(uint32_t spacing) {
    static char memory[ITEMS * 64];
    enum cf_slot_state model[ITEMS] = {CF_SLOT_FREE};
    struct cf_slots table;
    cf_slots_init(&table);
    for (int step = 0; step < STEPS; step++) {
        uint32_t number = random_below(ITEMS);
        char *item = memory + number * spacing;
        uint32_t slot = cf_slots_find(&table, item);
        CHECK(state_of(&table, item) == model[number]);
        if (slot == CF_NO_SLOT) {
            CHECK(cf_slots_reserve(&table) == 0);
            slot = cf_slots_add(&table, item, item);
            model[number] = CF_SLOT_OUT;
            CHECK(table.latest == slot && cf_slots_find(&table, item) == slot);
        } else if (model[number] == CF_SLOT_OUT && random_below(2)) {
            cf_slots_push_idle(&table, slot);
            model[number] = CF_SLOT_IDLE;
        } else if (model[number] == CF_SLOT_OUT) {
            cf_slots_remove(&table, slot);
            model[number] = CF_SLOT_FREE;
        } else {
            /* The one that became idle last, whichever it is. */
            uint32_t popped = cf_slots_pop_idle(&table);
            uint32_t other = (uint32_t)((char *)table.slots[popped].item - memory) / spacing;
            CHECK(model[other] == CF_SLOT_IDLE);
            model[other] = CF_SLOT_OUT;
        }
        for (uint32_t i = 0; step % 1000 == 0 && i < ITEMS; i++)
            CHECK(state_of(&table, memory + i * spacing) == model[i]);
    }
    cf_slots_free(&table);
    CHECK(cf_slots_find(&table, memory) == CF_NO_SLOT);
    CHECK(cf_slots_pop_idle(&table) == CF_NO_SLOT);
}

static void the_last_in_is_the_first_out(void) {
    struct cf_slots table;
    cf_slots_init(&table);
    char items[40];
    for (int i = 0; i < 40; i++) {
        CHECK(cf_slots_reserve(&table) == 0);
        cf_slots_add(&table, &items[i], NULL);
    }
    for (int i = 0; i < 40; i++)
        cf_slots_push_idle(&table, cf_slots_find(&table, &items[i]));
    for (int i = 40; i-- > 0;)
        CHECK(table.slots[cf_slots_pop_idle(&table)].item == &items[i]);
    CHECK(cf_slots_pop_idle(&table) == CF_NO_SLOT);
    cf_slots_free(&table);
}

static void *use_pool(void *argument) {
    struct cf_pool *counters = argument;
    for (uint64_t i = 1; i <= TURNS; i++) {
        cf_bump(&counters->hits, 1);
        cf_store_relaxed(&counters->in_use, 1);
        cf_bump(&counters->released, 1);
        cf_store_relaxed(&counters->in_use, 0);
    }
    return NULL;
}

/* Two pools of one name have a shard each; a reader sees whole numbers that only rise. */
static void counters_are_read_while_they_are_written(void) {
    static char directory[] = "/tmp/cf-pool-XXXXXX";
    CHECK(mkdtemp(directory));
    CHECK(cf_process_configure(directory, NULL, CF_SEGMENT_DEFAULT_LIMIT) == 0);
    int64_t id = cf_process_instrument(&cf_kind_pool, "pool", 4, NULL, 0);
    CHECK(id >= 0);
    struct cf_shard *shards[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        shards[i] = cf_process_claim_shard((uint32_t)id);
        CHECK(shards[i]);
        CHECK(pthread_create(&threads[i], NULL, use_pool, cf_shard_payload(shards[i])) == 0);
    }
    CHECK(shards[0] != shards[1]);
    struct cf_pool *first = cf_shard_payload(shards[0]);
    for (uint64_t seen = 0, i = 0; i < 1000; i++) {
        uint64_t hits = cf_load_relaxed(&first->hits);
        CHECK(hits >= seen && hits <= TURNS);
        CHECK(cf_load_relaxed(&first->in_use) <= 1);
        seen = hits;
    }
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(((struct cf_pool *)cf_shard_payload(shards[i]))->hits == TURNS);
        cf_segment_release_shard(shards[i]);
    }
    /* The next pool of the name goes on in the first one's place. */
    CHECK(cf_process_claim_shard((uint32_t)id) == shards[0]);
    CHECK(cf_process_claim_shard((uint32_t)id + 1000) == NULL);
    char path[CF_SEGMENT_PATH_BYTES];
    cf_process_path(path, sizeof path);
    unlink(path);
    rmdir(directory);
}

int main(void) {
    table_agrees_with_a_model(64);
    table_agrees_with_a_model(1);
    the_last_in_is_the_first_out();
    counters_are_read_while_they_are_written();
    return 0;
}
