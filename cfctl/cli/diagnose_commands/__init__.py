"""The commands of `cfctl diagnose` that are not about the host's latency."""
