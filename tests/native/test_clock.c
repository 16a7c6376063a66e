/* Clock: conversion, the seqlock under contention, the centre of synthetic clusters, offsets,
 * stamps. */
#include "check.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "cost.h"
#include "offset.h"
#include "sampler.h"
#include "stamp.h"

static uint64_t state = 88172645463325252u;

/* xorshift64 (Marsaglia 2003): a fixed sequence. */
static uint64_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void test_portable_product_equals_the_128_bit_one(void) {
    for (int i = 0; i < 200000; i++) {
        uint64_t value = next_random() >> (next_random() % 64), mult = next_random();
        uint32_t shift = 1 + (uint32_t)(next_random() % 64);
        uint64_t inexact, portable_inexact;
        uint64_t result = cf_mul_shift(value, mult, shift, &inexact);
        CHECK(cf_mul_shift_portable(value, mult, shift, &portable_inexact) == result);
        CHECK(portable_inexact == inexact);
    }
    uint64_t inexact;
    CHECK(cf_mul_shift_portable(UINT64_MAX, UINT64_MAX, 64, &inexact) == UINT64_MAX - 1);
    CHECK(inexact == 1);
}

static void test_conversion_rounds_down_on_both_sides_of_the_base(void) {
    /* 3 ns for 8 ticks */
    struct cf_clock_line line = {1000, 500, 3, 3, CLOCK_MONOTONIC_RAW};
    CHECK(cf_clock_convert(&line, 1000) == 500);
    CHECK(cf_clock_convert(&line, 1008) == 503);
    CHECK(cf_clock_convert(&line, 1007) == 502);
    CHECK(cf_clock_convert(&line, 992) == 497);
    CHECK(cf_clock_convert(&line, 999) == 499);
    for (uint64_t tick = 1; tick < 3000; tick++)
        CHECK(cf_clock_convert(&line, tick) >= cf_clock_convert(&line, tick - 1));
}

static void test_now_is_the_raw_clock_until_a_line_is_published(void) {
    struct cf_clock_line line;
    CHECK(cf_clock_published(&line) == -ENOENT);
    uint64_t before = cf_os_ns(CLOCK_MONOTONIC_RAW), now = cf_clock_now_ns();
    CHECK(before <= now && now <= cf_os_ns(CLOCK_MONOTONIC_RAW));
    struct cf_clock_line bad = {0, 0, 0, 64, CLOCK_MONOTONIC_RAW};
    CHECK(cf_clock_publish(&bad) == -EINVAL);
    bad = (struct cf_clock_line){0, 0, 1, 65, CLOCK_MONOTONIC_RAW};
    CHECK(cf_clock_publish(&bad) == -EINVAL);
    bad.shift = 0;
    CHECK(cf_clock_publish(&bad) == -EINVAL);
}

enum { PUBLICATIONS = 20000 };
static uint32_t writers_done;

/* Every published line has base_ns = base_tick + 1 and mult = base_tick + 2: a mixture of two
 * lines breaks that. */
