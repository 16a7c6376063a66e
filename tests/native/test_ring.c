/* One ring and its readers: content and order, full and empty edges, late joins, arena,
 * overwriting, history, loans, dead readers, forked children, hostile words. */
#include "bus_fixture.h"

static struct cf_ring_reader *reader_of(struct cf_subscription *subscription) {
    CHECK(subscription->readers.count == 1);
    return cf_subscription_reader(subscription, 0);
}

static void open_ring(struct cf_publisher *publisher, uint32_t capacity, uint32_t slot_bytes,
                      int overwrite) {
    struct cf_ring_config config = config_of("t", capacity, overwrite);
    config.slot_bytes = slot_bytes;
    CHECK(cf_publisher_open(publisher, &own, config) == 0);
}

static void subscribe_with_history(struct cf_subscription *subscription, uint64_t history) {
    struct cf_subscription_request request = {.id = new_id(), .history = history};
    subscribe_as(subscription, &own, "t", &request);
}

static void test_a_full_ring_refuses_and_an_empty_one_is_empty(uint32_t slot_bytes) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    open_ring(&publisher, 4, slot_bytes, 0);
    subscribe(&subscription, &own, "t");
    CHECK(take(&subscription) == NONE);
    for (uint64_t lap = 0; lap < 50; lap++) {
        CHECK(publish_until_full(&publisher, lap * 4, 100) == 4);
        CHECK(publisher.writer.high_water == 4);
        for (uint64_t i = 0; i < 4; i++)
            CHECK(take(&subscription) == (int64_t)(lap * 4 + i));
        CHECK(take(&subscription) == NONE);
    }
    CHECK(counts_of(&subscription).delivered == 200 && counts_of(&subscription).dropped == 0);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_without_a_reader_nothing_is_refused(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    open_ring(&publisher, 8, 64, 0);
    CHECK(publish_until_full(&publisher, 0, 100) == 100);
    subscribe(&subscription, &own, "t");
    CHECK(take(&subscription) == NONE && reader_of(&subscription)->joined == 100);
    CHECK(publish(&publisher, 100) == 0 && take(&subscription) == 100);
    cf_subscription_close(&subscription);
    CHECK(publish_until_full(&publisher, 101, 100) == 100);
    cf_publisher_close(&publisher);
}

/* The case that lost messages: the writer looked before the reader came, and so took the slots of
 * messages that the reader believed to be kept. */
static void test_a_join_at_any_fill_after_any_look_loses_nothing(void) {
    for (uint64_t before = 0; before <= 34; before += before < 16 ? 1 : 3) {
        for (uint64_t looked_at = 0; looked_at <= before; looked_at += 1 + before / 4) {
            struct cf_publisher publisher;
            struct cf_subscription subscription;
            open_ring(&publisher, 16, 64, 0);
            for (uint64_t i = 0; i < before; i++) {
                if (i == looked_at)
                    cf_ring_look(&publisher.writer);
                CHECK(publish(&publisher, i) == 0);
            }
            if (looked_at == before)
                cf_ring_look(&publisher.writer);
            subscribe(&subscription, &own, "t");
            CHECK(publish_until_full(&publisher, before, 100) == 16);
            for (uint64_t i = before; i < before + 16; i++)
                CHECK(take(&subscription) == (int64_t)i);
            CHECK(take(&subscription) == NONE && counts_of(&subscription).dropped == 0);
            cf_subscription_close(&subscription);
            cf_publisher_close(&publisher);
        }
    }
}

/* The same for payloads outside of the slots, where the arena is full long before the slots are. */
static void test_a_join_under_pressure_on_the_arena_loses_nothing(void) {
    static char large[3000];
    for (uint64_t before = 0; before <= 12; before++) {
        struct cf_publisher publisher;
        struct cf_subscription subscription;
        struct cf_ring_message message;
        open_ring(&publisher, 64, 64, 0);
        for (uint64_t i = 0; i < before; i++) {
            memset(large, (int)i, sizeof large);
            CHECK(cf_ring_publish(&publisher.writer, large, sizeof large, 0, i, 0) == 0);
        }
        subscribe(&subscription, &own, "t");
        uint64_t accepted = 0;
        for (;; accepted++) {
            memset(large, (int)(before + accepted), sizeof large);
            if (cf_ring_publish(&publisher.writer, large, sizeof large, 0, before + accepted, 0))
                break;
        }
        CHECK(accepted >= 4 && accepted <= 5);
        for (uint64_t i = before; i < before + accepted; i++) {
            char copy[sizeof large], expected[sizeof large];
            struct cf_ring_reader *reader = cf_subscription_poll(&subscription, &message);
            CHECK(reader && message.hlc == i && message.length == sizeof large);
            cf_ring_copy(&message, copy);
            memset(expected, (int)i, sizeof expected);
            CHECK(cf_ring_take(reader, &message) && memcmp(copy, expected, sizeof copy) == 0);
        }
        CHECK(!cf_subscription_poll(&subscription, &message));
        CHECK(counts_of(&subscription).dropped == 0);
        cf_subscription_close(&subscription);
        cf_publisher_close(&publisher);
    }
}

