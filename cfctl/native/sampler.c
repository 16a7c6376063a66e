#include "sampler.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <string.h>

#include "tick.h"

enum {
    WARM_UPS = 20,
    DITHER_READS = 16, /* a random pause of 0 to 15 tick reads ... */
    DITHER_SPINS = 32, /* ... and of 0 to 31 turns of an empty loop, shorter than one TSC step */
    MIN_KEPT = 50,     /* below this a mode is not worth the name */
    MODE_ITERATIONS = 3
};
static const double WIDTH_LIMIT = 1.5;      /* of the 5th percentile of the widths */
static const double SHORTH_SHARE = 0.30;    /* of the samples lie in the shortest interval */
static const double MODE_MIN_HALF_NS = 0.8; /* a clock that is rounded down spreads over 1 ns */
static const double MODE_HALF_FACTOR = 1.6; /* of the shorth's half width */

static inline uint32_t xorshift(uint32_t *state) {
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

/* Without a random pause the sampling locks in phase with the steps of the TSC. */
static void dither(uint32_t *state) {
    uint32_t random = xorshift(state);
    for (uint32_t i = random % DITHER_READS; i > 0; i--)
        (void)cf_ticks();
    for (uint32_t i = (random >> 8) % DITHER_SPINS; i > 0; i--)
        __asm__ volatile("");
}

static int take_pair(clockid_t reference, struct cf_pair *pair) {
    struct timespec now;
    uint64_t before = cf_ticks_ordered();
    if (cf_unlikely(cf_os_gettime(reference, &now) != 0))
        return -errno;
    uint64_t width = cf_ticks_ordered() - before;
    pair->before = before;
    pair->ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    /* A counter that went backwards gives a huge width, and the pair is dropped with the wide. */
    pair->width = width < UINT32_MAX ? (uint32_t)width : UINT32_MAX;
    pair->cpu = sched_getcpu();
    return 0;
}

int cf_sample_pairs(clockid_t reference, struct cf_pair *pairs, uint32_t count) {
    uint32_t state = (uint32_t)cf_ticks() | 1;
    for (int i = 0; i < WARM_UPS && count > 0; i++) {
        int status = take_pair(reference, &pairs[0]);
        if (status != 0)
            return status;
    }
    for (uint32_t i = 0; i < count; i++) {
        dither(&state);
        int status = take_pair(reference, &pairs[i]);
        if (status != 0)
            return status;
    }
    return 0;
}

/* Residuals are sorted as whole numbers of 1/1024 ns from -2.1 to 2.1 ms; beyond that they are
 * outliers of any mode. The sign is folded so that unsigned order is their order. */
static const double RESIDUAL_UNIT_NS = 1.0 / 1024;

static uint32_t residual_key(double residual_ns) {
    double units = residual_ns / RESIDUAL_UNIT_NS;
    units = fmin(fmax(units, INT32_MIN), INT32_MAX);
    return (uint32_t)(int32_t)units ^ 0x80000000u;
}

static double residual_of(uint32_t key) {
    return (int32_t)(key ^ 0x80000000u) * RESIDUAL_UNIT_NS;
}

/* Radix sort in three passes of 11 bits: a tenth of what qsort(3) costs here, and the analysis is
 * half of a calibration's CPU time. `spare` is as long as `values`. */
static void sort(uint32_t *values, uint32_t *spare, uint32_t count) {
    enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };
    uint32_t starts[DIGITS];
    for (int shift = 0; shift < 32; shift += DIGIT_BITS) {
        memset(starts, 0, sizeof starts);
        for (uint32_t i = 0; i < count; i++)
            starts[(values[i] >> shift) % DIGITS]++;
        uint32_t position = 0;
        for (int digit = 0; digit < DIGITS; digit++) {
            uint32_t held = starts[digit];
            starts[digit] = position;
            position += held;
        }
        for (uint32_t i = 0; i < count; i++)
            spare[starts[(values[i] >> shift) % DIGITS]++] = values[i];
        memcpy(values, spare, count * sizeof *values);
    }
}

/* A pair counts when it lies on the CPU of the pair before it: a migration inside a pair shows as
 * a change between its CPU and its predecessor's. */
static int same_cpu(const struct cf_pair *pairs, uint32_t i) {
    return i == 0 || pairs[i].cpu == pairs[i - 1].cpu;
}

/* Returns the greatest width that is kept. */
static uint32_t width_limit(const struct cf_pair *pairs, uint32_t count, uint32_t *scratch) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        if (same_cpu(pairs, i))
            scratch[found++] = pairs[i].width;
    if (found == 0)
        return 0;
    sort(scratch, scratch + count, found);
    double limit = WIDTH_LIMIT * scratch[found / 20];
    return limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX - 1;
}

