/* The tick counter: one small inline per CPU, and the OS clock where there is none that can be
 * used.
 *
 * A tick is a TSC cycle on x86-64, a generic-timer count on aarch64, a nanosecond of
 * CLOCK_MONOTONIC_RAW otherwise. Which one is decided once per process by cf_tick_select().
 */
#ifndef CF_TICK_H
#define CF_TICK_H

#include <stdint.h>
#include <time.h>

#include "atomic.h"

enum cf_tick_source {
    CF_TICK_UNSELECTED = 0,
    CF_TICK_TSC = 1,
    CF_TICK_CNTVCT = 2,
    CF_TICK_OS = 3, /* clock_gettime(CLOCK_MONOTONIC_RAW), nanoseconds */
};

/* Why the OS clock is used; CF_GATE_OPEN when the CPU's counter is. */
enum cf_gate {
    CF_GATE_OPEN = 0,
    CF_GATE_ARCHITECTURE,  /* no counter is known for this CPU */
    CF_GATE_NO_TSC,        /* CPUID: no TSC */
    CF_GATE_NOT_INVARIANT, /* CPUID 0x80000007 EDX bit 8 is clear */
    CF_GATE_PRCTL,         /* prctl(PR_GET_TSC) says reading faults */
    CF_GATE_CLOCKSOURCE,   /* the kernel does not use the counter as its clocksource */
    CF_GATE_NO_SYSFS,      /* the kernel's clocksource can not be read */
    CF_GATE_TRAPPED,       /* a read costs 100 ns or more: it is emulated */
    CF_GATE_REQUESTED,     /* CFCTL_TICK_SOURCE=os */
};

/* Decides the tick source on the first call and returns it; later calls return the same.
 * Thread-safe, async-signal-unsafe. About 50 us on the first call (reads one sysfs file). */
enum cf_tick_source cf_tick_select(void);

/* Lets cf_tick_select trust another process of this boot that found the CPU's counter usable: what
 * can differ from process to process is still checked. Without effect after the first call. */
void cf_tick_trust_counter(void);

/* Returns why cf_tick_select chose as it did; cf_gate_name is one word for programs, cf_gate_text
 * a clause for people. Both are static strings. */
enum cf_gate cf_tick_gate(void);
const char *cf_gate_name(enum cf_gate gate);
const char *cf_gate_text(enum cf_gate gate);

/* The selected source; written once by cf_tick_select before any reader can depend on it. */
extern uint32_t cf_tick_source_selected;

/* Whether clock_gettime must be a real syscall: with prctl(PR_SET_TSC, PR_TSC_SIGSEGV) the vDSO's
 * own TSC read kills the process. Written by cf_tick_select, as cf_tick_source_selected. */
extern uint32_t cf_tick_vdso_faults;

/* As clock_gettime(2), which always enters the kernel. */
int cf_os_gettime_syscall(clockid_t clock, struct timespec *now);

/* As clock_gettime(2), safe where reading the TSC faults. cf_tick_select must have been called. */
static inline int cf_os_gettime(clockid_t clock, struct timespec *now) {
    if (cf_unlikely(cf_load_relaxed(&cf_tick_vdso_faults)))
        return cf_os_gettime_syscall(clock, now);
    return clock_gettime(clock, now);
}

/* Returns nanoseconds of an OS clock, 0 if the clock does not exist. */
static inline uint64_t cf_os_ns(clockid_t clock) {
    struct timespec now;
    if (cf_unlikely(cf_os_gettime(clock, &now) != 0))
        return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* CF_TICK_PORTABLE builds what other CPUs get, for the tests. */
#if defined(__x86_64__) && !defined(CF_TICK_PORTABLE)
#define CF_TICK_HARDWARE CF_TICK_TSC
/* Plain read: may be reordered with its neighbours by a few ns. */
static inline uint64_t cf_tick_hardware(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return ((uint64_t)high << 32) | low;
}
/* Read that does not start before all earlier instructions are done. */
static inline uint64_t cf_tick_hardware_ordered(void) {
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return ((uint64_t)high << 32) | low;
}
#elif defined(__aarch64__) && !defined(CF_TICK_PORTABLE)
#define CF_TICK_HARDWARE CF_TICK_CNTVCT
static inline uint64_t cf_tick_hardware(void) {
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
}
static inline uint64_t cf_tick_hardware_ordered(void) {
    uint64_t value;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(value) : : "memory");
    return value;
}
#else
#define CF_TICK_HARDWARE CF_TICK_OS
static inline uint64_t cf_tick_hardware(void) {
    return cf_os_ns(CLOCK_MONOTONIC_RAW);
}
static inline uint64_t cf_tick_hardware_ordered(void) {
    return cf_os_ns(CLOCK_MONOTONIC_RAW);
}
#endif

/* Returns the current tick where the CPU's counter is not used. Never inlined: its timespec would
 * cost the callers a stack protector, also those that do not come here. */
uint64_t cf_ticks_os(void);

/* Returns the current tick of the selected source. cf_tick_select must have been called. */
static inline uint64_t cf_ticks(void) {
    if (cf_likely(cf_load_relaxed(&cf_tick_source_selected) == CF_TICK_HARDWARE))
        return cf_tick_hardware();
    return cf_ticks_os();
}

/* As cf_ticks, not before all earlier instructions are done. */
static inline uint64_t cf_ticks_ordered(void) {
    if (cf_likely(cf_load_relaxed(&cf_tick_source_selected) == CF_TICK_HARDWARE))
        return cf_tick_hardware_ordered();
    return cf_ticks_os();
}

#endif
