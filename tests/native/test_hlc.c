/* Hybrid logical clock and wall clock: edges, threads, steps, the seqlock under contention. */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bus.h"
#include "hlc.h"

static const uint64_t T = UINT64_C(1795000000000000000) / 16 * 16;

static void test_a_stamp_is_the_time_or_one_above_the_last(void) {
    struct cf_hlc hlc = {0};
    CHECK(cf_hlc_tick(&hlc, T + 15) == T);
    CHECK(cf_hlc_tick(&hlc, T + 15) == T + 1);
    CHECK(cf_hlc_tick(&hlc, T + 16) == T + 16);
    CHECK(cf_hlc_tick(&hlc, 0) == T + 17);
    for (uint64_t i = 0; i < 40; i++)
        CHECK(cf_hlc_tick(&hlc, T + 16) == T + 18 + i);
}

static void test_a_message_too_far_ahead_leaves_the_clock_untouched(void) {
    struct cf_hlc hlc = {0};
    uint64_t stamp = 42;
    cf_hlc_tick(&hlc, T);
    CHECK(cf_hlc_receive(&hlc, T, T + 1001, 1000, &stamp) == -ERANGE);
    CHECK(hlc.last == T && stamp == 42);
    CHECK(cf_hlc_receive(&hlc, T, T + 1000, 1000, &stamp) == 0 && stamp == T + 1001);
    CHECK(cf_hlc_receive(&hlc, T, UINT64_MAX, UINT64_MAX, &stamp) == -ERANGE);
    CHECK(cf_hlc_receive(&hlc, T, CF_HLC_LAST_ACCEPTED + 1, UINT64_MAX, &stamp) == -ERANGE);
    CHECK(cf_hlc_receive(&hlc, T, 0, 1000, &stamp) == 0 && stamp == T + 1002);
}

enum { TICKS = 100000 };
static struct cf_hlc shared;
static uint64_t stamps[2][TICKS];

static void *tick_many(void *argument) {
    uint64_t *into = argument;
    for (int i = 0; i < TICKS; i++)
        into[i] = cf_hlc_tick(&shared, T + (uint64_t)i / 64);
    return NULL;
}

static void test_two_threads_share_no_stamp(void) {
    pthread_t other;
    CHECK(pthread_create(&other, NULL, tick_many, stamps[1]) == 0);
    tick_many(stamps[0]);
    pthread_join(other, NULL);
    for (int a = 0, b = 0; a < TICKS && b < TICKS;) {
        CHECK(stamps[0][a] != stamps[1][b]);
        if (stamps[0][a] < stamps[1][b])
            a++;
        else
            b++;
    }
    for (int i = 1; i < TICKS; i++)
        CHECK(stamps[0][i - 1] < stamps[0][i] && stamps[1][i - 1] < stamps[1][i]);
}

static void test_a_step_backwards_is_seen_and_a_slew_or_a_step_forwards_is_none(void) {
    struct cf_wall wall = {0};
    struct cf_clock_line line = {0, 0, 1, 1, CLOCK_MONOTONIC_RAW}; /* half a ns per tick */
    struct cf_wall_reading reading = {1000, T, T - 500};
    uint32_t stepped;
    CHECK(cf_wall_anchor(&wall, &reading, &line) == 0);
    CHECK(cf_wall_at(&wall, 1000, &stepped) == T && !stepped);
    CHECK(cf_wall_at(&wall, 3000, &stepped) == T + 1000 && !stepped);
    CHECK(cf_wall_at(&wall, 900, &stepped) == T - 50 && !stepped);
    reading.offset_ns -= 900; /* the error of a reading */
    CHECK(cf_wall_anchor(&wall, &reading, &line) == 0);
    reading.offset_ns += 1000000000;
    CHECK(cf_wall_anchor(&wall, &reading, &line) == 0);
    reading.offset_ns -= 20000;
    reading.realtime_ns -= 20000;
    CHECK(cf_wall_anchor(&wall, &reading, &line) == 1);
    CHECK(wall.steps_back == 1);
    CHECK(cf_wall_at(&wall, 1000, &stepped) == T - 20000);
}

