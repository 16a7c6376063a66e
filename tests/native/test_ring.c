/* The ring under threads: content and order, full and empty edges, wrap-around, overwriting,
 * several readers, a writer and a reader that die, hostile files. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring.h"
#include "subscription.h"
#include "tick.h"
#include "topic.h"

static char directory[] = "/tmp/cf-ring-XXXXXX";
static int directory_fd;
static const char topic[] = "a topic";
enum { TOPIC_BYTES = sizeof topic - 1, MESSAGES = 20000, MOST_READERS = 4 };

static struct cf_ring_config config_of(uint32_t capacity, uint32_t slot_bytes, int overwrite) {
    return (struct cf_ring_config){.topic = topic,
                                   .topic_bytes = TOPIC_BYTES,
                                   .capacity = capacity,
                                   .slot_bytes = slot_bytes,
                                   .arena_bytes = 16384,
                                   .overwrite = (uint32_t)overwrite,
                                   .publisher = 7};
}

static void name_of(const struct cf_ring_writer *writer, char *name, size_t capacity) {
    snprintf(name, capacity, "%016llx-%016llx.ring", (unsigned long long)writer->header->topic_hash,
             (unsigned long long)writer->header->ring_id);
}

static void make(struct cf_ring_writer *writer, struct cf_ring_config config) {
    CHECK(cf_ring_create(writer, directory_fd, &config, cf_topic_hash(topic, TOPIC_BYTES)) == 0);
}

static void attach(struct cf_ring_reader *reader, const struct cf_ring_writer *writer) {
    char name[64];
    name_of(writer, name, sizeof name);
    CHECK(cf_ring_attach(reader, directory_fd, name, topic, TOPIC_BYTES, 1, UINT64_MAX) == 0);
}

static void finish(struct cf_ring_writer *writer) {
    char name[64];
    name_of(writer, name, sizeof name);
    cf_ring_close(writer);
    CHECK(unlinkat(directory_fd, name, 0) == 0);
}

/* A payload whose every byte follows from its number: 0 to 299 bytes, so slots and arena. */
static size_t fill(char *payload, uint64_t number) {
    size_t length = (size_t)(number * 7 % 300);
    for (size_t i = 0; i < length; i++)
        payload[i] = (char)(number + i * 3);
    return length;
}

static void check_content(const char *payload, size_t length, uint64_t number) {
    char expected[300];
    CHECK(fill(expected, number) == length && memcmp(expected, payload, length) == 0);
}

static int publish(struct cf_ring_writer *writer, uint64_t number) {
    char payload[300];
    return cf_ring_publish(writer, payload, fill(payload, number), cf_ticks(), number, 0);
}

/* Takes the next message and checks it against its stamp. Its number, or -1 when there is none. */
static int64_t take(struct cf_ring_reader *reader) {
    struct cf_ring_message message;
    while (cf_ring_peek(reader, &message)) {
        char payload[300];
        CHECK(message.length < sizeof payload);
        cf_ring_copy(&message, payload);
        if (!cf_ring_take(reader, &message))
            continue;
        check_content(payload, message.length, message.hlc);
        CHECK(message.publisher == 7);
        return (int64_t)message.hlc;
    }
    return -1;
}

static void test_a_full_ring_refuses_and_an_empty_one_is_empty(uint32_t slot_bytes) {
    struct cf_ring_writer writer;
    struct cf_ring_reader reader;
    make(&writer, config_of(4, slot_bytes, 0));
    attach(&reader, &writer);
    CHECK(take(&reader) == -1);
    for (uint64_t lap = 0; lap < 50; lap++) {
        uint64_t accepted = 0;
        while (publish(&writer, lap * 4 + accepted) == 0)
            accepted++;
        CHECK(accepted == 4 && writer.high_water == 4);
        for (uint64_t i = 0; i < 4; i++)
            CHECK(take(&reader) == (int64_t)(lap * 4 + i));
        CHECK(take(&reader) == -1);
    }
    CHECK(reader.dropped == 0 && reader.damaged == 0);
    cf_ring_detach(&reader);
    finish(&writer);
}

