"""The metrics: one function each, registered with @metric; a new module is found by itself."""
