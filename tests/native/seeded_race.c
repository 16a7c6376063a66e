/* A known-bad build: the counters are written with plain stores while another thread reads them.
 * ThreadSanitizer must report it; if this program ends with 0, the checker checks nothing. */
#include "atomic.h"

#undef cf_store_relaxed
#define cf_store_relaxed(p, v) (*(p) = (v))

#include <pthread.h>
#include <stddef.h>

#include "operation.h"

static struct cf_operation shard;

static void *write_samples(void *argument) {
    for (int i = 0; i < 100000; i++)
        cf_operation_add(&shard, 100, (uint64_t)i, 0);
    return argument;
}

int main(void) {
    pthread_t writer;
    uint64_t seen = 0;
    if (pthread_create(&writer, NULL, write_samples, NULL) != 0)
        return 0;
    for (int i = 0; i < 100000; i++)
        seen += cf_load_relaxed(&shard.count);
    pthread_join(writer, NULL);
    return seen == 1; /* uses what was read */
}
