"""Allocations of a program: counted as they happen, read while it runs and afterwards."""
