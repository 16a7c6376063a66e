/* What a group's dead members had not finished: counted, or given to another once. */
#include "bus_fixture.h"

static uint64_t position_of(const struct cf_subscription *member) {
    return cf_subscription_reader(member, 0)->line->position;
}

static void test_what_a_dead_member_had_not_finished_is_counted(void) {
    struct cf_participant other;
    struct cf_publisher publisher;
    static struct cf_subscription dead, living;
    be_born(&other);
    open_publisher(&publisher, &own, "t", 4);
    join_group(&dead, &other, "t", 0);
    join_group(&living, &own, "t", 0);
    CHECK(publish_until_full(&publisher, 0, 9) == 4);
    CHECK(take(&dead) == 0 && take_on_top(&dead) == 1 && take(&living) == 2);
    die(&other);
    CHECK(finish_and_take(&living) == 3 && finish_and_take(&living) == NONE);
    CHECK(publish_until_full(&publisher, 4, 9) == 0);
    look_for_the_dead(&living);
    CHECK(group_of(&living)->abandoned == 2 && group_of(&living)->redelivered == 0);
    CHECK(publish_until_full(&publisher, 4, 9) == 4);
    look_for_the_dead(&living);
    CHECK(group_of(&living)->abandoned == 2);
    cf_subscription_close(&living);
    cf_subscription_close(&dead);
    cf_publisher_close(&publisher);
}

static void test_what_a_dead_member_had_finished_is_not_counted(void) {
    struct cf_participant other;
    struct cf_publisher publisher;
    static struct cf_subscription dead, living;
    be_born(&other);
    open_publisher(&publisher, &own, "t", 4);
    join_group(&dead, &other, "t", CF_SEAT_REDELIVER);
    join_group(&living, &own, "t", CF_SEAT_REDELIVER);
    CHECK(publish_until_full(&publisher, 0, 2) == 2 && take(&dead) == 0);
    cf_subscription_finish(&dead);
    die(&other);
    look_for_the_dead(&living);
    CHECK(group_of(&living)->abandoned == 0 && take(&living) == 1);
    CHECK(finish_and_take(&living) == NONE);
    cf_subscription_close(&living);
    cf_subscription_close(&dead);
    cf_publisher_close(&publisher);
}

static void test_what_a_dead_member_had_not_finished_goes_to_another_once(void) {
    struct cf_participant other;
    struct cf_publisher publisher;
    static struct cf_subscription dead, living, third;
    uint16_t flags;
    be_born(&other);
    open_publisher(&publisher, &own, "t", 4);
    join_group(&dead, &other, "t", CF_SEAT_REDELIVER);
    join_group(&living, &own, "t", CF_SEAT_REDELIVER);
    join_group(&third, &own, "t", CF_SEAT_REDELIVER);
    CHECK(publish_until_full(&publisher, 0, 9) == 4);
    CHECK(take(&dead) == 0 && take_on_top(&dead) == 1);
    die(&other);
    cf_topic_remove_dead_seats(&publisher.topic); /* as whoever opens the topic does */
    look_for_the_dead(&living);
    look_for_the_dead(&third);
    CHECK(group_of(&living)->abandoned == 2 && group_of(&living)->redelivered == 2);
    CHECK(finish_and_take(&third) == 2);
    CHECK(take_with_flags(&living, &flags) == 0 && flags & CF_MESSAGE_REDELIVERED);
    cf_subscription_finish(&living);
    CHECK(take_with_flags(&living, &flags) == 1 && flags & CF_MESSAGE_REDELIVERED);
    CHECK(publish_until_full(&publisher, 4, 9) == 1); /* 0 is finished, 1 is not */
    cf_subscription_finish(&living);
    CHECK(take_with_flags(&living, &flags) == 3 && !(flags & CF_MESSAGE_REDELIVERED));
    look_for_the_dead(&third);
    CHECK(finish_and_take(&third) == 4 && finish_and_take(&living) == NONE);
    CHECK(counts_of(&living).delivered == 3 && counts_of(&third).delivered == 2);
    cf_subscription_close(&living);
    cf_subscription_close(&third);
    cf_subscription_close(&dead);
    cf_publisher_close(&publisher);
}

