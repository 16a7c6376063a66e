/* What becomes of the messages that a group's dead members had not finished. */
#ifndef CF_SUBSCRIPTION_GROUP_H
#define CF_SUBSCRIPTION_GROUP_H

#include "subscription.h"

/* Counts what dead members of this subscription's group had not finished, or takes it over, as the
 * group's kind says; nothing for a subscription without a group, or while the topic is locked. */
void cf_subscription_inherit(struct cf_subscription *subscription);

#endif
