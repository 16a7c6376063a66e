/* Groups: each message to one member, what the dead had not finished, how far the ring may go on.
 */
#include "bus_fixture.h"

enum { MESSAGES = 20000, MEMBERS = 4 };

static struct cf_seat *seat_of(const struct cf_subscription *member) {
    const struct cf_subscription_topic *of = cf_subscription_topic(member, 0);
    return &of->topic.page->seats[of->seat];
}

static struct cf_seat *group_of(const struct cf_subscription *member) {
    return &cf_subscription_topic(member, 0)->topic.page->seats[seat_of(member)->group];
}

/* As the binding does: who asks for the next message is done with the one before. */
static int64_t finish_and_take(struct cf_subscription *member) {
    cf_subscription_finish(member);
    return take(member);
}

/* Takes the next message on top of those that were taken. Its number, or NONE. */
static int64_t take_on_top(struct cf_subscription *member) {
    struct cf_ring_message message;
    struct cf_ring_reader *reader = cf_subscription_poll(member, &message);
    return reader && cf_ring_take_next(reader, &message) ? (int64_t)message.hlc : NONE;
}

static uint64_t position_of(const struct cf_subscription *member) {
    return cf_subscription_reader(member, 0)->line->position;
}

static void test_each_message_goes_to_one_member_and_the_lowest_unfinished_one_is_kept(void) {
    struct cf_publisher publisher;
    struct cf_subscription first, second;
    open_publisher(&publisher, &own, "t", 4);
    join_group(&first, &own, "t", 0);
    join_group(&second, &own, "t", 0);
    CHECK(cf_ring_count_readers(&publisher.writer) == 1);
    CHECK(publish_until_full(&publisher, 0, 9) == 4);
    CHECK(take(&first) == 0 && take(&second) == 1);
    for (int64_t i = 2; i < 4; i++)
        CHECK(finish_and_take(&second) == i);
    CHECK(finish_and_take(&second) == NONE);
    CHECK(publish_until_full(&publisher, 4, 9) == 0); /* the first one still works on 0 */
    cf_subscription_finish(&first);
    CHECK(publish_until_full(&publisher, 4, 9) == 4);
    CHECK(take(&first) == 4);
    CHECK(counts_of(&first).delivered == 2 && counts_of(&second).delivered == 3);
    cf_subscription_close(&first);
    cf_subscription_close(&second);
    cf_publisher_close(&publisher);
}

static void test_a_batch_is_kept_until_all_of_it_is_finished(void) {
    struct cf_publisher publisher;
    struct cf_subscription member, other;
    open_publisher(&publisher, &own, "t", 8);
    join_group(&member, &own, "t", 0);
    join_group(&other, &own, "t", 0);
    CHECK(publish_until_full(&publisher, 0, 9) == 8);
    CHECK(take(&member) == 0 && take_on_top(&member) == 1 && take_on_top(&member) == 2);
    CHECK(take(&other) == 3 && take_on_top(&member) == NONE); /* not one piece any more */
    CHECK(finish_and_take(&other) == 4 && finish_and_take(&other) == 5);
    CHECK(seat_of(&member)->from == 0 && seat_of(&member)->to == 3);
    CHECK(publish_until_full(&publisher, 8, 9) == 0);
    cf_subscription_finish(&member);
    CHECK(publish_until_full(&publisher, 8, 9) == 5); /* 5 is worked on */
    cf_subscription_close(&member);
    cf_subscription_close(&other);
    cf_publisher_close(&publisher);
}

static void test_a_whole_ring_that_one_member_took_at_once_is_free_when_it_is_finished(void) {
    struct cf_publisher publisher;
    struct cf_subscription member;
    open_publisher(&publisher, &own, "t", 4);
    join_group(&member, &own, "t", 0);
    for (uint64_t lap = 0; lap < 5; lap++) {
        CHECK(publish_until_full(&publisher, lap * 4, 9) == 4);
        CHECK(finish_and_take(&member) == (int64_t)(lap * 4));
        for (int64_t i = 1; i < 4; i++)
            CHECK(take_on_top(&member) == (int64_t)(lap * 4) + i);
        CHECK(finish_and_take(&member) == NONE);
    }
    cf_subscription_close(&member);
    cf_publisher_close(&publisher);
}

