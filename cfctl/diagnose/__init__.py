"""Diagnosis of a host: checks that name what costs latency, whose it is, and what exactly fixes it."""
