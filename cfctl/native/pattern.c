#include "pattern.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* No topic's hash is the lock of the patterns: it would be taken within a topic's. */
#define PATTERNS_LOCK UINT64_C(0x3fffffffffffffff)

static const char patterns_name[] = "bus.patterns";

static uint32_t character_bytes(const char *text, uint32_t bytes) {
    uint32_t length = 1;
    while (length < bytes && ((unsigned char)text[length] & 0xc0) == 0x80)
        length++;
    return length;
}

static int matches(const char *pattern, uint32_t pattern_bytes, const char *name,
                   uint32_t name_bytes) {
    uint32_t p = 0, n = 0, star = UINT32_MAX, star_n = 0;
    while (n < name_bytes) {
        if (p < pattern_bytes && pattern[p] == '*') {
            star = p++;
            star_n = n;
        } else if (p < pattern_bytes && pattern[p] == '?') {
            p++;
            n += character_bytes(name + n, name_bytes - n);
        } else if (p < pattern_bytes && pattern[p] == name[n]) {
            p++;
            n++;
        } else if (star != UINT32_MAX) {
            p = star + 1;
            n = ++star_n;
        } else {
            return 0;
        }
    }
    while (p < pattern_bytes && pattern[p] == '*')
        p++;
    return p == pattern_bytes;
}

