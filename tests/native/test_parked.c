/* The table of suspended frames against a plain array, through many adds and takes. */
#include "check.h"

#include "parked.h"

enum { FRAMES = 3000, STEPS = 400000 };

static uint64_t seed = 1;

static uint64_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void test_what_is_added_is_taken_once_in_any_order(void) {
    static uint64_t expected[FRAMES];
    struct cf_parked_table table = {0};
    struct cf_parked taken;
    for (uint64_t step = 1; step <= STEPS; step++) {
        size_t i = next_random() % FRAMES;
        /* Addresses as an allocator gives them: close together, so that slots collide. */
        const void *frame = (const void *)(uintptr_t)(0x7f0000000000 + i * 448);
        if (expected[i] == 0) {
            struct cf_parked parked = {.frame = frame, .ticks = step};
            CHECK(!cf_parked_take(&table, frame, &taken));
            CHECK(cf_parked_add(&table, &parked) == 0);
            expected[i] = step;
        } else {
            CHECK(cf_parked_take(&table, frame, &taken) && taken.ticks == expected[i]);
            expected[i] = 0;
        }
    }
    size_t left = 0;
    for (size_t i = 0; i < FRAMES; i++)
        left += expected[i] != 0;
    CHECK(table.used == left);
    cf_parked_free(&table);
}

static void test_the_table_is_bounded(void) {
    struct cf_parked_table table = {0};
    struct cf_parked parked = {0};
    for (uintptr_t i = 1; i <= CF_PARKED_LIMIT; i++) {
        parked.frame = (const void *)(i * 16);
        CHECK(cf_parked_add(&table, &parked) == 0);
    }
    parked.frame = (const void *)((CF_PARKED_LIMIT + 1) * (uintptr_t)16);
    CHECK(cf_parked_add(&table, &parked) == -1);
    cf_parked_free(&table);
}

int main(void) {
    test_what_is_added_is_taken_once_in_any_order();
    test_the_table_is_bounded();
    return 0;
}
