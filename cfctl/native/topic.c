#include "topic.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tick.h"

enum { PAGE = 4096, LOOK_AGAIN_NS = 1000000, FUTEX_WAITV = 449, FUTEX_SIZE_U32 = 2 };

uint64_t cf_topic_hash(const char *topic, uint32_t bytes) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)topic[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static void page_name(char *name, size_t capacity, uint64_t hash) {
    snprintf(name, capacity, "%016llx.topic", (unsigned long long)hash);
}

/* Reserves the pages that hold one part of the file: writing into a hole of a full file system is
 * SIGBUS. */
static int reserve(int fd, uint64_t from, uint64_t bytes) {
    return cf_place_reserve(fd, from / PAGE * PAGE, (from + bytes + PAGE - 1) / PAGE * PAGE);
}

static int is_topic(const struct cf_topic_page *page, const char *name, uint32_t bytes) {
    return memcmp(page->magic, CF_TOPIC_MAGIC, sizeof page->magic) == 0 &&
           page->version == CF_TOPIC_VERSION && page->name_bytes == bytes &&
           memcmp(page->name, name, bytes) == 0;
}

/* Maps the file and fills it in if it is new. 0 or a negative errno. */
static int map_page(struct cf_topic *topic, const char *name, uint32_t bytes) {
    int error = 0;
    off_t size = lseek(topic->fd, 0, SEEK_END);
    if (size < (off_t)sizeof *topic->page) {
        error = reserve(topic->fd, 0, PAGE);
        if (error == 0)
            error = cf_place_grow(topic->fd, sizeof *topic->page);
    }
    if (error != 0)
        return error;
    struct cf_topic_page *page =
        mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, topic->fd, 0);
    if (page == MAP_FAILED)
        return -errno;
    if (page->magic[0] == '\0') {
        page->version = CF_TOPIC_VERSION;
        page->name_bytes = bytes;
        page->hash = topic->hash;
        memcpy(page->name, name, bytes);
        uint64_t magic;
        memcpy(&magic, CF_TOPIC_MAGIC, sizeof magic);
        /* Partner: who looks from outside takes the file for a topic only once the magic stands. */
        cf_store_release((uint64_t *)(void *)page->magic, magic);
    }
    if (!is_topic(page, name, bytes)) {
        munmap(page, sizeof *page);
        return -EINVAL;
    }
    topic->page = page;
    return 0;
}

static void remove_file(const struct cf_topic *topic) {
    char name[32];
    page_name(name, sizeof name, topic->hash);
    unlinkat(topic->participant->directory_fd, name, 0);
}

/* Returns whether a page was never finished: nobody has it but who holds the lock. */
static int is_unfinished(const struct cf_topic *topic) {
    uint64_t magic = 0;
    return topic->fd >= 0 && pread(topic->fd, &magic, sizeof magic, 0) >= 0 && magic == 0;
}

static void unlock(struct cf_topic *topic) {
    if (topic->fd >= 0)
        close(topic->fd);
    topic->fd = -1;
    cf_participant_unlock(topic->participant, topic->hash);
}

int cf_topic_enter(struct cf_topic *topic, struct cf_participant *participant, const char *name,
                   uint32_t bytes, int create, uint64_t timeout_ns) {
    *topic =
        (struct cf_topic){.participant = participant, .hash = cf_topic_hash(name, bytes), .fd = -1};
    if (bytes < 1 || bytes > CF_TOPIC_BYTES)
        return -EINVAL;
    int error = cf_participant_lock(participant, topic->hash, timeout_ns);
    if (error != 0)
        return error;
    char file[32];
    page_name(file, sizeof file, topic->hash);
    topic->fd = cf_participant_open_file(participant, file, create);
    error = topic->fd < 0 ? topic->fd : map_page(topic, name, bytes);
    if (error == 0)
        return 0;
    if (is_unfinished(topic))
        remove_file(topic);
    unlock(topic);
    return error;
}

int cf_topic_reenter(struct cf_topic *topic, uint64_t timeout_ns) {
    return cf_participant_lock(topic->participant, topic->hash, timeout_ns);
}

