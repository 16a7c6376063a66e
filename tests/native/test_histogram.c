/* Histogram: exact small values, the stated error elsewhere, merge, quantiles. */
#include "check.h"

#include <string.h>

#include "histogram.h"

static uint64_t state = 88172645463325252u;

/* xorshift64 (Marsaglia 2003): a fixed sequence. */
static uint64_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void test_every_value_lies_in_its_bucket(void) {
    for (int i = 0; i < 1000000; i++) {
        uint64_t value = next_random() >> (24 + next_random() % 40);
        uint32_t bucket = cf_histogram_bucket(value);
        CHECK(bucket < CF_HISTOGRAM_BUCKETS);
        uint64_t lower = cf_histogram_lower(bucket), width = cf_histogram_width(bucket);
        CHECK(lower <= value && value - lower < width);
        double middle = (double)lower + (double)(width - 1) / 2;
        double error = middle > (double)value ? middle - (double)value : (double)value - middle;
        CHECK(error <= (double)value / 256);
    }
}

static void test_buckets_follow_each_other_without_a_gap(void) {
    for (uint32_t bucket = 0; bucket + 1 < CF_HISTOGRAM_BUCKETS; bucket++)
        CHECK(cf_histogram_lower(bucket) + cf_histogram_width(bucket) ==
              cf_histogram_lower(bucket + 1));
    CHECK(cf_histogram_bucket((UINT64_C(1) << 40) - 1) == CF_HISTOGRAM_BUCKETS - 1);
}

static void test_quantiles_are_those_of_the_sorted_values(void) {
    static uint64_t histogram[CF_HISTOGRAM_BUCKETS];
    for (uint64_t value = 1; value <= 100; value++)
        histogram[cf_histogram_bucket(value)]++;
    const double quantiles[] = {0, 0.01, 0.5, 0.99, 0.991, 1};
    const double expected[] = {1, 1, 50, 99, 100, 100};
    double values[6];
    CHECK(cf_histogram_quantiles(histogram, CF_HISTOGRAM_BUCKETS, quantiles, 6, values) == 100);
    for (int i = 0; i < 6; i++)
        CHECK(values[i] == expected[i]);
}

static void test_merge_adds_and_saturates(void) {
    uint64_t a[3] = {1, UINT64_MAX - 1, 0}, b[3] = {2, 5, 0};
    cf_histogram_merge(a, b, 3);
    CHECK(a[0] == 3 && a[1] == UINT64_MAX && a[2] == 0);
}

static void test_an_empty_histogram_has_no_quantile(void) {
    static const uint64_t histogram[CF_HISTOGRAM_BUCKETS];
    const double quantile = 0.5;
    double value = -1;
    CHECK(cf_histogram_quantiles(histogram, CF_HISTOGRAM_BUCKETS, &quantile, 1, &value) == 0);
    CHECK(value == -1);
}

int main(void) {
    test_every_value_lies_in_its_bucket();
    test_buckets_follow_each_other_without_a_gap();
    test_quantiles_are_those_of_the_sorted_values();
    test_merge_adds_and_saturates();
    test_an_empty_histogram_has_no_quantile();
    return 0;
}
