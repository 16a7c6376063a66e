#include "probe_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS_BETWEEN_LOOKS = 4096 };

/* The token counts two for each round trip and must not wrap. */
#define MAX_TURNS (UINT32_C(1) << 30)

/* One page's run. The token is odd while it is B's turn and even while it is A's; it only grows. */
struct pair {
    const struct cf_pair_config *config;
    const uint32_t *stop;
    struct cf_pair_result *result;
    uint32_t *token;  /* alone on its page */
    uint32_t samples; /* on this page */
    uint32_t ended;   /* one side gave up: the other must not wait for ever */
    int to_b[2];
    int to_a[2];
    int error_a;
    int error_b;
};

static int gave_up(const struct pair *pair) {
    return cf_load_relaxed(pair->stop) || cf_load_relaxed(&pair->ended);
}

static int pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return -EINVAL;
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0 ? 0 : -errno;
}

static long futex(uint32_t *word, int operation, uint32_t value, const struct timespec *timeout) {
    return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, timeout, NULL, 0);
}

/* Waits until the token's value is `mine`. 0, or -1 when the other side gave up. */
static int await_spinning(const struct pair *pair, uint32_t mine) {
    for (uint32_t spins = 0; cf_load_acquire(pair->token) != mine; spins++) {
        if (spins % SPINS_BETWEEN_LOOKS == SPINS_BETWEEN_LOOKS - 1 && gave_up(pair))
            return -1;
        cf_relax();
    }
    return 0;
}