static void test_a_batch_that_is_given_out_again_is_kept_until_it_is_finished(void) {
    struct cf_participant others[2];
    struct cf_publisher publisher;
    static struct cf_subscription first, second, last;
    be_born(&others[0]);
    be_born(&others[1]);
    open_publisher(&publisher, &own, "t", 8);
    join_group(&first, &others[0], "t", CF_SEAT_REDELIVER);
    join_group(&second, &others[1], "t", CF_SEAT_REDELIVER);
    join_group(&last, &own, "t", CF_SEAT_REDELIVER);
    CHECK(publish_until_full(&publisher, 0, 9) == 8);
    CHECK(take(&first) == 0 && take_on_top(&first) == 1 && take_on_top(&first) == 2);
    die(&others[0]);
    look_for_the_dead(&second);
    CHECK(take(&second) == 0 && take_on_top(&second) == 1);
    die(&others[1]); /* of the heir, within what it had inherited */
    look_for_the_dead(&last);
    CHECK(group_of(&last)->abandoned == 6 && group_of(&last)->redelivered == 6);
    for (int64_t i = 0; i < 8; i++)
        CHECK(finish_and_take(&last) == i);
    CHECK(finish_and_take(&last) == NONE);
    CHECK(publish_until_full(&publisher, 8, 9) == 8);
    cf_subscription_close(&last);
    cf_subscription_close(&first);
    cf_subscription_close(&second);
    cf_publisher_close(&publisher);
}

static void test_an_heir_that_leaves_gives_back_what_it_has_not_given_out(void) {
    struct cf_participant other;
    struct cf_publisher publisher;
    static struct cf_subscription dead, heir, last;
    be_born(&other);
    open_publisher(&publisher, &own, "t", 8);
    join_group(&dead, &other, "t", CF_SEAT_REDELIVER);
    join_group(&heir, &own, "t", CF_SEAT_REDELIVER);
    join_group(&last, &own, "t", CF_SEAT_REDELIVER);
    CHECK(publish_until_full(&publisher, 0, 4) == 4);
    CHECK(take(&dead) == 0 && take_on_top(&dead) == 1 && take_on_top(&dead) == 2);
    die(&other);
    look_for_the_dead(&heir);
    CHECK(take(&heir) == 0);
    cf_subscription_close(&heir);
    look_for_the_dead(&last);
    for (int64_t i = 1; i < 4; i++)
        CHECK(finish_and_take(&last) == i);
    CHECK(finish_and_take(&last) == NONE);
    cf_subscription_close(&last);
    cf_subscription_close(&dead);
    cf_publisher_close(&publisher);
}

/* A member that dies between saying what it takes and taking it. `is_taken_by_other`: somebody else
 * has taken the message since, so that the claim alone does not tell. */
static void die_before_the_claim(int is_taken_by_other, int is_redelivered) {
    struct cf_participant other;
    struct cf_publisher publisher;
    static struct cf_subscription dead, living;
    uint32_t flags = is_redelivered ? CF_SEAT_REDELIVER : 0;
    be_born(&other);
    open_publisher(&publisher, &own, "t", 8);
    join_group(&dead, &other, "t", flags);
    join_group(&living, &own, "t", flags);
    CHECK(publish_until_full(&publisher, 0, 3) == 3);
    CHECK(take(&dead) == 0 && finish_and_take(&living) == 1);
    struct cf_seat *seat = seat_of(&dead);
    seat->from = 2;
    seat->to = 3;
    if (is_taken_by_other)
        CHECK(finish_and_take(&living) == 2);
    die(&other);
    look_for_the_dead(&living);
    CHECK(group_of(&living)->abandoned == 0 && group_of(&living)->redelivered == 0);
    CHECK(finish_and_take(&living) == (is_taken_by_other ? NONE : 2));
    CHECK(finish_and_take(&living) == NONE && position_of(&living) == 3);
    cf_subscription_close(&living);
    cf_subscription_close(&dead);
    cf_publisher_close(&publisher);
}

