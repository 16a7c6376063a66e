"""The record of a calibration: a line from ticks to a reference clock, with its error and its story."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cfctl.errors import InputError
from cfctl.records import Document

REFERENCES: Final = ("raw", "monotonic", "realtime")
REFERENCE_NAMES: Final = {
    "raw": "CLOCK_MONOTONIC_RAW",
    "monotonic": "CLOCK_MONOTONIC",
    "realtime": "CLOCK_REALTIME",
}
# The kernel's clock ids (linux/time.h), which Python's time module leaves out off Linux.
CLOCK_IDS: Final = {"realtime": 0, "monotonic": 1, "raw": 4}
CLOCK_BOOTTIME: Final = 7


@dataclass(frozen=True, slots=True)
class ClusterPoint:
    """A cluster's centre: the reference clock showed `ns + fraction_ns` at `tick`, give or take `error_ns`."""

    tick: int
    ns: int
    fraction_ns: float
    error_ns: float


@dataclass(frozen=True, slots=True)
class Calibration(Document):
    """A line from ticks to nanoseconds of a reference clock, how well it holds, and how it was made.

    ns = base_ns + ((tick - base_tick) * mult >> shift). Every statement of accuracy is one against
    `reference`, and `independence` says what that is worth: "none" when the kernel derives the
    reference from this very counter, "host" when the hypervisor's clock disciplines it, "external"
    when NTP or PTP does.

    `frequency_uncertainty_ppb` is the standard error of the estimate when the verdict is "valid",
    the bound from the bracket widths when it is "degraded"; for the method "median" it is no more
    than the spread of its samples. A snapped frequency is the kernel's own rate;
    `estimate_hz` is what was measured.
    """

    SCHEMA: ClassVar[str] = "cfctl.calibration"
    VERSION: ClassVar[int] = 1

    source: str
    source_reason: str
    reference: str
    independence: str
    independence_reason: str
    method: str
    verdict: str
    verdict_reason: str
    frequency_hz: float
    frequency_uncertainty_ppb: float
    frequency_bound_ppb: float
    estimate_hz: float
    snapped: bool
    snap_reason: str
    stated_hz: float | None
    stated_ppb: float | None
    stated_reason: str
    residual_ns: float
    offset_bound_ns: float
    tick_step_ns: float | None
    base_tick: int
    base_ns: int
    mult: int
    shift: int
    boot_id: str | None
    clocksource: str | None
    time_namespace_offset_ns: int
    suspended_ns: int
    disruption_marker: int | None
    created_realtime_ns: int
    duration_ns: int
    cpu_time_ns: int
    attempts: int
    clusters_used: int
    clusters_taken: int
    pairs_kept: int
    cpu_changes: int
    points: tuple[ClusterPoint, ...] = ()
    host: dict[str, Any] | None = None

    def to_ns(self, tick: int) -> int:
        """Return a tick as whole nanoseconds of the reference clock, rounded down as the kernel does."""
        return self.base_ns + ((tick - self.base_tick) * self.mult >> self.shift)

    def duration_to_ns(self, ticks: int) -> float:
        """Return a number of ticks as nanoseconds."""
        return ticks * self.mult / (1 << self.shift)

    def error_of(self, point: ClusterPoint) -> float:
        """Return how far a point lies above the line, in nanoseconds; exact to 0.001 ns over years."""
        scaled = ((point.ns - self.base_ns) << self.shift) - (point.tick - self.base_tick) * self.mult
        return scaled / (1 << self.shift) + point.fraction_ns

    def bound_ns(self, age_ns: int, cpu_bound_ns: float = 0.0) -> float:
        """Return how far a converted tick may lie from the reference clock, `age_ns` after the calibration.

        The bracket and step bound, plus the growth by the rate's uncertainty, plus `cpu_bound_ns`
        (CpuOffsets.bound_ns) when ticks come from CPUs other than the calibration's.
        """
        return self.offset_bound_ns + cpu_bound_ns + abs(age_ns) * self.frequency_uncertainty_ppb * 1e-9


def ns_per_tick(calibration: Calibration) -> float:
    """Return the nanoseconds of one tick."""
    return calibration.mult / (1 << calibration.shift)


_CHOICES: Final = {
    "source": ("tsc", "cntvct", "os"),
    "reference": REFERENCES,
    "independence": ("none", "host", "external"),
    "verdict": ("valid", "degraded"),
}


def from_plain(value: Any) -> Calibration:
    """Return the calibration in a JSON object; raises InputError for anything else.

    Fields that a later release added are ignored; a field that is missing, of another type or
    outside its range is an error: a wrong line would give wrong times everywhere.
    """
    if not isinstance(value, dict) or value.get("schema") != Calibration.SCHEMA:
        raise InputError("This is no calibration.", f"It should be an object of schema {Calibration.SCHEMA}.")
    if value.get("version") != Calibration.VERSION:
        raise InputError("This calibration is of another version.", f"Version {Calibration.VERSION} is read.")
    content: dict[str, Any] = {}
    for field in dataclasses.fields(Calibration):
        if field.name not in value:
            if field.default is dataclasses.MISSING:
                raise InputError("This calibration is incomplete.", f"'{field.name}' is missing.")
            continue
        content[field.name] = _read_field(field.name, str(field.type), value[field.name])
    calibration = Calibration(**content)
    if not (0 < calibration.mult < 1 << 64 and 1 <= calibration.shift <= 64):
        raise InputError("This calibration can not be used.", "mult or shift is out of range.")
    if not 1.0 <= calibration.frequency_hz <= 1e12:
        raise InputError("This calibration can not be used.", "frequency_hz is out of range.")
    return calibration


_TYPES: Final[dict[str, Any]] = {
    "str": str, "int": int, "float": (int, float), "bool": bool,
}  # fmt: skip


def _read_field(name: str, annotation: str, value: Any) -> Any:
    if name == "points":
        return _read_points(value)
    if name == "host":
        return value if isinstance(value, dict) else None
    if value is None and annotation.endswith("| None"):
        return None
    wrong_bool = isinstance(value, bool) and annotation != "bool"
    if wrong_bool or not isinstance(value, _TYPES[annotation.partition(" ")[0]]):
        raise InputError("This calibration can not be used.", f"'{name}' should be {annotation}.")
    if value not in _CHOICES.get(name, (value,)):
        raise InputError("This calibration can not be used.", f"'{name}' is not a known word.")
    if annotation.startswith("int") and not -(1 << 63) <= value < 1 << 64:
        raise InputError("This calibration can not be used.", f"'{name}' is out of range.")
    return float(value) if annotation.startswith("float") else value


def _read_points(value: Any) -> tuple[ClusterPoint, ...]:
    try:
        return tuple(
            ClusterPoint(int(p["tick"]), int(p["ns"]), float(p["fraction_ns"]), float(p["error_ns"]))
            for p in value
        )
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise InputError("This calibration can not be used.", "'points' holds something else.") from error
