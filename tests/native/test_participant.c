/* Participants: leases, publisher numbers, locks of topics, forked children. */
#include "bus_fixture.h"

enum { SHORT_NS = 30000000 };

static void test_who_is_open_lives_and_who_is_closed_does_not(void) {
    struct cf_participant other;
    be_born(&other);
    uint64_t id = other.id;
    CHECK(id >= UINT64_C(1) << 32 && id < UINT64_C(1) << 62);
    CHECK(cf_participant_lives(&own, own.id) == 1 && cf_participant_lives(&own, id) == 1);
    CHECK(cf_participant_lives(&other, own.id) == 1);
    cf_participant_close(&other);
    cf_participant_close(&other);
    CHECK(cf_participant_lives(&own, id) == 0 && !cf_participant_is_open(&other));
}

static void test_ids_that_nobody_can_have_are_dead(void) {
    static const uint64_t ids[] = {0, 1, UINT32_MAX, UINT64_C(1) << 62, UINT64_MAX};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        CHECK(cf_participant_lives(&own, ids[i]) == 0);
}

static void test_what_cannot_be_known_is_an_error_and_not_dead(void) {
    struct cf_participant blind = own;
    blind.id = 1;
    blind.leases.fd = 1000000;
    CHECK(cf_participant_lives(&blind, own.id) == -EBADF);
}

static void test_publisher_numbers_are_unique_among_many_participants(void) {
    static uint8_t seen[65536];
    static struct cf_participant many[20];
    for (int i = 0; i < 20; i++) {
        be_born(&many[i]);
        for (int k = 0; k < 100; k++) {
            int number = cf_participant_take_number(&many[i]);
            CHECK(number >= 16 && number <= 65535 && !seen[number]);
            seen[number] = 1;
        }
    }
    for (int i = 0; i < 20; i++)
        cf_participant_close(&many[i]);
}

static void test_a_number_comes_again_after_all_that_were_returned_before(void) {
    struct cf_participant other;
    be_born(&other);
    static uint8_t seen[65536];
    int first[256];
    for (int i = 0; i < 256; i++) {
        first[i] = cf_participant_take_number(&other);
        seen[first[i]] = 1;
    }
    for (int i = 0; i < 255; i++)
        cf_participant_return_number(&other, (uint16_t)first[i]);
    for (int i = 0; i < 16; i++)
        CHECK(!seen[cf_participant_take_number(&other)]);
    cf_participant_return_number(&other, (uint16_t)first[255]);
    CHECK(cf_participant_take_number(&other) == first[0]);
    CHECK(!seen[cf_participant_take_number(&other)]); /* 255 rest again */
    cf_participant_return_number(&other, (uint16_t)first[0]);
    for (int i = 0; i < 15; i++)
        CHECK(!seen[cf_participant_take_number(&other)]);
    CHECK(cf_participant_take_number(&other) == first[1]);
    cf_participant_close(&other);
}

static void test_a_lock_is_refused_while_another_has_it_and_per_topic(void) {
    struct cf_participant other;
    be_born(&other);
    CHECK(cf_participant_lock(&own, 5, 0) == 0);
    CHECK(cf_participant_lock(&other, 5, SHORT_NS) == -EBUSY);
    CHECK(cf_participant_lock(&other, 6, 0) == 0);
    cf_participant_unlock(&other, 6);
    cf_participant_unlock(&own, 5);
    CHECK(cf_participant_lock(&other, 5, 0) == 0);
    cf_participant_unlock(&other, 5);
    cf_participant_close(&other);
}

static void test_a_holder_that_is_stopped_costs_the_time_out_and_a_dead_one_nothing(void) {
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct cf_participant holder;
        CHECK(cf_participant_open(&holder, directory) == 0);
        CHECK(cf_participant_lock(&holder, 5, 0) == 0 && write(ready[1], "x", 1) == 1);
        raise(SIGSTOP);
        _exit(0);
    }
    char byte;
    CHECK(read(ready[0], &byte, 1) == 1 && waitpid(child, NULL, WUNTRACED) == child);
    CHECK(cf_participant_lock(&own, 5, SHORT_NS) == -EBUSY);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    CHECK(cf_participant_lock(&own, 5, 0) == 0);
    cf_participant_unlock(&own, 5);
    close(ready[0]);
    close(ready[1]);
}

static void test_a_forked_child_is_refused_and_keeps_no_lease(void) {
    struct cf_participant other;
    be_born(&other);
    uint64_t id = other.id;
    int ready[2], go[2];
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char byte = !cf_participant_is_open(&other) &&
                    cf_participant_lock(&other, 5, 0) == -ECHILD &&
                    cf_participant_lives(&other, id) == 0;
        CHECK(write(ready[1], &byte, 1) == 1);
        close(go[1]);
        CHECK(read(go[0], &byte, 1) == 0);
        cf_participant_close(&other);
        _exit(0);
    }
    char refused = 0;
    CHECK(read(ready[0], &refused, 1) == 1 && refused == 1);
    CHECK(cf_participant_lives(&own, id) == 1);
    cf_participant_close(&other);
    CHECK(cf_participant_lives(&own, id) == 0); /* the child is there and holds nothing */
    close(go[1]);
    CHECK(waitpid(child, NULL, 0) == child);
    close(go[0]);
    close(ready[0]);
    close(ready[1]);
}

static void test_files_that_are_not_this_users_own_are_refused(void) {
    CHECK(symlinkat("bus.leases", own.directory_fd, "link") == 0);
    CHECK(cf_participant_open_file(&own, "link", 0) == -EPERM);
    CHECK(mkfifoat(own.directory_fd, "pipe", 0600) == 0);
    CHECK(cf_participant_open_file(&own, "pipe", 0) == -EPERM);
    CHECK(cf_participant_open_file(&own, "nothing", 0) == -ENOENT);
    remove_file("link");
    remove_file("pipe");
}

static void test_a_directory_that_is_open_to_others_is_refused(void) {
    struct cf_participant other;
    CHECK(chmod(directory, 0755) == 0);
    CHECK(cf_participant_open(&other, directory) == -EPERM && !cf_participant_is_open(&other));
    CHECK(chmod(directory, 0700) == 0);
}

int main(void) {
    open_bus();
    test_who_is_open_lives_and_who_is_closed_does_not();
    test_ids_that_nobody_can_have_are_dead();
    test_what_cannot_be_known_is_an_error_and_not_dead();
    test_publisher_numbers_are_unique_among_many_participants();
    test_a_number_comes_again_after_all_that_were_returned_before();
    test_a_lock_is_refused_while_another_has_it_and_per_topic();
    test_a_holder_that_is_stopped_costs_the_time_out_and_a_dead_one_nothing();
    test_a_forked_child_is_refused_and_keeps_no_lease();
    test_files_that_are_not_this_users_own_are_refused();
    test_a_directory_that_is_open_to_others_is_refused();
    return close_bus();
}