static void test_a_message_that_a_dead_member_only_meant_to_take_is_not_given_out_twice(void) {
    for (int i = 0; i < 4; i++)
        die_before_the_claim(i & 1, i & 2);
}

static void test_a_seat_that_is_taken_again_knows_nothing_of_its_earlier_member(void) {
    struct cf_participant others[2];
    struct cf_publisher publisher;
    static struct cf_subscription first, second, living;
    be_born(&others[0]);
    be_born(&others[1]);
    open_publisher(&publisher, &own, "t", 8);
    join_group(&living, &own, "t", 0);
    join_group(&first, &others[0], "t", 0);
    CHECK(publish_until_full(&publisher, 0, 8) == 8);
    CHECK(take(&first) == 0 && finish_and_take(&living) == 1 && finish_and_take(&first) == 2);
    cf_subscription_finish(&first);
    uint32_t seat = cf_subscription_topic(&first, 0)->seat;
    die(&others[0]);
    look_for_the_dead(&living);
    join_group(&second, &others[1], "t", 0);
    CHECK(cf_subscription_topic(&second, 0)->seat == seat);
    seat_of(&second)->from = 3; /* means to take the one after its predecessor's, and dies */
    seat_of(&second)->to = 4;
    seat_of(&second)->ring = publisher.writer.header->ring_id;
    CHECK(finish_and_take(&living) == 3);
    die(&others[1]);
    look_for_the_dead(&living);
    CHECK(group_of(&living)->abandoned == 0);
    cf_subscription_close(&living);
    cf_subscription_close(&first);
    cf_subscription_close(&second);
    cf_publisher_close(&publisher);
}

static void test_a_member_of_several_rings_works_on_one_message_at_a_time(void) {
    struct cf_participant other;
    struct cf_publisher publishers[2];
    static struct cf_subscription dead, living;
    be_born(&other);
    open_publisher(&publishers[0], &own, "t", 4);
    open_publisher(&publishers[1], &own, "t", 4);
    join_group(&dead, &other, "t", CF_SEAT_REDELIVER);
    join_group(&living, &own, "t", CF_SEAT_REDELIVER);
    for (uint64_t i = 0; i < 4; i++)
        CHECK(publish(&publishers[0], i) == 0 && publish(&publishers[1], 100 + i) == 0);
    uint8_t taken[200] = {0};
    for (int i = 0; i < 5; i++)
        taken[finish_and_take(&dead)]++; /* of both rings, in turns */
    int64_t unfinished = finish_and_take(&dead);
    die(&other);
    look_for_the_dead(&living);
    CHECK(group_of(&living)->abandoned == 1);
    int64_t number;
    int is_seen = 0;
    while ((number = finish_and_take(&living)) != NONE) {
        taken[number]++;
        is_seen += number == unfinished;
    }
    CHECK(is_seen == 1);
    for (int i = 0; i < 4; i++)
        CHECK(taken[i] == 1 && taken[100 + i] == 1);
    for (int i = 0; i < 2; i++)
        CHECK(publish_until_full(&publishers[i], 4, 9) == 4);
    cf_subscription_close(&living);
    cf_subscription_close(&dead);
    cf_publisher_close(&publishers[0]);
    cf_publisher_close(&publishers[1]);
}

int main(void) {
    open_bus();
    test_what_a_dead_member_had_not_finished_is_counted();
    test_what_a_dead_member_had_finished_is_not_counted();
    test_what_a_dead_member_had_not_finished_goes_to_another_once();
    test_a_batch_that_is_given_out_again_is_kept_until_it_is_finished();
    test_an_heir_that_leaves_gives_back_what_it_has_not_given_out();
    test_a_message_that_a_dead_member_only_meant_to_take_is_not_given_out_twice();
    test_a_seat_that_is_taken_again_knows_nothing_of_its_earlier_member();
    test_a_member_of_several_rings_works_on_one_message_at_a_time();
    return close_bus();
}
