/* What is hard to count: many threads at once, threads that free in their last moments, forks in
 * threads, a signal handler that allocates, descriptors that are closed. Prints "done". */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_key_t key;

static void at_thread_end(void *block) {
    free(block);
    char *volatile another = malloc(100);
    free(another);
}

static void *short_thread(void *unused) {
    (void)unused;
    pthread_setspecific(key, malloc(500));
    return NULL;
}

static void *waiting_thread(void *barrier) {
    void *volatile block = malloc(64);
    pthread_barrier_wait(barrier);
    free(block);
    return NULL;
}

static void *forking_thread(void *unused) {
    (void)unused;
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            for (int k = 0; k < i * 1000; k++)
                free(malloc(k % 100 + 1));
            _exit(0);
        }
        int status;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            abort();
    }
    return NULL;
}

static void allocate_in_handler(int number) {
    (void)number;
    static void *volatile kept[64];
    static unsigned next;
    /* malloc is not safe here; the interrupted code below does not hold its locks. */
    free(kept[next % 64]);
    kept[next++ % 64] = malloc(200);
}

static void join(pthread_t *threads, int count) {
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

int main(void) {
    enum { MANY = 400, SEQUENTIAL = 300, FORKING = 4 };
    static pthread_t threads[MANY];
    pthread_key_create(&key, at_thread_end);
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    FILE *mine = tmpfile();
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, MANY);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int i = 0; i < MANY; i++)
        if (pthread_create(&threads[i], &small, waiting_thread, &barrier) != 0)
            abort();
    join(threads, MANY);
    for (int i = 0; i < SEQUENTIAL; i++) {
        if (pthread_create(&threads[0], &small, short_thread, NULL) != 0)
            abort();
        join(threads, 1);
    }
    for (int i = 0; i < FORKING; i++)
        if (pthread_create(&threads[i], NULL, forking_thread, NULL) != 0)
            abort();
    join(threads, FORKING);
    signal(SIGALRM, allocate_in_handler);
    struct itimerval often = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &often, NULL);
    volatile unsigned long work = 0;
    while (work < 50000000)
        work++;
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    /* Nobody else may have grown or shrunk a file that got a low descriptor. */
    if (!mine || fseek(mine, 0, SEEK_END) != 0 || ftell(mine) != 0)
        abort();
    puts("done");
    return 0;
}