static uint32_t seats_used(const struct cf_topic_page *page) {
    uint32_t used = cf_load_acquire(&page->seats_used);
    return used < CF_TOPIC_SEATS ? used : CF_TOPIC_SEATS;
}

static uint32_t rings_used(const struct cf_topic_page *page) {
    uint32_t used = cf_load_acquire(&page->rings_used);
    return used < CF_TOPIC_RINGS ? used : CF_TOPIC_RINGS;
}

static int is_unused(const struct cf_topic_page *page) {
    for (uint32_t i = 0; i < seats_used(page); i++) {
        if (page->seats[i].subscription != 0)
            return 0;
    }
    for (uint32_t i = 0; i < rings_used(page); i++) {
        if (page->rings[i].ring_id != 0)
            return 0;
    }
    return 1;
}

void cf_topic_leave(struct cf_topic *topic) {
    if (is_unused(topic->page))
        remove_file(topic);
    unlock(topic);
}

void cf_topic_close(struct cf_topic *topic) {
    if (topic->page)
        munmap(topic->page, sizeof *topic->page);
    topic->page = NULL;
}

int cf_topic_find_seat(const struct cf_topic_page *page, uint64_t subscription) {
    for (uint32_t i = 0; i < seats_used(page); i++) {
        if (cf_load_acquire(&page->seats[i].subscription) == subscription)
            return (int)i;
    }
    return -ENOENT;
}

static int is_member_of(const struct cf_seat *seat, uint32_t group) {
    return cf_load_acquire(&seat->subscription) != 0 &&
           cf_load_relaxed(&seat->kind) == CF_SEAT_MEMBER && cf_load_relaxed(&seat->group) == group;
}

int cf_topic_seat_lives(const struct cf_topic_page *page, const struct cf_participant *participant,
                        uint32_t seat) {
    if (cf_load_relaxed(&page->seats[seat].kind) != CF_SEAT_GROUP)
        return cf_participant_lives(participant, cf_load_relaxed(&page->seats[seat].participant));
    int lives = 0;
    for (uint32_t i = 0; i < seats_used(page) && lives == 0; i++) {
        if (is_member_of(&page->seats[i], seat))
            lives = cf_participant_lives(participant, cf_load_relaxed(&page->seats[i].participant));
    }
    return lives;
}

static void free_one(struct cf_topic_page *page, uint32_t index) {
    struct cf_seat *seat = &page->seats[index];
    cf_store_release(&seat->subscription, UINT64_C(0));
    /* After the seat, as it is counted before: whoever is killed in between leaves one sleeper too
     * many, and never one too few, whom nobody would wake. */
    if (seat->flags & CF_SEAT_SLEEPS)
        __atomic_fetch_sub(&page->sleepers, 1, __ATOMIC_SEQ_CST);
    cf_bump(&page->departures, 1);
}

static int has_members(const struct cf_topic_page *page, uint32_t group) {
    for (uint32_t i = 0; i < seats_used(page); i++) {
        if (is_member_of(&page->seats[i], group))
            return 1;
    }
    return 0;
}

void cf_topic_free_seat(struct cf_topic *topic, uint32_t index) {
    struct cf_topic_page *page = topic->page;
    struct cf_seat *seat = &page->seats[index];
    if (seat->subscription == 0)
        return;
    int is_member = seat->kind == CF_SEAT_MEMBER;
    uint32_t group = seat->group;
    free_one(page, index);
    if (is_member && group < CF_TOPIC_SEATS && page->seats[group].kind == CF_SEAT_GROUP &&
        !has_members(page, group))
        free_one(page, group);
}

/* Returns whether a living member has to look at what this dead one had not finished, which it
 * alone can tell (subscription_group.h): the seat stays until then. */
static int is_inherited(const struct cf_topic *topic, uint32_t index) {
    const struct cf_topic_page *page = topic->page;
    const struct cf_seat *seat = &page->seats[index];
    return seat->kind == CF_SEAT_MEMBER && cf_load_acquire(&seat->ring) != 0 &&
           seat->group < CF_TOPIC_SEATS &&
           cf_topic_seat_lives(page, topic->participant, seat->group) != 0;
}

