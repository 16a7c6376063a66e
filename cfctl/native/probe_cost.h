/* Costs of what a program asks the kernel for, on the calling thread. */
#ifndef CF_PROBE_COST_H
#define CF_PROBE_COST_H

#include "probe.h"

enum cf_cost_kind {
    CF_COST_SYSCALL = 1,     /* getppid(): enters and leaves the kernel, does next to nothing */
    CF_COST_YIELD = 2,       /* sched_yield() */
    CF_COST_MINOR_FAULT = 3, /* first write to a page of fresh anonymous memory, base pages */
    CF_COST_PIPE = 4,        /* write and read of one byte through a pipe, by one thread */
};

struct cf_cost_result {
    uint32_t batch; /* operations in each timed batch: enough of them to outgrow the tick step */
    struct cf_thread_load load;
    struct cf_distribution ticks; /* of a whole batch */
};

/* Times `samples` batches. Returns 0 or a negative errno (-ENOMEM, -EMFILE, -EINVAL for an unknown
 * kind). */
int cf_probe_cost(enum cf_cost_kind kind, uint32_t samples, const uint32_t *stop,
                  struct cf_cost_result *result);

#endif
