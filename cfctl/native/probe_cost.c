#include "probe_cost.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS_A_BATCH = 16, PAGES_A_MAPPING = 256 };

static int time_calls(enum cf_cost_kind kind, struct cf_distribution *ticks) {
    uint64_t start_tick = cf_ticks_ordered();
    for (int i = 0; i < CALLS_A_BATCH; i++) {
        if (kind == CF_COST_SYSCALL)
            syscall(SYS_getppid);
        else
            sched_yield();
    }
    cf_distribution_add(ticks, cf_ticks_ordered() - start_tick);
    return 0;
}

static int time_pipe(const int ends[2], struct cf_distribution *ticks) {
    char byte = 0;
    uint64_t start_tick = cf_ticks_ordered();
    for (int i = 0; i < CALLS_A_BATCH; i++) {
        if (write(ends[1], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1)
            return -EIO;
    }
    cf_distribution_add(ticks, cf_ticks_ordered() - start_tick);
    return 0;
}

/* Times the first write to each page of a fresh mapping without huge pages. 0 or a negative errno.
 */
static int time_faults(uint32_t pages, struct cf_distribution *ticks) {
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = PAGES_A_MAPPING * page_bytes;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    /* Refused where the kernel has no huge pages, and then there is nothing to refuse. */
    (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    for (uint32_t page = 0; page < pages; page++) {
        uint64_t start_tick = cf_ticks_ordered();
        *(volatile char *)(memory + page * page_bytes) = 1;
        cf_distribution_add(ticks, cf_ticks_ordered() - start_tick);
    }
    munmap(memory, bytes);
    return 0;
}

/* Times the next samples, at most `left`, and adds to `done` how many. 0 or a negative errno. */
static int time_some(enum cf_cost_kind kind, const int ends[2], uint32_t left, uint32_t *done,
                     struct cf_distribution *ticks) {
    if (kind == CF_COST_MINOR_FAULT) {
        uint32_t pages = left < PAGES_A_MAPPING ? left : PAGES_A_MAPPING;
        *done += pages;
        return time_faults(pages, ticks);
    }
    *done += 1;
    return kind == CF_COST_PIPE ? time_pipe(ends, ticks) : time_calls(kind, ticks);
}

int cf_probe_cost(enum cf_cost_kind kind, uint32_t samples, const uint32_t *stop,
                  struct cf_cost_result *result) {
    if (kind < CF_COST_SYSCALL || kind > CF_COST_PIPE)
        return -EINVAL;
    *result = (struct cf_cost_result){.batch = kind == CF_COST_MINOR_FAULT ? 1 : CALLS_A_BATCH};
    cf_distribution_clear(&result->ticks);
    int ends[2] = {-1, -1};
    if (kind == CF_COST_PIPE && pipe2(ends, O_CLOEXEC) != 0)
        return -errno;
    cf_thread_load_read(&result->load);
    int error = 0;
    for (uint32_t done = 0; done < samples && error == 0 && !cf_load_relaxed(stop);)
        error = time_some(kind, ends, samples - done, &done, &result->ticks);
    cf_thread_load_since(&result->load);
    if (kind == CF_COST_PIPE) {
        close(ends[0]);
        close(ends[1]);
    }
    return error;
}