static void test_without_a_reader_nothing_is_refused(void) {
    struct cf_ring_writer writer;
    struct cf_ring_reader reader;
    make(&writer, config_of(8, 64, 0));
    for (uint64_t i = 0; i < 100; i++)
        CHECK(publish(&writer, i) == 0);
    attach(&reader, &writer);
    CHECK(take(&reader) == -1 && reader.joined == 100);
    CHECK(publish(&writer, 100) == 0 && take(&reader) == 100);
    cf_ring_detach(&reader);
    for (uint64_t i = 0; i < 100; i++)
        CHECK(publish(&writer, i) == 0);
    finish(&writer);
}

static void test_an_overwritten_reader_knows_what_it_lost_exactly(void) {
    struct cf_ring_writer writer;
    struct cf_ring_reader reader;
    make(&writer, config_of(16, 64, 1));
    attach(&reader, &writer);
    for (uint64_t i = 0; i < 1000; i++)
        CHECK(publish(&writer, i) == 0);
    uint64_t taken = 0;
    int64_t last = -1, number;
    while ((number = take(&reader)) >= 0) {
        CHECK(number > last);
        last = number;
        taken++;
    }
    CHECK(last == 999 && taken >= 1 && taken + reader.dropped == 1000);
    cf_ring_detach(&reader);
    finish(&writer);
}

static void test_an_arena_that_is_full_refuses_and_a_payload_too_large_is_named(void) {
    struct cf_ring_writer writer;
    struct cf_ring_reader reader;
    static char large[16384];
    make(&writer, config_of(64, 64, 0));
    attach(&reader, &writer);
    CHECK(cf_ring_max_payload(&writer) == 8192);
    CHECK(cf_ring_publish(&writer, large, 8193, 0, 0, 0) == -EMSGSIZE);
    for (int lap = 0; lap < 20; lap++) {
        int accepted = 0;
        while (cf_ring_publish(&writer, large, 5000, 0, 0, 0) == 0)
            accepted++;
        CHECK(accepted >= 2 && accepted <= 3);
        struct cf_ring_message message;
        while (cf_ring_peek(&reader, &message)) {
            CHECK(message.length == 5000);
            CHECK(cf_ring_take(&reader, &message));
        }
    }
    cf_ring_detach(&reader);
    finish(&writer);
}

struct reading {
    struct cf_ring_reader reader;
    uint64_t taken;
};

static void *read_all(void *argument) {
    struct reading *reading = argument;
    int64_t last = -1;
    while (last < MESSAGES - 1) {
        int64_t number = take(&reading->reader);
        if (number < 0) {
            sched_yield();
            continue;
        }
        CHECK(reading->reader.overwrite ? number > last : number == last + 1);
        last = number;
        reading->taken++;
    }
    return NULL;
}

static void run_readers(int readers, int overwrite) {
    struct cf_ring_writer writer;
    struct reading readings[MOST_READERS] = {0};
    pthread_t threads[MOST_READERS];
    make(&writer, config_of(64, 64, overwrite));
    for (int i = 0; i < readers; i++) {
        attach(&readings[i].reader, &writer);
        CHECK(pthread_create(&threads[i], NULL, read_all, &readings[i]) == 0);
    }
    for (uint64_t i = 0; i < MESSAGES; i++) {
        while (publish(&writer, i) == -EAGAIN)
            sched_yield();
    }
    for (int i = 0; i < readers; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(readings[i].taken + readings[i].reader.dropped == MESSAGES);
        CHECK(overwrite || readings[i].reader.dropped == 0);
        cf_ring_detach(&readings[i].reader);
    }
    finish(&writer);
}

static void *join_and_leave(void *argument) {
    struct cf_ring_writer *writer = argument;
    for (int i = 0; i < 100; i++) {
        struct cf_ring_reader reader;
        attach(&reader, writer);
        int64_t first = -1, number;
        for (int polls = 0; polls < 200; polls++) {
            if ((number = take(&reader)) < 0) {
                sched_yield();
                continue;
            }
            CHECK(first < 0 || number == first + 1);
            first = number;
        }
        CHECK(reader.dropped == 0 && reader.damaged == 0);
        cf_ring_detach(&reader);
    }
    return NULL;
}

