/* Subscriptions: nothing missed of publishers that come later, in any order of coming and going,
 * and what is left behind. */
#include "bus_fixture.h"

enum { MESSAGES = 20000, MOST_READERS = 4 };

static void test_who_is_seated_first_misses_nothing_of_a_ring_that_ended_before_it_looked(void) {
    for (uint64_t published = 0; published <= 16; published++) {
        struct cf_subscription subscription;
        struct cf_publisher publisher, another;
        subscribe(&subscription, &own, "t");
        open_publisher(&publisher, &own, "t", 16);
        CHECK(publish_until_full(&publisher, 0, published) == published);
        cf_publisher_close(&publisher);
        CHECK(count_files(".ring") == (published > 0));
        open_publisher(&another, &own, "t", 16); /* removes what is not needed */
        CHECK(count_files(".ring") == 1 + (published > 0));
        cf_publisher_close(&another);
        for (uint64_t i = 0; i < published; i++)
            CHECK(take(&subscription) == (int64_t)i);
        CHECK(take(&subscription) == NONE);
        look_for_the_dead(&subscription);
        CHECK(count_files(".ring") == 0 && subscription.readers.count == 0);
        CHECK(counts_of(&subscription).delivered == published);
        cf_subscription_close(&subscription);
    }
}

static void test_who_is_seated_first_gates_a_ring_from_its_first_message(void) {
    struct cf_subscription subscription;
    struct cf_publisher publisher;
    subscribe(&subscription, &own, "t");
    open_publisher(&publisher, &own, "t", 16);
    CHECK(cf_ring_count_readers(&publisher.writer) == 1);
    CHECK(publish_until_full(&publisher, 0, 1000) == 16);
    for (int64_t i = 0; i < 16; i++)
        CHECK(take(&subscription) == i);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_a_ring_of_a_dead_writer_is_read_to_its_end(void) {
    struct cf_participant other;
    struct cf_subscription subscription;
    static struct cf_publisher publisher;
    be_born(&other);
    subscribe(&subscription, &own, "t");
    open_publisher(&publisher, &other, "t", 16);
    CHECK(publish_until_full(&publisher, 0, 5) == 5);
    die(&other);
    for (int64_t i = 0; i < 5; i++)
        CHECK(take(&subscription) == i);
    look_for_the_dead(&subscription);
    CHECK(count_files(".ring") == 0 && counts_of(&subscription).delivered == 5);
    CHECK(counts_of(&subscription).publishers == 0);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_a_ring_that_cannot_be_looked_at_now_is_not_removed(void) {
    struct cf_subscription subscription;
    struct cf_publisher publisher;
    subscribe(&subscription, &own, "t");
    open_publisher(&publisher, &own, "t", 16);
    CHECK(publish(&publisher, 1) == 0);
    struct rlimit limit, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0; /* no descriptor is to be had */
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    cf_publisher_close(&publisher);
    CHECK(take(&subscription) == NONE && subscription.unjoined == 1);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK(count_files(".ring") == 1);
    look_for_the_dead(&subscription);
    CHECK(take(&subscription) == 1);
    cf_subscription_close(&subscription);
}

static void test_who_leaves_without_having_looked_holds_nobody_up(void) {
    struct cf_subscription subscription;
    struct cf_publisher publisher;
    subscribe(&subscription, &own, "t");
    open_publisher(&publisher, &own, "t", 4);
    CHECK(publish_until_full(&publisher, 0, 100) == 4);
    cf_subscription_close(&subscription); /* it has never opened the ring */
    CHECK(cf_ring_count_readers(&publisher.writer) == 0);
    CHECK(publish_until_full(&publisher, 4, 100) == 100);
    CHECK(publisher.writer.header->orphaned == 0);
    cf_publisher_close(&publisher);
}

static void test_who_leaves_and_cannot_look_holds_nobody_up_either(void) {
    struct cf_subscription subscription;
    struct cf_publisher publisher;
    subscribe(&subscription, &own, "t");
    open_publisher(&publisher, &own, "t", 4);
    CHECK(publish_until_full(&publisher, 0, 100) == 4);
    struct rlimit limit, none;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    cf_subscription_close(&subscription);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    let_look(&publisher);
    CHECK(publish_until_full(&publisher, 4, 100) == 100);
    cf_publisher_close(&publisher);
}

/* Somebody who opens an endpoint is stopped in the middle of it. */
static void test_who_leaves_while_the_topic_is_locked_leaves_nothing_for_good(void) {
    struct cf_participant holder;
    struct cf_subscription subscription;
    struct cf_publisher first, second;
    be_born(&holder);
    subscribe(&subscription, &own, "t");
    open_publisher(&first, &own, "t", 4);
    CHECK(publish_until_full(&first, 0, 100) == 4);
    CHECK(cf_participant_lock(&holder, cf_topic_hash("t", 1), 0) == 0);
    cf_subscription_close(&subscription);
    cf_publisher_close(&first);
    cf_participant_unlock(&holder, cf_topic_hash("t", 1));
    open_publisher(&second, &own, "t", 4);
    CHECK(cf_ring_count_readers(&second.writer) == 0 && count_files(".ring") == 1);
    CHECK(publish_until_full(&second, 0, 100) == 100);
    cf_publisher_close(&second);
    cf_participant_close(&holder);
}

static void test_the_dead_are_not_expected_by_a_new_ring(void) {
    struct cf_participant other;
    static struct cf_subscription subscription;
    struct cf_publisher publisher;
    be_born(&other);
    subscribe(&subscription, &other, "t");
    die(&other);
    open_publisher(&publisher, &own, "t", 4);
    CHECK(cf_ring_count_readers(&publisher.writer) == 0);
    CHECK(publish_until_full(&publisher, 0, 100) == 100);
    cf_publisher_close(&publisher);
    cf_subscription_close(&subscription);
}

static void test_an_ended_ring_with_messages_for_the_dead_alone_goes(void) {
    struct cf_participant other;
    static struct cf_subscription subscription;
    struct cf_publisher publisher;
    be_born(&other);
    subscribe(&subscription, &other, "t");
    open_publisher(&publisher, &own, "t", 4);
    CHECK(publish(&publisher, 0) == 0);
    die(&other);
    cf_publisher_close(&publisher);
    CHECK(count_files(".ring") == 0);
    open_publisher(&publisher, &own, "t", 4);
    cf_publisher_close(&publisher);
    cf_subscription_close(&subscription);
}

static void test_256_subscriptions_fit_and_no_more_and_each_is_waited_for(void) {
    static struct cf_subscription many[CF_TOPIC_SEATS], one_more;
    struct cf_publisher publisher;
    for (uint32_t i = 0; i < CF_TOPIC_SEATS; i++)
        subscribe(&many[i], &own, "t");
    struct cf_subscription_request request = {.id = new_id()};
    cf_subscription_init(&one_more, &own, &request);
    CHECK(cf_subscription_add_topic(&one_more, "t", 1) == -EUSERS);
    CHECK(one_more.topics.count == 0);
    cf_subscription_close(&one_more);
    open_publisher(&publisher, &own, "t", 2);
    CHECK(publish_until_full(&publisher, 0, 9) == 2);
    for (uint32_t i = 0; i < CF_TOPIC_SEATS; i++) {
        CHECK(publish(&publisher, 2) == -EAGAIN);
        for (int64_t k = 0; i % 32 == 0 && k < 2; k++)
            CHECK(take(&many[i]) == k);
        cf_subscription_close(&many[i]);
    }
    CHECK(publish(&publisher, 2) == 0 && publisher.writer.header->orphaned == 0);
    cf_publisher_close(&publisher);
}

static void test_256_publishers_fit_and_no_more_and_each_is_heard(void) {
    static struct cf_publisher publishers[CF_TOPIC_RINGS], another;
    static uint8_t heard[CF_TOPIC_RINGS];
    struct cf_subscription subscription;
    struct cf_ring_config config = config_of("t", 2, 0);
    config.arena_bytes = 0;
    subscribe(&subscription, &own, "t");
    for (uint32_t i = 0; i < CF_TOPIC_RINGS; i++)
        CHECK(cf_publisher_open(&publishers[i], &own, config) == 0);
    CHECK(cf_publisher_open(&another, &own, config) == -EUSERS);
    CHECK(count_files(".ring") == CF_TOPIC_RINGS);
    for (uint32_t i = 0; i < CF_TOPIC_RINGS; i++) {
        CHECK(cf_ring_publish(&publishers[i].writer, "", 0, 0, i, 0) == 0);
        cf_publisher_close(&publishers[i]);
    }
    for (uint32_t i = 0; i < CF_TOPIC_RINGS; i++) {
        struct cf_ring_message message;
        struct cf_ring_reader *reader = cf_subscription_poll(&subscription, &message);
        CHECK(reader && cf_ring_take(reader, &message) && heard[message.hlc]++ == 0);
    }
    look_for_the_dead(&subscription);
    CHECK(count_files(".ring") == 0 && cf_publisher_open(&another, &own, config) == 0);
    cf_publisher_close(&another);
    cf_subscription_close(&subscription);
}

static void test_rings_of_a_higher_priority_are_taken_first(void) {
    struct cf_subscription subscription;
    struct cf_publisher low, high;
    struct cf_ring_config config = config_of("t", 16, 0);
    config.priority = 9;
    subscribe(&subscription, &own, "t");
    open_publisher(&low, &own, "t", 16);
    CHECK(cf_publisher_open(&high, &own, config) == 0);
    CHECK(publish(&low, 1) == 0 && publish(&high, 2) == 0 && publish(&high, 3) == 0);
    CHECK(take(&subscription) == 2 && take(&subscription) == 3 && take(&subscription) == 1);
    cf_publisher_close(&low);
    cf_publisher_close(&high);
    cf_subscription_close(&subscription);
}

struct reading {
    struct cf_subscription subscription;
    uint64_t taken;
    int may_lose;
};

static void *read_all(void *argument) {
    struct reading *reading = argument;
    int64_t last = -1;
    while (last < MESSAGES - 1) {
        int64_t number = take(&reading->subscription);
        if (number < 0) {
            sched_yield();
            continue;
        }
        CHECK(reading->may_lose ? number > last : number == last + 1);
        last = number;
        reading->taken++;
    }
    return NULL;
}

static void run_readers(int readers, uint32_t capacity, int overwrite) {
    struct cf_publisher publisher;
    static struct reading readings[MOST_READERS];
    pthread_t threads[MOST_READERS];
    CHECK(cf_publisher_open(&publisher, &own, config_of("t", capacity, overwrite)) == 0);
    for (int i = 0; i < readers; i++) {
        readings[i] = (struct reading){.may_lose = overwrite};
        subscribe(&readings[i].subscription, &own, "t");
        CHECK(pthread_create(&threads[i], NULL, read_all, &readings[i]) == 0);
    }
    for (uint64_t i = 0; i < MESSAGES; i++) {
        while (publish(&publisher, i) == -EAGAIN)
            sched_yield();
    }
    for (int i = 0; i < readers; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        struct cf_subscription_counts counts = counts_of(&readings[i].subscription);
        CHECK(readings[i].taken + counts.dropped == MESSAGES &&
              counts.delivered == readings[i].taken);
        CHECK((overwrite || counts.dropped == 0) && counts.damaged == 0);
        cf_subscription_close(&readings[i].subscription);
    }
    cf_publisher_close(&publisher);
}

static void *join_and_leave(void *argument) {
    for (int i = 0; i < 40; i++) {
        struct cf_subscription subscription;
        subscribe(&subscription, &own, "t");
        int64_t last = -1, number;
        for (int polls = 0; polls < 100; polls++) {
            if ((number = take(&subscription)) < 0) {
                sched_yield();
                continue;
            }
            CHECK(last < 0 || number == last + 1);
            last = number;
        }
        CHECK(counts_of(&subscription).dropped == 0 && counts_of(&subscription).damaged == 0);
        cf_subscription_close(&subscription);
    }
    return argument;
}

static void test_readers_come_and_go_and_miss_nothing_in_between(void) {
    struct cf_publisher publisher;
    pthread_t threads[MOST_READERS];
    open_publisher(&publisher, &own, "t", 16);
    for (int i = 0; i < MOST_READERS; i++)
        CHECK(pthread_create(&threads[i], NULL, join_and_leave, NULL) == 0);
    uint64_t number = 0;
    for (int i = 0; i < MOST_READERS; i++) {
        while (pthread_tryjoin_np(threads[i], NULL) != 0) {
            if (number % 5 == 0)
                cf_ring_look(&publisher.writer); /* as stats and health do */
            if (publish(&publisher, number) == 0)
                number++;
            else
                sched_yield();
        }
    }
    cf_publisher_close(&publisher);
}

static void *publish_and_close(void *argument) {
    struct cf_publisher publisher;
    struct cf_ring_config config = config_of("t", 1024, 0);
    config.arena_bytes = 1 << 20;
    CHECK(cf_publisher_open(&publisher, &own, config) == 0);
    for (uint64_t i = 0; i < 1000; i++)
        CHECK(publish(&publisher, i) == 0);
    cf_publisher_close(&publisher);
    return argument;
}

static void test_a_subscription_receives_all_of_publishers_that_come_later(enum cf_wait wait) {
    static struct cf_subscription subscription;
    pthread_t threads[3];
    struct cf_subscription_request request = {.id = new_id(), .wait = wait, .spin_ns = 50000};
    subscribe_as(&subscription, &own, "t", &request);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, publish_and_close, NULL) == 0);
    for (uint64_t taken = 0; taken < 3000;) {
        if (take(&subscription) >= 0)
            taken++;
        else
            cf_subscription_wait(&subscription, cf_os_ns(CLOCK_MONOTONIC) + 50000, 100000000);
    }
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    struct cf_subscription_counts counts = counts_of(&subscription);
    CHECK(counts.copies == 3000 && counts.delivered == 3000 && counts.dropped == 0);
    look_for_the_dead(&subscription);
    CHECK(subscription.readers.count == 0 && count_files(".ring") == 0);
    CHECK(counts_of(&subscription).copies == 3000 && counts_of(&subscription).delivered == 3000);
    cf_subscription_close(&subscription);
}

