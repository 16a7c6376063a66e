"""Sources: one module each with a class of metrics named SOURCE; a new module is found by itself."""
