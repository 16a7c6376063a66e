"""Targets and what is measured against them: metrics, verdicts, the check."""
