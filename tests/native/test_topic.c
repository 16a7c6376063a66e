/* A topic's page: seats and rings with their limits, who is removed when, full file systems, locks,
 * garbage. */
#include "bus_fixture.h"

static void enter(struct cf_topic *topic, struct cf_participant *participant, const char *name) {
    CHECK(cf_topic_enter(topic, participant, name, (uint32_t)strlen(name), 1, CF_TOPIC_LOCK_NS) ==
          0);
}

static void leave(struct cf_topic *topic) {
    cf_topic_leave(topic);
    cf_topic_close(topic);
}

static int take_seat(struct cf_topic *topic, uint64_t participant) {
    struct cf_seat_request request = {.subscription = new_id(), .participant = participant};
    return cf_topic_take_seat(topic, &request);
}

static void test_a_page_goes_with_its_last_seat_or_ring(void) {
    struct cf_topic topic;
    enter(&topic, &own, "t");
    int seat = take_seat(&topic, own.id);
    int ring = cf_topic_add_ring(&topic, 7, own.id, 16);
    CHECK(seat == 0 && ring == 0);
    cf_topic_leave(&topic);
    CHECK(count_files(".topic") == 1 && cf_topic_reenter(&topic, 0) == 0);
    cf_topic_free_seat(&topic, 0);
    cf_topic_leave(&topic);
    CHECK(count_files(".topic") == 1 && cf_topic_reenter(&topic, 0) == 0);
    topic.page->rings[0].ring_id = 0;
    leave(&topic);
    CHECK(count_files(".topic") == 0);
    CHECK(cf_topic_enter(&topic, &own, "t", 1, 0, 0) == -ENOENT);
}

static void test_names_have_1_to_1024_bytes(void) {
    static char name[CF_TOPIC_BYTES + 1];
    struct cf_topic topic;
    memset(name, 'n', sizeof name);
    CHECK(cf_topic_enter(&topic, &own, name, 0, 1, 0) == -EINVAL);
    CHECK(cf_topic_enter(&topic, &own, name, CF_TOPIC_BYTES + 1, 1, 0) == -EINVAL);
    CHECK(cf_topic_enter(&topic, &own, name, CF_TOPIC_BYTES, 1, 0) == 0);
    leave(&topic);
}

static void test_256_seats_and_256_rings_fit_and_no_more(void) {
    struct cf_topic topic;
    enter(&topic, &own, "t");
    for (uint32_t i = 0; i < CF_TOPIC_SEATS; i++) {
        CHECK(take_seat(&topic, own.id) == (int)i);
        CHECK(cf_topic_add_ring(&topic, i + 1, own.id, i) == (int)i);
    }
    CHECK(take_seat(&topic, own.id) == -EUSERS);
    CHECK(cf_topic_add_ring(&topic, 999, own.id, 16) == -EUSERS);
    cf_topic_free_seat(&topic, 77);
    topic.page->rings[78].ring_id = 0;
    CHECK(take_seat(&topic, own.id) == 77 && cf_topic_add_ring(&topic, 999, own.id, 16) == 78);
    for (uint32_t i = 0; i < CF_TOPIC_SEATS; i++) {
        cf_topic_free_seat(&topic, i);
        topic.page->rings[i].ring_id = 0;
    }
    CHECK(topic.page->departures == CF_TOPIC_SEATS + 1);
    leave(&topic);
}

static void test_a_group_that_has_no_room_for_its_first_member_leaves_no_seat(void) {
    struct cf_topic topic;
    struct cf_seat_request request = {
        .subscription = new_id(), .participant = own.id, .group_bytes = 1, .group_name = "g"};
    enter(&topic, &own, "t");
    for (uint32_t i = 0; i < CF_TOPIC_SEATS - 1; i++)
        CHECK(take_seat(&topic, own.id) == (int)i);
    CHECK(cf_topic_take_seat(&topic, &request) == -EUSERS);
    CHECK(topic.page->seats[CF_TOPIC_SEATS - 1].subscription == 0);
    request.group_bytes = CF_GROUP_BYTES + 1;
    CHECK(cf_topic_take_seat(&topic, &request) == -EINVAL);
    for (uint32_t i = 0; i < CF_TOPIC_SEATS; i++)
        cf_topic_free_seat(&topic, i);
    leave(&topic);
}

