/* Nanoseconds of one free and one malloc: "loop THREADS ROUNDS" over a table of 4096 live blocks of
 * 1 to 1024 bytes a thread, "tight" with one block, which never leaves the thread's cache. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCKS = 4096, MOST = 64 };
static long rounds;
static uint64_t table_mask;

static void *work(void *argument) {
    char *volatile *blocks = calloc(BLOCKS, sizeof *blocks);
    uint64_t random = (uint64_t)(uintptr_t)argument + 12345;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long round = 0; round < rounds; round++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        char *volatile *block = &blocks[random >> 40 & table_mask];
        free(*block);
        *block = malloc((random >> 20 & 1023) + 1);
        **block = 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    *(double *)argument =
        ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) /
        (double)rounds;
    return NULL;
}

int main(int count, char **arguments) {
    static double ns[MOST];
    pthread_t threads[MOST];
    if (count < 4)
        return 2;
    table_mask = strcmp(arguments[1], "tight") == 0 ? 0 : BLOCKS - 1;
    int number = atoi(arguments[2]);
    rounds = atol(arguments[3]);
    double slowest = 0;
    for (int i = 0; i < number && i < MOST; i++)
        pthread_create(&threads[i], NULL, work, &ns[i]);
    for (int i = 0; i < number && i < MOST; i++) {
        pthread_join(threads[i], NULL);
        slowest = ns[i] > slowest ? ns[i] : slowest;
    }
    printf("%.3f\n", slowest);
    return 0;
}