static void *publish_many(void *argument) {
    uint64_t seed = *(uint64_t *)argument;
    for (uint64_t i = 0; i < PUBLICATIONS; i++) {
        uint64_t base = (seed << 32) + i * 7;
        struct cf_clock_line line = {base, base + 1, base + 2, 1 + (uint32_t)(base % 64),
                                     CLOCK_MONOTONIC_RAW};
        CHECK(cf_clock_publish(&line) == 0);
        if (i % 64 == 0)
            sched_yield();
    }
    __atomic_fetch_add(&writers_done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void test_readers_never_see_a_mixture_of_two_lines(void) {
    uint64_t seeds[2] = {1, 2};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, publish_many, &seeds[i]) == 0);
    while (__atomic_load_n(&writers_done, __ATOMIC_ACQUIRE) < 2) {
        struct cf_clock_line line;
        if (cf_clock_published(&line) != 0)
            continue;
        CHECK(line.base_ns == line.base_tick + 1);
        CHECK(line.mult == line.base_tick + 2);
        CHECK(line.shift == 1 + line.base_tick % 64);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void test_withdrawal_reads_the_line_s_reference_again(void) {
    struct cf_clock_line line = {0, 0, 1, 1, CLOCK_REALTIME};
    CHECK(cf_clock_publish(&line) == 0);
    CHECK(cf_clock_published(&line) == 0 && line.reference == CLOCK_REALTIME);
    cf_clock_withdraw();
    CHECK(cf_clock_published(&line) == -ENOENT);
    uint64_t before = cf_os_ns(CLOCK_REALTIME), now = cf_clock_now_ns();
    CHECK(before <= now && now <= cf_os_ns(CLOCK_REALTIME));
}

enum { PAIRS = 1500 };
static struct cf_pair pairs[PAIRS];
static uint32_t scratch[2 * PAIRS];

/* A counter that advances by 26 ticks at 2.596 GHz; the clock is read two steps after the first
 * tick read in nine of ten pairs, one or three steps after it otherwise, and rounded down. */
static const double NS_PER_TICK = 1 / 2.596132173;
static double true_ns(uint64_t tick) {
    return 1e6 + (double)(tick - 1000000000) * NS_PER_TICK;
}

static void make_cluster(void) {
    uint64_t tick = 1000000000 / 26 * 26;
    for (int i = 0; i < PAIRS; i++) {
        uint32_t chance = (uint32_t)(next_random() % 100);
        uint32_t steps = chance < 90 ? 2 : chance < 95 ? 1 : 3;
        tick += 26 * (10 + next_random() % 16);
        pairs[i] = (struct cf_pair){tick, (uint64_t)true_ns(tick + steps * 26), 4 * 26, 1};
    }
}

static double centre_error(const struct cf_centre *centre) {
    return (double)centre->ns + centre->fraction_ns - true_ns(centre->tick);
}

static void test_centre_is_the_mode_of_the_lattice(void) {
    for (int round = 0; round < 50; round++) {
        make_cluster();
        struct cf_centre centre;
        CHECK(cf_cluster_centre(pairs, PAIRS, NS_PER_TICK, scratch, &centre) == 0);
        CHECK(fabs(centre_error(&centre)) < 0.05);
        CHECK(centre.error_ns < 0.02 && centre.kept == PAIRS && centre.cpu == 1);
        CHECK(centre.min_width == 104 && centre.cpu_changes == 0);
    }
}

static void test_wide_pairs_and_changes_of_the_cpu_are_left_out(void) {
    make_cluster();
    for (int i = 100; i < 500; i++)
        pairs[i].width = 5000, pairs[i].ns += 700;
    for (int i = 1000; i < PAIRS; i++)
        pairs[i].cpu = 0;
    pairs[1000].ns += 40; /* the pair in which the CPU changed */
    struct cf_centre centre;
    CHECK(cf_cluster_centre(pairs, PAIRS, NS_PER_TICK, scratch, &centre) == 0);
    CHECK(centre.kept == PAIRS - 401 && centre.cpu_changes == 1 && centre.cpu == -1);
    CHECK(fabs(centre_error(&centre)) < 0.05);
}

/* 30 ms in which another thread ran, at the start, at the end, or inside a pair. */
static void test_a_preempted_cluster_keeps_its_centre(void) {
    static const int held_up[] = {1, 10, 700, PAIRS / 2, 1400, PAIRS - 1};
    for (size_t k = 0; k < sizeof held_up / sizeof held_up[0]; k++) {
        uint64_t gap = 26 * 3000000;
        make_cluster();
        for (int i = held_up[k]; i < PAIRS; i++) {
            pairs[i].before += gap;
            pairs[i].ns = (uint64_t)true_ns(pairs[i].before + 52);
        }
        /* The tick was read, then the thread was held up, then the clock was read. */
        pairs[0].width = 80000000;
        pairs[0].ns += 30000000;
        struct cf_centre centre;
        CHECK(cf_cluster_centre(pairs, PAIRS, NS_PER_TICK, scratch, &centre) == 0);
        CHECK(centre.kept == PAIRS - 1);
        CHECK(fabs(centre_error(&centre)) < 0.05);
    }
}

static void test_a_cluster_without_a_usable_pair_has_no_centre(void) {
    struct cf_centre centre;
    CHECK(cf_cluster_centre(pairs, 0, NS_PER_TICK, scratch, &centre) == -ENODATA);
    memset(pairs, 0xff, sizeof pairs);
    CHECK(cf_cluster_centre(pairs, PAIRS, NS_PER_TICK, scratch, &centre) == -ENODATA);
    for (int i = 0; i < PAIRS; i++)
        pairs[i] = (struct cf_pair){(uint64_t)i * 1000, 0, UINT32_MAX, i % 2};
    CHECK(cf_cluster_centre(pairs, PAIRS, NS_PER_TICK, scratch, &centre) == -ENODATA);
    make_cluster();
    CHECK(cf_cluster_centre(pairs, 20, NS_PER_TICK, scratch, &centre) == 0);
    CHECK(isinf(centre.error_ns));
}

static void test_any_pairs_at_all_are_survived(void) {
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < PAIRS; i++)
            pairs[i] = (struct cf_pair){next_random(), next_random(), (uint32_t)next_random(),
                                        (int32_t)(next_random() % 2)};
        struct cf_centre centre;
        cf_cluster_centre(pairs, 1 + (uint32_t)(next_random() % PAIRS), NS_PER_TICK, scratch,
                          &centre);
    }
}

static void test_sampled_pairs_follow_each_other(void) {
    CHECK(cf_sample_pairs(CLOCK_MONOTONIC_RAW, pairs, PAIRS) == 0);
    for (int i = 1; i < PAIRS; i++)
        CHECK(pairs[i].ns >= pairs[i - 1].ns);
    CHECK(cf_sample_pairs(9999, pairs, PAIRS) == -EINVAL);
    CHECK(cf_sample_pairs(CLOCK_MONOTONIC_RAW, pairs, 0) == 0);
}

