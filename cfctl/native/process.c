#include "process.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "atomic.h"
#include "owner.h"

struct instrument {
    const struct cf_kind *kind;
    char *name; /* then the labels, in one block */
    uint32_t name_bytes;
    uint32_t label_bytes;
    uint64_t entry; /* offset in the open segment; 0 = not there yet */
};

/* A kind's field table stands once per segment. */
struct kind_table {
    const struct cf_kind *kind;
    uint64_t fields;
};

enum { MAX_KINDS = 32 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;

/* All below is guarded by `lock`, which is taken before the owner's. */
static struct instrument *instruments;
static uint32_t instrument_count, instrument_capacity;
static struct kind_table kinds[MAX_KINDS];

_Thread_local struct cf_thread cf_thread;
uint32_t cf_process_generation;

/* Gives a thread's shards back when it ends. `argument` is its cf_thread. */
static void thread_ended(void *argument) {
    struct cf_thread *thread = argument;
    for (uint32_t id = 0; id < thread->count; id++) {
        if (thread->payloads[id])
            cf_segment_release_shard((struct cf_shard *)thread->payloads[id] - 1);
    }
    free(thread->payloads);
    free(thread->refused);
    free(thread->spans);
    free(thread->edges);
    *thread = (struct cf_thread){0};
}

static void before_fork(void) {
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&lock);
}

/* The child has one thread, this one; its owner has forgotten the parent's segment. */
static void after_fork_in_child(void) {
    cf_process_generation++;
    for (uint32_t id = 0; id < instrument_count; id++)
        instruments[id].entry = 0;
    memset(kinds, 0, sizeof kinds);
    for (uint32_t id = 0; id < cf_thread.count; id++) {
        cf_thread.payloads[id] = NULL;
        cf_thread.refused[id] = 0;
    }
    for (uint32_t i = 0; i < cf_thread.depth; i++)
        cf_thread.spans[i].payload = NULL;
    pthread_mutex_unlock(&lock);
}

