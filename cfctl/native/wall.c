#include "wall.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

struct cf_wall cf_wall_process;

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A thread that the child does not have may have been at the anchor. */
static void forget_in_child(void) {
    cf_wall_process = (struct cf_wall){.steps_back = cf_load_relaxed(&cf_wall_process.steps_back)};
}

static void initialise(void) {
    pthread_atfork(NULL, NULL, forget_in_child);
}

/* The seqlock of clock.c, but nobody waits: false while a writer is at work or without a line. */
static inline bool load(struct cf_wall *wall, struct cf_clock_line *line, uint64_t *span_ticks) {
    uint64_t sequence = cf_load_acquire(&wall->sequence);
    line->base_tick = cf_load_acquire(&wall->base_tick);
    line->base_ns = cf_load_acquire(&wall->base_ns);
    line->mult = cf_load_acquire(&wall->mult);
    line->shift = (uint32_t)cf_load_acquire(&wall->shift);
    *span_ticks = cf_load_acquire(&wall->span_ticks);
    return !(sequence & 1) && sequence == cf_load_relaxed(&wall->sequence) && *span_ticks != 0;
}

/* How many ticks CF_WALL_SPAN_NS are: at most 2^63 whatever the line says. */
static uint64_t span_of(const struct cf_clock_line *line) {
    double ns_per_tick = (double)line->mult / ((double)(UINT64_C(1) << (line->shift - 1)) * 2.0);
    double ticks = (double)CF_WALL_SPAN_NS / ns_per_tick;
    return ticks < 1e18 ? (uint64_t)ticks : (uint64_t)1000000000000000000;
}

enum { OWN_SHIFT = 29, OWN_AGREEMENT = 512 };

/* Takes the rate of the last anchor and this reading, by CLOCK_MONOTONIC, which is never set.
 * Returns whether it agrees with the one before: after a suspension, or a reading that went wrong,
 * one of two does not. */
static bool take_own_rate(struct cf_wall *wall, const struct cf_wall_reading *reading) {
    static const uint64_t least_ns = CF_WALL_SPAN_NS / 2, most_ns = UINT64_C(1) << 34;
    uint64_t ticks = reading->tick - cf_load_relaxed(&wall->checked_tick);
    uint64_t ns = reading->realtime_ns - reading->offset_ns -
                  (cf_load_relaxed(&wall->checked_ns) - cf_load_relaxed(&wall->offset_ns));
    uint64_t before = cf_load_relaxed(&wall->own_mult), mult = 0;
    if (ns >= least_ns && ns <= most_ns && ticks != 0)
        mult = (ns << OWN_SHIFT) / ticks;
    cf_store_relaxed(&wall->own_mult, mult);
    uint64_t apart = mult > before ? mult - before : before - mult;
    return mult != 0 && apart <= before / OWN_AGREEMENT;
}

int cf_wall_anchor(struct cf_wall *wall, const struct cf_wall_reading *reading,
                   const struct cf_clock_line *line) {
    uint64_t sequence = cf_load_relaxed(&wall->sequence);
    /* Acquire: the words of the writer before are seen; partner: the release at the end. */
    if ((sequence & 1) || !__atomic_compare_exchange_n(&wall->sequence, &sequence, sequence + 1, 0,
                                                       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return -EBUSY;
    bool first = cf_load_relaxed(&wall->checked_ns) == 0;
    int64_t moved = (int64_t)(reading->offset_ns - cf_load_relaxed(&wall->offset_ns));
    bool stepped_back = !first && moved < -(int64_t)CF_WALL_STEP_NS;
    bool has_own = !first && take_own_rate(wall, reading);
    struct cf_clock_line own = {.mult = cf_load_relaxed(&wall->own_mult), .shift = OWN_SHIFT};
    if (!line && has_own)
        line = &own;
    if (line) {
        cf_store_release(&wall->base_tick, reading->tick);
        cf_store_release(&wall->base_ns, reading->realtime_ns);
        cf_store_release(&wall->mult, line->mult);
        cf_store_release(&wall->shift, (uint64_t)line->shift);
    }
    cf_store_release(&wall->span_ticks, line ? span_of(line) : (uint64_t)0);
    cf_store_relaxed(&wall->checked_ns, reading->realtime_ns);
    cf_store_relaxed(&wall->offset_ns, reading->offset_ns);
    cf_store_relaxed(&wall->checked_tick, reading->tick);
    if (stepped_back)
        cf_bump(&wall->steps_back, 1);
    cf_store_release(&wall->sequence, sequence + 2);
    return stepped_back;
}

/* Reads the clocks, bracketed; false when something came between in each attempt. */
static bool read_clocks(struct cf_wall_reading *reading) {
    enum { ATTEMPTS = 3, MAX_WIDTH_NS = 1000 };
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        uint64_t monotonic = cf_os_ns(CLOCK_MONOTONIC);
        uint64_t tick = cf_ticks_ordered();
        uint64_t realtime = cf_os_ns(CLOCK_REALTIME);
        uint64_t width_ticks = cf_ticks_ordered() - tick;
        uint64_t width_ns = cf_os_ns(CLOCK_MONOTONIC) - monotonic;
        reading->tick = tick + width_ticks / 2;
        reading->realtime_ns = realtime;
        reading->offset_ns = realtime - (monotonic + width_ns / 2);
        if (width_ns <= MAX_WIDTH_NS)
            return true;
    }
    return false;
}

static uint64_t refresh(struct cf_wall *wall, uint32_t *stepped_back) {
    uint64_t now_ns = cf_os_ns(CLOCK_REALTIME);
    struct cf_clock_line line;
    bool calibrated = cf_clock_published(&line) == 0;
    /* Without a line each call comes here: it looks for a step no more often than with one. */
    if (!calibrated && now_ns - cf_load_relaxed(&wall->checked_ns) < CF_WALL_SPAN_NS)
        return now_ns;
    pthread_once(&once, initialise);
    struct cf_wall_reading reading;
    if (read_clocks(&reading))
        *stepped_back = cf_wall_anchor(wall, &reading, calibrated ? &line : NULL) == 1;
    return now_ns;
}

uint64_t cf_wall_at(struct cf_wall *wall, uint64_t tick, uint32_t *stepped_back) {
    struct cf_clock_line line;
    uint64_t span_ticks;
    *stepped_back = 0;
    /* A tick read before another thread took the anchor lies before the base. */
    if (cf_likely(load(wall, &line, &span_ticks) &&
                  tick - line.base_tick + span_ticks < 2 * span_ticks))
        return cf_clock_convert(&line, tick);
    return refresh(wall, stepped_back);
}
