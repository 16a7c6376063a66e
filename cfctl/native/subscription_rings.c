/* How a subscription comes to its topics and rings, and leaves them. */
#include "subscription_rings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "publisher.h"
#include "subscription_group.h"
#include "tick.h"

enum { CHECK_EVERY_NS = 100000000, FIRST_ROOM = 4 };

int cf_growing_add(struct cf_growing *array, void *item) {
    if (array->count == array->room) {
        uint32_t room = array->room ? 2 * array->room : FIRST_ROOM;
        void **items = calloc(room, sizeof *items);
        if (!items)
            return -ENOMEM;
        if (array->room)
            memcpy(items, array->items, array->count * sizeof *items);
        if (array->items)
            array->outgrown[array->outgrown_count++] = array->items;
        /* Partner: the acquire in cf_subscription_reader. Before the count. */
        cf_store_release(&array->items, items);
        array->room = room;
    }
    array->items[array->count] = item;
    cf_store_release(&array->count, array->count + 1);
    return 0;
}

void cf_growing_free(struct cf_growing *array) {
    for (uint32_t i = 0; i < array->outgrown_count; i++)
        free(array->outgrown[i]);
    free(array->items);
    *array = (struct cf_growing){0};
}

void cf_subscription_note_only(struct cf_subscription *subscription) {
    int is_single = subscription->topics.count == 1 && !subscription->patterns.page;
    subscription->only_reader =
        subscription->readers.count == 1 ? cf_subscription_reader(subscription, 0) : NULL;
    /* Partner: the acquire in has_news, where another thread may wait. */
    cf_store_release(&subscription->only_topic,
                     is_single ? cf_subscription_topic(subscription, 0) : NULL);
}

/* Enters an open reader, by its priority. 0 or -ENOMEM. A waiting thread may see one twice, or one
 * not yet, for a moment: it only looks whether there is something. */
static int insert(struct cf_subscription *subscription, struct cf_ring_reader *reader) {
    struct cf_growing *readers = &subscription->readers;
    int error = cf_growing_add(readers, reader);
    if (error != 0)
        return error;
    for (uint32_t at = readers->count - 1; at > 0; at--) {
        struct cf_ring_reader *before = readers->items[at - 1];
        if (before->priority >= reader->priority)
            break;
        cf_store_release(&readers->items[at], (void *)before);
        cf_store_release(&readers->items[at - 1], (void *)reader);
    }
    cf_subscription_note_only(subscription);
    return 0;
}

static int is_joined(const struct cf_subscription *subscription, uint64_t ring_id) {
    for (uint32_t i = 0; i < subscription->readers.count; i++) {
        if (cf_subscription_reader(subscription, i)->ring_id == ring_id)
            return 1;
    }
    return 0;
}

/* Opens a ring and goes on where its line stands; while the topic is entered it joins one that does
 * not wait for this seat yet. 0 or a negative errno. */
static int open_ring(struct cf_subscription *subscription, uint32_t topic_index, uint64_t ring_id,
                     int is_entered) {
    const struct cf_subscription_topic *of = cf_subscription_topic(subscription, topic_index);
    struct cf_ring_reader *reader = malloc(sizeof *reader);
    int error = reader ? cf_ring_open(reader, &of->topic, ring_id, of->seat) : -ENOMEM;
    if (error == 0) {
        error = cf_ring_resume(reader, &of->topic);
        if (error != 0 && is_entered && cf_ring_writer_lives(reader))
            error = cf_ring_join(reader, &of->topic, subscription->history);
        reader->topic_index = topic_index;
        if (error == 0)
            error = insert(subscription, reader);
        if (error != 0)
            cf_ring_detach(reader, 0);
    }
    if (error != 0)
        free(reader);
    return error;
}

/* Opens the rings of a topic that are not open yet. Of those that wait for this subscription and
 * could not be opened it keeps count: they are tried again. */
