#include "alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "alloc_live.h"
#include "owner.h"
#include "tick.h"

_Thread_local struct cf_alloc_thread cf_alloc_thread;
uint8_t cf_alloc_quick, cf_alloc_starting;

static pthread_key_t thread_key;
static bool began;

/* What is counted before the segment is open, and without one. */
static struct cf_allocations early;

/* Where threads without a shard count; never NULL. Partner: the release in open_entries. */
static struct cf_allocations *shared = &early;

/* A page of the segment that forked children still see after they forgot the rest of it. */
static struct cf_allocations *children;
static void *children_page;
static size_t children_page_bytes;

/* Of a forked child that counts in `children`: what it did so far, atomically. */
static bool brief;
static int64_t brief_blocks, brief_bytes, brief_count;

/* Of the open segment; guarded by the owner's lock but where atomics are used. */
static uint64_t threads_entry, allocation_table;
static int64_t inherited_bytes, inherited_blocks;
static uint64_t bypassed;

/* The change of live bytes or blocks, which may be below 0. */
static int64_t net_bytes(const struct cf_alloc_change *change) {
    return (int64_t)change->allocated - (int64_t)change->freed;
}

static int64_t net_blocks(const struct cf_alloc_change *change) {
    return (int64_t)change->allocations - (int64_t)change->deallocations;
}

/* Adds to a shard that many threads write. */
static void add_shared(struct cf_allocations *shard, const struct cf_alloc_change *change) {
    cf_add_relaxed(&shard->allocations, change->allocations);
    cf_add_relaxed(&shard->deallocations, change->deallocations);
    cf_add_relaxed(&shard->reallocations, change->reallocations);
    cf_add_relaxed(&shard->failures, change->failures);
    cf_add_relaxed(&shard->bytes_allocated, change->allocated);
    cf_add_relaxed(&shard->net_bytes, net_bytes(change));
    if (change->requested != UINT64_MAX)
        cf_add_relaxed(&shard->sizes[cf_alloc_size_class(change->requested)], 1);
}

/* Adds to the fields of the calling thread's shard, past its pending word. */
static void add_own(struct cf_allocations *shard, const struct cf_alloc_change *change) {
    cf_alloc_bump(&shard->allocations, change->allocations);
    cf_alloc_bump(&shard->deallocations, change->deallocations);
    cf_alloc_bump(&shard->reallocations, change->reallocations);
    cf_alloc_bump(&shard->failures, change->failures);
    cf_alloc_bump(&shard->bytes_allocated, change->allocated);
    cf_alloc_bump((uint64_t *)&shard->net_bytes, (uint64_t)net_bytes(change));
    if (change->requested != UINT64_MAX)
        cf_alloc_bump(&shard->sizes[cf_alloc_size_class(change->requested)], 1);
}

/* Moves what is pending to the fields; returns its net. */
static int64_t take_pending(struct cf_allocations *shard) {
    cf_alloc_bump(&shard->tells_begun, 1);
    uint64_t word = cf_load_relaxed(&shard->pending);
    struct cf_alloc_pending pending = cf_alloc_unpack(word);
    cf_alloc_bump_after(&shard->allocations, pending.allocations);
    cf_alloc_bump_after(&shard->deallocations, pending.deallocations);
    cf_alloc_bump_after((uint64_t *)&shard->net_bytes, (uint64_t)pending.net_bytes);
    /* Taken away, not set to 0: what a signal handler adds meanwhile stays. */
    cf_alloc_bump_after(&shard->pending, -word);
    cf_alloc_bump_after(&shard->tells_ended, 1);
    return pending.net_bytes;
}

void cf_alloc_tell(struct cf_alloc_thread *thread) {
    if (thread->busy)
        return;
    int saved_errno = errno;
    thread->busy = 1;
    cf_live_tell(take_pending(thread->shard), false);
    thread->busy = 0;
    errno = saved_errno;
}

static void add_atomically(struct cf_allocations *into, const struct cf_allocations *from) {
    uint64_t *to = (uint64_t *)(void *)into;
    const uint64_t *words = (const uint64_t *)(const void *)from;
    for (size_t i = 0; i < sizeof *from / sizeof *words; i++)
        cf_add_relaxed(&to[i], cf_load_relaxed(&words[i]));
}

static struct cf_allocations *claim(struct cf_segment *segment, const char *name, uint64_t *entry) {
    if (cf_segment_add_entry(segment, &cf_kind_allocations, name, (uint32_t)strlen(name), NULL, 0,
                             &allocation_table, entry) != 0) {
        cf_add_relaxed(&segment->header->shards_refused, 1);
        return NULL;
    }
    struct cf_shard *shard = cf_segment_claim_shard(segment, *entry, (uint64_t)getpid());
    return shard ? cf_shard_payload(shard) : NULL;
}

/* Maps the children's shard a second time, by a descriptor of its own: a child that keeps this
 * mapping does not keep the lock on the file. */
