"""Diagnosis of memory: within a process, the reference cycles it makes."""

from __future__ import annotations

from cfctl.alloc.cycles import CycleGroup, CycleReport, CycleWatch, cycles

__all__ = ["CycleGroup", "CycleReport", "CycleWatch", "cycles"]