void cf_topic_remove_dead_seats(struct cf_topic *topic) {
    struct cf_topic_page *page = topic->page;
    for (uint32_t i = 0; i < seats_used(page); i++) {
        struct cf_seat *seat = &page->seats[i];
        /* Who made a group may have died before it was a member. */
        if (seat->subscription != 0 && seat->kind == CF_SEAT_GROUP && !has_members(page, i))
            free_one(page, i);
        if (seat->subscription == 0 || seat->kind == CF_SEAT_GROUP ||
            cf_participant_lives(topic->participant, cf_load_relaxed(&seat->participant)) != 0 ||
            is_inherited(topic, i))
            continue;
        cf_topic_free_seat(topic, i);
    }
}

/* Word by word: others look at seats that are being taken, and ask for the id first. */
static void clear_seat(struct cf_seat *seat) {
    cf_word *words = (void *)seat;
    for (size_t i = 0; i < sizeof *seat / sizeof *words; i++)
        cf_store_relaxed(&words[i], UINT64_C(0));
}

/* Finds a free seat and fills it in, but for the group. Its index or a negative errno. */
static int fill_seat(struct cf_topic *topic, const struct cf_seat_request *request,
                     enum cf_seat_kind kind, uint32_t group) {
    struct cf_topic_page *page = topic->page;
    uint32_t index = 0;
    while (index < CF_TOPIC_SEATS && index < seats_used(page) && page->seats[index].subscription)
        index++;
    if (index >= CF_TOPIC_SEATS)
        return -EUSERS;
    struct cf_seat *seat = &page->seats[index];
    int error = reserve(topic->fd, offsetof(struct cf_topic_page, seats) + index * sizeof *seat,
                        sizeof *seat);
    if (error != 0)
        return error;
    int is_group = kind == CF_SEAT_GROUP;
    clear_seat(seat);
    if (!is_group) {
        cf_store_relaxed(&seat->participant, request->participant);
        cf_store_relaxed(&seat->pid, request->pid);
        cf_store_relaxed(&seat->start_time, request->start_time);
        cf_store_relaxed(&seat->pid_namespace, request->pid_namespace);
    }
    cf_store_relaxed(&seat->taken_unix_ns, cf_os_ns(CLOCK_REALTIME));
    cf_store_relaxed(&seat->kind, (uint32_t)kind);
    cf_store_relaxed(&seat->group, group);
    cf_store_relaxed(&seat->flags,
                     is_group ? request->flags & ~(uint32_t)CF_SEAT_SLEEPS : request->flags);
    if (request->group_bytes > 0)
        memcpy(seat->group_name, request->group_name, request->group_bytes);
    if (seat->flags & CF_SEAT_SLEEPS)
        __atomic_fetch_add(&page->sleepers, 1, __ATOMIC_SEQ_CST);
    /* Partner: the acquire of who looks at seats without the lock. */
    cf_store_release(&seat->subscription,
                     is_group ? ~request->subscription : request->subscription);
    if (index >= page->seats_used)
        cf_store_release(&page->seats_used, index + 1);
    return (int)index;
}

static int find_group(const struct cf_topic_page *page, const struct cf_seat_request *request) {
    char name[CF_GROUP_BYTES] = {0};
    memcpy(name, request->group_name, request->group_bytes);
    for (uint32_t i = 0; i < seats_used(page); i++) {
        if (page->seats[i].subscription != 0 && page->seats[i].kind == CF_SEAT_GROUP &&
            memcmp(page->seats[i].group_name, name, sizeof name) == 0)
            return (int)i;
    }
    return -ENOENT;
}

