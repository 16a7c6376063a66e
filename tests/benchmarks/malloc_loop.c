/* Nanoseconds of one free and one malloc: "loop THREADS ROUNDS" over a table of 4096 live blocks of
 * 1 to 1024 bytes a thread, "tight" with one block, which never leaves the thread's cache.
 *
 * Rounds are timed in batches of 5000, a fraction of a scheduler's slice, and the median of a
 * thread's batches is what counts: a batch in which another program ran says nothing of malloc. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCKS = 4096, MOST_THREADS = 64, BATCH = 5000, MOST_BATCHES = 10000 };
static long batches;
static uint64_t table_mask;

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void *work(void *argument) {
    char *volatile *blocks = calloc(BLOCKS, sizeof *blocks);
    double *took = calloc((size_t)batches, sizeof *took);
    uint64_t random = (uint64_t)(uintptr_t)argument + 12345;
    for (long batch = 0; batch < batches; batch++) {
        double start = now_ns();
        for (int round = 0; round < BATCH; round++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            char *volatile *block = &blocks[random >> 40 & table_mask];
            free(*block);
            *block = malloc((random >> 20 & 1023) + 1);
            **block = 1;
        }
        took[batch] = (now_ns() - start) / BATCH;
    }
    qsort(took, (size_t)batches, sizeof *took, compare);
    *(double *)argument = took[batches / 2];
    free(took);
    return NULL;
}

int main(int count, char **arguments) {
    static double ns[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    if (count < 4)
        return 2;
    table_mask = strcmp(arguments[1], "tight") == 0 ? 0 : BLOCKS - 1;
    int number = atoi(arguments[2]);
    batches = atol(arguments[3]) / BATCH;
    if (number < 1 || number > MOST_THREADS || batches < 1 || batches > MOST_BATCHES)
        return 2;
    double slowest = 0;
    for (int i = 0; i < number; i++)
        pthread_create(&threads[i], NULL, work, &ns[i]);
    for (int i = 0; i < number; i++) {
        pthread_join(threads[i], NULL);
        slowest = ns[i] > slowest ? ns[i] : slowest;
    }
    printf("%.3f\n", slowest);
    return 0;
}
