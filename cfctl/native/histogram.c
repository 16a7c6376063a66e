#include "histogram.h"

#include <math.h>

uint64_t cf_histogram_lower(uint32_t bucket) {
    uint32_t row = bucket >> CF_HISTOGRAM_SUB_BITS;
    uint64_t sub = bucket & ((1u << CF_HISTOGRAM_SUB_BITS) - 1);
    if (row == 0)
        return sub;
    return (sub + (1u << CF_HISTOGRAM_SUB_BITS)) << (row - 1);
}

uint64_t cf_histogram_width(uint32_t bucket) {
    uint32_t row = bucket >> CF_HISTOGRAM_SUB_BITS;
    return row <= 1 ? 1 : UINT64_C(1) << (row - 1);
}

static uint64_t add_saturating(uint64_t a, uint64_t b) {
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

void cf_histogram_merge(uint64_t *into, const uint64_t *from, size_t buckets) {
    for (size_t i = 0; i < buckets; i++)
        into[i] = add_saturating(into[i], from[i]);
}

static uint64_t rank_of(double quantile, uint64_t total) {
    double rank = ceil(quantile * (double)total);
    if (!(rank > 1))
        return 1;
    return rank >= (double)total ? total : (uint64_t)rank;
}

uint64_t cf_histogram_quantiles(const uint64_t *histogram, size_t buckets, const double *quantiles,
                                size_t count, double *values) {
    uint64_t total = 0;
    for (size_t i = 0; i < buckets; i++)
        total = add_saturating(total, histogram[i]);
    uint64_t seen = 0;
    size_t next = 0;
    for (size_t i = 0; i < buckets && next < count && total > 0; i++) {
        seen = add_saturating(seen, histogram[i]);
        while (next < count && seen >= rank_of(quantiles[next], total)) {
            values[next++] = (double)cf_histogram_lower((uint32_t)i) +
                             (double)(cf_histogram_width((uint32_t)i) - 1) / 2;
        }
    }
    return total;
}
