/* The process's segment under threads and fork: no sample is lost, none is counted twice. */
#include "check.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "operation.h"
#include "span.h"
#include "timeline.h"

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
        totals.histogram += cf_load_relaxed(&payload->latest) != 0;
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

static void begin(uint32_t id) {
    cf_span_begin(&cf_thread, id);
}

static void end(uint32_t id) {
    cf_span_end(&cf_thread, id, cf_ticks(), 0);
}

static void test_spans_nest_interleave_and_overflow(void) {
    int64_t other = cf_process_instrument(&cf_kind_operation, "other", 5, NULL, 0);
    CHECK(other >= 0);
    uint64_t before = read_totals().count;
    begin(instrument);
    begin((uint32_t)other);
    end(instrument); /* not the latest: another task's is above it */
    end((uint32_t)other);
    end(instrument); /* never begun */
    CHECK(read_totals().count == before + 1 && cf_thread.depth == 0);
    for (unsigned i = 0; i < CF_SPAN_DEPTH + 3; i++)
        begin(instrument);
    for (unsigned i = 0; i < CF_SPAN_DEPTH + 3; i++)
        end(instrument);
    CHECK(cf_thread.depth == 0 && cf_thread.overflow == 0);
    CHECK(read_totals().count == before + 1 + CF_SPAN_DEPTH);
    CHECK(cf_load_relaxed(&cf_process_header()->samples_lost) == 3);
}

static const struct cf_entry *find_entry(const char *kind, const char *name) {
    const char *base = (const char *)cf_process_header();
    for (uint64_t offset = cf_process_header()->first_entry; offset != 0;) {
        const struct cf_entry *entry = (const void *)(base + offset);
        if (strcmp(entry->kind, kind) == 0 && entry->name_bytes == strlen(name) &&
            memcmp(entry + 1, name, strlen(name)) == 0)
            return entry;
        offset = entry->next;
    }
    return NULL;
}

static const void *only_payload(const struct cf_entry *entry) {
    const struct cf_shard *shard =
        (const void *)((const char *)cf_process_header() + entry->first_shard);
    CHECK(entry->first_shard != 0 && shard->next == 0);
    return shard + 1;
}

/* Takes a span off the stack with a duration of so many ticks. */
static void end_after(uint64_t ticks) {
    const struct cf_span *span = &cf_thread.spans[cf_thread.depth - 1];
    cf_span_end(&cf_thread, (uint32_t)span->what, span->start_tick + ticks, 0);
}

static void test_a_parent_knows_the_time_of_its_children_and_edges_are_counted(void) {
    uint32_t outer = (uint32_t)cf_process_instrument(&cf_kind_operation, "outer", 5, "k\0v", 4);
    uint32_t inner = (uint32_t)cf_process_instrument(&cf_kind_operation, "inner", 5, NULL, 0);
    begin(outer);
    for (int i = 0; i < 3; i++) {
        begin(inner);
        end_after(100);
    }
    end_after(1000);
    const struct cf_operation *of_outer = only_payload(find_entry("operation", "outer"));
    const struct cf_operation *of_inner = only_payload(find_entry("operation", "inner"));
    CHECK(of_outer->sum == 1000 && of_outer->child_sum == 300);
    CHECK(of_inner->sum == 300 && of_inner->child_sum == 0);
    const struct cf_entry *entry = find_entry("edge", "inner");
    static const char labels[] = "parent\0outer\0parent.k\0v";
    CHECK(entry && entry->label_bytes == sizeof labels);
    CHECK(memcmp((const char *)(entry + 1) + 5, labels, sizeof labels) == 0);
    const struct cf_edge *edge = only_payload(entry);
    CHECK(edge->count == 3 && edge->sum == 300);
}

static void test_many_edges_share_the_cache_and_none_is_lost(void) {
    enum { NAMES = 40, ROUNDS = 5 };
    uint32_t ids[NAMES];
    for (int i = 0; i < NAMES; i++) {
        char name[16];
        int length = snprintf(name, sizeof name, "many%d", i);
        ids[i] =
            (uint32_t)cf_process_instrument(&cf_kind_operation, name, (uint32_t)length, NULL, 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < NAMES; i++) {
            begin(ids[i]);
            for (int j = 0; j < NAMES; j++) {
                begin(ids[j]);
                end_after(1);
            }
            end_after(NAMES);
        }
    }
    uint64_t counted = 0;
    const char *base = (const char *)cf_process_header();
    for (uint64_t offset = cf_process_header()->first_entry; offset != 0;) {
        const struct cf_entry *entry = (const void *)(base + offset);
        if (strcmp(entry->kind, "edge") == 0 && memcmp(entry + 1, "many", 4) == 0)
            counted += ((const struct cf_edge *)only_payload(entry))->count;
        offset = entry->next;
    }
    CHECK(counted == (uint64_t)NAMES * NAMES * ROUNDS);
}