static void test_the_line_is_used_for_a_millisecond_and_then_the_clock_is_read(void) {
    struct cf_wall wall = {0};
    struct cf_clock_line line = {0, 0, 1, 1, CLOCK_MONOTONIC_RAW};
    struct cf_wall_reading reading = {UINT64_C(1) << 40, T, 0};
    uint32_t stepped;
    CHECK(cf_wall_anchor(&wall, &reading, &line) == 0);
    uint64_t span = 2 * CF_WALL_SPAN_NS;
    CHECK(cf_wall_at(&wall, reading.tick + span - 2, &stepped) == T + CF_WALL_SPAN_NS - 1);
    uint64_t real = cf_os_ns(CLOCK_REALTIME);
    CHECK(cf_wall_at(&wall, reading.tick + span, &stepped) >= real);
}

static void test_without_a_rate_it_is_the_os_clock(void) {
    uint32_t stepped;
    for (int i = 0; i < 1000; i++) {
        struct cf_wall wall = {0};
        uint64_t before = cf_os_ns(CLOCK_REALTIME);
        uint64_t now = cf_wall_at(&wall, cf_ticks(), &stepped);
        CHECK(before <= now && now <= cf_os_ns(CLOCK_REALTIME));
        CHECK(wall.span_ticks == 0);
    }
}

/* An anchor without a line, `ms` after the start by CLOCK_MONOTONIC and at a tick of its own. */
static int anchor_at(struct cf_wall *wall, uint64_t tick, uint64_t ms, uint64_t offset_ns) {
    uint64_t monotonic_ns = UINT64_C(5000000000) + ms * 1000000;
    struct cf_wall_reading reading = {tick, monotonic_ns + offset_ns, offset_ns};
    return cf_wall_anchor(wall, &reading, NULL);
}

static void test_two_rates_that_agree_are_a_line(void) {
    struct cf_wall wall = {0};
    uint32_t stepped;
    CHECK(anchor_at(&wall, 0, 0, T) == 0 && wall.span_ticks == 0);
    CHECK(anchor_at(&wall, 2000000, 1, T) == 0 && wall.span_ticks == 0);
    CHECK(anchor_at(&wall, 4001000, 2, T) == 0 && wall.span_ticks != 0);
    uint64_t at = T + UINT64_C(5002000000);
    CHECK(cf_wall_at(&wall, 4001000, &stepped) == at);
    uint64_t later = cf_wall_at(&wall, 4001000 + 1000000, &stepped);
    CHECK(later >= at + 499000 && later <= at + 501000);
    /* A step forwards is of CLOCK_REALTIME alone: the rate stays. */
    CHECK(anchor_at(&wall, 6001000, 3, T + 1000000000) == 0 && wall.span_ticks != 0);
    CHECK(cf_wall_at(&wall, 6001000, &stepped) == T + UINT64_C(6003000000));
}

static void test_a_suspended_counter_is_no_rate(void) {
    struct cf_wall wall = {0};
    for (uint64_t ms = 0; ms < 3; ms++)
        CHECK(anchor_at(&wall, ms * 2000000, ms, T) == 0);
    CHECK(wall.span_ticks != 0);
    CHECK(anchor_at(&wall, UINT64_C(9000000000000), 3, T) == 0 && wall.span_ticks == 0);
    CHECK(anchor_at(&wall, UINT64_C(9000002000000), 4, T) == 0 && wall.span_ticks == 0);
    CHECK(anchor_at(&wall, UINT64_C(9000004000000), 5, T) == 0 && wall.span_ticks != 0);
    /* Anchors too near to each other, or the counter at rest. */
    CHECK(anchor_at(&wall, UINT64_C(9000004000100), 5, T) == 0 && wall.span_ticks == 0);
    CHECK(anchor_at(&wall, UINT64_C(9000004000100), 6, T) == 0 && wall.span_ticks == 0);
}

static void test_stamps_in_a_row_are_nobody_elses(void) {
    struct cf_hlc hlc = {0};
    CHECK(cf_hlc_advance(&hlc, T, 16) == T && hlc.last == T + 15);
    CHECK(cf_hlc_tick(&hlc, T) == T + 16);
    uint64_t first = cf_hlc_node_tick_many(&cf_hlc_process, T, 5);
    CHECK(cf_hlc_node_tick(&cf_hlc_process, T) == first + 5);
}

/* Merges a stamp and returns whether the clock of the process took it. */
static int merges(uint64_t stamp, uint64_t tick, uint64_t *looked_tick) {
    cf_bus_merge_stamp(stamp, 9, tick, looked_tick);
    return cf_load_relaxed(&cf_hlc_process.clock.last) >= stamp;
}