static void test_a_payload_too_large_is_named_and_the_largest_fits(void) {
    static char large[16384];
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    struct cf_ring_message message;
    open_ring(&publisher, 64, 64, 0);
    subscribe(&subscription, &own, "t");
    CHECK(cf_ring_max_payload(&publisher.writer) == 8192);
    CHECK(cf_ring_publish(&publisher.writer, large, 8193, 0, 0, 0) == -EMSGSIZE);
    CHECK(cf_ring_publish(&publisher.writer, large, 8192, 0, 0, 0) == 0);
    struct cf_ring_reader *reader = cf_subscription_poll(&subscription, &message);
    CHECK(reader && message.length == 8192 && cf_ring_take(reader, &message));
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
    struct cf_ring_config config = config_of("t", 4, 0);
    config.arena_bytes = 0;
    CHECK(cf_publisher_open(&publisher, &own, config) == 0);
    CHECK(cf_ring_max_payload(&publisher.writer) == 32);
    CHECK(cf_ring_publish(&publisher.writer, large, 33, 0, 0, 0) == -EMSGSIZE);
    cf_publisher_close(&publisher);
}

static void test_a_dead_reader_leaves_the_gate_of_slots_and_of_the_arena(void) {
    static char large[5000];
    for (int is_arena = 0; is_arena < 2; is_arena++) {
        struct cf_participant other;
        struct cf_publisher publisher;
        static struct cf_subscription subscription;
        be_born(&other);
        open_ring(&publisher, is_arena ? 64 : 8, 64, 0);
        subscribe(&subscription, &other, "t");
        size_t length = is_arena ? sizeof large : 8;
        while (cf_ring_publish(&publisher.writer, large, length, 0, 0, 0) == 0)
            ;
        CHECK(is_arena ? publisher.writer.tail <= 3 : publisher.writer.tail == 8);
        die(&other);
        let_look(&publisher);
        for (int i = 0; i < 100; i++)
            CHECK(cf_ring_publish(&publisher.writer, large, length, 0, 0, 0) == 0);
        CHECK(publisher.writer.header->orphaned == 1);
        CHECK(cf_ring_count_readers(&publisher.writer) == 0);
        cf_publisher_close(&publisher);
        cf_subscription_close(&subscription);
    }
}

static void test_a_reader_of_whom_nothing_can_be_known_is_waited_for(void) {
    struct cf_participant other;
    struct cf_publisher publisher;
    static struct cf_subscription subscription;
    be_born(&other);
    open_ring(&publisher, 8, 64, 0);
    subscribe(&subscription, &other, "t");
    CHECK(publish_until_full(&publisher, 0, 100) == 8);
    die(&other);
    struct cf_participant blind = own;
    blind.leases.fd = 1000000; /* open, but no lock can be asked for */
    publisher.writer.participant = &blind;
    let_look(&publisher);
    CHECK(publish(&publisher, 8) == -EAGAIN && cf_ring_count_readers(&publisher.writer) == 1);
    publisher.writer.participant = &own;
    let_look(&publisher);
    CHECK(publish(&publisher, 8) == 0);
    cf_publisher_close(&publisher);
    cf_subscription_close(&subscription);
}

/* The writer has seen that a reader is dead; before it takes it from the gate the seat has gone to
 * another one, which must stay there. */
static void test_a_line_that_was_taken_again_is_not_buried_with_its_dead(void) {
    struct cf_participant other;
    struct cf_publisher publisher;
    static struct cf_subscription dead, heir;
    be_born(&other);
    open_ring(&publisher, 8, 64, 0);
    subscribe(&dead, &other, "t");
    uint32_t seat = cf_subscription_topic(&dead, 0)->seat;
    CHECK(publish_until_full(&publisher, 0, 8) == 8);
    die(&other);
    subscribe(&heir, &own, "t");
    CHECK(cf_subscription_topic(&heir, 0)->seat == seat);
    CHECK(reader_of(&heir)->joined == 8);
    let_look(&publisher);
    CHECK(publish_until_full(&publisher, 8, 100) == 8);
    CHECK(publisher.writer.header->orphaned == 0);
    for (int64_t i = 8; i < 16; i++)
        CHECK(take(&heir) == i);
    cf_publisher_close(&publisher);
    cf_subscription_close(&heir);
    cf_subscription_close(&dead);
}