static void test_a_wake_up_ends_a_wait_of_one_topic_of_two_and_of_a_pattern(void) {
    struct cf_subscription one, two, pattern;
    struct cf_subscription_request request = {.wait = CF_WAIT_PARK};
    request.id = new_id();
    subscribe_as(&one, &own, "a", &request);
    request.id = new_id();
    subscribe_as(&two, &own, "a", &request);
    CHECK(cf_subscription_add_topic(&two, "b", 1) == 0);
    request.id = new_id();
    cf_subscription_init(&pattern, &own, &request);
    CHECK(cf_subscription_follow(&pattern, "x*", 2) == 0);
    struct cf_subscription *each[] = {&one, &two, &pattern};
    for (int i = 0; i < 3; i++) {
        CHECK(cf_subscription_wait(each[i], 0, 1000000) == 0);
        cf_subscription_wake(each[i]);
        CHECK(cf_subscription_wait(each[i], 0, UINT64_C(60000000000)) == 1);
        cf_subscription_close(each[i]);
    }
}

int main(void) {
    open_bus();
    test_who_is_seated_first_misses_nothing_of_a_ring_that_ended_before_it_looked();
    test_who_is_seated_first_gates_a_ring_from_its_first_message();
    test_a_ring_of_a_dead_writer_is_read_to_its_end();
    test_a_ring_that_cannot_be_looked_at_now_is_not_removed();
    test_who_leaves_without_having_looked_holds_nobody_up();
    test_who_leaves_and_cannot_look_holds_nobody_up_either();
    test_who_leaves_while_the_topic_is_locked_leaves_nothing_for_good();
    test_the_dead_are_not_expected_by_a_new_ring();
    test_an_ended_ring_with_messages_for_the_dead_alone_goes();
    test_256_subscriptions_fit_and_no_more_and_each_is_waited_for();
    test_256_publishers_fit_and_no_more_and_each_is_heard();
    test_rings_of_a_higher_priority_are_taken_first();
    for (int readers = 1; readers <= MOST_READERS; readers++)
        run_readers(readers, 64, 0);
    run_readers(2, 2, 0);
    run_readers(1, 64, 1);
    run_readers(3, 64, 1);
    test_readers_come_and_go_and_miss_nothing_in_between();
    test_a_subscription_receives_all_of_publishers_that_come_later(CF_WAIT_SPIN);
    test_a_subscription_receives_all_of_publishers_that_come_later(CF_WAIT_ADAPTIVE);
    test_a_subscription_receives_all_of_publishers_that_come_later(CF_WAIT_PARK);
    test_a_wake_up_ends_a_wait_of_one_topic_of_two_and_of_a_pattern();
    return close_bus();
}
