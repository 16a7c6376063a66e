/* The types that the clock topic adds to the module; each returns 0, or -1 with an exception. */
#ifndef CF_CLOCK_TYPES_H
#define CF_CLOCK_TYPES_H

#include "binding.h"

int cf_add_pair_sampler(PyObject *module);
int cf_add_stamp_ring(PyObject *module);

/* Adds a type made from a spec under its own name. */
int cf_add_clock_type(PyObject *module, PyType_Spec *spec);

/* Frees an instance of a heap type and the reference to its type. */
void cf_free_instance(PyObject *self);

/* A slot's function as the data pointer that PyType_Slot wants: POSIX has the two alike, ISO C
 * leaves it open. */
#define CF_SLOT_FUNCTION(function) (__extension__(void *)(function))

#endif