static void test_the_dead_lose_their_seats_and_those_of_whom_nothing_is_known_do_not(void) {
    struct cf_participant other;
    struct cf_topic topic;
    be_born(&other);
    enter(&topic, &own, "t");
    CHECK(take_seat(&topic, own.id) == 0 && take_seat(&topic, other.id) == 1);
    die(&other);
    int leases = own.leases.fd;
    own.leases.fd = 1000000;
    cf_topic_remove_dead_seats(&topic);
    CHECK(topic.page->seats[1].subscription != 0);
    own.leases.fd = leases;
    cf_topic_remove_dead_seats(&topic);
    CHECK(topic.page->seats[0].subscription != 0 && topic.page->seats[1].subscription == 0);
    cf_topic_free_seat(&topic, 0);
    leave(&topic);
}

static void test_a_topic_that_is_being_changed_is_busy(void) {
    struct cf_participant other;
    struct cf_topic topic, second;
    be_born(&other);
    enter(&topic, &own, "t");
    CHECK(cf_topic_enter(&second, &other, "t", 1, 1, 1000000) == -EBUSY);
    CHECK(cf_topic_enter(&second, &other, "u", 1, 1, 1000000) == 0);
    leave(&second);
    leave(&topic);
    cf_participant_close(&other);
}

static void test_a_page_of_another_topic_or_of_garbage_is_refused_and_stays(void) {
    struct cf_topic topic;
    enter(&topic, &own, "t");
    CHECK(take_seat(&topic, own.id) == 0);
    static const size_t words[] = {
        offsetof(struct cf_topic_page, magic), offsetof(struct cf_topic_page, version),
        offsetof(struct cf_topic_page, name_bytes), offsetof(struct cf_topic_page, name)};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct cf_topic second;
        uint32_t *word = (void *)((char *)topic.page + words[i]), before = *word;
        *word = 0x7fffffff;
        cf_topic_leave(&topic);
        CHECK(cf_topic_enter(&second, &own, "t", 1, 1, 0) == -EINVAL);
        CHECK(count_files(".topic") == 1 && cf_topic_reenter(&topic, 0) == 0);
        *word = before;
    }
    cf_topic_free_seat(&topic, 0);
    leave(&topic);
}

/* Runs in a child whose files may not grow beyond `bytes`, where SIGXFSZ would end it. */
static void run_limited(uint64_t bytes, void (*run)(void)) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        run();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(count_files(".ring") == 0 && count_files(".topic") == 0);
}

static void open_both_in_vain(void) {
    struct cf_participant other;
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    struct cf_subscription_request request = {.id = new_id()};
    be_born(&other);
    CHECK(cf_publisher_open(&publisher, &other, config_of("t", 1024, 0)) == -EFBIG);
    cf_subscription_init(&subscription, &other, &request);
    CHECK(cf_subscription_add_topic(&subscription, "t", 1) == -EFBIG);
    cf_subscription_close(&subscription);
    cf_participant_close(&other);
}

static void open_a_publisher_in_vain(void) {
    struct cf_participant other;
    struct cf_publisher publisher;
    be_born(&other);
    CHECK(cf_publisher_open(&publisher, &other, config_of("t", 1024, 0)) == -EFBIG);
    CHECK(cf_publisher_open(&publisher, &other, config_of("t", 256, 0)) == 0);
    cf_publisher_close(&publisher);
    cf_participant_close(&other);
}

static void test_where_files_cannot_grow_nothing_is_left_behind(void) {
    run_limited(0, open_both_in_vain);
    run_limited(4096, open_both_in_vain);
    run_limited(8192, open_both_in_vain);
    run_limited(20000, open_both_in_vain);
    run_limited(98304,
                open_a_publisher_in_vain); /* slots of 64 KiB fit, the arena after them not */
}

