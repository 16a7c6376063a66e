/* A known-bad build: a bucket one beyond the histogram is read. AddressSanitizer must report it. */
#include <stdlib.h>

#include "histogram.h"

int main(void) {
    uint64_t *histogram = calloc(CF_HISTOGRAM_BUCKETS, sizeof *histogram);
    volatile uint32_t beyond = cf_histogram_bucket((UINT64_C(1) << 40) - 1) + 1;
    return histogram ? (int)histogram[beyond] : 0;
}
