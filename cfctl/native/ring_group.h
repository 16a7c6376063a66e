/* What ring_reader.c and ring_group.c call of each other. */
#ifndef CF_RING_GROUP_H
#define CF_RING_GROUP_H

#include "ring.h"

/* Stores how far the group is, unless another member has stored more. */
void cf_ring_store_group_position(struct cf_ring_reader *reader);

/* Takes message `index` for a group's member: 1, or 0 when another one has it. */
int cf_ring_take_in_group(struct cf_ring_reader *reader, uint64_t index);

/* Passes messages index .. end by, which are not there any more. 0 when another member has. */
int cf_ring_pass_in_group(struct cf_ring_reader *reader, uint64_t index, uint64_t end);

/* Returns whether the message is still the one that was read: nothing of it has given way. */
int cf_ring_is_whole(const struct cf_ring_reader *reader, const struct cf_ring_message *message);

#endif
