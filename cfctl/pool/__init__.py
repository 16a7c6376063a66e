"""Pools: objects and buffers that are used again, counted in the process's segment."""