static void test_costs_and_increments_are_counted(void) {
    uint64_t elapsed[5];
    for (int kind = 0; kind < CF_READ_KINDS; kind++)
        CHECK(cf_read_costs((enum cf_read_kind)kind, 100, elapsed, 5) == 0);
    CHECK(cf_read_costs(CF_READ_KINDS, 1, elapsed, 5) == -EINVAL);
    uint32_t counts[4096] = {0}, total = 0;
    cf_tick_increments(counts, 4096, 1000);
    for (int i = 0; i < 4096; i++)
        total += counts[i];
    CHECK(total > 0 && total <= 1000);
}

static void test_offset_takes_two_cpus_that_exist(void) {
    struct cf_offset offset;
    CHECK(cf_offset_measure(0, 0, 10, 1000000, &offset) == -EINVAL);
    CHECK(cf_offset_measure(-1, 0, 10, 1000000, &offset) == -EINVAL);
    CHECK(cf_offset_measure(0, 100000, 10, 1000000, &offset) == -EINVAL);
    cpu_set_t set;
    int found[2], count = 0;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; cpu++)
        if (CPU_ISSET(cpu, &set))
            found[count++] = cpu;
    if (count < 2)
        return;
    int status = cf_offset_measure(found[0], found[1], 2000, 2000000000, &offset);
    CHECK(status == 0 || status == -ETIMEDOUT);
    if (status == 0) {
        CHECK(offset.exchanges > 0 && offset.exchanges <= 2000);
        CHECK(offset.min_ab + offset.min_ba >= 0);
    }
}

static void test_stamps_overwrite_the_oldest(void) {
    struct cf_stamp slots[4] = {{0, 0}};
    struct cf_stamp_ring ring = {slots, 3, 0};
    for (uint64_t id = 1; id <= 6; id++)
        cf_stamp_record(&ring, id, cf_ticks());
    CHECK(ring.recorded == 6);
    CHECK(slots[0].id == 5 && slots[1].id == 6 && slots[2].id == 3 && slots[3].id == 4);
    CHECK(slots[1].tick >= slots[0].tick && slots[0].tick >= slots[3].tick);
}

static void *stamp_many(void *argument) {
    for (uint64_t id = 0; id < 10000; id++)
        cf_stamp_record_shared(argument, id, cf_ticks());
    return NULL;
}

static void test_shared_stamps_are_all_counted(void) {
    static struct cf_stamp slots[1024];
    struct cf_stamp_ring ring = {slots, 1023, 0};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, stamp_many, &ring) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CHECK(ring.recorded == 20000);
}

/* In a child, because a process selects its source once. With the TSC disabled the vDSO's own read
 * kills the process, so everything must go through real syscalls. */
static void test_a_disabled_tsc_leaves_the_os_clock(void) {
#if defined(__x86_64__) && !defined(CF_TICK_PORTABLE)
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) == 0);
        CHECK(cf_tick_select() == CF_TICK_OS && cf_tick_gate() == CF_GATE_PRCTL);
        uint64_t now = cf_clock_now_ns();
        CHECK(now > 0 && cf_ticks() >= now);
        CHECK(cf_sample_pairs(CLOCK_MONOTONIC, pairs, PAIRS) == 0);
        uint64_t elapsed[2];
        CHECK(cf_read_costs(CF_READ_REALTIME, 10, elapsed, 2) == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
}

static void test_every_gate_has_a_name_and_a_text(void) {
    for (int gate = CF_GATE_OPEN; gate <= CF_GATE_REQUESTED; gate++) {
        CHECK(strlen(cf_gate_name((enum cf_gate)gate)) > 3);
        CHECK(strlen(cf_gate_text((enum cf_gate)gate)) > 10);
    }
}

int main(void) {
    test_a_disabled_tsc_leaves_the_os_clock();
    test_every_gate_has_a_name_and_a_text();
    cf_tick_select();
    test_portable_product_equals_the_128_bit_one();
    test_conversion_rounds_down_on_both_sides_of_the_base();
    test_now_is_the_raw_clock_until_a_line_is_published();
    test_readers_never_see_a_mixture_of_two_lines();
    test_withdrawal_reads_the_line_s_reference_again();
    test_centre_is_the_mode_of_the_lattice();
    test_wide_pairs_and_changes_of_the_cpu_are_left_out();
    test_a_preempted_cluster_keeps_its_centre();
    test_a_cluster_without_a_usable_pair_has_no_centre();
    test_any_pairs_at_all_are_survived();
    test_sampled_pairs_follow_each_other();
    test_costs_and_increments_are_counted();
    test_offset_takes_two_cpus_that_exist();
    test_stamps_overwrite_the_oldest();
    test_shared_stamps_are_all_counted();
    return 0;
}
