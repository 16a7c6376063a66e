#include "probe_jitter.h"

#include <sys/resource.h>

/* Restores the heap below `index` after its gap has grown. */
static void sift_down(struct cf_gap *heap, uint64_t count, uint64_t index) {
    for (;;) {
        uint64_t smallest = index, child = 2 * index + 1;
        if (child < count && heap[child].ticks < heap[smallest].ticks)
            smallest = child;
        if (child + 1 < count && heap[child + 1].ticks < heap[smallest].ticks)
            smallest = child + 1;
        if (smallest == index)
            return;
        struct cf_gap gap = heap[index];
        heap[index] = heap[smallest];
        heap[smallest] = gap;
        index = smallest;
    }
}

static void sift_up(struct cf_gap *heap, uint64_t index) {
    while (index > 0 && heap[(index - 1) / 2].ticks > heap[index].ticks) {
        struct cf_gap gap = heap[index];
        heap[index] = heap[(index - 1) / 2];
        heap[(index - 1) / 2] = gap;
        index = (index - 1) / 2;
    }
}

static void keep(struct cf_gap *heap, uint64_t capacity, uint64_t *count, struct cf_gap gap) {
    if (*count < capacity) {
        heap[*count] = gap;
        sift_up(heap, (*count)++);
    } else if (capacity > 0 && gap.ticks > heap[0].ticks) {
        heap[0] = gap;
        sift_down(heap, capacity, 0);
    }
}

struct usage {
    uint32_t involuntary_switches;
    uint32_t minor_faults;
};

static struct usage read_usage(void) {
    struct rusage now;
    if (getrusage(RUSAGE_THREAD, &now) != 0)
        return (struct usage){0, 0};
    return (struct usage){(uint32_t)now.ru_nivcsw, (uint32_t)now.ru_minflt};
}

static void note_gap(struct cf_jitter_result *result, uint64_t start_tick, uint64_t ticks,
                     int inspect, struct usage *usage, struct cf_gap *kept, uint64_t capacity) {
    struct cf_gap gap = {.start_tick = start_tick, .ticks = ticks};
    if (inspect) {
        struct usage now = read_usage();
        gap.involuntary_switches = now.involuntary_switches - usage->involuntary_switches;
        gap.minor_faults = now.minor_faults - usage->minor_faults;
        *usage = now;
    }
    cf_distribution_add(&result->gaps, ticks);
    keep(kept, capacity, &result->kept, gap);
}

/* Takes what happened while a gap was noted off the next one: a switch in it makes the noting long.
 */
static uint64_t settle_usage(uint64_t noted_at, uint64_t *least_noting, struct usage *usage) {
    enum { LONG = 2, TRIES = 4 };
    uint64_t last = cf_ticks(), noting = last - noted_at;
    for (int tries = 0; noting > LONG * *least_noting && tries < TRIES; tries++) {
        uint64_t before = last;
        *usage = read_usage();
        last = cf_ticks();
        noting = last - before;
    }
    if (last - noted_at < *least_noting)
        *least_noting = last - noted_at;
    return last;
}

void cf_probe_jitter(uint64_t start_tick, uint64_t duration_ticks, uint64_t threshold_ticks,
                     int inspect, struct cf_gap *kept, uint64_t capacity, const uint32_t *stop,
                     struct cf_jitter_result *result) {
    struct usage usage = read_usage();
    /* Once for nothing: the first call faults the handler's code and stack in. */
    *result = (struct cf_jitter_result){0};
    note_gap(result, cf_ticks(), 0, inspect, &usage, kept, capacity);
    *result = (struct cf_jitter_result){0};
    cf_distribution_clear(&result->gaps);
    cf_thread_load_read(&result->load);
    while (cf_ticks() < start_tick && !cf_load_relaxed(stop))
        ;
    uint64_t last = cf_ticks(), turns = 0, least_noting = UINT64_MAX / 2;
    uint64_t end = last + duration_ticks;
    result->start_tick = last;
    while (last < end && !cf_load_relaxed(stop)) {
        uint64_t now = cf_ticks();
        turns++;
        if (cf_unlikely(now - last > threshold_ticks)) {
            note_gap(result, last, now - last, inspect, &usage, kept, capacity);
            last = inspect ? settle_usage(now, &least_noting, &usage) : cf_ticks();
            result->handling_ticks += last - now;
            continue;
        }
        last = now;
    }
    result->end_tick = last;
    result->turns = turns;
    cf_thread_load_since(&result->load);
}
