/* Probes: what they must hold on any machine, however loaded: counts, bounds, stops, refusals. */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "probe_cost.h"
#include "probe_jitter.h"
#include "probe_pair.h"
#include "probe_wakeup.h"

static const uint32_t go_on = 0;

static uint64_t histogram_total(const struct cf_distribution *distribution) {
    uint64_t total = distribution->out_of_range;
    for (int i = 0; i < CF_HISTOGRAM_BUCKETS; i++)
        total += distribution->histogram[i];
    return total;
}

static void test_a_distribution_keeps_count_sum_and_extremes(void) {
    static struct cf_distribution distribution;
    cf_distribution_clear(&distribution);
    CHECK(distribution.min == UINT64_MAX && distribution.max == 0 && distribution.count == 0);
    const uint64_t values[] = {5, 1, UINT64_C(1) << 40, 300};
    for (int i = 0; i < 4; i++)
        cf_distribution_add(&distribution, values[i]);
    CHECK(distribution.count == 4 && distribution.sum == 306 + (UINT64_C(1) << 40));
    CHECK(distribution.min == 1 && distribution.max == UINT64_C(1) << 40);
    CHECK(distribution.out_of_range == 1 && histogram_total(&distribution) == 4);
}

static void test_a_load_is_a_difference(void) {
    struct cf_thread_load load;
    cf_thread_load_read(&load);
    uint64_t voluntary = load.voluntary_switches;
    usleep(1000);
    cf_thread_load_since(&load);
    CHECK(load.voluntary_switches >= 1 && load.voluntary_switches < voluntary + 1000);
    CHECK(!load.run_delay_known || load.run_delay_ns < UINT64_C(60000000000));
}

enum { CAPACITY = 64 };

/* Every turn of the loop is longer than no time at all, so that a threshold of 0 notes most. */
static void test_jitter_keeps_the_largest_gaps_and_counts_all(void) {
    static struct cf_jitter_result result;
    static struct cf_gap kept[CAPACITY];
    uint64_t duration_ticks = 20000000;
    uint64_t begin_tick = cf_ticks();
    cf_probe_jitter(begin_tick, duration_ticks, 0, 1, kept, CAPACITY, &go_on, &result);
    CHECK(result.start_tick >= begin_tick && result.end_tick >= result.start_tick + duration_ticks);
    CHECK(result.gaps.count <= result.turns && result.gaps.count > CAPACITY);
    CHECK(histogram_total(&result.gaps) == result.gaps.count);
    CHECK(result.kept == CAPACITY);
    CHECK(result.gaps.sum + result.handling_ticks <= result.end_tick - result.start_tick);
    uint64_t smallest = UINT64_MAX, largest = 0, above = 0;
    for (int i = 0; i < CAPACITY; i++) {
        CHECK(kept[i].start_tick >= result.start_tick && kept[i].start_tick < result.end_tick);
        smallest = kept[i].ticks < smallest ? kept[i].ticks : smallest;
        largest = kept[i].ticks > largest ? kept[i].ticks : largest;
    }
    CHECK(largest == result.gaps.max);
    /* No bucket above the smallest kept gap's may hold more gaps than were kept. */
    for (uint32_t b = cf_histogram_bucket(smallest) + 1; b < CF_HISTOGRAM_BUCKETS; b++)
        above += result.gaps.histogram[b];
    CHECK(above <= CAPACITY);
}

static void test_jitter_keeps_nothing_without_room_and_without_a_gap(void) {
    static struct cf_jitter_result result;
    struct cf_gap none = {.ticks = 7};
    cf_probe_jitter(cf_ticks(), 1000000, 0, 0, &none, 0, &go_on, &result);
    CHECK(result.kept == 0 && none.ticks == 7 && result.gaps.count > 0);
    cf_probe_jitter(cf_ticks(), 1000000, UINT64_MAX, 0, &none, 1, &go_on, &result);
    CHECK(result.kept == 0 && result.gaps.count == 0 && result.gaps.min == UINT64_MAX);
    CHECK(result.turns > 0);
}

static void test_jitter_that_is_stopped_at_once_makes_no_turn(void) {
    static struct cf_jitter_result result;
    struct cf_gap gap;
    const uint32_t stopped = 1;
    cf_probe_jitter(UINT64_MAX, UINT64_C(1) << 60, 0, 1, &gap, 1, &stopped, &result);
    CHECK(result.turns == 0 && result.gaps.count == 0 && result.kept == 0);
}

struct stopper {
    pthread_t thread;
    uint32_t stop;
};

static void *set_stop(void *argument) {
    struct stopper *stopper = argument;
    usleep(20000);
    cf_store_relaxed(&stopper->stop, 1u);
    return NULL;
}

static void start_stopper(struct stopper *stopper) {
    stopper->stop = 0;
    CHECK(pthread_create(&stopper->thread, NULL, set_stop, stopper) == 0);
}

