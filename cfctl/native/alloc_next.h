/* What the preload library knows of the functions it stands before. */
#ifndef CF_ALLOC_NEXT_H
#define CF_ALLOC_NEXT_H

#include <string.h>

#include "alloc.h"

#define CF_EXPORT __attribute__((visibility("default")))

/* Stores the next definition of a function in the order of libraries; NULL when there is none. */
void cf_alloc_next(const char *name, void *function_pointer);

/* What is loaded at an address; both NULL when nothing is. */
struct cf_alloc_object {
    const void *address; /* in: what is looked for */
    const void *base;    /* of the object's first segment */
    const char *name;    /* its path; "" for the program itself */
};

/* Finds the object of `address`. Much cheaper than dladdr, which also looks for the nearest symbol.
 */
void cf_alloc_find_object(struct cf_alloc_object *object);

/* Returns enum cf_alloc_bypass bits: what the program calls past this library. */
uint64_t cf_alloc_bypassed(void);

/* The request of `cfctl alloc run`, in the variable CFCTL_ALLOC:
 * "<follow 0 or 1>:<limit in bytes>:<1 when the CPU's counter is usable>:<boot id>:
 * <pid namespace's inode, 0: look>:<run id>:<segment directory>". The counter, the boot and the
 * namespace are told because to find them out costs each process 100 us. */
#define CF_ALLOC_REQUEST "CFCTL_ALLOC"

/* Reads the request, says where the segment shall be, and unless children are followed, leaves the
 * environment as the program was meant to see it. Without a request: the default directory, and the
 * environment stays. The arguments are the program's, NULL where unknown. Allocates nothing. */
void cf_alloc_take_request(const char *const *arguments, size_t argument_count);

#endif
