/* Log-linear histogram: 128 sub-buckets per power of two, exact below 128.
 *
 * Value v < 128 counts in bucket v. Otherwise e = floor(log2 v), s = e - 7, and the bucket is
 * (s + 1) * 128 + ((v >> s) mod 128); it spans 2^s values and is read back at its middle, so the
 * relative error is at most 1/256 = 0.39 %. Values of 2^40 and more (7 minutes at 2.6 GHz) are out
 * of range: the caller counts them beside the histogram.
 */
#ifndef CF_HISTOGRAM_H
#define CF_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CF_HISTOGRAM_SUB_BITS 7
#define CF_HISTOGRAM_VALUE_BITS 40
#define CF_HISTOGRAM_BUCKETS \
    ((CF_HISTOGRAM_VALUE_BITS - CF_HISTOGRAM_SUB_BITS + 1) << CF_HISTOGRAM_SUB_BITS)

_Static_assert(CF_HISTOGRAM_BUCKETS == 4352, "the format pins the number of buckets");

/* Returns the bucket of a value below 2^40.
 *
 * A double below 2^53 is exact, and its bits are exponent and mantissa: its upper bits are e and
 * the seven bits below the leading one, which is the bucket but for a constant. Counting leading
 * zeros made record_many take 3.2 ns per value and not 1.2 (AMD EPYC, whose bsr is slow).
 */
static inline uint32_t cf_histogram_bucket(uint64_t value) {
    enum { EXPONENT_BIAS = 1023, MANTISSA_BITS = 52 };
    if (value < (1u << CF_HISTOGRAM_SUB_BITS))
        return (uint32_t)value;
    double exact = (double)(int64_t)value;
    uint64_t bits;
    memcpy(&bits, &exact, sizeof bits);
    return (uint32_t)(bits >> (MANTISSA_BITS - CF_HISTOGRAM_SUB_BITS)) -
           ((EXPONENT_BIAS + CF_HISTOGRAM_SUB_BITS - 1u) << CF_HISTOGRAM_SUB_BITS);
}

/* Returns the smallest value that counts in a bucket. */
uint64_t cf_histogram_lower(uint32_t bucket);

/* Returns how many values count in a bucket. */
uint64_t cf_histogram_width(uint32_t bucket);

/* Adds the buckets of `from` to those of `into`, which saturate. No concurrency: both are copies.
 */
void cf_histogram_merge(uint64_t *into, const uint64_t *from, size_t buckets);

/* Writes the value at each of `count` ascending quantiles (0..1) to `values`: the middle of the
 * bucket that holds the sample of rank ceil(q * n) (inverted CDF). Returns n, the number of
 * samples; with n = 0 nothing is written. One scan, about 1 us. */
uint64_t cf_histogram_quantiles(const uint64_t *histogram, size_t buckets, const double *quantiles,
                                size_t count, double *values);

/* Writes to `into` what each bucket of `later` holds more than that of `earlier`; 0 where it holds
 * less, as in a file that was torn. No concurrency: all are copies. About 2 us. */
void cf_histogram_since(uint64_t *into, const uint64_t *later, const uint64_t *earlier,
                        size_t buckets);

/* Writes the bucket that holds the sample of each of `count` ascending ranks (from 1) to `found`;
 * `buckets` for a rank beyond the last sample. One scan, about 3 us. */
void cf_histogram_at_ranks(const uint64_t *histogram, size_t buckets, const uint64_t *ranks,
                           size_t count, uint32_t *found);

/* Writes to `below` how many samples lie in buckets whose highest value, times `scale` (above 0),
 * is at or below each of `count` ascending edges; saturates. One scan, about 5 us. */
void cf_histogram_below(const uint64_t *histogram, size_t buckets, double scale,
                        const double *edges, size_t count, uint64_t *below);

/* Returns the number of samples, saturated, and writes the sum of the squared distances of their
 * buckets' middles from the mean of these to `squares`. Two scans. */
uint64_t cf_histogram_moments(const uint64_t *histogram, size_t buckets, double *squares);

#endif
