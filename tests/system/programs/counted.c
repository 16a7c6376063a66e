/* Allocates in known numbers on N threads, every function of the family, and prints what it did:
 * allocations, deallocations, reallocations, failures, usable bytes allocated, usable bytes freed.
 * What the C library allocates beside it (threads, stdio) is the difference to a run of 0 rounds.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct counts {
    unsigned long allocations, deallocations, reallocations, failures, allocated, freed;
};

static long rounds;
/* All threads are there at the same time, and none works before all are: what the C library
 * allocates for a thread gets a chunk of the same size in each run. */
static pthread_barrier_t barrier;
/* Blocks that one thread allocates and another frees. */
static void *volatile handed_on[64];

static void *noted(struct counts *counts, void *block) {
    if (!block)
        abort();
    counts->allocations++;
    counts->allocated += malloc_usable_size(block);
    memset(block, 1, 1);
    return block;
}

static void release(struct counts *counts, void *block) {
    if (!block)
        return;
    counts->deallocations++;
    counts->freed += malloc_usable_size(block);
    free(block);
}

static void *resized(struct counts *counts, void *block, size_t size, int by_array) {
    size_t before = malloc_usable_size(block);
    void *moved = by_array ? reallocarray(block, size, 1) : realloc(block, size);
    if (!moved)
        abort();
    counts->reallocations++;
    counts->freed += before;
    counts->allocated += malloc_usable_size(moved);
    return moved;
}

static void *one_of_each(struct counts *counts, uint64_t random) {
    size_t size = (random >> 20) % 3000 + 1;
    void *block = NULL;
    switch (random % 10) {
    case 0:
        return noted(counts, calloc(size, 3));
    case 1:
        if (posix_memalign(&block, 64, size) != 0)
            abort();
        return noted(counts, block);
    case 2:
        return noted(counts, aligned_alloc(128, (size + 127) & ~(size_t)127));
    case 3:
        return noted(counts, memalign(32, size));
    case 4:
        return noted(counts, realloc(NULL, size));
    case 5:
        return noted(counts, random % 1000 == 5 ? valloc(size) : malloc(size));
    case 6:
        return noted(counts, random % 1000 == 6 ? malloc(size << 8) : malloc(size));
    default:
        return noted(counts, malloc(size));
    }
}

static void *work(void *argument) {
    struct counts *counts = argument;
    uint64_t random = (uint64_t)(uintptr_t)argument * 2654435761u + 1;
    pthread_barrier_wait(&barrier);
    for (long round = 0; round < rounds; round++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        void *block = one_of_each(counts, random >> 16);
        if (random >> 60 == 0)
            block = resized(counts, block, (random >> 30) % 5000 + 1, round & 1);
        if (random >> 58 == 1) {
            void *volatile huge = malloc(SIZE_MAX / 2);
            counts->failures += huge == NULL;
        }
        if (random >> 61 == 2)
            block = __atomic_exchange_n(&handed_on[random >> 40 & 63], block, __ATOMIC_ACQ_REL);
        release(counts, block);
    }
    pthread_barrier_wait(&barrier);
    return NULL;
}

int main(int count, char **arguments) {
    enum { MOST = 64 };
    static struct counts all[MOST];
    pthread_t threads[MOST];
    static char output[256];
    setvbuf(stdout, output, _IOFBF, sizeof output);
    int number = count > 1 ? atoi(arguments[1]) : 1;
    rounds = count > 2 ? atol(arguments[2]) : 0;
    if (number > MOST || pthread_barrier_init(&barrier, NULL, (unsigned)number) != 0)
        return 2;
    for (int i = 0; i < number; i++)
        pthread_create(&threads[i], NULL, work, &all[i]);
    struct counts sum = {0};
    for (int i = 0; i < number; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 64; i++)
        release(&sum, handed_on[i]);
    for (int i = 0; i < number; i++) {
        sum.allocations += all[i].allocations;
        sum.deallocations += all[i].deallocations;
        sum.reallocations += all[i].reallocations;
        sum.failures += all[i].failures;
        sum.allocated += all[i].allocated;
        sum.freed += all[i].freed;
    }
    printf("%lu %lu %lu %lu %lu %lu\n", sum.allocations, sum.deallocations, sum.reallocations,
           sum.failures, sum.allocated, sum.freed);
    return 0;
}
