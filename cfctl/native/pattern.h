/* Subscriptions to patterns of topic names: the page "bus.patterns" of a directory.
 *
 * Who makes a ring seats them in its topic before the first message, as if they had subscribed to
 * it. In a pattern * stands for any run of characters and ? for one.
 */
#ifndef CF_PATTERN_H
#define CF_PATTERN_H

#include "topic.h"

#define CF_PATTERN_MAGIC "CFCTLPAT"
#define CF_PATTERNS 64u
#define CF_PATTERN_BYTES 208u
/* Topics whose name begins with it are of requests and replies; patterns do not reach them unless
 * they begin with it too. */
#define CF_PRIVATE_TOPICS "rpc:"

struct cf_pattern {
    uint64_t subscription; /* 0 = free; stored last */
    uint64_t participant;
    uint64_t pid;
    uint64_t start_time;
    uint64_t pid_namespace;
    uint32_t flags; /* enum cf_seat_flag */
    uint32_t bytes;
    char text[CF_PATTERN_BYTES];
};

struct cf_pattern_page {
    char magic[8];
    uint32_t used; /* one above the highest entry ever taken */
    char reserved0[52];
    uint64_t generation; /* seats ever taken for patterns by publishers */
    char reserved1[56];
    uint32_t waiters; /* the futex word: each wake-up adds 1 */
    char reserved2[3964];
    struct cf_pattern patterns[CF_PATTERNS];
};

_Static_assert(sizeof(struct cf_pattern) == 256, "pinned");
_Static_assert(offsetof(struct cf_pattern_page, waiters) == 128, "pinned");
_Static_assert(offsetof(struct cf_pattern_page, patterns) == 4096, "pinned");

struct cf_patterns {
    struct cf_pattern_page *page; /* NULL = not open */
    struct cf_participant *participant;
    int entry; /* of a subscription, -1 = none */
};

/* Returns whether a topic's name matches a pattern, both UTF-8, and is not private. */
int cf_pattern_reaches(const char *pattern, uint32_t pattern_bytes, const char *name,
                       uint32_t name_bytes);

/* Enters a pattern; from then on publishers seat the subscription. 0; -EUSERS when there are
 * CF_PATTERNS; or another negative errno. Undone by cf_pattern_remove. */
int cf_pattern_add(struct cf_patterns *patterns, struct cf_participant *participant,
                   const struct cf_seat_request *request, const char *text, uint32_t bytes);

/* Takes the pattern out: no publisher seats the subscription any more. */
void cf_pattern_withdraw(struct cf_patterns *patterns);

/* Takes the pattern out and unmaps the page; idempotent. */
void cf_pattern_remove(struct cf_patterns *patterns);

/* Wakes the subscriptions to patterns. */
void cf_pattern_wake(struct cf_pattern_page *page);

/* Seats the living subscriptions whose pattern the topic matches. 0 or a negative errno. Entered.
 */
int cf_pattern_seat_all(struct cf_topic *topic);

#endif