static void test_an_overwritten_reader_knows_what_it_lost_exactly(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    open_ring(&publisher, 16, 64, 1);
    subscribe(&subscription, &own, "t");
    for (uint64_t i = 0; i < 1000; i++)
        CHECK(publish(&publisher, i) == 0);
    uint64_t taken = 0;
    int64_t last = -1, number;
    while ((number = take(&subscription)) >= 0) {
        CHECK(number > last);
        last = number;
        taken++;
    }
    struct cf_subscription_counts counts = counts_of(&subscription);
    CHECK(last == 999 && taken >= 1 && counts.delivered == taken);
    CHECK(counts.delivered + counts.dropped == 1000 && counts.pending == 0);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_a_lossy_reader_holds_nobody_up_and_counts_what_it_lost(void) {
    struct cf_publisher publisher;
    struct cf_subscription lossy, other;
    struct cf_subscription_request request = {.id = new_id(), .flags = CF_SEAT_LOSSY};
    subscribe_as(&lossy, &own, "t", &request); /* before the ring is made: expected by it */
    open_ring(&publisher, 16, 64, 0);
    CHECK(publish_until_full(&publisher, 0, 1000) == 1000);
    subscribe(&other, &own, "t");
    CHECK(publish_until_full(&publisher, 1000, 1000) == 16);
    uint64_t taken = 0;
    while (take(&lossy) >= 0)
        taken++;
    CHECK(taken >= 1 && counts_of(&lossy).delivered == taken);
    CHECK(counts_of(&lossy).dropped == 1016 - taken);
    cf_subscription_close(&lossy);
    cf_subscription_close(&other);
    cf_publisher_close(&publisher);
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
static void
test_a_loan_that_is_abandoned_in_a_ring_that_overwrites_costs_messages_that_are_counted(void) {
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

static void test_a_forked_child_publishes_nothing_and_takes_nothing_from_its_parent(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    void *payload;
    open_ring(&publisher, 8, 64, 0);
    subscribe(&subscription, &own, "t");
    CHECK(publish_until_full(&publisher, 0, 9) == 8);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(publish(&publisher, 1) == -ECHILD);
        CHECK(cf_ring_loan(&publisher.writer, 8, &payload) == -ECHILD);
        while (take(&subscription) >= 0)
            ;
        cf_subscription_close(&subscription);
        cf_publisher_close(&publisher);
        cf_participant_close(&own);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(publish(&publisher, 8) == -EAGAIN && reader_of(&subscription)->header->state == 1);
    for (int64_t i = 0; i < 8; i++)
        CHECK(take(&subscription) == i);
    CHECK(publish(&publisher, 8) == 0 && take(&subscription) == 8);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static int try_to_open(const struct cf_subscription *subscription, uint64_t ring_id) {
    struct cf_ring_reader reader;
    const struct cf_subscription_topic *of = cf_subscription_topic(subscription, 0);
    int error = cf_ring_open(&reader, &of->topic, ring_id, of->seat);
    if (error == 0)
        munmap((void *)(uintptr_t)reader.header, reader.file_bytes);
    return error;
}

static void test_what_is_no_ring_is_refused(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    open_ring(&publisher, 8, 64, 0);
    subscribe(&subscription, &own, "t");
    struct cf_ring_header *header = publisher.writer.header;
    static const size_t words[] = {
        offsetof(struct cf_ring_header, magic),       offsetof(struct cf_ring_header, version),
        offsetof(struct cf_ring_header, capacity),    offsetof(struct cf_ring_header, slot_bytes),
        offsetof(struct cf_ring_header, arena_bytes), offsetof(struct cf_ring_header, file_bytes),
        offsetof(struct cf_ring_header, topic_bytes), offsetof(struct cf_ring_header, ring_id),
        offsetof(struct cf_ring_header, topic)};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        uint64_t ring_id = header->ring_id;
        uint32_t *word = (void *)((char *)header + words[i]), before = *word;
        *word = 0x7fffffff;
        CHECK(try_to_open(&subscription, ring_id) == -EINVAL);
        *word = before;
    }
    CHECK(try_to_open(&subscription, header->ring_id) == 0);
    CHECK(try_to_open(&subscription, header->ring_id ^ 2) == -ENOENT);
    header->magic[0] = '\0';
    CHECK(try_to_open(&subscription, header->ring_id) == -EAGAIN);
    header->magic[0] = 'C';
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_a_message_whose_words_contradict_each_other_is_damaged_and_dropped(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    open_ring(&publisher, 8, 64, 0);
    subscribe(&subscription, &own, "t");
    CHECK(publish(&publisher, 0) == 0 && publish(&publisher, 1) == 0);
    struct cf_ring_slot *slot = (void *)publisher.writer.slots;
    slot->properties = UINT64_MAX; /* a length and an arena position from nowhere */
    slot->body[0] = UINT64_MAX - 6;
    CHECK(take(&subscription) == NONE && take(&subscription) == 1);
    struct cf_subscription_counts counts = counts_of(&subscription);
    CHECK(counts.damaged == 1 && counts.dropped == 1 && counts.delivered == 1);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_positions_from_nowhere_release_nothing_and_crash_nothing(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription, hostile;
    open_ring(&publisher, 8, 64, 0);
    subscribe(&subscription, &own, "t");
    subscribe(&hostile, &own, "t");
    struct cf_ring_reader_line *line = cf_subscription_reader(&hostile, 0)->line;
    line->position = UINT64_MAX;
    CHECK(publish_until_full(&publisher, 0, 100) == 8);
    for (int64_t i = 0; i < 8; i++)
        CHECK(take(&subscription) == i);
    CHECK(publish_until_full(&publisher, 8, 100) == 8);
    publisher.writer.readers->lines_used = UINT32_MAX;
    line->position = 0; /* 16 behind in a ring of 8 */
    CHECK(publish(&publisher, 16) == -EAGAIN);
    CHECK(cf_ring_count_readers(&publisher.writer) == 2);
    publisher.writer.readers->lines_used = 2;
    cf_subscription_close(&hostile);
    CHECK(publish(&publisher, 16) == -EAGAIN);
    CHECK(take(&subscription) == 8 && take(&subscription) == 9);
    publisher.writer.header->file_bytes = publisher.writer.header->arena_bytes = 0;
    CHECK(publish_until_full(&publisher, 16, 1) == 1);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

static void test_a_tail_from_nowhere_crashes_nothing(void) {
    struct cf_publisher publisher;
    struct cf_subscription subscription;
    struct cf_subscription_counts counts;
    open_ring(&publisher, 8, 64, 1);
    subscribe(&subscription, &own, "t");
    publisher.writer.header->tail = UINT64_MAX;
    for (int i = 0; i < 20; i++) {
        struct cf_ring_message message;
        struct cf_ring_reader *reader = cf_subscription_poll(&subscription, &message);
        CHECK(!reader || message.length <= 32);
        if (reader)
            cf_ring_take(reader, &message);
    }
    cf_subscription_count(&subscription, &counts);
    cf_subscription_close(&subscription);
    cf_publisher_close(&publisher);
}

int main(void) {
    open_bus();
    test_a_full_ring_refuses_and_an_empty_one_is_empty(64);
    test_a_full_ring_refuses_and_an_empty_one_is_empty(128);
    test_without_a_reader_nothing_is_refused();
    test_a_join_at_any_fill_after_any_look_loses_nothing();
    test_a_join_under_pressure_on_the_arena_loses_nothing();
    test_a_payload_too_large_is_named_and_the_largest_fits();
    test_a_dead_reader_leaves_the_gate_of_slots_and_of_the_arena();
    test_a_reader_of_whom_nothing_can_be_known_is_waited_for();
    test_a_line_that_was_taken_again_is_not_buried_with_its_dead();
    test_an_overwritten_reader_knows_what_it_lost_exactly();
    test_a_lossy_reader_holds_nobody_up_and_counts_what_it_lost();
    test_history_is_what_is_kept_and_the_rest_was_skipped();
    test_history_that_gives_way_meanwhile_is_counted_and_holds_nobody_up();
    test_a_loan_is_published_as_long_as_it_was_used();
    test_while_a_loan_is_out_nothing_else_is_published();
    test_loans_wait_for_readers_as_messages_do();
    test_a_loan_that_is_abandoned_in_a_ring_that_overwrites_costs_messages_that_are_counted();
    test_a_forked_child_publishes_nothing_and_takes_nothing_from_its_parent();
    test_what_is_no_ring_is_refused();
    test_a_message_whose_words_contradict_each_other_is_damaged_and_dropped();
    test_positions_from_nowhere_release_nothing_and_crash_nothing();
    test_a_tail_from_nowhere_crashes_nothing();
    return close_bus();
}
