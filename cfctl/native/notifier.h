/* A descriptor that becomes readable when a subscription may have something to take.
 *
 * A thread sleeps on the futex words of the subscription's topics and writes an eventfd. It never
 * looks at rings: who drains the subscription arms it with the words of then.
 */
#ifndef CF_NOTIFIER_H
#define CF_NOTIFIER_H

#include "subscription.h"

struct cf_notifier;

/* Starts the thread. NULL with errno set. The subscription's seats count as sleeping from then on.
 */
struct cf_notifier *cf_notifier_start(struct cf_subscription *subscription);

/* Returns the descriptor, readable while there may be something to take. */
int cf_notifier_descriptor(const struct cf_notifier *notifier);

/* After the subscription was found empty: the descriptor becomes readable with the next thing to
 * take. For the thread that receives. */
void cf_notifier_arm(struct cf_notifier *notifier, const struct cf_subscription *subscription);

/* Ends the thread and closes the descriptor. In a forked child there is no thread: only closes. */
void cf_notifier_stop(struct cf_notifier *notifier, struct cf_subscription *subscription);

#endif
