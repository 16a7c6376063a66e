/* The floor of a cache line's way between two CPUs: two threads, one flag, nothing else.
 * Prints the one-way time in ns of each variant: load-store, then compare-and-swap. It is the least
 * of the medians over fresh pages and, for load-store, over how long a reader waits before it looks
 * again: one that looks at once takes the line from its writer, and doubles the time. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { TRIPS = 50, SAMPLES = 1000, PAGES = 4, MOST_PAUSES = 3 };

static uint32_t *flag;
static int use_cas, pauses;

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause");
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void pass(uint32_t mine) {
    if (use_cas) {
        uint32_t expected;
        do {
            expected = mine;
        } while (!__atomic_compare_exchange_n(flag, &expected, mine + 1, 0, __ATOMIC_ACQ_REL,
                                              __ATOMIC_RELAXED));
        return;
    }
    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) != mine) {
        for (int turn = 0; turn < pauses; turn++)
            relax();
    }
    __atomic_store_n(flag, mine + 1, __ATOMIC_RELEASE);
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        exit(3);
}

static void *other(void *cpu) {
    pin(*(int *)cpu);
    for (uint32_t turn = 0; turn < TRIPS * SAMPLES; turn++)
        pass(2 * turn + 1);
    return NULL;
}

static int ascending(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double median_ns(int cpu_a, int cpu_b) {
    static double samples[SAMPLES];
    pthread_t thread;
    flag = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (flag == MAP_FAILED || pthread_create(&thread, NULL, other, &cpu_b) != 0)
        exit(3);
    pin(cpu_a);
    for (uint32_t sample = 0, turn = 0; sample < SAMPLES; sample++) {
        double start_ns = now_ns();
        for (int trip = 0; trip < TRIPS; trip++)
            pass(2 * turn++);
        samples[sample] = (now_ns() - start_ns) / (2 * TRIPS);
    }
    pthread_join(thread, NULL);
    munmap(flag, 4096);
    qsort(samples, SAMPLES, sizeof samples[0], ascending);
    return samples[SAMPLES / 2];
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    for (use_cas = 0; use_cas <= 1; use_cas++) {
        double least = 1e12;
        for (int page = 0; page < PAGES; page++) {
            for (pauses = 0; pauses <= (use_cas ? 0 : MOST_PAUSES); pauses++) {
                double found = median_ns(atoi(argv[1]), atoi(argv[2]));
                least = found < least ? found : least;
            }
        }
        printf("%.3f\n", least);
    }
    return 0;
}
