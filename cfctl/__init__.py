"""Diagnostics and profiling for microsecond latency budgets on Linux."""

__version__ = "0.1.0"