static void test_a_stamp_far_ahead_is_refused_after_a_step_backwards_too(void) {
    const uint64_t second = 1000000000, span = 2 * CF_WALL_SPAN_NS, tick = UINT64_C(1) << 40;
    struct cf_clock_line line = {0, 0, 1, 1, CLOCK_MONOTONIC_RAW};
    struct cf_wall_reading reading = {tick, T, T};
    uint64_t looked_tick = 0;
    cf_hlc_process.clock.last = 0;
    CHECK(cf_wall_anchor(&cf_wall_process, &reading, &line) == 0);
    CHECK(!merges(T + second, tick, &looked_tick));
    CHECK(merges(T, tick, &looked_tick));
    CHECK(merges(T + second / 4, tick + span / 2, &looked_tick));
    CHECK(!merges(T + second, tick + span / 2, &looked_tick));
    const uint64_t later = tick + 2 * span;
    reading = (struct cf_wall_reading){later, T - 10 * second, T - 10 * second};
    CHECK(cf_wall_anchor(&cf_wall_process, &reading, &line) == 1);
    CHECK(!merges(T + second / 3, later, &looked_tick));
    CHECK(!merges(T + second / 3, later + span / 2, &looked_tick));
    cf_hlc_process.clock.last = 0;
    CHECK(merges(T - 10 * second + second / 4, later + span / 2, &looked_tick));
    cf_wall_process = (struct cf_wall){0};
}

static struct cf_wall contended;
static uint32_t anchors_done;

/* Every anchor has base_ns = T + base_tick: a mixture of two breaks that. */
static void *anchor_many(void *argument) {
    uint64_t seed = *(uint64_t *)argument;
    struct cf_clock_line line = {0, 0, 2, 1, CLOCK_MONOTONIC_RAW};
    for (uint64_t i = 1; i <= 20000; i++) {
        struct cf_wall_reading reading = {seed + i, T + seed + i, 0};
        int result = cf_wall_anchor(&contended, &reading, &line);
        /* 1: the test's reader put a reading of the real clock between. */
        CHECK(result == 0 || result == 1 || result == -EBUSY);
    }
    cf_add_relaxed(&anchors_done, 1);
    return NULL;
}

static void test_a_reader_never_sees_a_mixture_of_two_anchors(void) {
    pthread_t writers[2];
    uint64_t seeds[2] = {1000, 500000};
    struct cf_wall_reading first = {1, T + 1, 0};
    struct cf_clock_line line = {0, 0, 2, 1, CLOCK_MONOTONIC_RAW};
    CHECK(cf_wall_anchor(&contended, &first, &line) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&writers[i], NULL, anchor_many, &seeds[i]) == 0);
    while (cf_load_relaxed(&anchors_done) < 2) {
        uint32_t stepped;
        uint64_t now = cf_wall_at(&contended, 400000, &stepped);
        /* Or a reading of the real clock, which stands far from T. */
        CHECK(now == T + 400000 || now > T + 1000000000 || now < T - 1000000000);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(writers[i], NULL);
}

static void test_a_forked_child_has_no_node_id(void) {
    CHECK(cf_hlc_node_initialise(&cf_hlc_process, 5, CF_HLC_MAX_OFFSET_NS) == 0);
    uint64_t before = cf_hlc_node_tick(&cf_hlc_process, T);
    pid_t child = fork();
    if (child == 0)
        _exit(cf_hlc_process.node == 0 && cf_hlc_node_tick(&cf_hlc_process, T) > before ? 0 : 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(cf_hlc_process.node == 5);
}

int main(void) {
    cf_tick_select();
    test_a_stamp_is_the_time_or_one_above_the_last();
    test_a_message_too_far_ahead_leaves_the_clock_untouched();
    test_two_threads_share_no_stamp();
    test_a_step_backwards_is_seen_and_a_slew_or_a_step_forwards_is_none();
    test_the_line_is_used_for_a_millisecond_and_then_the_clock_is_read();
    test_without_a_rate_it_is_the_os_clock();
    test_two_rates_that_agree_are_a_line();
    test_a_suspended_counter_is_no_rate();
    test_stamps_in_a_row_are_nobody_elses();
    test_a_stamp_far_ahead_is_refused_after_a_step_backwards_too();
    test_a_reader_never_sees_a_mixture_of_two_anchors();
    test_a_forked_child_has_no_node_id();
    return 0;
}
