/* What perf_event_open gives the attribution of gaps: the switches of a thread, and the kernel's
 * tracepoints on a CPU. Nothing is read here: the caller maps the descriptor and parses its ring.
 */
#ifndef CF_PERF_H
#define CF_PERF_H

#include <stdint.h>

/* Opens the PERF_RECORD_SWITCH records of the calling thread, disabled. Each record is a header and
 * one u64: CLOCK_MONOTONIC_RAW in ns. Allowed to everyone up to perf_event_paranoid 2. Returns a
 * descriptor (close-on-exec) or a negative errno. */
int cf_perf_open_switches(void);

/* Opens a kernel tracepoint (`id` from tracefs) for whatever runs on `cpu`, disabled. Each sample
 * is a header, u32 pid, u32 tid, u64 CLOCK_MONOTONIC_RAW in ns, u32 size and the raw record, which
 * starts with the id as u16. Needs CAP_PERFMON or root. Returns a descriptor or a negative errno.
 */
int cf_perf_open_tracepoint(uint64_t id, int cpu);

/* Moves the calling thread into a mount namespace of its own and mounts tracefs there on `target`,
 * so that nobody else sees the mount; it goes when the thread ends. Returns 0 or a negative errno.
 * The thread must do nothing else afterwards. */
int cf_tracefs_mount_privately(const char *target);

#endif