static int open_rings(struct cf_subscription *subscription, uint32_t index, int is_entered) {
    struct cf_subscription_topic *of = cf_subscription_topic(subscription, index);
    struct cf_topic_page *page = of->topic.page;
    /* Before the list is read: what is added meanwhile is looked for again. */
    of->seen_generation = cf_load_acquire(&page->generation);
    uint32_t used = cf_load_acquire(&page->rings_used);
    int first_error = 0;
    for (uint32_t i = 0; i < used && i < CF_TOPIC_RINGS; i++) {
        uint64_t ring_id = cf_load_acquire(&page->rings[i].ring_id);
        if (ring_id == 0 || is_joined(subscription, ring_id))
            continue;
        int error = open_ring(subscription, index, ring_id, is_entered);
        /* Removed, or ended before this subscription came. */
        if (error == 0 || error == -ENOENT)
            continue;
        subscription->unjoined++;
        first_error = first_error ? first_error : error;
    }
    return first_error;
}

/* Takes the seat at an entered topic, unless a publisher has taken it for the pattern, and adds the
 * topic. 0 or a negative errno. */
static int seat_at(struct cf_subscription *subscription, struct cf_subscription_topic *of) {
    cf_topic_remove_dead_seats(&of->topic);
    cf_topic_remove_ended_rings(&of->topic);
    int seat = cf_topic_find_seat(of->topic.page, subscription->seat.subscription);
    if (seat < 0)
        seat = cf_topic_take_seat(&of->topic, &subscription->seat);
    if (seat < 0)
        return seat;
    of->seat = (uint32_t)seat;
    int error = cf_growing_add(&subscription->topics, of);
    cf_subscription_note_only(subscription);
    if (error != 0)
        cf_topic_free_seat(&of->topic, of->seat);
    return error;
}

static void leave_last_topic(struct cf_subscription *subscription);

static int add_topic(struct cf_subscription *subscription, const char *name, uint32_t bytes,
                     uint64_t timeout_ns) {
    struct cf_subscription_topic *of = calloc(1, sizeof *of);
    if (!of)
        return -ENOMEM;
    int error = cf_topic_enter(&of->topic, subscription->participant, name, bytes, 1, timeout_ns);
    if (error == 0)
        error = seat_at(subscription, of);
    int is_seated = error == 0;
    if (is_seated)
        error = open_rings(subscription, subscription->topics.count - 1, 1);
    if (of->topic.page) {
        cf_topic_leave(&of->topic);
        /* Publishers may be waiting for subscribers. */
        cf_topic_wake(of->topic.page);
    }
    if (is_seated && error != 0) {
        leave_last_topic(subscription);
    } else if (error != 0) {
        cf_topic_close(&of->topic);
        free(of);
    }
    return error;
}

int cf_subscription_add_topic(struct cf_subscription *subscription, const char *name,
                              uint32_t bytes) {
    return add_topic(subscription, name, bytes, CF_TOPIC_LOCK_NS);
}

static int is_followed(const struct cf_subscription *subscription, uint64_t hash) {
    for (uint32_t i = 0; i < subscription->topics.count; i++) {
        if (cf_subscription_topic(subscription, i)->topic.hash == hash)
            return 1;
    }
    return 0;
}

/* Reads a topic's name off its page's file; its length, or 0 when there is none. */
static uint32_t read_name(const struct cf_subscription *subscription, const char *file,
                          char name[CF_TOPIC_BYTES]) {
    struct {
        char magic[8];
        uint32_t version, bytes;
    } head;
    int fd = cf_participant_open_file(subscription->participant, file, 0);
    if (fd < 0)
        return 0;
    int is_read =
        pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head &&
        memcmp(head.magic, CF_TOPIC_MAGIC, sizeof head.magic) == 0 &&
        head.version == CF_TOPIC_VERSION && head.bytes <= CF_TOPIC_BYTES &&
        pread(fd, name, head.bytes, offsetof(struct cf_topic_page, name)) == (ssize_t)head.bytes;
    close(fd);
    return is_read ? head.bytes : 0;
}