static void test_a_group_that_is_seated_first_misses_nothing(void) {
    struct cf_publisher publisher;
    struct cf_subscription first, second;
    join_group(&first, &own, "t", 0);
    open_publisher(&publisher, &own, "t", 4);
    join_group(&second, &own, "t", 0);
    CHECK(publish_until_full(&publisher, 0, 9) == 4);
    cf_publisher_close(&publisher);
    for (int64_t i = 0; i < 4; i++)
        CHECK(finish_and_take(i % 2 ? &second : &first) == i);
    cf_subscription_finish(&first);
    cf_subscription_finish(&second);
    look_for_the_dead(&first);
    look_for_the_dead(&second);
    CHECK(count_files(".ring") == 0);
    CHECK(counts_of(&first).delivered + counts_of(&second).delivered == 4);
    cf_subscription_close(&first);
    cf_subscription_close(&second);
}

static void test_a_group_ends_with_its_last_member_and_holds_nobody_up_then(void) {
    struct cf_publisher publisher;
    struct cf_subscription first, second;
    open_publisher(&publisher, &own, "t", 4);
    join_group(&first, &own, "t", 0);
    join_group(&second, &own, "t", 0);
    CHECK(publish_until_full(&publisher, 0, 9) == 4 && take(&first) == 0);
    cf_subscription_close(&first);
    CHECK(cf_ring_count_readers(&publisher.writer) == 1);
    CHECK(publish_until_full(&publisher, 4, 9) <= 1);
    cf_subscription_close(&second);
    CHECK(cf_ring_count_readers(&publisher.writer) == 0);
    CHECK(publish_until_full(&publisher, 5, 100) == 100);
    cf_publisher_close(&publisher);
}