/* Returns the index of the first of the SHORTH_SHARE of the sorted values that lie closest
 * together; stores how many steps further the last one is. */
static uint32_t shorth(const uint32_t *sorted, uint32_t count, uint32_t *length) {
    uint32_t held = (uint32_t)(SHORTH_SHARE * count);
    uint32_t best = 0;
    for (uint32_t i = 0; i + held < count; i++)
        if (sorted[i + held] - sorted[i] < sorted[best + held] - sorted[best])
            best = i;
    *length = held;
    return best;
}

/* Returns the mode in nanoseconds: the middle of the shorth, then the mean of its neighbourhood;
 * stores that mean's standard error. */
static double shorth_mode(const uint32_t *sorted, uint32_t count, double *error) {
    uint32_t length, first = shorth(sorted, count, &length);
    double low = residual_of(sorted[first]), high = residual_of(sorted[first + length]);
    double mode = 0.5 * (low + high);
    double half = fmax(MODE_MIN_HALF_NS, MODE_HALF_FACTOR * 0.5 * (high - low));
    *error = INFINITY;
    for (int iteration = 0; iteration < MODE_ITERATIONS; iteration++) {
        double sum = 0, squares = 0;
        uint32_t inside = 0;
        for (uint32_t i = 0; i < count; i++) {
            double distance = residual_of(sorted[i]) - mode;
            if (fabs(distance) > half)
                continue;
            sum += distance;
            squares += distance * distance;
            inside++;
        }
        if (inside == 0)
            break;
        double shift = sum / inside;
        *error = sqrt(fmax(0, squares / inside - shift * shift) / inside);
        mode += shift;
    }
    return mode;
}

/* Keeps the narrow pairs of one CPU: counts them, finds the narrowest, and takes their mean middle
 * as the centre's tick, so that an error of the slope has no lever on the centre. Returns the
 * narrowest, NULL when none is kept. */
static const struct cf_pair *select_pairs(const struct cf_pair *pairs, uint32_t count,
                                          uint32_t limit, struct cf_centre *centre) {
    double sum = 0;
    uint64_t origin = pairs[0].before;
    const struct cf_pair *narrowest = NULL;
    for (uint32_t i = 0; i < count; i++) {
        if (!same_cpu(pairs, i)) {
            centre->cpu_changes++;
            continue;
        }
        if (pairs[i].width > limit)
            continue;
        centre->cpu = centre->kept == 0 || centre->cpu == pairs[i].cpu ? pairs[i].cpu : -1;
        centre->kept++;
        if (narrowest == NULL || pairs[i].width < narrowest->width)
            narrowest = &pairs[i];
        sum += (double)(int64_t)(pairs[i].before - origin) + 0.5 * pairs[i].width;
    }
    if (narrowest == NULL)
        return NULL;
    centre->min_width = narrowest->width;
    centre->tick = origin + (uint64_t)(int64_t)(sum / centre->kept);
    return narrowest;
}

int cf_cluster_centre(const struct cf_pair *pairs, uint32_t count, double ns_per_tick,
                      uint32_t *scratch, struct cf_centre *centre) {
    *centre = (struct cf_centre){.cpu = -1};
    if (count == 0)
        return -ENODATA;
    uint32_t limit = width_limit(pairs, count, scratch);
    /* Residuals are taken beside a pair that is known to be good: whatever held the thread up
     * between two pairs, or in a wide one, they stay within a bracket's width. */
    const struct cf_pair *beside = select_pairs(pairs, count, limit, centre);
    if (beside == NULL)
        return -ENODATA;
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!same_cpu(pairs, i) || pairs[i].width > limit)
            continue;
        double ticks = (double)(int64_t)(pairs[i].before - beside->before) + 0.5 * pairs[i].width;
        double residual_ns = (double)(int64_t)(pairs[i].ns - beside->ns) - ticks * ns_per_tick;
        scratch[found++] = residual_key(residual_ns);
    }
    sort(scratch, scratch + count, found);
    centre->ns = beside->ns;
    /* The kernel rounds down to whole nanoseconds: half of one is missing on average. */
    centre->fraction_ns = 0.5 + shorth_mode(scratch, found, &centre->error_ns) +
                          (double)(int64_t)(centre->tick - beside->before) * ns_per_tick;
    if (found < MIN_KEPT)
        centre->error_ns = INFINITY;
    return 0;
}
