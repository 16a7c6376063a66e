/* The process's segment under threads and fork: no sample is lost, none is counted twice. */
#include "check.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "operation.h"
#include "span.h"

enum { THREADS = 8, SAMPLES = 20000 };

static char directory[] = "/tmp/cf-process-XXXXXX";
static uint32_t instrument;

static void *record_samples(void *argument) {
    (void)argument;
    for (int i = 0; i < SAMPLES; i++)
        cf_operation_record(instrument, 100, 100 + (uint64_t)i % 500, i % 10 == 0);
    return NULL;
}

struct totals {
    uint64_t count, errors, sum, histogram;
    unsigned shards;
};

/* Reads as an outside reader does: acquire the links, relaxed counters. */
static struct totals read_totals(void) {
    struct totals totals = {0};
    char *base = (char *)cf_process_header();
    uint64_t entry_offset = cf_load_acquire(&cf_process_header()->first_entry);
    if (entry_offset == 0)
        return totals;
    struct cf_entry *entry = (void *)(base + entry_offset);
    for (uint64_t offset = cf_load_acquire(&entry->first_shard); offset != 0;) {
        struct cf_shard *shard = (void *)(base + offset);
        struct cf_operation *payload = cf_shard_payload(shard);
        totals.shards++;
        totals.count += cf_load_relaxed(&payload->count);
        totals.errors += cf_load_relaxed(&payload->errors);
        totals.sum += cf_load_relaxed(&payload->sum);
        for (int i = 0; i < CF_HISTOGRAM_BUCKETS; i++)
            totals.histogram += cf_load_relaxed(&payload->histogram[i]);
        offset = cf_load_acquire(&shard->next);
    }
    return totals;
}

static void run_threads(int watched) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, record_samples, NULL) == 0);
    for (int i = 0; watched && i < 50; i++)
        CHECK(read_totals().count <= (uint64_t)2 * THREADS * SAMPLES);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void test_every_sample_of_every_thread_is_counted_once(void) {
    run_threads(1);
    struct totals totals = read_totals();
    CHECK(totals.count == (uint64_t)THREADS * SAMPLES && totals.histogram == totals.count);
    CHECK(totals.errors == (uint64_t)THREADS * SAMPLES / 10);
    unsigned shards = totals.shards;
    CHECK(shards >= 1 && shards <= THREADS);
    run_threads(0);
    CHECK(read_totals().count == (uint64_t)2 * THREADS * SAMPLES);
    CHECK(read_totals().shards <= THREADS);
}

static void test_a_forked_child_has_a_segment_of_its_own(void) {
    char parent_path[CF_SEGMENT_PATH_BYTES];
    CHECK(cf_process_path(parent_path, sizeof parent_path) > 0);
    uint64_t before = read_totals().count;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char path[CF_SEGMENT_PATH_BYTES];
        record_samples(NULL);
        CHECK(cf_process_path(path, sizeof path) > 0 && strcmp(path, parent_path) != 0);
        CHECK(read_totals().count == SAMPLES);
        CHECK(unlink(path) == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(read_totals().count == before);
}

static void test_spans_nest_interleave_and_overflow(void) {
    int64_t other = cf_process_instrument(&cf_kind_operation, "other", 5, NULL, 0);
    CHECK(other >= 0);
    uint64_t before = read_totals().count;
    cf_span_begin(instrument);
    cf_span_begin((uint32_t)other);
    cf_span_end(instrument, 0); /* not the latest: another task's is above it */
    cf_span_end((uint32_t)other, 0);
    cf_span_end(instrument, 0); /* never begun */
    CHECK(read_totals().count == before + 1 && cf_span_stack.depth == 0);
    for (int i = 0; i < CF_SPAN_DEPTH + 3; i++)
        cf_span_begin(instrument);
    for (int i = 0; i < CF_SPAN_DEPTH + 3; i++)
        cf_span_end(instrument, 0);
    CHECK(cf_span_stack.depth == 0 && cf_span_stack.overflow == 0);
    CHECK(read_totals().count == before + 1 + CF_SPAN_DEPTH);
    CHECK(cf_load_relaxed(&cf_process_header()->samples_lost) == 3);
}

static void test_a_clock_that_steps_back_records_zero(void) {
    uint64_t sum = read_totals().sum;
    cf_operation_record(instrument, 1000, 900, 0);
    CHECK(read_totals().sum == sum);
}

static void test_a_value_out_of_range_is_in_all_but_the_histogram(void) {
    struct totals before = read_totals();
    cf_operation_record(instrument, 0, UINT64_C(1) << 41, 0);
    struct totals after = read_totals();
    CHECK(after.count == before.count + 1 && after.histogram == before.histogram);
}

int main(void) {
    CHECK(mkdtemp(directory) != NULL);
    CHECK(cf_process_configure(directory, NULL, CF_SEGMENT_DEFAULT_LIMIT) == 0);
    CHECK(cf_process_open() == 0);
    int64_t id = cf_process_instrument(&cf_kind_operation, "test", 4, "k\0v", 4);
    CHECK(id >= 0 && id == cf_process_instrument(&cf_kind_operation, "test", 4, "k\0v", 4));
    instrument = (uint32_t)id;
    test_every_sample_of_every_thread_is_counted_once();
    test_a_forked_child_has_a_segment_of_its_own();
    test_spans_nest_interleave_and_overflow();
    test_a_clock_that_steps_back_records_zero();
    test_a_value_out_of_range_is_in_all_but_the_histogram();
    char path[CF_SEGMENT_PATH_BYTES];
    CHECK(cf_process_path(path, sizeof path) > 0 && unlink(path) == 0 && rmdir(directory) == 0);
    return 0;
}
