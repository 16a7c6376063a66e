/* Suspended generators and coroutines: what their spans hold until they are resumed, by frame.
 *
 * An open-addressed table; the caller serialises all calls. From CPython 3.13 on a generator can be
 * dropped without any event; its slot is then found again by the next frame at the same address.
 */
#ifndef CF_PARKED_H
#define CF_PARKED_H

#include <stddef.h>
#include <stdint.h>

#define CF_PARKED_LIMIT 65536u

struct cf_parked {
    const void *frame; /* NULL = free slot */
    uint64_t ticks;    /* spent so far if the clock is stopped, else the tick of the start */
    uint64_t child_ticks;
    uint64_t parked_tick;
    uint32_t instrument;
    uint32_t stopped; /* the time until it is resumed is not its own */
};

struct cf_parked_table {
    struct cf_parked *slots;
    size_t capacity; /* a power of two, or 0 */
    size_t used;
};

/* Adds a frame that is not there; 0, or -1 when the limit or the memory does not allow it. */
int cf_parked_add(struct cf_parked_table *table, const struct cf_parked *parked);

/* Takes a frame out of the table; 0 when it is not there. */
int cf_parked_take(struct cf_parked_table *table, const void *frame, struct cf_parked *taken);

void cf_parked_free(struct cf_parked_table *table);

#endif
