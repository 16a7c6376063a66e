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

static void test_what_came_since_is_the_difference_and_never_less_than_nothing(void) {
    uint64_t earlier[4] = {1, 5, 0, 7}, later[4] = {3, 5, 2, 6}, part[4];
    cf_histogram_since(part, later, earlier, 4);
    CHECK(part[0] == 2 && part[1] == 0 && part[2] == 2 && part[3] == 0);
}

static void test_a_rank_is_found_in_its_bucket_and_none_beyond_the_last(void) {
    uint64_t histogram[4] = {0, 2, 0, 3};
    const uint64_t ranks[] = {1, 2, 3, 5, 6};
    uint32_t found[5];
    cf_histogram_at_ranks(histogram, 4, ranks, 5, found);
    CHECK(found[0] == 1 && found[1] == 1 && found[2] == 3 && found[3] == 3 && found[4] == 4);
}

static void test_a_bucket_is_below_an_edge_when_all_of_it_is(void) {
    static uint64_t histogram[CF_HISTOGRAM_BUCKETS];
    histogram[cf_histogram_bucket(100)] = 1;
    histogram[cf_histogram_bucket(1000)] = 2; /* holds 1000 to 1003 */
    histogram[cf_histogram_bucket(5000)] = UINT64_MAX;
    const double edges[] = {99, 100, 1002, 1003, 1e12};
    uint64_t below[5];
    cf_histogram_below(histogram, CF_HISTOGRAM_BUCKETS, 1, edges, 5, below);
    CHECK(below[0] == 0 && below[1] == 1 && below[2] == 1 && below[3] == 3);
    CHECK(below[4] == UINT64_MAX);
    cf_histogram_below(histogram, CF_HISTOGRAM_BUCKETS, 0.5, edges, 5, below);
    CHECK(below[0] == 1 && below[2] == 3);
}

static void test_the_moments_are_those_of_the_middles(void) {
    uint64_t histogram[128] = {0};
    double squares;
    CHECK(cf_histogram_moments(histogram, 128, &squares) == 0 && squares == 0);
    histogram[10] = 3;
    histogram[14] = 1;
    CHECK(cf_histogram_moments(histogram, 128, &squares) == 4 && squares == 12);
}

int main(void) {
    test_what_came_since_is_the_difference_and_never_less_than_nothing();
    test_a_rank_is_found_in_its_bucket_and_none_beyond_the_last();
    test_a_bucket_is_below_an_edge_when_all_of_it_is();
    test_the_moments_are_those_of_the_middles();
    test_every_value_lies_in_its_bucket();
    test_buckets_follow_each_other_without_a_gap();
    test_quantiles_are_those_of_the_sorted_values();
    test_merge_adds_and_saturates();
    test_an_empty_histogram_has_no_quantile();
    return 0;
}
