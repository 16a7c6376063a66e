/* Allocation counts: exact over threads that end, share, and fork; packed words come apart as they
 * were put together. */
#include "check.h"

#include <dirent.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "alloc.h"
#include "owner.h"

enum { THREADS = 8, CALLS = 50000 };

static char directory[] = "/tmp/cf-alloc-XXXXXX";

static const void *at(uint64_t offset) {
    return (const char *)cf_owner_own.segment.header + offset;
}

/* Returns the sum over the shards of the entries of a name, NULL for all but those of children. */
static struct cf_alloc_pending counted(const char *name, uint64_t *bytes_allocated) {
    struct cf_alloc_pending sum = {0, 0, 0};
    uint64_t bytes = 0;
    for (uint64_t e = cf_owner_own.segment.header->first_entry; e;) {
        const struct cf_entry *entry = at(e);
        int wanted =
            strcmp(entry->kind, "allocations") == 0 &&
            (name ? strncmp((const char *)(entry + 1), name, entry->name_bytes) == 0
                  : strncmp((const char *)(entry + 1), "children", entry->name_bytes) != 0);
        for (uint64_t s = wanted ? entry->first_shard : 0; s;) {
            const struct cf_shard *shard = at(s);
            const struct cf_allocations *counts = (const void *)(shard + 1);
            struct cf_alloc_pending pending = cf_alloc_unpack(cf_load_relaxed(&counts->pending));
            sum.allocations += cf_load_relaxed(&counts->allocations) + pending.allocations;
            sum.deallocations += cf_load_relaxed(&counts->deallocations) + pending.deallocations;
            sum.net_bytes += cf_load_relaxed(&counts->net_bytes) + pending.net_bytes;
            bytes += cf_load_relaxed(&counts->bytes_allocated);
            CHECK(cf_load_relaxed(&counts->tells_begun) == cf_load_relaxed(&counts->tells_ended));
            s = shard->next;
        }
        e = entry->next;
    }
    if (bytes_allocated)
        *bytes_allocated = bytes;
    return sum;
}

static void test_a_packed_word_comes_apart(void) {
    static const int64_t nets[] = {0, 1, -1, 65536, -65536, 70000, -70000, (INT64_C(1) << 32)};
    static const uint64_t counts[] = {0, 1, 2, 8191, 8192, 16000};
    for (size_t n = 0; n < sizeof nets / sizeof nets[0]; n++) {
        for (size_t a = 0; a < 6; a++) {
            for (size_t d = 0; d < 6; d++) {
                uint64_t word =
                    counts[a] * CF_ALLOC_ONE + counts[d] * CF_ALLOC_ONE_FREED + (uint64_t)nets[n];
                struct cf_alloc_pending parts = cf_alloc_unpack(word);
                CHECK(parts.net_bytes == nets[n] && parts.allocations == counts[a] &&
                      parts.deallocations == counts[d]);
                int full =
                    nets[n] >= 65536 || nets[n] < -65536 || counts[a] >= 8192 || counts[d] >= 8192;
                CHECK(cf_alloc_is_full(word) == full);
            }
        }
    }
}

static void test_size_classes_ascend_without_a_gap(void) {
    CHECK(cf_alloc_size_class(0) == 0 && cf_alloc_size_class(3) == 3);
    uint32_t before = 0;
    for (uint64_t size = 0; size < 1 << 20; size++) {
        uint32_t class = cf_alloc_size_class(size);
        CHECK(class == before || class == before + 1);
        before = class;
    }
    CHECK(cf_alloc_size_class(UINT64_MAX) == CF_ALLOC_SIZES - 1);
    CHECK(cf_alloc_size_class((UINT64_C(1) << 40) - 1) == CF_ALLOC_SIZES - 1);
}

/* As the preload library does for a block of glibc's. */
static void allocated(uint64_t requested, uint64_t usable) {
    struct cf_allocations *shard = cf_alloc_thread.quick;
    if (!shard)
        cf_alloc_allocated_slowly(requested, usable);
    else if (cf_alloc_count_allocated(shard, requested, usable))
        cf_alloc_tell(&cf_alloc_thread);
}

static void freed(uint64_t usable) {
    struct cf_allocations *shard = cf_alloc_thread.quick;
    if (!shard)
        cf_alloc_freed_slowly(usable);
    else if (cf_alloc_count_freed(shard, usable))
        cf_alloc_tell(&cf_alloc_thread);
}

static void *count_many(void *argument) {
    uint64_t number = (uint64_t)(uintptr_t)argument;
    for (uint64_t i = 0; i < CALLS; i++) {
        allocated(i % 700, i % 700 + number);
        if (i % 3 == 0)
            cf_alloc_reallocated(100, 100, 300);
        freed(i % 700 + number);
    }
    return NULL;
}

static void run_threads(void) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, count_many, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void test_threads_are_counted_exactly_and_their_shards_used_again(void) {
    struct cf_alloc_pending before = counted(NULL, NULL);
    run_threads();
    uint64_t used = cf_owner_own.segment.header->used_bytes;
    run_threads();
    struct cf_alloc_pending after = counted(NULL, NULL);
    CHECK(after.allocations - before.allocations == 2 * THREADS * CALLS);
    CHECK(after.deallocations - before.deallocations == 2 * THREADS * CALLS);
    CHECK(after.net_bytes - before.net_bytes == INT64_C(2) * THREADS * ((CALLS + 2) / 3) * 200);
    CHECK(cf_owner_own.segment.header->used_bytes <= used + 32768); /* the timeline may be new */
}

/* A child that does little counts in its parent's segment, one that does much in its own. */
static void test_forked_children_are_counted(void) {
    struct cf_alloc_pending before = counted("children", NULL);
    for (int calls = 10; calls <= 100000; calls *= 10000) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            for (int i = 0; i < calls; i++)
                allocated(8, 16);
            struct cf_segment_header *own = cf_load_acquire(&cf_owner_own.open_header);
            int is_own = own != NULL && own->pid == (uint64_t)getpid();
            _exit(is_own == (calls > 10) ? 0 : 1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    struct cf_alloc_pending after = counted("children", NULL);
    CHECK(after.allocations - before.allocations >= 20);
    CHECK(after.allocations - before.allocations < 20000);
}

static void remove_segments(void) {
    DIR *listing = opendir(directory);
    CHECK(listing != NULL);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;)
        unlinkat(dirfd(listing), entry->d_name, 0);
    closedir(listing);
    rmdir(directory);
}

int main(void) {
    test_a_packed_word_comes_apart();
    test_size_classes_ascend_without_a_gap();
    CHECK(mkdtemp(directory) != NULL);
    CHECK(cf_owner_configure(directory, "run", CF_SEGMENT_DEFAULT_LIMIT) == 0);
    allocated(10, 24); /* before there is a segment */
    cf_alloc_quick = 1;
    cf_alloc_begin(0);
    CHECK(cf_owner_own.open_result == 0);
    CHECK(counted(NULL, NULL).allocations == 1);
    test_threads_are_counted_exactly_and_their_shards_used_again();
    test_forked_children_are_counted();
    remove_segments();
    return 0;
}
