/* Edges: how often and how long a child operation ran directly inside of a parent.
 *
 * An edge is an entry named as the child; its labels are ("parent", NAME), then ("parent.K", V) and
 * ("child.K", V) for the labels of the two operations.
 */
#ifndef CF_EDGE_H
#define CF_EDGE_H

#include <stdint.h>

#include "process.h"

struct cf_edge {
    uint64_t count;
    uint64_t sum; /* ticks */
};

extern const struct cf_kind cf_kind_edge;

/* Adds a child's sample to the edge from its parent, both instruments of operations.
 * Without a lock once the thread knows the edge. */
void cf_edge_add(struct cf_thread *thread, uint32_t parent, uint32_t child, uint64_t ticks);

#endif
