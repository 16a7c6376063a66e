#include "offset.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "tick.h"

/* A message is the sender's tick: one word, so that one cache line transfer carries it. */
struct line {
    uint64_t tick;
} __attribute__((aligned(128))); /* two lines: the neighbour is prefetched too */

struct game {
    struct line to_a, to_b;
    uint32_t stop __attribute__((aligned(128)));
    uint32_t exchanges;
    uint64_t deadline_ns;
    struct cf_offset result; /* min_ab and its warps: written by b; the rest: by a */
    uint64_t warps_ab;
};

/* How often a waiting side looks at the clock: a look costs 24 ns, a wait may be milliseconds. */
enum { SPINS_PER_LOOK = 4096 };

/* Waits for a message other than `last`; false when the game is over. */
static bool receive(struct game *game, struct line *line, uint64_t last, uint64_t *message) {
    for (uint32_t spin = 1;; spin++) {
        *message = cf_load_acquire(&line->tick); /* pairs with send() */
        if (*message != last)
            return true;
        cf_relax();
        if (spin % SPINS_PER_LOOK != 0)
            continue;
        if (cf_load_relaxed(&game->stop) || cf_os_ns(CLOCK_MONOTONIC_RAW) > game->deadline_ns) {
            cf_store_relaxed(&game->stop, 1);
            return false;
        }
    }
}

static inline void send(struct line *line, uint64_t *last) {
    uint64_t now = cf_ticks_ordered();
    /* A coarse counter may show the same tick twice; the receiver waits for a change. */
    *last = now == *last ? now + 1 : now;
    cf_store_release(&line->tick, *last);
}

static void *side_a(void *argument) {
    struct game *game = argument;
    uint64_t sent = 0, received = 0, warps = 0;
    int64_t least = INT64_MAX;
    uint32_t done = 0;
    for (; done < game->exchanges; done++) {
        send(&game->to_b, &sent);
        uint64_t message;
        if (!receive(game, &game->to_a, received, &message))
            break;
        int64_t way = (int64_t)(cf_ticks_ordered() - message);
        received = message;
        warps += way < 0;
        if (way < least)
            least = way;
    }
    cf_store_relaxed(&game->stop, 1);
    game->result.min_ba = least;
    game->result.exchanges = done;
    game->result.warps = warps;
    return NULL;
}

static void *side_b(void *argument) {
    struct game *game = argument;
    uint64_t sent = 0, received = 0, message, warps = 0;
    int64_t least = INT64_MAX;
    for (uint32_t done = 0; done < game->exchanges; done++) {
        if (!receive(game, &game->to_b, received, &message))
            break;
        int64_t way = (int64_t)(cf_ticks_ordered() - message);
        received = message;
        send(&game->to_a, &sent);
        warps += way < 0;
        if (way < least)
            least = way;
    }
    game->result.min_ab = least;
    game->warps_ab = warps;
    return NULL;
}

/* Starts a thread on one CPU of whatever number; returns 0 or a positive errno. */
static int start_on(int cpu, void *(*side)(void *), struct game *game, pthread_t *thread) {
    int cpus = cpu + 1;
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (set == NULL)
        return ENOMEM;
    size_t size = CPU_ALLOC_SIZE(cpus);
    CPU_ZERO_S(size, set);
    CPU_SET_S(cpu, size, set);
    pthread_attr_t attributes;
    int status = pthread_attr_init(&attributes);
    if (status == 0) {
        status = pthread_attr_setaffinity_np(&attributes, size, set);
        if (status == 0)
            status = pthread_create(thread, &attributes, side, game);
        pthread_attr_destroy(&attributes);
    }
    CPU_FREE(set);
    return status;
}

int cf_offset_measure(int cpu_a, int cpu_b, uint32_t exchanges, uint64_t timeout_ns,
                      struct cf_offset *offset) {
    if (cpu_a == cpu_b || cpu_a < 0 || cpu_b < 0 || exchanges == 0)
        return -EINVAL;
    struct game game = {.exchanges = exchanges};
    game.deadline_ns = cf_os_ns(CLOCK_MONOTONIC_RAW) + timeout_ns;
    pthread_t a, b;
    int status = start_on(cpu_b, side_b, &game, &b);
    if (status != 0)
        return -status;
    status = start_on(cpu_a, side_a, &game, &a);
    if (status != 0)
        cf_store_relaxed(&game.stop, 1);
    else
        pthread_join(a, NULL);
    pthread_join(b, NULL);
    if (status != 0)
        return -status;
    *offset = game.result;
    offset->warps += game.warps_ab;
    return offset->exchanges > 0 ? 0 : -ETIMEDOUT;
}