static void initialise(void) {
    pthread_key_create(&thread_key, thread_ended);
    cf_owner_find();
    cf_owner_register();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int cf_process_configure(const char *directory, const char *run_id, uint64_t limit_bytes) {
    pthread_once(&once, initialise);
    return cf_owner_configure(directory, run_id, limit_bytes);
}

int cf_process_open(void) {
    pthread_once(&once, initialise);
    pthread_mutex_lock(&cf_owner()->lock);
    int result = cf_owner_open_locked();
    pthread_mutex_unlock(&cf_owner()->lock);
    return result;
}

size_t cf_process_path(char *path, size_t capacity) {
    struct cf_owner *owner = cf_owner();
    pthread_mutex_lock(&owner->lock);
    int length = snprintf(path, capacity, "%s", owner->segment.header ? owner->segment.path : "");
    pthread_mutex_unlock(&owner->lock);
    return length > 0 ? (size_t)length : 0;
}

struct cf_segment_header *cf_process_header(void) {
    return cf_load_acquire(&cf_owner()->open_header);
}

static bool is_instrument(const struct instrument *known, const struct cf_kind *kind,
                          const char *name, uint32_t name_bytes, const char *labels,
                          uint32_t label_bytes) {
    return known->kind == kind && known->name_bytes == name_bytes &&
           known->label_bytes == label_bytes && memcmp(known->name, name, name_bytes) == 0 &&
           (label_bytes == 0 || memcmp(known->name + name_bytes, labels, label_bytes) == 0);
}

static int64_t add_instrument(const struct cf_kind *kind, const char *name, uint32_t name_bytes,
                              const char *labels, uint32_t label_bytes) {
    if (instrument_count == instrument_capacity) {
        uint32_t capacity = instrument_capacity ? instrument_capacity * 2 : 16;
        struct instrument *grown = realloc(instruments, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        instruments = grown;
        instrument_capacity = capacity;
    }
    char *text = malloc((size_t)name_bytes + label_bytes + 1);
    if (!text)
        return -ENOMEM;
    memcpy(text, name, name_bytes);
    if (label_bytes > 0)
        memcpy(text + name_bytes, labels, label_bytes);
    instruments[instrument_count] = (struct instrument){kind, text, name_bytes, label_bytes, 0};
    return instrument_count++;
}

int64_t cf_process_instrument(const struct cf_kind *kind, const char *name, uint32_t name_bytes,
                              const char *labels, uint32_t label_bytes) {
    if (name_bytes > CF_NAME_BYTES || label_bytes > CF_NAME_BYTES)
        return -ENAMETOOLONG;
    pthread_mutex_lock(&lock);
    int64_t id = -1;
    for (uint32_t i = 0; i < instrument_count && id < 0; i++) {
        if (is_instrument(&instruments[i], kind, name, name_bytes, labels, label_bytes))
            id = i;
    }
    if (id < 0)
        id = add_instrument(kind, name, name_bytes, labels, label_bytes);
    pthread_mutex_unlock(&lock);
    return id;
}

static uint64_t *kind_fields(const struct cf_kind *kind) {
    for (size_t i = 0; i < MAX_KINDS; i++) {
        if (kinds[i].kind == NULL)
            kinds[i].kind = kind;
        if (kinds[i].kind == kind)
            return &kinds[i].fields;
    }
    return NULL;
}

/* With both locks held. */
static struct cf_shard *claim_locked(struct instrument *instrument) {
    cf_owner_open_locked();
    struct cf_segment *segment = &cf_owner()->segment;
    if (!segment->header)
        return NULL;
    if (instrument->entry == 0) {
        uint64_t *fields = kind_fields(instrument->kind);
        if (!fields ||
            cf_segment_add_entry(segment, instrument->kind, instrument->name,
                                 instrument->name_bytes, instrument->name + instrument->name_bytes,
                                 instrument->label_bytes, fields, &instrument->entry) != 0) {
            cf_add_relaxed(&segment->header->shards_refused, 1);
            return NULL;
        }
    }
    return cf_segment_claim_shard(segment, instrument->entry, (uint64_t)syscall(SYS_gettid));
}

/* Makes room for one more id in the thread's table. False when there is no memory. */
static bool grow_thread_table(uint32_t id) {
    struct cf_thread *thread = &cf_thread;
    if (id < thread->count)
        return true;
    uint32_t count = (id + 16) & ~15u;
    void **payloads = realloc(thread->payloads, count * sizeof *payloads);
    if (payloads)
        thread->payloads = payloads;
    uint8_t *refused = realloc(thread->refused, count);
    if (refused)
        thread->refused = refused;
    if (!payloads || !refused || pthread_setspecific(thread_key, thread) != 0)
        return false;
    for (uint32_t i = thread->count; i < count; i++) {
        payloads[i] = NULL;
        refused[i] = 0;
    }
    thread->count = count;
    return true;
}

void *cf_process_claim(uint32_t id) {
    struct cf_thread *thread = &cf_thread;
    if (id < thread->count && thread->refused[id])
        return NULL;
    pthread_once(&once, initialise);
    if (!grow_thread_table(id))
        return NULL;
    pthread_mutex_lock(&lock);
    pthread_mutex_lock(&cf_owner()->lock);
    struct cf_shard *shard = id < instrument_count ? claim_locked(&instruments[id]) : NULL;
    pthread_mutex_unlock(&cf_owner()->lock);
    pthread_mutex_unlock(&lock);
    thread->refused[id] = shard == NULL && cf_process_header() != NULL;
    thread->payloads[id] = shard ? cf_shard_payload(shard) : NULL;
    return thread->payloads[id];
}

struct cf_shard *cf_process_claim_shard(uint32_t id) {
    pthread_once(&once, initialise);
    pthread_mutex_lock(&lock);
    pthread_mutex_lock(&cf_owner()->lock);
    struct cf_shard *shard = id < instrument_count ? claim_locked(&instruments[id]) : NULL;
    pthread_mutex_unlock(&cf_owner()->lock);
    pthread_mutex_unlock(&lock);
    return shard;
}

int cf_process_make_spans(void) {
    struct cf_thread *thread = &cf_thread;
    pthread_once(&once, initialise);
    if (!thread->spans)
        thread->spans = calloc(CF_SPAN_DEPTH, sizeof *thread->spans);
    if (!thread->edges)
        thread->edges = calloc(CF_EDGE_CACHE, sizeof *thread->edges);
    if (!thread->spans || !thread->edges || pthread_setspecific(thread_key, thread) != 0)
        return 0;
    thread->capacity = CF_SPAN_DEPTH;
    return 1;
}

int cf_process_describe(uint32_t id, struct cf_instrument_text *into) {
    pthread_mutex_lock(&lock);
    bool known = id < instrument_count;
    if (known) {
        const struct instrument *instrument = &instruments[id];
        into->name_bytes = instrument->name_bytes;
        into->label_bytes = instrument->label_bytes;
        memcpy(into->text, instrument->name, instrument->name_bytes + instrument->label_bytes);
    }
    pthread_mutex_unlock(&lock);
    return known ? 0 : -ENOENT;
}

void cf_process_lost(uint64_t samples) {
    struct cf_segment_header *header = cf_process_header();
    if (header)
        cf_add_relaxed(&header->samples_lost, samples);
}
