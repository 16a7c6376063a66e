"""Results of other profilers as reports: one file per format with NAME, recognises(data) and read(data).

`cfctl profile import` finds the modules; what a source does not keep is None with the reason.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Final

from cfctl.errors import InputError, os_error_reason
from cfctl.profile.report import ProfileReport, RecordedProcess, Recording, ReportClock, build_report
from cfctl.profile.tally import Tally
from cfctl.segment.tick_rate import TickRate

# A profile of 10,000 functions takes 2 MB.
MAX_SOURCE_BYTES: Final = 64 << 20


def source_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def import_report(path: Path, format: str | None = None, shown_as: str | None = None) -> ProfileReport:
    """Return the report of another profiler's file, its format recognised unless it is named.

    `shown_as` stands for the file in the report.

    Raises InputError when the file can not be read, is larger than 64 MiB, or is none of a known
    format.
    """
    data = _read(path)
    names = source_names()
    if format is not None and format not in names:
        raise InputError(f"There is no format '{format}'.", f"Formats: {', '.join(names)}.")
    for name in [format] if format else names:
        module = import_module(f"cfctl.profile.sources.{name}")
        if format or module.recognises(data):
            try:
                recording: Recording = module.read(data)
            except SourceError as error:
                raise InputError(f"{path} can not be imported.", f"It is no {name}: {error}.") from error
            process = RecordedProcess(0, (shown_as or str(path),), "imported", 0, "", 0, 0)
            return build_report([dataclasses.replace(recording, processes=(process,))])
    raise InputError(
        f"{path} can not be imported.", "Its format is not recognised.", f"Known are: {', '.join(names)}."
    )


class SourceError(Exception):
    """What is wrong with a file of another profiler, as a clause."""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"{error}."
        raise InputError(f"{path} can not be read.", why) from error
    if len(data) > MAX_SOURCE_BYTES:
        raise InputError(f"{path} is not read.", f"It holds more than {MAX_SOURCE_BYTES >> 20} MiB.")
    return data


def recording_of(name: str, method: str, ns_per_tick: float, tallies: Iterable[Tally]) -> Recording:
    """Return what a source brings to a report; its times are in ticks of `ns_per_tick`."""
    clock = ReportClock("", name, TickRate(ns_per_tick, 0.0, method), 0, 0, None)
    return Recording(clock, tuple(tallies), ())


def histogram_bucket(value: int) -> int:
    """Return the bucket of a value below 2^40, as native/histogram.h defines it."""
    if value < 128:
        return value
    shift = value.bit_length() - 8
    return (shift + 1) * 128 + (value >> shift) % 128


def counted_tally(name: str, counts: Iterable[tuple[int, int]], gap: str) -> Tally:
    """Return the tally of (value, samples) in ticks; `gap` says what the source does not keep."""
    buckets: dict[int, int] = {}
    count = total = beyond = 0
    least: int | None = None
    most: int | None = None
    for value, samples in counts:
        if not 0 <= value < 1 << 63 or samples <= 0:
            raise SourceError(f"a value of {value} with {samples} samples")
        count += samples
        total += value * samples
        least = value if least is None else min(least, value)
        most = value if most is None else max(most, value)
        if value >= 1 << 40:
            beyond += samples
        else:
            buckets[histogram_bucket(value)] = buckets.get(histogram_bucket(value), 0) + samples
    return Tally(
        name[:1000], (), count, None, total, beyond, None, tuple(sorted(buckets.items())), least, most, None, None,
        gap=gap,
    )  # fmt: skip
