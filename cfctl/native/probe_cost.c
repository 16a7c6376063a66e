#include "probe_cost.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS_A_BATCH = 16, PAGE_BYTES = 4096, PAGES_A_MAPPING = 256 };

static void time_calls(enum cf_cost_kind kind, struct cf_distribution *ticks) {
    uint64_t start_tick = cf_ticks_ordered();
    for (int i = 0; i < CALLS_A_BATCH; i++) {
        if (kind == CF_COST_SYSCALL)
            syscall(SYS_getppid);
        else
            sched_yield();
    }
    cf_distribution_add(ticks, cf_ticks_ordered() - start_tick);
}

/* Times the first write to each page of a fresh mapping without huge pages. 0 or a negative errno.
 */
static int time_faults(uint32_t pages, struct cf_distribution *ticks) {
    size_t bytes = (size_t)PAGES_A_MAPPING * PAGE_BYTES;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    /* Refused where the kernel has no huge pages, and then there is nothing to refuse. */
    (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    for (uint32_t page = 0; page < pages; page++) {
        uint64_t start_tick = cf_ticks_ordered();
        *(volatile char *)(memory + (size_t)page * PAGE_BYTES) = 1;
        cf_distribution_add(ticks, cf_ticks_ordered() - start_tick);
    }
    munmap(memory, bytes);
    return 0;
}

int cf_probe_cost(enum cf_cost_kind kind, uint32_t samples, const uint32_t *stop,
                  struct cf_cost_result *result) {
    if (kind != CF_COST_SYSCALL && kind != CF_COST_YIELD && kind != CF_COST_MINOR_FAULT)
        return -EINVAL;
    *result = (struct cf_cost_result){.batch = kind == CF_COST_MINOR_FAULT ? 1 : CALLS_A_BATCH};
    cf_distribution_clear(&result->ticks);
    cf_thread_load_read(&result->load);
    int error = 0;
    for (uint32_t done = 0; done < samples && error == 0 && !cf_load_relaxed(stop);) {
        uint32_t pages = samples - done < PAGES_A_MAPPING ? samples - done : PAGES_A_MAPPING;
        if (kind == CF_COST_MINOR_FAULT)
            error = time_faults(pages, &result->ticks);
        else
            time_calls(kind, &result->ticks);
        done += kind == CF_COST_MINOR_FAULT ? pages : 1;
    }
    cf_thread_load_since(&result->load);
    return error;
}