static void test_values_in_ns_are_an_entry_of_their_own_and_bad_ones_are_found(void) {
    static const int64_t integers[] = {5, 7, 1000};
    static const double numbers[] = {5.9, 7};
    static const int64_t negative[] = {5, -1};
    static const double not_a_number[] = {5, __builtin_nan("")};
    CHECK(cf_values_are_durations(integers, 3, CF_VALUE_I64));
    CHECK(cf_values_are_durations(numbers, 2, CF_VALUE_F64));
    CHECK(!cf_values_are_durations(negative, 2, CF_VALUE_I64));
    CHECK(!cf_values_are_durations(not_a_number, 2, CF_VALUE_F64));
    uint32_t id = (uint32_t)cf_process_instrument(&cf_kind_operation_ns, "values", 6, NULL, 0);
    cf_operation_record_many(id, integers, 3, CF_VALUE_I64);
    cf_operation_record_many(id, numbers, 2, CF_VALUE_F64);
    cf_operation_record_many(id, negative, 2, CF_VALUE_I64); /* changed after the check: 5 and 0 */
    cf_operation_record_many(id, negative, 0, CF_VALUE_I64);
    cf_operation_record_ns(id, 11, 1);
    const struct cf_entry *entry = find_entry("operation", "values");
    const struct cf_field *field =
        (const void *)((const char *)cf_process_header() + entry->fields);
    CHECK(strcmp(field[2].name, "sum") == 0 && strcmp(field[2].unit, "ns") == 0);
    const struct cf_operation *payload = only_payload(entry);
    CHECK(payload->count == 8 && payload->errors == 1 && payload->min == 0 && payload->max == 1000);
    CHECK(payload->sum == 5 + 7 + 1000 + 5 + 7 + 5 + 0 + 11);
    CHECK(payload->histogram[5] == 3 && payload->histogram[7] == 2 && payload->histogram[0] == 1);
}

static void test_the_timeline_keeps_the_latest_samples_and_their_parents(void) {
    uint32_t outer = (uint32_t)cf_process_instrument(&cf_kind_operation, "ring outer", 10, NULL, 0);
    uint32_t inner = (uint32_t)cf_process_instrument(&cf_kind_operation, "ring inner", 10, NULL, 0);
    CHECK(!cf_timeline_is_on() && cf_timeline_start() == 0 && cf_timeline_is_on());
    begin(outer);
    for (unsigned i = 0; i < CF_TIMELINE_RECORDS + 5; i++) {
        begin(inner);
        end_after(7);
    }
    end_after(100);
    const struct cf_entry *entry = find_entry("timeline", "timeline");
    const struct cf_timeline *timeline = only_payload(entry);
    CHECK(timeline->written == CF_TIMELINE_RECORDS + 6);
    const char *base = (const char *)cf_process_header();
    uint64_t outer_entry = (uint64_t)((const char *)find_entry("operation", "ring outer") - base);
    uint64_t inner_entry = (uint64_t)((const char *)find_entry("operation", "ring inner") - base);
    const struct cf_timeline_record *last = &timeline->records[5], *before = &timeline->records[4];
    CHECK(last->ticks == 100 && last->operations == outer_entry);
    CHECK(before->ticks == 7 && before->operations == (outer_entry << 32 | inner_entry));
    CHECK(last->status >> 33 == CF_TIMELINE_RECORDS + 6 && (last->status >> 32 & 1) == 0);
    CHECK((last->status & UINT32_MAX) ==
          ((const struct cf_shard *)(const void *)timeline - 1)->owner_tid);
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
    test_a_parent_knows_the_time_of_its_children_and_edges_are_counted();
    test_many_edges_share_the_cache_and_none_is_lost();
    test_values_in_ns_are_an_entry_of_their_own_and_bad_ones_are_found();
    test_the_timeline_keeps_the_latest_samples_and_their_parents();
    test_a_clock_that_steps_back_records_zero();
    test_a_value_out_of_range_is_in_all_but_the_histogram();
    char path[CF_SEGMENT_PATH_BYTES];
    CHECK(cf_process_path(path, sizeof path) > 0 && unlink(path) == 0 && rmdir(directory) == 0);
    return 0;
}