static void test_a_group_whose_members_are_all_dead_holds_nobody_up(void) {
    struct cf_participant others[2];
    struct cf_publisher publisher;
    static struct cf_subscription members[2];
    open_publisher(&publisher, &own, "t", 4);
    for (int i = 0; i < 2; i++) {
        be_born(&others[i]);
        join_group(&members[i], &others[i], "t", CF_SEAT_REDELIVER);
    }
    CHECK(publish_until_full(&publisher, 0, 9) == 4 && take(&members[0]) == 0);
    die(&others[0]);
    let_look(&publisher);
    CHECK(publish_until_full(&publisher, 4, 9) == 0);
    die(&others[1]);
    let_look(&publisher);
    CHECK(publish_until_full(&publisher, 4, 100) == 100);
    CHECK(publisher.writer.header->orphaned == 1);
    cf_publisher_close(&publisher);
    open_publisher(&publisher, &own, "t", 4); /* frees their seats */
    cf_publisher_close(&publisher);
    cf_subscription_close(&members[0]);
    cf_subscription_close(&members[1]);
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

static void test_a_lossy_group_counts_what_it_lost_exactly(void) {
    struct cf_publisher publisher;
    struct cf_subscription first, second;
    open_publisher(&publisher, &own, "t", 8);
    join_group(&first, &own, "t", CF_SEAT_LOSSY);
    join_group(&second, &own, "t", CF_SEAT_LOSSY);
    uint64_t taken = 0;
    for (uint64_t i = 0; i < 1000; i += 50) {
        CHECK(publish_until_full(&publisher, i, 50) == 50);
        taken += finish_and_take(i % 100 ? &first : &second) >= 0;
    }
    while (finish_and_take(&first) >= 0 || finish_and_take(&second) >= 0)
        taken++;
    struct cf_subscription_counts one = counts_of(&first), two = counts_of(&second);
    CHECK(one.delivered + two.delivered == taken);
    CHECK(one.dropped + two.dropped + taken == 1000);
    cf_subscription_close(&first);
    cf_subscription_close(&second);
    cf_publisher_close(&publisher);
}

static void test_a_forked_child_takes_nothing_from_the_group(void) {
    struct cf_publisher publisher;
    struct cf_subscription member;
    open_publisher(&publisher, &own, "t", 4);
    join_group(&member, &own, "t", 0);
    CHECK(publish_until_full(&publisher, 0, 4) == 4 && take(&member) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct cf_ring_message message;
        struct cf_ring_reader *reader = cf_subscription_poll(&member, &message);
        CHECK(reader && cf_ring_take(reader, &message) == 0);
        CHECK(cf_ring_take_next(reader, &message) == 0);
        cf_subscription_finish(&member);
        cf_subscription_close(&member);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(seat_of(&member)->ring != 0 && publish(&publisher, 4) == -EAGAIN);
    CHECK(finish_and_take(&member) == 1);
    cf_subscription_close(&member);
    cf_publisher_close(&publisher);
}

static uint8_t delivered[MESSAGES];
static int is_over;

static void *work(void *argument) {
    struct cf_subscription *member = argument;
    for (;;) {
        int over = __atomic_load_n(&is_over, __ATOMIC_ACQUIRE);
        int64_t number = finish_and_take(member);
        if (number >= 0)
            CHECK(__atomic_fetch_add(&delivered[number], 1, __ATOMIC_RELAXED) == 0);
        else if (over)
            return NULL;
        else
            sched_yield();
    }
}

static void test_threads_share_the_messages_of_two_rings(void) {
    struct cf_publisher publishers[2];
    static struct cf_subscription members[MEMBERS];
    pthread_t threads[MEMBERS];
    for (int i = 0; i < 2; i++)
        open_publisher(&publishers[i], &own, "t", 16);
    for (int i = 0; i < MEMBERS; i++) {
        join_group(&members[i], &own, "t", 0);
        CHECK(pthread_create(&threads[i], NULL, work, &members[i]) == 0);
    }
    for (uint64_t i = 0; i < MESSAGES; i++) {
        while (publish(&publishers[i % 2], i) == -EAGAIN)
            sched_yield();
    }
    __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
    uint64_t all = 0;
    for (int i = 0; i < MEMBERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(counts_of(&members[i]).dropped == 0);
        all += counts_of(&members[i]).delivered;
    }
    CHECK(all == MESSAGES);
    for (int i = 0; i < MESSAGES; i++)
        CHECK(delivered[i] == 1);
    for (int i = 0; i < MEMBERS; i++)
        cf_subscription_close(&members[i]);
    for (int i = 0; i < 2; i++)
        cf_publisher_close(&publishers[i]);
}

int main(void) {
    open_bus();
    test_each_message_goes_to_one_member_and_the_lowest_unfinished_one_is_kept();
    test_a_batch_is_kept_until_all_of_it_is_finished();
    test_a_whole_ring_that_one_member_took_at_once_is_free_when_it_is_finished();
    test_a_group_that_is_seated_first_misses_nothing();
    test_a_group_ends_with_its_last_member_and_holds_nobody_up_then();
    test_a_group_whose_members_are_all_dead_holds_nobody_up();
    test_what_a_dead_member_had_not_finished_is_counted();
    test_what_a_dead_member_had_finished_is_not_counted();
    test_what_a_dead_member_had_not_finished_goes_to_another_once();
    test_a_batch_that_is_given_out_again_is_kept_until_it_is_finished();
    test_an_heir_that_leaves_gives_back_what_it_has_not_given_out();
    test_a_message_that_a_dead_member_only_meant_to_take_is_not_given_out_twice();
    test_a_seat_that_is_taken_again_knows_nothing_of_its_earlier_member();
    test_a_member_of_several_rings_works_on_one_message_at_a_time();
    test_a_lossy_group_counts_what_it_lost_exactly();
    test_a_forked_child_takes_nothing_from_the_group();
    test_threads_share_the_messages_of_two_rings();
    return close_bus();
}
