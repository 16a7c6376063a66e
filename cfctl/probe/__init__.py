"""Probes of a host's latency: each runs a loop of the C core and returns a frozen document."""
