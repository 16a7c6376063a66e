#include "perf.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A wake-up of a reader would be an interruption of our own making: the ring never asks for one. */
static struct perf_event_attr silent_attributes(void) {
    return (struct perf_event_attr){
        .size = sizeof(struct perf_event_attr),
        .disabled = 1,
        .watermark = 1,
        .wakeup_watermark = UINT32_MAX,
        .use_clockid = 1,
        .clockid = CLOCK_MONOTONIC_RAW,
    };
}

static int open_event(struct perf_event_attr *attributes, pid_t thread, int cpu) {
    long fd = syscall(SYS_perf_event_open, attributes, thread, cpu, -1, PERF_FLAG_FD_CLOEXEC);
    return fd >= 0 ? (int)fd : -errno;
}

int cf_perf_open_switches(void) {
    struct perf_event_attr attributes = silent_attributes();
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.config = PERF_COUNT_SW_DUMMY;
    attributes.context_switch = 1;
    /* perf_event_paranoid 2 allows no event that looks into the kernel; a switch does not. */
    attributes.exclude_kernel = 1;
    attributes.sample_id_all = 1;
    attributes.sample_type = PERF_SAMPLE_TIME;
    return open_event(&attributes, 0, -1);
}

int cf_perf_open_tracepoint(uint64_t id, int cpu) {
    struct perf_event_attr attributes = silent_attributes();
    attributes.type = PERF_TYPE_TRACEPOINT;
    attributes.config = id;
    attributes.sample_period = 1;
    attributes.sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_RAW;
    return open_event(&attributes, -1, cpu);
}

int cf_tracefs_mount_privately(const char *target) {
    if (unshare(CLONE_NEWNS) != 0)
        return -errno;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return -errno;
    if (mount("tracefs", target, "tracefs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) !=
        0)
        return -errno;
    return 0;
}
