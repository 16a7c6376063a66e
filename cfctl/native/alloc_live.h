/* Live bytes of the process: what the threads have told, their peak and their course.
 *
 * Any thread may call these functions, also in a signal handler; none of them allocates. Before
 * cf_live_begin, and in a forked child until its own, they do nothing. */
#ifndef CF_ALLOC_LIVE_H
#define CF_ALLOC_LIVE_H

#include <stdbool.h>

#include "alloc.h"

/* Begins to follow the live bytes in a record of the open segment, whose other fields stand. With
 * the owner's lock held. */
void cf_live_begin(struct cf_alloc_process *process);

/* Returns the record of the open segment, NULL without one. */
struct cf_alloc_process *cf_live_process(void);

/* Adds to the live bytes, and takes a point of their course when its time has come; `last`: in any
 * case. */
void cf_live_tell(int64_t net_bytes, bool last);

/* In a forked child: the segment is the parent's. */
void cf_live_forget(void);

#endif
