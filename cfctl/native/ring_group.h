/* What ring_reader.c calls of ring_group.c. */
#ifndef CF_RING_GROUP_H
#define CF_RING_GROUP_H

#include "ring.h"

/* Stores how far the group is, unless another member has stored more. */
void cf_ring_store_group_position(struct cf_ring_reader *reader);

/* Takes message `index` for a group's member: 1, or 0 when another one has it. */
int cf_ring_take_in_group(struct cf_ring_reader *reader, uint64_t index);

#endif