static void map_for_children(struct cf_segment *segment, struct cf_allocations *shard) {
    if (children_page) {
        munmap(children_page, children_page_bytes);
        children_page = NULL;
    }
    children = NULL;
    int fd = segment->fd < 0 ? -1 : open(segment->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t offset = (uint64_t)((char *)shard - (char *)segment->header);
    uint64_t first = offset & ~(page - 1);
    size_t bytes = (size_t)(offset + sizeof *shard - first);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)first);
    close(fd);
    if (base == MAP_FAILED)
        return;
    children_page = base;
    children_page_bytes = bytes;
    children = (struct cf_allocations *)(void *)((char *)base + (offset - first));
}

/* Makes the entries of a segment that has none of ours. With the owner's lock held. */
static void open_entries(void) {
    struct cf_segment *segment = &cf_owner()->segment;
    cf_owner_open_locked();
    if (!segment->header || cf_live_process() || threads_entry == UINT64_MAX)
        return;
    uint64_t table = 0, entry;
    struct cf_shard *shard = NULL;
    if (cf_segment_add_entry(segment, &cf_kind_alloc_process, "process", 7, NULL, 0, &table,
                             &entry) == 0)
        shard = cf_segment_claim_shard(segment, entry, (uint64_t)getpid());
    struct cf_allocations *for_all = shard ? claim(segment, "shared", &entry) : NULL;
    struct cf_allocations *for_children = for_all ? claim(segment, "children", &entry) : NULL;
    if (!for_children || cf_segment_add_entry(segment, &cf_kind_allocations, "threads", 7, NULL, 0,
                                              &allocation_table, &threads_entry) != 0) {
        threads_entry = UINT64_MAX;
        return;
    }
    if (brief) {
        inherited_bytes += cf_load_relaxed(&brief_bytes);
        inherited_blocks += cf_load_relaxed(&brief_blocks);
    }
    struct cf_alloc_process *process = cf_shard_payload(shard);
    process->inherited_bytes = inherited_bytes;
    process->inherited_blocks = inherited_blocks;
    process->live_bytes = process->peak_bytes = inherited_bytes;
    process->batch_bytes = CF_ALLOC_BATCH_BYTES;
    process->bypass = bypassed;
    map_for_children(segment, for_children);
    add_atomically(for_all, &early);
    cf_store_relaxed(&brief, false);
    cf_live_begin(process);
    cf_live_tell(early.net_bytes, false);
    /* Partner: the acquire in cf_alloc_count. */
    cf_store_release(&shared, for_all);
}

/* Gives the calling thread a shard, or `refused`. */
static void claim_for_thread(struct cf_alloc_thread *thread) {
    struct cf_owner *owner = cf_owner();
    struct cf_shard *shard = NULL;
    pthread_mutex_lock(&owner->lock);
    open_entries();
    if (cf_live_process() && pthread_setspecific(thread_key, thread) == 0)
        shard =
            cf_segment_claim_shard(&owner->segment, threads_entry, (uint64_t)syscall(SYS_gettid));
    pthread_mutex_unlock(&owner->lock);
    if (shard) {
        thread->shard = cf_shard_payload(shard);
        thread->quick = cf_alloc_quick ? thread->shard : NULL;
    } else {
        thread->refused = 1;
    }
}

/* A forked child opens a segment of its own once it has done so much that it is no mere step
 * towards an exec; or when another part of the process has opened it. */
static bool is_brief(void) {
    if (!cf_load_relaxed(&brief) || cf_load_acquire(&cf_owner()->open_header))
        return false;
    int64_t bytes = cf_load_relaxed(&brief_bytes);
    return cf_load_relaxed(&brief_count) < CF_ALLOC_BATCH_COUNT && bytes < CF_ALLOC_BATCH_BYTES &&
           bytes > -CF_ALLOC_BATCH_BYTES;
}

static void count_brief(const struct cf_alloc_change *change) {
    if (children)
        add_shared(children, change);
    cf_add_relaxed(&brief_count, 1);
    cf_add_relaxed(&brief_bytes, net_bytes(change));
    cf_add_relaxed(&brief_blocks, net_blocks(change));
}

void cf_alloc_count(const struct cf_alloc_change *change) {
    struct cf_alloc_thread *thread = &cf_alloc_thread;
    int saved_errno = errno;
    if (cf_unlikely(cf_alloc_starting))
        return;
    if (!thread->shard && is_brief()) {
        count_brief(change);
        return;
    }
    if (!thread->shard && began && !thread->busy && !thread->refused) {
        thread->busy = 1;
        claim_for_thread(thread);
        thread->busy = 0;
    }
    if (thread->shard)
        add_own(thread->shard, change);
    else
        add_shared(cf_load_acquire(&shared), change);
    /* At once: a thread without a shard has no batch, and a large block is one. */
    cf_live_tell(net_bytes(change), false);
    errno = saved_errno;
}

void cf_alloc_allocated_slowly(uint64_t requested, uint64_t usable) {
    cf_alloc_count(
        &(struct cf_alloc_change){.allocations = 1, .requested = requested, .allocated = usable});
}

