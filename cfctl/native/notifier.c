#include "notifier.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { SLICE_NS = 100000000 };

struct cf_notifier {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pid_t pid;
    int descriptor;
    int stopping; /* this and the following: under the lock */
    int armed;
    uint32_t count;
    uint32_t *words[CF_TOPIC_SLEEP_WORDS];
    uint32_t values[CF_TOPIC_SLEEP_WORDS];
};

static void make_readable(const struct cf_notifier *notifier) {
    uint64_t one = 1;
    ssize_t written = write(notifier->descriptor, &one, sizeof one);
    (void)written; /* it is readable already where it is full */
}

static int have_changed(const struct cf_notifier *notifier) {
    for (uint32_t i = 0; i < notifier->count && i < CF_TOPIC_SLEEP_WORDS; i++) {
        if (__atomic_load_n(notifier->words[i], CF_RING_WAITERS) != notifier->values[i])
            return 1;
    }
    return 0;
}

static void *run(void *argument) {
    struct cf_notifier *notifier = argument;
    pthread_mutex_lock(&notifier->lock);
    while (!notifier->stopping) {
        if (!notifier->armed) {
            pthread_cond_wait(&notifier->changed, &notifier->lock);
            continue;
        }
        uint32_t *words[CF_TOPIC_SLEEP_WORDS], values[CF_TOPIC_SLEEP_WORDS];
        uint32_t count = notifier->count;
        memcpy(words, notifier->words, sizeof words);
        memcpy(values, notifier->values, sizeof values);
        pthread_mutex_unlock(&notifier->lock);
        cf_topic_sleep(words, values, count, SLICE_NS);
        pthread_mutex_lock(&notifier->lock);
        /* Of more words than can be slept on, the rest is looked for by whoever polls. */
        if (notifier->armed && (have_changed(notifier) || count > CF_TOPIC_SLEEP_WORDS)) {
            notifier->armed = 0;
            make_readable(notifier);
        }
    }
    pthread_mutex_unlock(&notifier->lock);
    return NULL;
}

static void count_as_sleeping(struct cf_subscription *subscription) {
    subscription->seat.flags |= CF_SEAT_SLEEPS;
    for (uint32_t i = 0; i < subscription->topics.count; i++) {
        struct cf_subscription_topic *of = cf_subscription_topic(subscription, i);
        struct cf_seat *seat = &of->topic.page->seats[of->seat];
        uint32_t flags = __atomic_fetch_or(&seat->flags, CF_SEAT_SLEEPS, __ATOMIC_SEQ_CST);
        if (!(flags & CF_SEAT_SLEEPS))
            __atomic_fetch_add(&of->topic.page->sleepers, 1, __ATOMIC_SEQ_CST);
    }
}

struct cf_notifier *cf_notifier_start(struct cf_subscription *subscription) {
    struct cf_notifier *notifier = calloc(1, sizeof *notifier);
    if (!notifier)
        return NULL;
    notifier->pid = getpid();
    notifier->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&notifier->lock, NULL);
    pthread_cond_init(&notifier->changed, NULL);
    int error = notifier->descriptor < 0 ? errno : 0;
    if (error == 0)
        error = pthread_create(&notifier->thread, NULL, run, notifier);
    if (error != 0) {
        if (notifier->descriptor >= 0)
            close(notifier->descriptor);
        free(notifier);
        errno = error;
        return NULL;
    }
    count_as_sleeping(subscription);
    cf_notifier_arm(notifier, subscription);
    return notifier;
}

int cf_notifier_descriptor(const struct cf_notifier *notifier) {
    return notifier->descriptor;
}

void cf_notifier_arm(struct cf_notifier *notifier, const struct cf_subscription *subscription) {
    uint64_t ignored;
    ssize_t got = read(notifier->descriptor, &ignored, sizeof ignored);
    (void)got; /* there is nothing to clear where it was not readable */
    pthread_mutex_lock(&notifier->lock);
    notifier->count = cf_subscription_prepare(subscription, notifier->words, notifier->values);
    int is_ready = cf_subscription_spin(subscription, 1);
    notifier->armed = !is_ready;
    if (is_ready)
        make_readable(notifier);
    else
        pthread_cond_signal(&notifier->changed);
    pthread_mutex_unlock(&notifier->lock);
}

void cf_notifier_stop(struct cf_notifier *notifier, struct cf_subscription *subscription) {
    if (notifier->pid == getpid()) {
        pthread_mutex_lock(&notifier->lock);
        notifier->stopping = 1;
        pthread_cond_signal(&notifier->changed);
        pthread_mutex_unlock(&notifier->lock);
        cf_subscription_wake(subscription);
        pthread_join(notifier->thread, NULL);
        pthread_cond_destroy(&notifier->changed);
        pthread_mutex_destroy(&notifier->lock);
    }
    close(notifier->descriptor);
    free(notifier);
}
