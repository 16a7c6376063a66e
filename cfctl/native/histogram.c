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

void cf_histogram_since(uint64_t *into, const uint64_t *later, const uint64_t *earlier,
                        size_t buckets) {
    for (size_t i = 0; i < buckets; i++)
        into[i] = later[i] > earlier[i] ? later[i] - earlier[i] : 0;
}

void cf_histogram_at_ranks(const uint64_t *histogram, size_t buckets, const uint64_t *ranks,
                           size_t count, uint32_t *found) {
    uint64_t seen = 0;
    size_t next = 0;
    for (size_t i = 0; i < buckets && next < count; i++) {
        seen = add_saturating(seen, histogram[i]);
        while (next < count && seen >= ranks[next])
            found[next++] = (uint32_t)i;
    }
    while (next < count)
        found[next++] = (uint32_t)buckets;
}

static double highest(uint32_t bucket) {
    return (double)(cf_histogram_lower(bucket) + cf_histogram_width(bucket) - 1);
}

void cf_histogram_below(const uint64_t *histogram, size_t buckets, double scale,
                        const double *edges, size_t count, uint64_t *below) {
    uint64_t seen = 0;
    size_t next = 0;
    for (uint32_t i = 0; i < buckets && next < count; i++) {
        if (histogram[i] == 0)
            continue;
        double value = highest(i) * scale;
        while (next < count && value > edges[next])
            below[next++] = seen;
        seen = add_saturating(seen, histogram[i]);
    }
    while (next < count)
        below[next++] = seen;
}

static double middle(uint32_t bucket) {
    return (double)cf_histogram_lower(bucket) + (double)(cf_histogram_width(bucket) - 1) / 2;
}

uint64_t cf_histogram_moments(const uint64_t *histogram, size_t buckets, double *squares) {
    uint64_t samples = 0;
    double count = 0, sum = 0;
    *squares = 0;
    for (uint32_t i = 0; i < buckets; i++) {
        if (histogram[i] == 0)
            continue;
        samples = add_saturating(samples, histogram[i]);
        count += (double)histogram[i];
        sum += middle(i) * (double)histogram[i];
    }
    for (uint32_t i = 0; i < buckets; i++) {
        double distance = histogram[i] ? middle(i) - sum / count : 0;
        *squares += distance * distance * (double)histogram[i];
    }
    return samples;
}