/* In the order that a publisher does it, what a kill leaves behind: an entry without a file, a file
 * without a magic, a ring that was never announced. */
static void test_what_a_publisher_left_that_was_killed_while_opening_is_removed(void) {
    for (int step = 0; step < 3; step++) {
        struct cf_participant other;
        struct cf_topic topic;
        struct cf_ring_writer writer = {0};
        struct cf_publisher publisher;
        be_born(&other);
        struct cf_ring_config config = config_of("t", 8, 0);
        config.ring_id = cf_ring_make_id();
        enter(&topic, &other, "t");
        CHECK(cf_topic_add_ring(&topic, config.ring_id, other.id, 16) == 0);
        if (step > 0)
            CHECK(cf_ring_create(&writer, &other, &config, topic.hash) == 0);
        if (step == 1)
            writer.header->magic[0] = '\0';
        pthread_mutex_unlock(&other.guard); /* of a process that is gone with it */
        die(&other);
        CHECK(count_files(".ring") == (step > 0));
        open_publisher(&publisher, &own, "t", 8);
        CHECK(count_files(".ring") == 1 && publisher.ring == 0);
        cf_publisher_close(&publisher);
        if (topic.fd >= 0)
            close(topic.fd);
        cf_topic_close(&topic);
        cf_ring_close(&writer);
    }
}

static void test_counts_and_groups_of_garbage_crash_nothing(void) {
    static struct cf_subscription subscription, member;
    struct cf_publisher publisher;
    open_publisher(&publisher, &own, "t", 8);
    subscribe(&subscription, &own, "t");
    join_group(&member, &own, "t", CF_SEAT_REDELIVER);
    struct cf_topic_page *page = publisher.topic.page;
    struct cf_seat *seat = &page->seats[cf_subscription_topic(&member, 0)->seat];
    uint32_t group = seat->group, seats = page->seats_used, rings = page->rings_used;
    uint64_t own_ring = page->rings[0].ring_id;
    page->seats_used = page->rings_used = UINT32_MAX;
    for (uint32_t i = 1; i < CF_TOPIC_RINGS; i++)
        memset(&page->rings[i], 0xff, sizeof page->rings[i]);
    for (uint32_t i = seats; i < CF_TOPIC_SEATS; i++)
        memset(&page->seats[i], 0xff, sizeof page->seats[i]);
    page->generation++;
    CHECK(publish(&publisher, 1) == 0);
    CHECK(take(&subscription) == 1);
    for (uint32_t bad = 255; bad < 1000000; bad = bad * 7 + 1) {
        seat->group = bad;
        look_for_the_dead(&member);
        look_for_the_dead(&subscription);
        CHECK(take(&member) <= 1);
        seat->group = group;
    }
    CHECK(page->rings[0].ring_id == own_ring);
    memset(&page->rings[1], 0, sizeof page->rings - sizeof page->rings[0]);
    memset(&page->seats[seats], 0, (CF_TOPIC_SEATS - seats) * sizeof *page->seats);
    page->seats_used = seats;
    page->rings_used = rings;
    cf_subscription_close(&member);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

int main(void) {
    open_bus();
    test_a_page_goes_with_its_last_seat_or_ring();
    test_names_have_1_to_1024_bytes();
    test_256_seats_and_256_rings_fit_and_no_more();
    test_a_group_that_has_no_room_for_its_first_member_leaves_no_seat();
    test_the_dead_lose_their_seats_and_those_of_whom_nothing_is_known_do_not();
    test_a_topic_that_is_being_changed_is_busy();
    test_a_page_of_another_topic_or_of_garbage_is_refused_and_stays();
    test_where_files_cannot_grow_nothing_is_left_behind();
    test_what_a_publisher_left_that_was_killed_while_opening_is_removed();
    test_counts_and_groups_of_garbage_crash_nothing();
    return close_bus();
}