/* Subscribes to the topics of the directory that the pattern reaches. 0 or the first error. */
static int follow_topics(struct cf_subscription *subscription, uint64_t timeout_ns) {
    subscription->seen_patterns = cf_load_acquire(&subscription->patterns.page->generation);
    int fd =
        openat(subscription->participant->directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        int error = -errno;
        if (fd >= 0)
            close(fd);
        return error;
    }
    int first_error = 0;
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        char name[CF_TOPIC_BYTES], *end;
        uint64_t hash = strtoull(entry->d_name, &end, 16);
        if (end != entry->d_name + 16 || strcmp(end, ".topic") != 0 ||
            is_followed(subscription, hash))
            continue;
        uint32_t bytes = read_name(subscription, entry->d_name, name);
        if (bytes == 0 ||
            !cf_pattern_reaches(subscription->pattern, subscription->pattern_bytes, name, bytes))
            continue;
        int error = add_topic(subscription, name, bytes, timeout_ns);
        first_error = first_error ? first_error : error;
    }
    closedir(directory);
    return first_error;
}

int cf_subscription_follow(struct cf_subscription *subscription, const char *pattern,
                           uint32_t bytes) {
    /* First the pattern, so that topics that come meanwhile seat this subscription themselves. */
    int error = cf_pattern_add(&subscription->patterns, subscription->participant,
                               &subscription->seat, pattern, bytes);
    if (error != 0)
        return error;
    cf_subscription_note_only(subscription);
    memcpy(subscription->pattern, pattern, bytes);
    subscription->pattern_bytes = bytes;
    subscription->seat.flags |= CF_SEAT_PATTERN;
    return follow_topics(subscription, CF_TOPIC_LOCK_NS);
}

/* Gives a reader up; `for_good` as cf_ring_detach. */
static void leave_ring(struct cf_subscription *subscription, uint32_t at, int for_good) {
    struct cf_ring_reader *reader = cf_subscription_reader(subscription, at);
    subscription->left_taken += cf_ring_delivered(reader);
    subscription->left_dropped += reader->dropped;
    subscription->left_damaged += reader->damaged;
    subscription->left_history += reader->history;
    subscription->left_skipped += reader->skipped;
    struct cf_growing *readers = &subscription->readers;
    readers->count--;
    for (uint32_t i = at; i < readers->count; i++)
        readers->items[i] = readers->items[i + 1];
    cf_subscription_note_only(subscription);
    cf_ring_detach(reader, for_good);
    free(reader);
}

/* Returns whether nothing more will come of a ring, for its group neither. */
static int is_over(struct cf_ring_reader *reader) {
    /* In this order: what it published before it ended is seen. What is pending and no message has
     * given way, and is to be counted first. */
    if (cf_ring_has_message(reader) || cf_ring_writer_lives(reader) ||
        cf_ring_has_message(reader) || cf_ring_pending(reader) > 0)
        return 0;
    cf_ring_store_position(reader);
    return cf_load_relaxed(&reader->line->position) >= cf_load_relaxed(&reader->header->tail);
}

/* Returns whether no other thread looks at the readers and topics. */
static int is_alone(const struct cf_subscription *subscription) {
    return subscription->watchers == 0 && subscription->busy <= 1;
}

static void leave_ended(struct cf_subscription *subscription) {
    if (!is_alone(subscription))
        return;
    for (uint32_t i = subscription->readers.count; i-- > 0;) {
        struct cf_ring_reader *reader = cf_subscription_reader(subscription, i);
        if (!is_over(reader))
            continue;
        struct cf_topic *topic = &cf_subscription_topic(subscription, reader->topic_index)->topic;
        /* Another time, if somebody else is at it. */
        if (cf_topic_reenter(topic, 0) != 0)
            continue;
        leave_ring(subscription, i, 1);
        cf_topic_remove_ended_rings(topic);
        cf_topic_leave(topic);
    }
}

