/* Segments and operations as Python sees them. */
#include "binding.h"

const struct cf_binding_topic cf_topic_operation = {NULL, NULL};