/* Maps the page, made if `create` says so. 0 or a negative errno, -ENOENT when there is none. */
static int open_patterns(struct cf_patterns *patterns, struct cf_participant *participant,
                         int create) {
    *patterns = (struct cf_patterns){.participant = participant, .entry = -1};
    int fd = cf_participant_open_file(participant, patterns_name, create);
    if (fd < 0)
        return fd;
    off_t size = lseek(fd, 0, SEEK_END);
    int error = create ? cf_place_reserve(fd, 0, sizeof *patterns->page) : 0;
    if (error == 0 && !create && size < (off_t)sizeof *patterns->page)
        error = -ENOENT;
    void *page =
        error != 0 ? MAP_FAILED
                   : mmap(NULL, sizeof *patterns->page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (error == 0 && page == MAP_FAILED)
        error = -errno;
    close(fd);
    if (error == 0)
        patterns->page = page;
    return error;
}

static void close_patterns(struct cf_patterns *patterns) {
    if (patterns->page)
        munmap(patterns->page, sizeof *patterns->page);
    patterns->page = NULL;
    patterns->entry = -1;
}

static uint32_t used(const struct cf_pattern_page *page) {
    uint32_t count = cf_load_acquire(&page->used);
    return count < CF_PATTERNS ? count : CF_PATTERNS;
}

static int find_entry(const struct cf_patterns *patterns) {
    for (uint32_t i = 0; i < used(patterns->page); i++) {
        const struct cf_pattern *pattern = &patterns->page->patterns[i];
        if (pattern->subscription == 0 ||
            cf_participant_lives(patterns->participant, pattern->participant) == 0)
            return (int)i;
    }
    return used(patterns->page) < CF_PATTERNS ? (int)used(patterns->page) : -EUSERS;
}

/* Others read entries without the lock. */
static void fill_entry(struct cf_pattern *entry, const struct cf_seat_request *request,
                       const char *text, uint32_t bytes) {
    struct cf_pattern pattern = {.participant = request->participant,
                                 .pid = request->pid,
                                 .start_time = request->start_time,
                                 .pid_namespace = request->pid_namespace,
                                 .flags = request->flags | CF_SEAT_PATTERN,
                                 .bytes = bytes};
    memcpy(pattern.text, text, bytes);
    const cf_word *from = (const void *)&pattern;
    cf_word *words = (void *)entry;
    cf_store_relaxed(&entry->subscription, UINT64_C(0));
    cf_ring_fence(CF_RING_OVERWRITE_FENCE); /* Partner: the fence in read_entry. */
    for (size_t i = 1; i < sizeof pattern / sizeof *words; i++)
        cf_store_relaxed(&words[i], from[i]);
    /* Partner: the acquire in read_entry. */
    cf_store_release(&entry->subscription, request->subscription);
}

int cf_pattern_add(struct cf_patterns *patterns, struct cf_participant *participant,
                   const struct cf_seat_request *request, const char *text, uint32_t bytes) {
    if (bytes < 1 || bytes > CF_PATTERN_BYTES)
        return -EINVAL;
    int error = open_patterns(patterns, participant, 1);
    if (error == 0)
        error = cf_participant_lock(participant, PATTERNS_LOCK, CF_TOPIC_LOCK_NS);
    if (error != 0) {
        close_patterns(patterns);
        return error;
    }
    struct cf_pattern_page *page = patterns->page;
    if (memcmp(page->magic, CF_PATTERN_MAGIC, sizeof page->magic) != 0)
        memcpy(page->magic, CF_PATTERN_MAGIC, sizeof page->magic);
    int entry = find_entry(patterns);
    if (entry >= 0) {
        fill_entry(&page->patterns[entry], request, text, bytes);
        if ((uint32_t)entry >= page->used)
            cf_store_release(&page->used, (uint32_t)entry + 1);
        patterns->entry = entry;
    }
    cf_participant_unlock(participant, PATTERNS_LOCK);
    if (entry < 0)
        close_patterns(patterns);
    return entry < 0 ? entry : 0;
}

void cf_pattern_withdraw(struct cf_patterns *patterns) {
    if (patterns->page && patterns->entry >= 0 && cf_participant_is_open(patterns->participant))
        cf_store_release(&patterns->page->patterns[patterns->entry].subscription, UINT64_C(0));
    patterns->entry = -1;
}

void cf_pattern_remove(struct cf_patterns *patterns) {
    cf_pattern_withdraw(patterns);
    close_patterns(patterns);
}

static int is_private(const char *text, uint32_t bytes) {
    size_t prefix = sizeof CF_PRIVATE_TOPICS - 1;
    return bytes >= prefix && memcmp(text, CF_PRIVATE_TOPICS, prefix) == 0;
}

int cf_pattern_reaches(const char *pattern, uint32_t pattern_bytes, const char *name,
                       uint32_t name_bytes) {
    if (is_private(name, name_bytes) && !is_private(pattern, pattern_bytes))
        return 0;
    return matches(pattern, pattern_bytes, name, name_bytes);
}

static int is_reached(const struct cf_pattern *pattern, const struct cf_topic_page *topic) {
    uint32_t bytes = pattern->bytes <= CF_PATTERN_BYTES ? pattern->bytes : CF_PATTERN_BYTES;
    return cf_pattern_reaches(pattern->text, bytes, topic->name, topic->name_bytes);
}

void cf_pattern_wake(struct cf_pattern_page *page) {
    cf_ring_fence(CF_RING_WAKE_FENCE); /* Partner: the fence in sleep_until of subscription.c. */
    __atomic_fetch_add(&page->waiters, 1, CF_RING_WAITERS);
    syscall(SYS_futex, &page->waiters, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Says that seats were taken, and wakes the subscriptions to patterns. */
static void announce(struct cf_pattern_page *page) {
    __atomic_fetch_add(&page->generation, 1, __ATOMIC_RELEASE);
    cf_pattern_wake(page);
}

/* Reads an entry, which may be given up and taken again meanwhile: 0 when there is none, or another
 * one than it was. Whoever takes an entry looks for the topics that are there afterwards. */
static int read_entry(const struct cf_pattern *entry, struct cf_pattern *into) {
    const cf_word *from = (const void *)entry;
    cf_word *words = (void *)into;
    uint64_t subscription = cf_load_acquire(&entry->subscription);
    for (size_t i = 0; i < sizeof *entry / sizeof *words; i++)
        words[i] = cf_load_relaxed(&from[i]);
    cf_ring_fence(CF_RING_RECHECK_FENCE); /* Partner: the fence in fill_entry. */
    into->subscription = subscription;
    return subscription != 0 && cf_load_relaxed(&entry->subscription) == subscription;
}

int cf_pattern_seat_all(struct cf_topic *topic) {
    struct cf_patterns patterns;
    int error = open_patterns(&patterns, topic->participant, 0), seated = 0;
    if (error != 0)
        return error == -ENOENT ? 0 : error;
    for (uint32_t i = 0; i < used(patterns.page) && error == 0; i++) {
        struct cf_pattern pattern;
        if (!read_entry(&patterns.page->patterns[i], &pattern) ||
            !is_reached(&pattern, topic->page) ||
            cf_topic_find_seat(topic->page, pattern.subscription) >= 0 ||
            cf_participant_lives(topic->participant, pattern.participant) == 0)
            continue;
        struct cf_seat_request request = {.subscription = pattern.subscription,
                                          .participant = pattern.participant,
                                          .pid = pattern.pid,
                                          .start_time = pattern.start_time,
                                          .pid_namespace = pattern.pid_namespace,
                                          .flags = pattern.flags};
        int seat = cf_topic_take_seat(topic, &request);
        error = seat < 0 ? seat : 0;
        seated += seat >= 0;
    }
    if (seated > 0)
        announce(patterns.page);
    close_patterns(&patterns);
    return error;
}
