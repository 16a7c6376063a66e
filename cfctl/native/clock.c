#include "clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

/* The seqlock. Every word is atomic: the data loads are acquires and the data stores are releases,
 * which costs nothing on x86 and needs no fence (thread sanitizers do not model fences). A reader
 * that sees a data word of a newer writer thereby sees that writer's odd sequence, and retries.
 * Source of the scheme: Boehm, "Can seqlocks get along with programming language memory models?"
 * (MSPC 2012). */
static struct {
    uint64_t sequence; /* odd while a writer is at work */
    uint64_t base_tick, base_ns, mult;
    uint64_t shift; /* 0: nothing is published */
    uint64_t reference;
} published __attribute__((aligned(64))) = {.reference = CLOCK_MONOTONIC_RAW};

static pthread_mutex_t writer = PTHREAD_MUTEX_INITIALIZER;

static void store(const struct cf_clock_line *line) {
    uint64_t sequence = cf_load_relaxed(&published.sequence);
    cf_store_relaxed(&published.sequence, sequence + 1);
    cf_store_release(&published.base_tick, line->base_tick);
    cf_store_release(&published.base_ns, line->base_ns);
    cf_store_release(&published.mult, line->mult);
    cf_store_release(&published.shift, (uint64_t)line->shift);
    cf_store_release(&published.reference, (uint64_t)line->reference);
    cf_store_release(&published.sequence, sequence + 2); /* pairs with the acquires in load() */
}

static inline void load(struct cf_clock_line *line) {
    for (;;) {
        uint64_t sequence = cf_load_acquire(&published.sequence);
        line->base_tick = cf_load_acquire(&published.base_tick);
        line->base_ns = cf_load_acquire(&published.base_ns);
        line->mult = cf_load_acquire(&published.mult);
        line->shift = (uint32_t)cf_load_acquire(&published.shift);
        line->reference = (clockid_t)cf_load_acquire(&published.reference);
        if (cf_likely(!(sequence & 1) && sequence == cf_load_relaxed(&published.sequence)))
            return;
    }
}

int cf_clock_publish(const struct cf_clock_line *line) {
    if (line->mult == 0 || line->shift < 1 || line->shift > 64)
        return -EINVAL;
    pthread_mutex_lock(&writer);
    store(line);
    pthread_mutex_unlock(&writer);
    return 0;
}

void cf_clock_withdraw(void) {
    pthread_mutex_lock(&writer);
    struct cf_clock_line none = {.reference = (clockid_t)cf_load_relaxed(&published.reference)};
    store(&none);
    pthread_mutex_unlock(&writer);
}

int cf_clock_published(struct cf_clock_line *line) {
    load(line);
    return line->shift ? 0 : -ENOENT;
}

uint64_t cf_clock_now_ns(void) {
    struct cf_clock_line line;
    load(&line);
    if (cf_unlikely(line.shift == 0))
        return cf_os_ns(line.reference);
    return cf_clock_convert(&line, cf_ticks());
}
