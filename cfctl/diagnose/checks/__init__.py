"""The checks, one module per area; a module here is found and its checks are registered."""
