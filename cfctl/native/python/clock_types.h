/* The types that the clock topic adds to the module; each returns 0, or -1 with an exception. */
#ifndef CF_CLOCK_TYPES_H
#define CF_CLOCK_TYPES_H

#include "binding.h"

int cf_add_pair_sampler(PyObject *module);
int cf_add_stamp_ring(PyObject *module);

#endif
