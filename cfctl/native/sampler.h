/* Bracketed pairs of (tick, reference clock) and the centre of a cluster of them.
 *
 * A cluster is taken in one go (about 0.2 ms for 1500 pairs); its centre is one point of the
 * calibration's line. Residuals fall into classes, one step of the counter apart, because the
 * reading of the reference lies a whole number of steps after the first tick read: the mode finds
 * the largest class, where a mean or a median would smear them.
 */
#ifndef CF_SAMPLER_H
#define CF_SAMPLER_H

#include <stdint.h>
#include <time.h>

/* One reading of the reference clock between two ordered tick reads. */
struct cf_pair {
    uint64_t before; /* tick before the reading */
    uint64_t ns;     /* reference clock, rounded down to whole nanoseconds by the kernel */
    uint32_t width;  /* ticks between the two tick reads; UINT32_MAX when it does not fit */
    int32_t cpu;     /* CPU after the pair; -1 when unknown */
};

struct cf_centre {
    uint64_t tick;      /* mean of the kept pairs' middles, whole ticks */
    uint64_t ns;        /* reference clock at `tick`, whole part ... */
    double fraction_ns; /* ... and what is to be added; not confined to 0..1 */
    double error_ns;    /* standard error of the centre; INFINITY when too few pairs were kept */
    uint32_t kept;      /* pairs narrow enough and on one CPU */
    uint32_t cpu_changes;
    uint32_t min_width; /* ticks */
    int32_t cpu;        /* of the kept pairs; -1 when they come from several or it is unknown */
};

/* Takes `count` pairs after warming up, with a random pause between pairs. Returns 0, or -errno
 * when the reference clock can not be read. `pairs` belongs to the caller; touch it before the
 * first call. About 140 ns a pair. No locks, no allocation; one thread per array. */
int cf_sample_pairs(clockid_t reference, struct cf_pair *pairs, uint32_t count);

/* Computes the centre of a cluster, given the slope of the line to better than about 5 ppm.
 * `scratch` is uint32_t[2 * count]. Returns 0, or -ENODATA when no pair can be used. */
int cf_cluster_centre(const struct cf_pair *pairs, uint32_t count, double ns_per_tick,
                      uint32_t *scratch, struct cf_centre *centre);

#endif
