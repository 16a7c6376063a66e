/* Patterns: which names they reach, and that their subscriptions miss nothing. */
#include "bus_fixture.h"

static int reaches(const char *pattern, const char *name) {
    return cf_pattern_reaches(pattern, (uint32_t)strlen(pattern), name, (uint32_t)strlen(name));
}

static void test_a_star_is_any_run_and_a_question_mark_one_character(void) {
    CHECK(reaches("*", "a") && reaches("a", "a") && !reaches("a", "b") && !reaches("a", "ab"));
    CHECK(reaches("a*", "a") && reaches("a*c", "abbc") && !reaches("a*c", "abb"));
    CHECK(reaches("a*b*c", "axbyc") && reaches("*a*", "xxax") && !reaches("*a*", "xx"));
    CHECK(reaches("a?c", "abc") && !reaches("a?c", "ac") && !reaches("a?c", "abbc"));
    CHECK(reaches("**", "a") && reaches("*?", "ab") && !reaches("*??", "a"));
    CHECK(reaches("*ab", "aab") && reaches("*aab", "aaaab"));
}

static void test_a_question_mark_is_a_character_and_not_a_byte(void) {
    CHECK(reaches("?", "\xc3\xa9") && !reaches("??", "\xc3\xa9"));
    CHECK(reaches("a?b", "a\xe2\x82\xac"
                         "b") &&
          reaches("?", "\xf0\x9f\x9a\x80"));
    CHECK(reaches("*?b", "\xc3\xa9"
                         "b") &&
          !reaches("*??b", "\xc3\xa9"
                           "b"));
}

static void test_private_topics_are_reached_by_their_own_patterns_only(void) {
    CHECK(!reaches("*", "rpc:a") && !reaches("?pc:a", "rpc:a") && reaches("rpc:*", "rpc:a"));
    CHECK(reaches("*", "rpc"));
}

static void follow(struct cf_subscription *subscription, const char *pattern) {
    struct cf_subscription_request request = {.id = new_id()};
    cf_subscription_init(subscription, &own, &request);
    CHECK(cf_subscription_follow(subscription, pattern, (uint32_t)strlen(pattern)) == 0);
}

static void test_topics_that_come_later_are_there_from_their_first_message(void) {
    struct cf_subscription subscription;
    struct cf_publisher first, second, other;
    follow(&subscription, "sensor/*");
    open_publisher(&first, &own, "sensor/1", 16);
    open_publisher(&other, &own, "other", 16);
    CHECK(publish(&first, 1) == 0 && publish(&other, 2) == 0);
    cf_publisher_close(&first); /* before the subscription has looked even once */
    cf_publisher_close(&other);
    CHECK(take(&subscription) == 1 && take(&subscription) == NONE);
    open_publisher(&second, &own, "sensor/2", 16);
    CHECK(publish(&second, 3) == 0 && take(&subscription) == 3 && take(&subscription) == NONE);
    cf_publisher_close(&second);
    cf_subscription_close(&subscription);
}

static void test_topics_that_are_there_are_joined(void) {
    struct cf_subscription subscription;
    struct cf_publisher before, private;
    open_publisher(&before, &own, "sensor/1", 16);
    open_publisher(&private, &own, "rpc:sensor", 16);
    CHECK(publish(&before, 1) == 0);
    follow(&subscription, "*");
    CHECK(publish(&before, 2) == 0 && publish(&private, 3) == 0);
    CHECK(take(&subscription) == 2 && take(&subscription) == NONE);
    CHECK(subscription.topics.count == 1);
    cf_publisher_close(&before);
    cf_publisher_close(&private);
    cf_subscription_close(&subscription);
}

