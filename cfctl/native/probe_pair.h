/* Two pinned threads that pass a token to and fro: cache line, futex or pipe. */
#ifndef CF_PROBE_PAIR_H
#define CF_PROBE_PAIR_H

#include "probe.h"

enum cf_pair_kind {
    CF_PAIR_LOAD_STORE = 1, /* one cache line, plain loads and stores */
    CF_PAIR_CAS = 2,        /* one cache line, compare-and-swap */
    CF_PAIR_FUTEX = 3,      /* FUTEX_WAIT and FUTEX_WAKE */
    CF_PAIR_PIPE = 4,       /* two pipes, one byte */
};

struct cf_pair_config {
    enum cf_pair_kind kind;
    int cpu_a;
    int cpu_b;               /* may equal cpu_a, but for the two kinds that spin */
    uint32_t samples;        /* timed batches */
    uint32_t round_trips;    /* in a batch */
    uint32_t samples_a_page; /* a fresh page after so many, so that one page's home is no result */
};

struct cf_pair_result {
    struct cf_thread_load load_a;
    struct cf_thread_load load_b;
    struct cf_distribution batch; /* ticks of a whole batch of round trips */
};

/* Runs both sides on threads of their own, which inherit the caller's policy, and waits for them.
 * Side A touches each page first, so that it lies on A's node. Stops between two batches at the
 * latest. Returns 0 or a negative errno: -EINVAL for a CPU that can not be used, a spinning kind on
 * one CPU, or 2^30 round trips and more on a page; -ENOMEM, -EAGAIN, -EMFILE. */
int cf_probe_pair(const struct cf_pair_config *config, const uint32_t *stop,
                  struct cf_pair_result *result);

#endif
