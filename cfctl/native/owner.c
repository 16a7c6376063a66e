#include "owner.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "place.h"

struct cf_owner cf_owner_own = {
    .version = CF_OWNER_VERSION,
    .bytes = sizeof(struct cf_owner),
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .limit_bytes = CF_SEGMENT_DEFAULT_LIMIT,
    .segment = {.fd = -1},
};

struct cf_owner *cf_owner_in_use = &cf_owner_own;

void cf_owner_find(void) {
    void *symbol = dlsym(RTLD_DEFAULT, CF_OWNER_SYMBOL);
    if (!symbol)
        return;
    struct cf_owner *(*exported)(void);
    memcpy(&exported, &symbol, sizeof exported);
    struct cf_owner *found = exported();
    if (found->version == CF_OWNER_VERSION && found->bytes == sizeof *found)
        cf_store_relaxed(&cf_owner_in_use, found);
}

static void before_fork(void) {
    pthread_mutex_lock(&cf_owner_own.lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&cf_owner_own.lock);
}

/* The child forgets the parent's segment and opens its own when it first records. A pause holds in
 * the child too. */
static void after_fork_in_child(void) {
    cf_store_release(&cf_owner_own.open_header, NULL);
    if (cf_owner_own.segment.header) {
        cf_owner_own.control = cf_load_relaxed(&cf_owner_own.segment.header->control);
        cf_segment_forget(&cf_owner_own.segment);
    }
    pthread_mutex_unlock(&cf_owner_own.lock);
}

static void process_ends(void) {
    pthread_mutex_lock(&cf_owner_own.lock);
    if (cf_owner_own.segment.header)
        cf_segment_close(&cf_owner_own.segment);
    pthread_mutex_unlock(&cf_owner_own.lock);
}

void cf_owner_close(void) {
    if (pthread_mutex_trylock(&cf_owner_own.lock) != 0)
        return;
    struct cf_segment_header *header = cf_owner_own.segment.header;
    if (header && header->pid == (uint64_t)getpid())
        cf_segment_close(&cf_owner_own.segment);
    pthread_mutex_unlock(&cf_owner_own.lock);
}

void cf_owner_reopen(void) {
    struct cf_segment_header *header = cf_load_acquire(&cf_owner_own.open_header);
    if (header)
        cf_store_release(&header->state, (uint32_t)CF_SEGMENT_OPEN);
}

static void register_once(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    atexit(process_ends);
}

void cf_owner_register(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (cf_owner() == &cf_owner_own)
        pthread_once(&once, register_once);
}

int cf_owner_configure(const char *directory, const char *run_id, uint64_t limit_bytes) {
    struct cf_owner *owner = cf_owner();
    if (strlen(directory) >= sizeof owner->directory ||
        (run_id && strlen(run_id) >= sizeof owner->run_id))
        return -ENAMETOOLONG;
    pthread_mutex_lock(&owner->lock);
    cf_place_copy(owner->directory, sizeof owner->directory, directory);
    /* Without one of its own the process keeps the run it was started for. */
    if (run_id || owner == &cf_owner_own)
        cf_place_copy(owner->run_id, sizeof owner->run_id, run_id ? run_id : "");
    owner->limit_bytes = limit_bytes;
    pthread_mutex_unlock(&owner->lock);
    return 0;
}

int cf_owner_open_locked(void) {
    struct cf_owner *owner = cf_owner();
    struct cf_segment *segment = &owner->segment;
    if (segment->header)
        return owner->open_result;
    /* Who records before the directory is named must not decide for good that nobody sees it. */
    if (!owner->directory[0])
        return -ENOENT;
    owner->open_result =
        cf_segment_open(segment, owner->directory, owner->run_id, owner->limit_bytes);
    if (owner->open_result != 0 && cf_segment_open_anonymous(segment, owner->limit_bytes) != 0)
        owner->open_result = -ENOMEM;
    if (segment->header)
        segment->header->control = owner->control;
    /* Partner: the acquire in cf_process_header. */
    cf_store_release(&owner->open_header, segment->header);
    return owner->open_result;
}