static void test_a_pattern_of_the_dead_seats_nobody(void) {
    struct cf_participant other;
    static struct cf_subscription subscription;
    struct cf_publisher publisher;
    be_born(&other);
    struct cf_subscription_request request = {.id = new_id()};
    cf_subscription_init(&subscription, &other, &request);
    CHECK(cf_subscription_follow(&subscription, "*", 1) == 0);
    die(&other);
    open_publisher(&publisher, &own, "t", 4);
    CHECK(cf_ring_count_readers(&publisher.writer) == 0);
    CHECK(publish_until_full(&publisher, 0, 20) == 20);
    cf_publisher_close(&publisher);
    cf_subscription_close(&subscription);
}

static void test_sixty_four_patterns_fit_and_no_more(void) {
    static struct cf_subscription many[CF_PATTERNS], one_more;
    for (uint32_t i = 0; i < CF_PATTERNS; i++)
        follow(&many[i], "x*");
    struct cf_subscription_request request = {.id = new_id()};
    cf_subscription_init(&one_more, &own, &request);
    CHECK(cf_subscription_follow(&one_more, "x*", 2) == -EUSERS);
    cf_subscription_close(&one_more);
    cf_subscription_close(&many[7]);
    follow(&many[7], "x*");
    for (uint32_t i = 0; i < CF_PATTERNS; i++)
        cf_subscription_close(&many[i]);
}

static void test_a_page_of_garbage_crashes_nothing(void) {
    struct cf_subscription subscription;
    struct cf_publisher publisher;
    follow(&subscription, "x*");
    struct cf_pattern_page *page = subscription.patterns.page;
    page->used = UINT32_MAX;
    for (uint32_t i = 1; i < CF_PATTERNS; i++)
        memset(&page->patterns[i], 0xff, sizeof page->patterns[i]);
    open_publisher(&publisher, &own, "x", 4);
    CHECK(publish(&publisher, 5) == 0 && take(&subscription) == 5);
    cf_publisher_close(&publisher);
    cf_subscription_close(&subscription);
    remove_file("bus.patterns");
}

/* Readers of the page must never see one subscription's id beside another's owner. */
static void *come_and_go(void *argument) {
    for (int i = 0; i < 300; i++) {
        struct cf_patterns patterns;
        uint64_t id = new_id();
        struct cf_seat_request request = {.subscription = id, .participant = own.id, .pid = id};
        CHECK(cf_pattern_add(&patterns, &own, &request, "t", 1) == 0);
        cf_pattern_remove(&patterns);
    }
    return argument;
}

static void test_an_entry_that_changes_meanwhile_seats_nobody_wrongly(void) {
    struct cf_participant other;
    pthread_t thread;
    be_born(&other);
    CHECK(pthread_create(&thread, NULL, come_and_go, NULL) == 0);
    do {
        struct cf_topic topic;
        CHECK(cf_topic_enter(&topic, &other, "t", 1, 1, CF_TOPIC_LOCK_NS) == 0);
        CHECK(cf_pattern_seat_all(&topic) == 0);
        for (uint32_t i = 0; i < topic.page->seats_used; i++) {
            CHECK(topic.page->seats[i].subscription == 0 ||
                  topic.page->seats[i].subscription == topic.page->seats[i].pid);
            cf_topic_free_seat(&topic, i);
        }
        cf_topic_leave(&topic);
        cf_topic_close(&topic);
    } while (pthread_tryjoin_np(thread, NULL) != 0);
    cf_participant_close(&other);
}

int main(void) {
    open_bus();
    test_a_star_is_any_run_and_a_question_mark_one_character();
    test_a_question_mark_is_a_character_and_not_a_byte();
    test_private_topics_are_reached_by_their_own_patterns_only();
    test_topics_that_come_later_are_there_from_their_first_message();
    test_topics_that_are_there_are_joined();
    test_a_pattern_of_the_dead_seats_nobody();
    test_sixty_four_patterns_fit_and_no_more();
    test_a_page_of_garbage_crashes_nothing();
    test_an_entry_that_changes_meanwhile_seats_nobody_wrongly();
    return close_bus();
}
