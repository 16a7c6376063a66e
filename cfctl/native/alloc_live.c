#include "alloc_live.h"

#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "owner.h"
#include "tick.h"

/* Of the open segment; stored with release. */
static struct cf_alloc_process *open_process;
static uint64_t timeline_table, timeline_entry; /* guarded by the owner's lock */

/* The timeline's writer; `writing` excludes the others, who leave the point out. */
static struct cf_alloc_timeline *timeline;
static uint64_t began_coarse_ns, latest_point_ns;
static uint64_t level_ns[CF_ALLOC_LEVELS], level_next[CF_ALLOC_LEVELS];
static uint8_t writing;

/* Read without the TSC, so it is cheap; it steps every 1 to 10 ms. */
static uint64_t coarse_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct cf_alloc_process *cf_live_process(void) {
    return cf_load_acquire(&open_process);
}

/* Stores a point in each level whose turn it is. Called with `writing` taken. */
static void store_point(uint64_t now_ns, int64_t live_bytes) {
    for (uint64_t level = 0, step_ns = CF_ALLOC_POINT_NS; level < CF_ALLOC_LEVELS;
         level++, step_ns *= 4) {
        if (level > 0 && now_ns - level_ns[level] < step_ns)
            break;
        uint64_t slot = level_next[level]++ % CF_ALLOC_LEVEL_POINTS;
        struct cf_alloc_point *point = &timeline->points[level * CF_ALLOC_LEVEL_POINTS + slot];
        level_ns[level] = now_ns;
        /* Release, so that the live bytes are not replaced while the old time still stands.
         * Partner: the reader, who takes a point only with its time. */
        cf_store_relaxed(&point->time_ns, UINT64_C(0));
        cf_store_release(&point->live_bytes, live_bytes);
        cf_store_release(&point->time_ns, now_ns);
        cf_add_relaxed(&timeline->written, 1);
    }
}

/* The timeline takes 18 KiB; a process that ends at once has none. */
static void open_timeline(void) {
    struct cf_owner *owner = cf_owner();
    if (pthread_mutex_trylock(&owner->lock) != 0)
        return;
    if (open_process && timeline_entry == 0) {
        if (cf_segment_add_entry(&owner->segment, &cf_kind_alloc_timeline, "live bytes", 10, NULL,
                                 0, &timeline_table, &timeline_entry) != 0)
            timeline_entry = UINT64_MAX;
        struct cf_shard *shard =
            timeline_entry == UINT64_MAX
                ? NULL
                : cf_segment_claim_shard(&owner->segment, timeline_entry, (uint64_t)getpid());
        if (shard)
            timeline = cf_shard_payload(shard);
    }
    pthread_mutex_unlock(&owner->lock);
}

static void note_point(int64_t live_bytes, bool last) {
    uint64_t now_ns = coarse_ns(CLOCK_MONOTONIC_COARSE) - began_coarse_ns;
    if (!last && now_ns - cf_load_relaxed(&latest_point_ns) < CF_ALLOC_POINT_NS)
        return;
    if (__atomic_test_and_set(&writing, __ATOMIC_ACQUIRE))
        return;
    if (!timeline && timeline_entry == 0 && !last)
        open_timeline();
    if (timeline && now_ns > 0) {
        cf_store_relaxed(&latest_point_ns, now_ns);
        store_point(now_ns, live_bytes);
    }
    __atomic_clear(&writing, __ATOMIC_RELEASE);
}

/* Returns the live bytes after the change. */
static int64_t add_live(struct cf_alloc_process *process, int64_t net) {
    int64_t live = cf_add_relaxed(&process->live_bytes, net) + net;
    int64_t peak = cf_load_relaxed(&process->peak_bytes);
    while (live > peak) {
        if (__atomic_compare_exchange_n(&process->peak_bytes, &peak, live, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            cf_store_relaxed(&process->peak_ns,
                             coarse_ns(CLOCK_MONOTONIC_COARSE) - began_coarse_ns);
            break;
        }
    }
    return live;
}

void cf_live_begin(struct cf_alloc_process *process) {
    process->began_ns = cf_os_ns(CLOCK_REALTIME);
    began_coarse_ns = coarse_ns(CLOCK_MONOTONIC_COARSE);
    /* Partner: the acquire in cf_live_process. */
    cf_store_release(&open_process, process);
}

void cf_live_tell(int64_t net_bytes, bool last) {
    struct cf_alloc_process *process = cf_live_process();
    if (process)
        note_point(add_live(process, net_bytes), last);
}

void cf_live_forget(void) {
    open_process = NULL;
    timeline = NULL;
    timeline_table = timeline_entry = 0;
    latest_point_ns = 0;
    writing = 0;
    memset(level_ns, 0, sizeof level_ns);
    memset(level_next, 0, sizeof level_next);
}