static void test_another_thread_stops_each_probe(void) {
    static struct cf_jitter_result jitter;
    static struct cf_wakeup_result wakeup;
    static struct cf_cost_result cost;
    static struct cf_pair_result pair;
    struct cf_gap gap;
    struct stopper stopper;
    start_stopper(&stopper);
    cf_probe_jitter(cf_ticks(), UINT64_C(1) << 60, UINT64_MAX, 1, &gap, 1, &stopper.stop, &jitter);
    pthread_join(stopper.thread, NULL);
    start_stopper(&stopper);
    CHECK(cf_probe_wakeup(100000, UINT64_C(1) << 50, &stopper.stop, &wakeup) == 0);
    pthread_join(stopper.thread, NULL);
    start_stopper(&stopper);
    CHECK(cf_probe_cost(CF_COST_YIELD, UINT32_MAX, &stopper.stop, &cost) == 0);
    pthread_join(stopper.thread, NULL);
    int cpu = sched_getcpu();
    const enum cf_pair_kind kinds[] = {CF_PAIR_FUTEX, CF_PAIR_PIPE};
    for (int i = 0; i < 2; i++) {
        struct cf_pair_config config = {.kind = kinds[i], .cpu_a = cpu, .cpu_b = cpu};
        config.samples = 1u << 30, config.samples_a_page = 1u << 29, config.round_trips = 1;
        start_stopper(&stopper);
        CHECK(cf_probe_pair(&config, &stopper.stop, &pair) == 0);
        pthread_join(stopper.thread, NULL);
        CHECK(pair.batch.count < config.samples);
    }
}

static void test_wakeups_are_counted_from_the_intended_time(void) {
    static struct cf_wakeup_result result;
    CHECK(cf_probe_wakeup(0, 1000000, &go_on, &result) == -EINVAL);
    CHECK(cf_probe_wakeup(100000, 5000000, &go_on, &result) == 0);
    CHECK(result.latency.count == 50 && histogram_total(&result.latency) == 50);
    CHECK(result.end_ns >= result.start_ns + 4900000);
    CHECK(result.overruns <= 50);
}

static void test_every_cost_gives_as_many_samples_as_asked(void) {
    static struct cf_cost_result result;
    for (int kind = CF_COST_SYSCALL; kind <= CF_COST_PIPE; kind++) {
        CHECK(cf_probe_cost((enum cf_cost_kind)kind, 300, &go_on, &result) == 0);
        CHECK(result.ticks.count == 300 && histogram_total(&result.ticks) == 300);
        CHECK(result.batch >= 1 && result.ticks.min > 0);
    }
    CHECK(result.load.minor_faults < 300);
    CHECK(cf_probe_cost(CF_COST_MINOR_FAULT, 300, &go_on, &result) == 0);
    CHECK(result.load.minor_faults >= 300);
    CHECK(cf_probe_cost((enum cf_cost_kind)0, 1, &go_on, &result) == -EINVAL);
    CHECK(cf_probe_cost((enum cf_cost_kind)5, 1, &go_on, &result) == -EINVAL);
}

/* The first two CPUs this process may use; the second is -1 where there is one only. */
static void usable_cpus(int cpus[2]) {
    cpu_set_t set;
    int found = 0;
    cpus[0] = cpus[1] = -1;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (CPU_ISSET(cpu, &set))
            cpus[found++] = cpu;
    }
}

static void test_a_pair_times_each_batch_on_fresh_pages(void) {
    static struct cf_pair_result result;
    int cpus[2];
    usable_cpus(cpus);
    for (int kind = CF_PAIR_LOAD_STORE; kind <= CF_PAIR_PIPE; kind++) {
        int spins = kind == CF_PAIR_LOAD_STORE || kind == CF_PAIR_CAS;
        if (spins && cpus[1] < 0)
            continue;
        struct cf_pair_config config = {
            (enum cf_pair_kind)kind, cpus[0], spins ? cpus[1] : cpus[0], 25, 4, 10};
        CHECK(cf_probe_pair(&config, &go_on, &result) == 0);
        CHECK(result.batch.count == 25 && histogram_total(&result.batch) == 25);
        CHECK(result.batch.min > 0);
    }
}

static void test_a_pair_that_can_not_run_is_refused(void) {
    static struct cf_pair_result result;
    int cpus[2];
    usable_cpus(cpus);
    struct cf_pair_config config = {CF_PAIR_CAS, cpus[0], cpus[0], 1, 1, 1};
    CHECK(cf_probe_pair(&config, &go_on, &result) == -EINVAL);
    config.kind = CF_PAIR_FUTEX, config.cpu_b = CPU_SETSIZE + 5;
    CHECK(cf_probe_pair(&config, &go_on, &result) == -EINVAL);
    config.cpu_b = -1;
    CHECK(cf_probe_pair(&config, &go_on, &result) == -EINVAL);
    config.kind = CF_PAIR_PIPE;
    CHECK(cf_probe_pair(&config, &go_on, &result) == -EINVAL);
    config.cpu_b = cpus[0], config.round_trips = 0;
    CHECK(cf_probe_pair(&config, &go_on, &result) == -EINVAL);
    config.round_trips = 1u << 20, config.samples_a_page = 1u << 12;
    CHECK(cf_probe_pair(&config, &go_on, &result) == -EINVAL);
}

int main(void) {
    cf_tick_select();
    test_a_distribution_keeps_count_sum_and_extremes();
    test_a_load_is_a_difference();
    test_jitter_keeps_the_largest_gaps_and_counts_all();
    test_jitter_keeps_nothing_without_room_and_without_a_gap();
    test_jitter_that_is_stopped_at_once_makes_no_turn();
    test_another_thread_stops_each_probe();
    test_wakeups_are_counted_from_the_intended_time();
    test_every_cost_gives_as_many_samples_as_asked();
    test_a_pair_times_each_batch_on_fresh_pages();
    test_a_pair_that_can_not_run_is_refused();
    return 0;
}
