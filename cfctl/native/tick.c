#include "tick.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__) && !defined(CF_TICK_PORTABLE)
#include <cpuid.h>
#endif

uint32_t cf_tick_source_selected = CF_TICK_UNSELECTED;
uint32_t cf_tick_vdso_faults = 0;

static pthread_once_t select_once = PTHREAD_ONCE_INIT;
static enum cf_gate selected_gate = CF_GATE_ARCHITECTURE;
static bool counter_is_trusted;

static const char *const gate_texts[] = {
    [CF_GATE_OPEN] = "the CPU's counter is usable",
    [CF_GATE_ARCHITECTURE] = "this CPU has no counter that cfctl can read",
    [CF_GATE_NO_TSC] = "the CPU reports no TSC",
    [CF_GATE_NOT_INVARIANT] = "the TSC is not invariant: its rate changes with the CPU's state",
    [CF_GATE_PRCTL] = "reading the TSC is disabled for this process by prctl(PR_SET_TSC)",
    [CF_GATE_CLOCKSOURCE] = "the kernel's clocksource is not this counter",
    [CF_GATE_NO_SYSFS] = "the kernel's clocksource can not be read from /sys",
    [CF_GATE_TRAPPED] = "reading the counter costs 100 ns or more, so it is emulated",
    [CF_GATE_REQUESTED] = "CFCTL_TICK_SOURCE=os asks for the OS clock",
};

static const char *const gate_names[] = {
    [CF_GATE_OPEN] = "open",           [CF_GATE_ARCHITECTURE] = "architecture",
    [CF_GATE_NO_TSC] = "no_tsc",       [CF_GATE_NOT_INVARIANT] = "not_invariant",
    [CF_GATE_PRCTL] = "prctl",         [CF_GATE_CLOCKSOURCE] = "clocksource",
    [CF_GATE_NO_SYSFS] = "no_sysfs",   [CF_GATE_TRAPPED] = "trapped",
    [CF_GATE_REQUESTED] = "requested",
};

const char *cf_gate_name(enum cf_gate gate) {
    return gate_names[gate];
}

const char *cf_gate_text(enum cf_gate gate) {
    return gate_texts[gate];
}

uint64_t cf_ticks_os(void) {
    return cf_os_ns(CLOCK_MONOTONIC_RAW);
}

int cf_os_gettime_syscall(clockid_t clock, struct timespec *now) {
#if defined(SYS_clock_gettime64)
    /* 32-bit ABIs with a 64-bit time_t have their own call; glibc's wrapper would take the vDSO. */
    if (sizeof now->tv_sec == 8)
        return (int)syscall(SYS_clock_gettime64, clock, now);
#endif
    return (int)syscall(SYS_clock_gettime, clock, now);
}

static bool tsc_read_faults(void) {
#if defined(__x86_64__) || defined(__i386__)
    int mode = PR_TSC_ENABLE;
    return prctl(PR_GET_TSC, &mode, 0, 0, 0) == 0 && mode != PR_TSC_ENABLE;
#else
    return false;
#endif
}

/* On a guest each CPUID is an exit to the host, 5 us and more. */
static enum cf_gate check_cpu(void) {
#if defined(CF_TICK_PORTABLE)
    return CF_GATE_ARCHITECTURE;
#elif defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(edx & (1u << 4)))
        return CF_GATE_NO_TSC;
    if (!__get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) || !(edx & (1u << 8)))
        return CF_GATE_NOT_INVARIANT;
    return CF_GATE_OPEN;
#elif defined(__aarch64__)
    return CF_GATE_OPEN;
#else
    return CF_GATE_ARCHITECTURE;
#endif
}

static enum cf_gate check_clocksource(void) {
    static const char path[] = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    static const char *const wanted = CF_TICK_HARDWARE == CF_TICK_TSC ? "tsc" : "arch_sys_counter";
    char name[64] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return CF_GATE_NO_SYSFS;
    ssize_t length = read(fd, name, sizeof name - 1);
    close(fd);
    if (length <= 0)
        return CF_GATE_NO_SYSFS;
    name[strcspn(name, "\n")] = '\0';
    return strcmp(name, wanted) == 0 ? CF_GATE_OPEN : CF_GATE_CLOCKSOURCE;
}

/* The cheapest of a few batches: a preempted batch must not look like a trapped counter. */
static enum cf_gate check_cost(void) {
    enum { BATCHES = 16, READS = 64, TRAPPED_NS = 100 };
    uint64_t best_ns = UINT64_MAX;
    for (int batch = 0; batch < BATCHES; batch++) {
        uint64_t start = cf_os_ns(CLOCK_MONOTONIC_RAW);
        for (int i = 0; i < READS; i++)
            (void)cf_tick_hardware();
        uint64_t elapsed = cf_os_ns(CLOCK_MONOTONIC_RAW) - start;
        if (elapsed < best_ns)
            best_ns = elapsed;
    }
    return best_ns < (uint64_t)READS * TRAPPED_NS ? CF_GATE_OPEN : CF_GATE_TRAPPED;
}

static void select_source(void) {
    const char *requested = getenv("CFCTL_TICK_SOURCE");
    enum cf_gate gate = CF_GATE_OPEN;
    bool faults = tsc_read_faults();
    if (requested && strcmp(requested, "os") == 0)
        gate = CF_GATE_REQUESTED;
    if (gate == CF_GATE_OPEN && !counter_is_trusted)
        gate = check_cpu();
    if (gate == CF_GATE_OPEN && faults)
        gate = CF_GATE_PRCTL;
    if (gate == CF_GATE_OPEN && !counter_is_trusted)
        gate = check_clocksource();
    if (gate == CF_GATE_OPEN && !counter_is_trusted)
        gate = check_cost();
    selected_gate = gate;
    cf_store_relaxed(&cf_tick_vdso_faults, faults);
    cf_store_release(&cf_tick_source_selected,
                     gate == CF_GATE_OPEN ? (uint32_t)CF_TICK_HARDWARE : (uint32_t)CF_TICK_OS);
}

void cf_tick_trust_counter(void) {
    counter_is_trusted = true;
}

enum cf_tick_source cf_tick_select(void) {
    pthread_once(&select_once, select_source);
    return (enum cf_tick_source)cf_load_acquire(&cf_tick_source_selected);
}

enum cf_gate cf_tick_gate(void) {
    cf_tick_select();
    return selected_gate;
}
