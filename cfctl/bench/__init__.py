"""Benchmarks of cfctl's own instruments on this machine, as library functions."""