void cf_subscription_refresh(struct cf_subscription *subscription) {
    leave_ended(subscription);
    /* A topic that cannot be joined is left again. */
    if (subscription->patterns.page && is_alone(subscription) &&
        cf_load_acquire(&subscription->patterns.page->generation) != subscription->seen_patterns) {
        uint64_t seen = subscription->seen_patterns;
        /* Whoever receives must not wait: a topic that is locked is tried again. */
        if (follow_topics(subscription, 0) != 0)
            subscription->seen_patterns = seen;
    }
    subscription->unjoined = 0;
    for (uint32_t i = 0; i < subscription->topics.count; i++)
        open_rings(subscription, i, 0);
}

void cf_subscription_check(struct cf_subscription *subscription, uint64_t now_ns) {
    if (now_ns < subscription->next_check_ns)
        return;
    subscription->next_check_ns = now_ns + CHECK_EVERY_NS;
    leave_ended(subscription);
    if (subscription->unjoined > 0)
        cf_subscription_refresh(subscription);
    cf_subscription_inherit(subscription);
}

/* Ends what a group's member works on in a topic. */
static void give_back(struct cf_subscription *subscription, uint32_t topic_index) {
    for (uint32_t i = 0; i < subscription->readers.count; i++) {
        struct cf_ring_reader *reader = cf_subscription_reader(subscription, i);
        if (reader->topic_index != topic_index)
            continue;
        cf_ring_finish(reader);
        cf_ring_disown(reader);
    }
}

/* Gives up a topic's seat and rings, for which it is entered where that is possible. */
static void leave_topic(struct cf_subscription *subscription, uint32_t index) {
    struct cf_subscription_topic *of = cf_subscription_topic(subscription, index);
    struct cf_topic *topic = &of->topic;
    int is_member = subscription->seat.group_bytes > 0, is_last = 0;
    int is_open = cf_participant_is_open(subscription->participant);
    int is_entered = is_open && cf_topic_reenter(topic, CF_TOPIC_LOCK_NS) == 0;
    /* Those that wait for this seat and were not looked at yet, so that they wait no longer. */
    if (is_entered)
        open_rings(subscription, index, 0);
    give_back(subscription, index);
    if (is_entered) {
        uint32_t group = topic->page->seats[of->seat].group;
        cf_topic_free_seat(topic, of->seat);
        cf_topic_remove_dead_seats(topic);
        is_last =
            is_member && group < CF_TOPIC_SEATS && topic->page->seats[group].subscription == 0;
    } else if (is_open) {
        /* As if it were dead: whoever opens the topic next frees the seat. */
        cf_store_release(&topic->page->seats[of->seat].participant, UINT64_C(0));
    }
    for (uint32_t i = subscription->readers.count; i-- > 0;) {
        if (cf_subscription_reader(subscription, i)->topic_index == index)
            leave_ring(subscription, i, !is_member || is_last);
    }
    if (is_entered) {
        cf_topic_remove_dead_seats(topic);
        cf_topic_remove_ended_rings(topic);
        cf_topic_wake(topic->page);
        cf_topic_leave(topic);
    }
    cf_topic_close(topic);
}

static void leave_last_topic(struct cf_subscription *subscription) {
    uint32_t last = subscription->topics.count - 1;
    struct cf_subscription_topic *of = cf_subscription_topic(subscription, last);
    leave_topic(subscription, last);
    subscription->topics.count--;
    cf_subscription_note_only(subscription);
    free(of);
}

void cf_subscription_close(struct cf_subscription *subscription) {
    /* First no new topic may seat it any more; then those that did are found. */
    int is_following =
        subscription->patterns.page != NULL && cf_participant_is_open(subscription->participant);
    if (is_following)
        cf_pattern_withdraw(&subscription->patterns);
    if (is_following)
        follow_topics(subscription, CF_TOPIC_LOCK_NS);
    cf_pattern_remove(&subscription->patterns);
    while (subscription->topics.count > 0)
        leave_last_topic(subscription);
    cf_growing_free(&subscription->topics);
    cf_growing_free(&subscription->readers);
}