int cf_topic_take_seat(struct cf_topic *topic, const struct cf_seat_request *request) {
    if (request->subscription == 0 || request->group_bytes > CF_GROUP_BYTES)
        return -EINVAL;
    if (request->group_bytes == 0)
        return fill_seat(topic, request, CF_SEAT_READER, 0);
    int found = find_group(topic->page, request), made = found < 0;
    int group = made ? fill_seat(topic, request, CF_SEAT_GROUP, 0) : found;
    if (group < 0)
        return group;
    int seat = fill_seat(topic, request, CF_SEAT_MEMBER, (uint32_t)group);
    if (seat < 0 && made)
        free_one(topic->page, (uint32_t)group);
    return seat;
}

int cf_topic_add_ring(struct cf_topic *topic, uint64_t ring_id, uint64_t participant,
                      uint32_t number) {
    struct cf_topic_page *page = topic->page;
    uint32_t index = 0;
    while (index < rings_used(page) && page->rings[index].ring_id != 0)
        index++;
    if (index >= CF_TOPIC_RINGS)
        return -EUSERS;
    struct cf_topic_ring *ring = &page->rings[index];
    int error = reserve(topic->fd, offsetof(struct cf_topic_page, rings) + index * sizeof *ring,
                        sizeof *ring);
    if (error != 0)
        return error;
    cf_store_relaxed(&ring->participant, participant);
    cf_store_relaxed(&ring->number, number);
    cf_store_relaxed(&ring->state, (uint32_t)CF_TOPIC_RING_OPEN);
    /* Partner: the acquire in cf_subscription_refresh. */
    cf_store_release(&ring->ring_id, ring_id);
    if (index >= page->rings_used)
        cf_store_release(&page->rings_used, index + 1);
    return (int)index;
}

void cf_topic_remove_ring(struct cf_topic *topic, uint32_t index) {
    struct cf_topic_ring *ring = &topic->page->rings[index];
    cf_store_relaxed(&ring->state, (uint32_t)CF_TOPIC_RING_FREE);
    cf_store_release(&ring->ring_id, UINT64_C(0));
}

void cf_topic_wake(struct cf_topic_page *page) {
    cf_ring_fence(CF_RING_WAKE_FENCE); /* Partner: the fence in cf_topic_prepare. */
    uint32_t word = __atomic_load_n(&page->waiters, CF_RING_WAITERS);
    /* Where another one changes it first, that is a wake-up of the same sleepers. */
    if (word & 1)
        __atomic_compare_exchange_n(&page->waiters, &word, word + 1, 0, CF_RING_WAITERS,
                                    CF_RING_WAITERS);
    syscall(SYS_futex, &page->waiters, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void cf_topic_announce(struct cf_topic_page *page) {
    /* Partner: the acquire in cf_subscription_poll; the ring's file is there. */
    __atomic_fetch_add(&page->generation, 1, __ATOMIC_RELEASE);
    cf_topic_wake(page);
}

/* Shared between processes, so without FUTEX_PRIVATE_FLAG. */
static int sleep_on_one(uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    if (syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0) == 0)
        return 0;
    return errno == EAGAIN ? 0 : -errno;
}

struct waitv {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};

int cf_topic_sleep(uint32_t *const *words, const uint32_t *values, uint32_t count,
                   uint64_t timeout_ns) {
    if (count == 1)
        return sleep_on_one(words[0], values[0], timeout_ns);
    uint64_t short_ns = timeout_ns < LOOK_AGAIN_NS ? timeout_ns : LOOK_AGAIN_NS;
    if (count > CF_TOPIC_SLEEP_WORDS)
        return sleep_on_one(words[0], values[0], short_ns);
    struct waitv waits[CF_TOPIC_SLEEP_WORDS];
    for (uint32_t i = 0; i < count; i++)
        waits[i] = (struct waitv){values[i], (uint64_t)(uintptr_t)words[i], FUTEX_SIZE_U32, 0};
    uint64_t end_ns = cf_os_ns(CLOCK_MONOTONIC) + timeout_ns;
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000u),
                           .tv_nsec = (long)(end_ns % 1000000000u)};
    if (syscall(FUTEX_WAITV, waits, count, 0, &end, CLOCK_MONOTONIC) >= 0 || errno == EAGAIN)
        return 0;
    return errno == ENOSYS ? sleep_on_one(words[0], values[0], short_ns) : -errno;
}