void cf_alloc_freed_slowly(uint64_t usable) {
    cf_alloc_count(
        &(struct cf_alloc_change){.deallocations = 1, .requested = UINT64_MAX, .freed = usable});
}

void cf_alloc_reallocated(uint64_t requested, uint64_t before, uint64_t after) {
    struct cf_allocations *shard = cf_alloc_thread.shard;
    if (cf_unlikely(shard == NULL || before >= CF_ALLOC_LARGE || after >= CF_ALLOC_LARGE)) {
        cf_alloc_count(&(struct cf_alloc_change){
            .reallocations = 1, .requested = requested, .allocated = after, .freed = before});
        return;
    }
    cf_alloc_bump(&shard->reallocations, 1);
    cf_alloc_bump(&shard->sizes[cf_alloc_size_class(requested)], 1);
    cf_alloc_bump(&shard->bytes_allocated, after);
    if (cf_alloc_is_full(cf_alloc_bump_fetch(&shard->pending, after - before)))
        cf_alloc_tell(&cf_alloc_thread);
}

void cf_alloc_failed(void) {
    cf_alloc_count(&(struct cf_alloc_change){.failures = 1, .requested = UINT64_MAX});
}

/* ThreadSanitizer's own last round must come after ours. */
#if defined(__SANITIZE_THREAD__)
enum { LAST_ROUND = _POSIX_THREAD_DESTRUCTOR_ITERATIONS - 1 };
#else
enum { LAST_ROUND = _POSIX_THREAD_DESTRUCTOR_ITERATIONS };
#endif

/* Destructors of other keys may still free: this one puts itself off until the last round. What
 * comes after it, such as glibc's own buffers, counts in the shared shard. */
static void thread_ended(void *argument) {
    struct cf_alloc_thread *thread = argument;
    if (++thread->ends < LAST_ROUND && pthread_setspecific(thread_key, thread) == 0)
        return;
    struct cf_allocations *shard = thread->shard;
    if (!shard)
        return;
    cf_alloc_tell(thread);
    thread->refused = 1;
    thread->shard = thread->quick = NULL;
    cf_segment_release_shard((struct cf_shard *)(void *)shard - 1);
}

static void before_fork(void) {
    cf_alloc_thread.busy = 1;
}

static void after_fork_in_parent(void) {
    cf_alloc_thread.busy = 0;
}

/* What is live at the fork is the child's too. The mapping still stands. */
static void inherit(void) {
    const char *base = (const char *)cf_owner()->segment.header;
    if (!base || !cf_live_process())
        return;
    int64_t bytes = inherited_bytes, blocks = inherited_blocks;
    uint64_t entry_offset = cf_owner()->segment.header->first_entry;
    while (entry_offset) {
        const struct cf_entry *entry = (const void *)(base + entry_offset);
        uint64_t offset = entry->fields == allocation_table &&
                                  memcmp(entry + 1, "children", entry->name_bytes) != 0
                              ? entry->first_shard
                              : 0;
        while (offset) {
            const struct cf_shard *shard = (const void *)(base + offset);
            const struct cf_allocations *counts = (const void *)(shard + 1);
            struct cf_alloc_pending pending = cf_alloc_unpack(cf_load_relaxed(&counts->pending));
            bytes += cf_load_relaxed(&counts->net_bytes) + pending.net_bytes;
            blocks += (int64_t)(cf_load_relaxed(&counts->allocations) + pending.allocations);
            blocks -= (int64_t)(cf_load_relaxed(&counts->deallocations) + pending.deallocations);
            offset = shard->next;
        }
        entry_offset = entry->next;
    }
    inherited_bytes = bytes;
    inherited_blocks = blocks;
}

/* Before the owner forgets the segment. */
static void after_fork_in_child(void) {
    if (brief) {
        inherited_bytes += brief_bytes;
        inherited_blocks += brief_blocks;
    }
    inherit();
    struct cf_alloc_process *process = cf_live_process();
    if (process)
        cf_add_relaxed(&process->children, 1);
    cf_live_forget();
    threads_entry = allocation_table = 0;
    brief_bytes = brief_blocks = brief_count = 0;
    brief = true;
    memset(&early, 0, sizeof early);
    shared = &early;
    cf_alloc_thread = (struct cf_alloc_thread){0};
}

void cf_alloc_begin(uint64_t bypass) {
    bypassed = bypass;
    cf_tick_select();
    if (pthread_key_create(&thread_key, thread_ended) != 0)
        return;
    /* Before the owner's: the child reads the segment before the owner forgets it. */
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    cf_owner_register();
    cf_alloc_thread.busy = 1;
    began = true;
    claim_for_thread(&cf_alloc_thread);
    cf_alloc_thread.busy = 0;
    atexit(cf_alloc_end);
}

void cf_alloc_end(void) {
    struct cf_alloc_thread *thread = &cf_alloc_thread;
    uint8_t was_busy = thread->busy;
    thread->busy = 1;
    cf_live_tell(thread->shard && !was_busy ? take_pending(thread->shard) : 0, true);
    thread->busy = was_busy;
}