static void test_readers_come_and_go_and_miss_nothing_in_between(void) {
    struct cf_ring_writer writer;
    pthread_t thread;
    make(&writer, config_of(8, 64, 0));
    CHECK(pthread_create(&thread, NULL, join_and_leave, &writer) == 0);
    uint64_t number = 0;
    while (pthread_tryjoin_np(thread, NULL) != 0) {
        if (publish(&writer, number) == 0)
            number++;
        else
            sched_yield();
    }
    finish(&writer);
}

static void test_a_dead_reader_leaves_the_gate(void) {
    struct cf_ring_writer writer;
    make(&writer, config_of(8, 64, 0));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct cf_ring_reader reader;
        attach(&reader, &writer);
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    for (uint64_t i = 0; i < 100; i++)
        CHECK(publish(&writer, i) == 0);
    CHECK(writer.header->orphaned == 1 && writer.members == 0);
    finish(&writer);
}

static void test_a_forked_child_can_not_publish_and_does_not_keep_the_lock(void) {
    struct cf_ring_writer writer;
    struct cf_ring_reader reader;
    make(&writer, config_of(8, 64, 0));
    attach(&reader, &writer);
    int ready[2], go[2];
    CHECK(pipe(ready) == 0 && pipe(go) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char byte = publish(&writer, 1) == -ECHILD;
        CHECK(write(ready[1], &byte, 1) == 1);
        close(go[1]);
        CHECK(read(go[0], &byte, 1) == 0);
        _exit(0);
    }
    char refused = 0;
    CHECK(read(ready[0], &refused, 1) == 1 && refused == 1);
    CHECK(cf_ring_writer_lives(&reader));
    char name[64];
    name_of(&writer, name, sizeof name);
    cf_release_file(&writer.file);
    CHECK(!cf_ring_writer_lives(&reader)); /* the child is there and holds nothing */
    close(go[1]);
    CHECK(waitpid(child, NULL, 0) == child);
    cf_ring_detach(&reader);
    cf_ring_close(&writer);
    CHECK(unlinkat(directory_fd, name, 0) == 0);
}

static void test_what_is_no_ring_is_refused(void) {
    struct cf_ring_writer writer;
    struct cf_ring_reader reader;
    make(&writer, config_of(8, 64, 0));
    char name[64];
    name_of(&writer, name, sizeof name);
    CHECK(cf_ring_attach(&reader, directory_fd, name, "another", 7, 1, 0) == -ESTALE);
    static const size_t words[] = {
        offsetof(struct cf_ring_header, magic),       offsetof(struct cf_ring_header, version),
        offsetof(struct cf_ring_header, capacity),    offsetof(struct cf_ring_header, slot_bytes),
        offsetof(struct cf_ring_header, arena_bytes), offsetof(struct cf_ring_header, file_bytes),
        offsetof(struct cf_ring_header, topic_bytes)};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        uint32_t *word = (void *)((char *)writer.header + words[i]), before = *word;
        *word = 0x7fffffff;
        CHECK(cf_ring_attach(&reader, directory_fd, name, topic, TOPIC_BYTES, 1, 0) == -EINVAL);
        *word = before;
    }
    CHECK(symlinkat(name, directory_fd, "link") == 0);
    CHECK(cf_ring_attach(&reader, directory_fd, "link", topic, TOPIC_BYTES, 1, 0) == -EPERM);
    CHECK(unlinkat(directory_fd, "link", 0) == 0);
    attach(&reader, &writer);
    struct cf_ring_slot *slot = (void *)writer.slots;
    slot->properties = UINT64_MAX; /* a length and an arena position from nowhere */
    slot->body[0] = UINT64_MAX - 6;
    __atomic_store_n(&slot->seq, 1, __ATOMIC_RELEASE);
    CHECK(take(&reader) == -1 && reader.damaged == 1 && reader.dropped == 1);
    cf_ring_detach(&reader);
    finish(&writer);
}

