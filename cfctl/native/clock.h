/* The published clock: ticks as nanoseconds of the reference clock.
 *
 * A calibration is a line: ns = base_ns + ((tick - base_tick) * mult >> shift), rounded down. One
 * line is published per process under a seqlock. Before the first publication, and after a
 * withdrawal, the reference clock itself is read, so that cf_clock_now_ns always answers.
 */
#ifndef CF_CLOCK_H
#define CF_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "tick.h"

struct cf_clock_line {
    uint64_t base_tick;
    uint64_t base_ns; /* reference clock at base_tick */
    uint64_t mult;    /* ns per tick, times 2^shift; not 0 */
    uint32_t shift;   /* 1 to 64 */
    clockid_t reference;
};

/* Returns the upper part of a 64 x 64 bit product, value * mult >> shift; *inexact tells whether
 * bits were lost. Results beyond 64 bits wrap. The portable form is for targets without a 128-bit
 * integer; it is compiled everywhere so that tests compare the two. */
static inline uint64_t cf_mul_shift_portable(uint64_t value, uint64_t mult, uint32_t shift,
                                             uint64_t *inexact) {
    uint64_t value_low = (uint32_t)value, value_high = value >> 32;
    uint64_t mult_low = (uint32_t)mult, mult_high = mult >> 32;
    uint64_t low = value_low * mult_low;
    uint64_t middle = value_high * mult_low + (low >> 32);
    uint64_t carry = value_low * mult_high + (uint32_t)middle;
    uint64_t high = value_high * mult_high + (middle >> 32) + (carry >> 32);
    low = (carry << 32) | (uint32_t)low;
    if (shift == 64) {
        *inexact = low;
        return high;
    }
    *inexact = low & (((uint64_t)1 << shift) - 1);
    return (high << (64 - shift)) | (low >> shift);
}

static inline uint64_t cf_mul_shift(uint64_t value, uint64_t mult, uint32_t shift,
                                    uint64_t *inexact) {
#if defined(__SIZEOF_INT128__) && !defined(CF_TICK_PORTABLE)
    __extension__ typedef unsigned __int128 uint128;
    uint128 product = (uint128)value * mult;
    *inexact = (uint64_t)(product & ((((uint128)1) << shift) - 1));
    return (uint64_t)(product >> shift);
#else
    return cf_mul_shift_portable(value, mult, shift, inexact);
#endif
}

/* Returns a tick as nanoseconds of the line's reference clock, rounded down; ticks before the base
 * give times before it. Exact while the result fits 64 bits: hundreds of years. */
static inline uint64_t cf_clock_convert(const struct cf_clock_line *line, uint64_t tick) {
    uint64_t inexact;
    if (cf_likely(tick >= line->base_tick))
        return line->base_ns +
               cf_mul_shift(tick - line->base_tick, line->mult, line->shift, &inexact);
    uint64_t before = cf_mul_shift(line->base_tick - tick, line->mult, line->shift, &inexact);
    return line->base_ns - before - (inexact != 0);
}

/* Makes a line the one that cf_clock_now_ns uses. Returns 0 or -EINVAL. Any thread may call it:
 * writers exclude each other, readers never wait for more than the few stores of one writer. */
int cf_clock_publish(const struct cf_clock_line *line);

/* Takes the published line back; cf_clock_now_ns then reads the line's reference clock. */
void cf_clock_withdraw(void);

/* Stores the published line; returns 0, or -ENOENT when there is none. Lock-free. */
int cf_clock_published(struct cf_clock_line *line);

/* Returns nanoseconds of the published line's reference clock (CLOCK_MONOTONIC_RAW before any
 * publication). Lock-free, thread-safe; about 10 ns on the counter. */
uint64_t cf_clock_now_ns(void);

#endif