static int await_cas(const struct pair *pair, uint32_t mine, uint32_t next) {
    for (uint32_t spins = 0;; spins++) {
        uint32_t expected = mine;
        if (__atomic_compare_exchange_n(pair->token, &expected, next, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return 0;
        if (spins % SPINS_BETWEEN_LOOKS == SPINS_BETWEEN_LOOKS - 1 && gave_up(pair))
            return -1;
    }
}

static int await_futex(const struct pair *pair, uint32_t mine) {
    /* The time-out only bounds how late a stop is seen. */
    static const struct timespec look_again = {.tv_nsec = 50000000};
    uint32_t seen;
    while ((seen = cf_load_acquire(pair->token)) != mine) {
        if (gave_up(pair))
            return -1;
        futex(pair->token, FUTEX_WAIT, seen, &look_again);
    }
    return 0;
}

static int read_byte(int fd) {
    char byte;
    ssize_t got;
    do {
        got = read(fd, &byte, 1);
    } while (got < 0 && errno == EINTR);
    return got == 1 ? 0 : -1;
}

static int write_byte(int fd) {
    return write(fd, "", 1) == 1 ? 0 : -1;
}

/* Waits for the turn `mine` and passes the token on as `next`. 0, or -1 when the other gave up. */
static int take_turn(struct pair *pair, uint32_t mine, uint32_t next) {
    switch (pair->config->kind) {
    case CF_PAIR_CAS:
        return await_cas(pair, mine, next);
    case CF_PAIR_LOAD_STORE:
        if (await_spinning(pair, mine) != 0)
            return -1;
        cf_store_release(pair->token, next);
        return 0;
    case CF_PAIR_FUTEX:
        if (await_futex(pair, mine) != 0)
            return -1;
        cf_store_release(pair->token, next);
        futex(pair->token, FUTEX_WAKE, 1, NULL);
        return 0;
    case CF_PAIR_PIPE:
        break;
    }
    return -1;
}

static int round_trip_a(struct pair *pair, uint32_t turn) {
    if (pair->config->kind == CF_PAIR_PIPE)
        return write_byte(pair->to_b[1]) == 0 ? read_byte(pair->to_a[0]) : -1;
    return take_turn(pair, 2 * turn, 2 * turn + 1);
}

static int round_trip_b(struct pair *pair, uint32_t turn) {
    if (pair->config->kind == CF_PAIR_PIPE)
        return read_byte(pair->to_b[0]) == 0 ? write_byte(pair->to_a[1]) : -1;
    return take_turn(pair, 2 * turn + 1, 2 * turn + 2);
}

static void add_load(struct cf_thread_load *total, struct cf_thread_load load) {
    total->involuntary_switches += load.involuntary_switches;
    total->voluntary_switches += load.voluntary_switches;
    total->minor_faults += load.minor_faults;
    total->major_faults += load.major_faults;
    total->run_delay_ns += load.run_delay_ns;
    total->run_delay_known = total->run_delay_known && load.run_delay_known;
}

/* Ends a side: the other one, if it still waits, sees it or gets an end of file. */
static void end_side(struct pair *pair, int write_end) {
    cf_store_relaxed(&pair->ended, 1u);
    if (pair->config->kind == CF_PAIR_PIPE)
        close(write_end);
}

static uint32_t all_turns(const struct pair *pair) {
    return (pair->samples + 1) * pair->config->round_trips;
}

static void *side_b(void *argument) {
    struct pair *pair = argument;
    struct cf_thread_load load;
    pair->error_b = pin(pair->config->cpu_b);
    cf_thread_load_read(&load);
    for (uint32_t turn = 0; pair->error_b == 0 && turn < all_turns(pair); turn++) {
        if (round_trip_b(pair, turn) != 0)
            break;
    }
    cf_thread_load_since(&load);
    add_load(&pair->result->load_b, load);
    end_side(pair, pair->to_a[1]);
    return NULL;
}

/* The first batch is warm-up: it faults the page in and finds both sides running. */
static void *side_a(void *argument) {
    struct pair *pair = argument;
    struct cf_thread_load load;
    pair->error_a = pin(pair->config->cpu_a);
    cf_thread_load_read(&load);
    uint32_t turn = 0;
    for (uint32_t sample = 0; pair->error_a == 0 && sample <= pair->samples; sample++) {
        /* A pipe's read does not look at the flags: its partner gets an end of file instead. */
        if (gave_up(pair))
            break;
        uint64_t start_tick = cf_ticks();
        uint32_t end = turn + pair->config->round_trips;
        while (turn < end && round_trip_a(pair, turn) == 0)
            turn++;
        if (turn < end)
            break;
        if (sample > 0)
            cf_distribution_add(&pair->result->batch, cf_ticks() - start_tick);
    }
    cf_thread_load_since(&load);
    add_load(&pair->result->load_a, load);
    end_side(pair, pair->to_b[1]);
    return NULL;
}

static int open_pipes(struct pair *pair) {
    if (pair->config->kind != CF_PAIR_PIPE)
        return 0;
    if (pipe2(pair->to_b, O_CLOEXEC) != 0)
        return -errno;
    if (pipe2(pair->to_a, O_CLOEXEC) == 0)
        return 0;
    int error = -errno;
    close(pair->to_b[0]);
    close(pair->to_b[1]);
    return error;
}

static int run_threads(struct pair *pair) {
    pthread_t a, b;
    int error = pthread_create(&b, NULL, side_b, pair);
    if (error != 0) {
        end_side(pair, pair->to_a[1]);
        end_side(pair, pair->to_b[1]);
        return -error;
    }
    error = pthread_create(&a, NULL, side_a, pair);
    if (error != 0)
        end_side(pair, pair->to_b[1]);
    else
        pthread_join(a, NULL);
    pthread_join(b, NULL);
    if (error != 0)
        return -error;
    return pair->error_a != 0 ? pair->error_a : pair->error_b;
}

static int run_page(struct pair *pair) {
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -errno;
    pair->token = page;
    int error = open_pipes(pair);
    if (error == 0) {
        error = run_threads(pair);
        if (pair->config->kind == CF_PAIR_PIPE) {
            close(pair->to_a[0]);
            close(pair->to_b[0]);
        }
    }
    munmap(page, page_bytes);
    return error;
}

static int spins(enum cf_pair_kind kind) {
    return kind == CF_PAIR_LOAD_STORE || kind == CF_PAIR_CAS;
}

int cf_probe_pair(const struct cf_pair_config *config, const uint32_t *stop,
                  struct cf_pair_result *result) {
    *result = (struct cf_pair_result){.load_a.run_delay_known = 1, .load_b.run_delay_known = 1};
    cf_distribution_clear(&result->batch);
    if ((spins(config->kind) && config->cpu_a == config->cpu_b) || config->round_trips == 0 ||
        config->samples_a_page == 0 ||
        ((uint64_t)config->samples_a_page + 1) * config->round_trips > MAX_TURNS)
        return -EINVAL;
    int error = 0;
    for (uint32_t done = 0; done < config->samples && error == 0 && !cf_load_relaxed(stop);) {
        uint32_t left = config->samples - done;
        struct pair pair = {.config = config, .stop = stop, .result = result};
        pair.samples = left < config->samples_a_page ? left : config->samples_a_page;
        error = run_page(&pair);
        done += pair.samples;
    }
    return error;
}