static void test_sixty_three_readers_fit_and_no_more(void) {
    struct cf_ring_writer writer;
    static struct cf_ring_reader readers[CF_RING_READERS], one_more;
    make(&writer, config_of(8, 64, 0));
    for (size_t i = 0; i < CF_RING_READERS; i++)
        attach(&readers[i], &writer);
    char name[64];
    name_of(&writer, name, sizeof name);
    CHECK(cf_ring_attach(&one_more, directory_fd, name, topic, TOPIC_BYTES, 1, 0) == -EUSERS);
    for (uint64_t i = 0; i < 8; i++)
        CHECK(publish(&writer, i) == 0);
    for (size_t i = 0; i < CF_RING_READERS; i++) {
        CHECK(publish(&writer, 8) == -EAGAIN);
        CHECK(take(&readers[i]) == 0);
        cf_ring_store_position(&readers[i]);
    }
    CHECK(publish(&writer, 8) == 0);
    for (size_t i = 0; i < CF_RING_READERS; i++)
        cf_ring_detach(&readers[i]);
    finish(&writer);
}

/* Publishes so much that a subscription that joins late still finds it whole, and closes. */
static void *publish_and_close(void *argument) {
    struct cf_topic announced;
    struct cf_ring_writer writer;
    (void)argument;
    CHECK(cf_topic_open(&announced, directory_fd, cf_topic_hash(topic, TOPIC_BYTES)) == 0);
    struct cf_ring_config config = config_of(1024, 64, 0);
    config.arena_bytes = 1 << 20;
    make(&writer, config);
    cf_topic_announce(announced.page);
    for (uint64_t i = 0; i < 1000; i++) {
        CHECK(publish(&writer, i) == 0);
        cf_topic_notify(announced.page);
    }
    char name[64];
    name_of(&writer, name, sizeof name);
    cf_ring_close(&writer);
    cf_topic_close(&announced);
    return strdup(name);
}

static void test_a_subscription_receives_all_of_publishers_that_come_later(enum cf_wait wait) {
    static struct cf_subscription subscription;
    pthread_t threads[3];
    CHECK(cf_subscription_open(&subscription, directory, topic, TOPIC_BYTES, 9, wait, 50000, 0) ==
          0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, publish_and_close, NULL) == 0);
    for (uint64_t taken = 0; taken < 3000;) {
        struct cf_ring_message message;
        struct cf_ring_reader *reader = cf_subscription_poll(&subscription, &message);
        if (reader) {
            CHECK(cf_ring_take(reader, &message));
            taken++;
            continue;
        }
        cf_subscription_wait(&subscription, cf_os_ns(CLOCK_MONOTONIC) + 50000, 100000000);
    }
    for (int i = 0; i < 3; i++) {
        void *name;
        CHECK(pthread_join(threads[i], &name) == 0 && unlinkat(directory_fd, name, 0) == 0);
        free(name);
    }
    struct cf_subscription_counts counts;
    cf_subscription_count(&subscription, &counts);
    CHECK(counts.copies == 3000 && counts.delivered == 3000 && counts.dropped == 0);
    cf_subscription_check(&subscription, UINT64_MAX);
    CHECK(subscription.count == 0 && subscription.refused == 0);
    cf_subscription_count(&subscription, &counts);
    CHECK(counts.copies == 3000 && counts.delivered == 3000);
    cf_subscription_close(&subscription);
}

int main(void) {
    cf_tick_select();
    CHECK(mkdtemp(directory) != NULL);
    CHECK((directory_fd = cf_place_open(directory)) >= 0);
    test_a_full_ring_refuses_and_an_empty_one_is_empty(64);
    test_a_full_ring_refuses_and_an_empty_one_is_empty(128);
    test_without_a_reader_nothing_is_refused();
    test_an_overwritten_reader_knows_what_it_lost_exactly();
    test_an_arena_that_is_full_refuses_and_a_payload_too_large_is_named();
    for (int readers = 1; readers <= MOST_READERS; readers++)
        run_readers(readers, 0);
    run_readers(1, 1);
    run_readers(3, 1);
    test_readers_come_and_go_and_miss_nothing_in_between();
    test_a_dead_reader_leaves_the_gate();
    test_a_forked_child_can_not_publish_and_does_not_keep_the_lock();
    test_what_is_no_ring_is_refused();
    test_sixty_three_readers_fit_and_no_more();
    test_a_subscription_receives_all_of_publishers_that_come_later(CF_WAIT_SPIN);
    test_a_subscription_receives_all_of_publishers_that_come_later(CF_WAIT_ADAPTIVE);
    test_a_subscription_receives_all_of_publishers_that_come_later(CF_WAIT_PARK);
    return 0;
}
