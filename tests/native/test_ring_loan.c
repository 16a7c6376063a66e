/* What a ring gives besides messages that come: those from before a reader joined, and slots that
 * are given out to be filled in. */
#include "bus_fixture.h"

static void subscribe_with_history(struct cf_subscription *subscription, uint64_t history) {
    struct cf_subscription_request request = {.id = new_id(), .history = history};
    subscribe_as(subscription, &own, "t", &request);
}

static void check_history(uint64_t published, uint64_t wanted, int overwrite) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    open_ring(&publisher, 16, 64, overwrite);
    for (uint64_t i = 0; i < published; i++)
        CHECK(publish(&publisher, i) == 0);
    subscribe_with_history(&subscription, wanted);
    uint64_t all = wanted < published ? wanted : published, kept = all < 16 ? all : 16;
    for (uint64_t i = published - kept; i < published; i++)
        CHECK(take(&subscription) == (int64_t)i);
    CHECK(take(&subscription) == NONE);
    struct cf_subscription_counts counts = counts_of(&subscription);
    CHECK(counts.history == kept && counts.history + counts.skipped == all);
    CHECK(counts.copies == 0);
    CHECK(publish(&publisher, published) == 0 && take(&subscription) == (int64_t)published);
    CHECK(counts_of(&subscription).delivered == 1);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_history_is_what_is_kept_and_the_rest_was_skipped(void) {
    static const uint64_t numbers[] = {0, 1, 5, 15, 16, 17, 40, UINT64_MAX};
    for (int published = 0; published <= 40; published += 8) {
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            check_history((uint64_t)published, numbers[i], 0);
            check_history((uint64_t)published, numbers[i], 1);
        }
    }
}

static void test_history_that_gives_way_meanwhile_is_counted_and_holds_nobody_up(void) {
    for (uint64_t meanwhile = 0; meanwhile <= 16; meanwhile++) {
        struct cf_publisher publisher;
        struct cf_subscription subscription;
        open_ring(&publisher, 16, 64, 0);
        CHECK(publish_until_full(&publisher, 0, 20) == 20);
        subscribe_with_history(&subscription, 10);
        CHECK(publish_until_full(&publisher, 20, meanwhile) == meanwhile);
        int64_t number, last = -1;
        while ((number = take(&subscription)) >= 0) {
            CHECK(number > last);
            last = number;
        }
        struct cf_subscription_counts counts = counts_of(&subscription);
        CHECK(counts.history + counts.skipped == 10 && counts.dropped == 0);
        CHECK(counts.skipped >= (meanwhile > 6 ? meanwhile - 6 : 0));
        CHECK(counts.skipped == 0 || meanwhile > 6);
        CHECK(counts.delivered == meanwhile && counts.copies == meanwhile);
        cf_subscription_close(&subscription);
        cf_publisher_close(&publisher);
    }
}

static void take_loan(struct cf_publisher *publisher, size_t size, char **payload) {
    void *place;
    CHECK(cf_ring_loan(&publisher->writer, size, &place) == 0);
    *payload = place;
}

static void test_a_loan_is_published_as_long_as_it_was_used(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    struct cf_ring_message message;
    open_ring(&publisher, 4, 64, 0);
    subscribe(&subscription, &own, "t");
    static const size_t sizes[] = {0, 8, 32, 33, 1000, 8192};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t used = 0; used <= sizes[i]; used += used < 32 ? 1 : 4096) {
            char *payload, expected[8192], copy[8192];
            take_loan(&publisher, sizes[i], &payload);
            memset(payload, 7 + (int)i, sizes[i]);
            cf_ring_commit(&publisher.writer, used, 1, used);
            struct cf_ring_reader *reader = cf_subscription_poll(&subscription, &message);
            CHECK(reader && message.length == used && message.hlc == used);
            cf_ring_copy(&message, copy);
            memset(expected, 7 + (int)i, sizeof expected);
            CHECK(cf_ring_take(reader, &message) && memcmp(copy, expected, used) == 0);
        }
    }
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_while_a_loan_is_out_nothing_else_is_published(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    for (int overwrite = 0; overwrite < 2; overwrite++) {
        open_ring(&publisher, 4, 64, overwrite);
        subscribe(&subscription, &own, "t");
        char *payload;
        void *second;
        CHECK(publish(&publisher, 0) == 0);
        take_loan(&publisher, 7, &payload);
        CHECK(cf_ring_loan(&publisher.writer, 7, &second) == -EBUSY);
        CHECK(publish(&publisher, 9) == -EBUSY && cf_ring_room(&publisher.writer) == 0);
        cf_ring_look(&publisher.writer); /* as stats do */
        CHECK(publish(&publisher, 9) == -EBUSY);
        CHECK(take(&subscription) == 0 && take(&subscription) == NONE);
        fill(payload, 1);
        cf_ring_commit(&publisher.writer, 7, 1, 1);
        cf_ring_commit(&publisher.writer, 7, 1, 1); /* there is none any more */
        CHECK(take(&subscription) == 1 && publish(&publisher, 2) == 0);
        take_loan(&publisher, 100, &payload);
        memset(payload, 1, 100);
        cf_ring_abandon(&publisher.writer);
        CHECK(take(&subscription) == 2 && take(&subscription) == NONE);
        CHECK(publish(&publisher, 3) == 0 && take(&subscription) == 3);
        CHECK(counts_of(&subscription).delivered == 4 && counts_of(&subscription).dropped == 0);
        cf_subscription_close(&subscription);
        cf_publisher_close(&publisher);
    }
}

static void test_loans_wait_for_readers_as_messages_do(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    void *payload;
    open_ring(&publisher, 4, 64, 0);
    subscribe(&subscription, &own, "t");
    CHECK(publish_until_full(&publisher, 0, 9) == 4);
    CHECK(cf_ring_loan(&publisher.writer, 8, &payload) == -EAGAIN);
    CHECK(cf_ring_loan(&publisher.writer, 8193, &payload) == -EAGAIN);
    CHECK(take(&subscription) == 0);
    CHECK(cf_ring_loan(&publisher.writer, 8193, &payload) == -EMSGSIZE);
    CHECK(publish_until_full(&publisher, 4, 9) == 1);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

/* An overwriting loan takes the oldest message, which is lost and counted also if nothing comes. */
static void test_an_abandoned_loan_costs_overwritten_messages_that_are_counted(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    char *payload;
    open_ring(&publisher, 4, 64, 1);
    subscribe(&subscription, &own, "t");
    CHECK(publish_until_full(&publisher, 0, 4) == 4);
    take_loan(&publisher, 8, &payload);
    cf_ring_abandon(&publisher.writer);
    CHECK(publish_until_full(&publisher, 4, 1) == 1);
    uint64_t taken = 0;
    while (take(&subscription) >= 0)
        taken++;
    CHECK(taken >= 1 && counts_of(&subscription).dropped == 5 - taken);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

int main(void) {
    open_bus();
    test_history_is_what_is_kept_and_the_rest_was_skipped();
    test_history_that_gives_way_meanwhile_is_counted_and_holds_nobody_up();
    test_a_loan_is_published_as_long_as_it_was_used();
    test_while_a_loan_is_out_nothing_else_is_published();
    test_loans_wait_for_readers_as_messages_do();
    test_an_abandoned_loan_costs_overwritten_messages_that_are_counted();
    return close_bus();
}
