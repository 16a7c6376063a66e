"""Reports that were saved as JSON, read back without trust and computed anew from their counters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from cfctl.errors import InputError
from cfctl.profile.edges import Edge
from cfctl.profile.report import Choice, ProfileReport, RecordedProcess, Recording, ReportClock, build_report
from cfctl.profile.stacks import Stack, StackProfile, stack_profile
from cfctl.profile.tally import TICKS, UNITS, Tally
from cfctl.segment.format import HISTOGRAM_BUCKETS, U64_MAX
from cfctl.segment.tick_rate import TickRate

MAX_REPORT_BYTES: Final = 256 << 20
# Sums of many threads' and processes' counters may pass 64 bits; nothing real passes this.
_COUNT_MAX: Final = U64_MAX << 32
_TEXT_MAX: Final = 4096
_OBJECT_MAX: Final = 64

_T = TypeVar("_T")


def load_report(path: Path, choice: Choice = Choice()) -> ProfileReport | None:  # noqa: B008
    """Return the report saved in a file, computed from its counters; None when it is no JSON at all.

    Raises InputError that names the first thing that is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(1)
            if data not in {b"{", b"[", b" ", b"\n"}:
                return None
            data += file.read(MAX_REPORT_BYTES)
    except (OSError, ValueError):
        # What stands in the way of reading it is told by the reader of segments.
        return None
    if len(data) > MAX_REPORT_BYTES:
        raise _not_a_report(str(path), f"It holds more than {MAX_REPORT_BYTES >> 20} MiB.")
    return build_report(load_recordings(path, data), choice)


def recordings_of(document: object, name: str = "the document") -> list[Recording]:
    """Return what a saved report, read from JSON, brings to another; raises InputError."""
    try:
        return _recordings(_Table(document, "the report"))
    except _WrongError as error:
        raise _not_a_report(name, f"{error}.") from None


def load_recordings(path: Path, data: bytes) -> list[Recording]:
    """Return what a saved report brings to another: one recording for each of its clocks."""
    import json

    try:
        return recordings_of(json.loads(data), str(path))
    except RecursionError:
        raise _not_a_report(str(path), "It is nested too deeply.") from None
    except ValueError as error:
        raise _not_a_report(str(path), f"{error}.") from None


def _not_a_report(name: str, why: str) -> InputError:
    return InputError(f"{name} is no saved profile.", why, "Name a file that `cfctl profile save` wrote.")


class _WrongError(Exception):
    """What is wrong in a saved report."""


class _Table:
    """A JSON object of which every value is checked when it is taken."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _WrongError(f"{where} is no object")
        self._value = value
        self._where = where

    def _take(self, key: str, ok: Callable[[Any], bool], expected: str) -> Any:
        value = self._value.get(key)
        if not ok(value):
            raise _WrongError(f"'{key}' of {self._where} is not {expected}")
        return value

    def integer(self, key: str, most: int = _COUNT_MAX) -> int:
        return int(self._take(key, lambda v: _is_integer(v, most), f"an integer from 0 to {most}"))

    def optional_integer(self, key: str, most: int = U64_MAX) -> int | None:
        value = self._take(key, lambda v: v is None or _is_integer(v, most), "null or an integer")
        return None if value is None else int(value)

    def optional_number(self, key: str) -> float | None:
        value = self._take(key, lambda v: v is None or _is_number(v), "null or a number from 0")
        return None if value is None else float(value)

    def truth(self, key: str) -> bool:
        return bool(self._take(key, lambda v: isinstance(v, bool), "true or false"))

    def text(self, key: str) -> str:
        return str(self._take(key, _is_text, f"a text of at most {_TEXT_MAX} characters"))

    def optional_text(self, key: str) -> str:
        value = self._take(key, lambda v: v is None or _is_text(v), "null or a text")
        return value or ""

    def optional_object(self, key: str) -> dict[str, Any] | None:
        """Return a small object of texts and numbers, None when there is none."""

        def is_flat(value: Any) -> bool:
            return value is None or (
                isinstance(value, dict)
                and len(value) <= _OBJECT_MAX
                and all(v is None or isinstance(v, int) or _is_text(v) for v in value.values())
            )

        return cast(
            "dict[str, Any] | None", self._take(key, is_flat, "null or an object of texts and numbers")
        )

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(
            self._take(key, lambda v: isinstance(v, list) and all(map(_is_text, v)), "a list of texts")
        )

    def items(self, key: str, make: Callable[[_Table], _T]) -> tuple[_T, ...]:
        values = self._take(key, lambda v: isinstance(v, list), "a list")
        return tuple(make(_Table(item, f"{key}[{i}]")) for i, item in enumerate(values))

    def table(self, key: str) -> _Table:
        return _Table(self._value.get(key), f"'{key}' of {self._where}")

    def pairs(self, key: str, ok: Callable[[Any], bool], expected: str) -> tuple[tuple[Any, Any], ...]:
        def is_pairs(value: Any) -> bool:
            return isinstance(value, list) and all(
                isinstance(pair, list) and len(pair) == 2 and all(map(ok, pair)) for pair in value
            )

        return tuple((first, second) for first, second in self._take(key, is_pairs, expected))

    def optional_items(self, key: str, make: Callable[[_Table], _T]) -> tuple[_T, ...]:
        """Return the items of a list that older documents do not have."""
        return self.items(key, make) if key in self._value else ()

    def optional_table(self, key: str) -> _Table | None:
        return None if self._value.get(key) is None else self.table(key)

    def counts(self, key: str) -> Mapping[str, int]:
        def is_counts(value: Any) -> bool:
            return isinstance(value, dict) and all(_is_integer(v, _COUNT_MAX) for v in value.values())

        return dict(self._take(key, is_counts, "an object of integers"))


def _is_integer(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e300


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _TEXT_MAX


def _recordings(report: _Table) -> list[Recording]:
    schema, version = report.text("schema"), report.integer("version")
    if schema != ProfileReport.SCHEMA:
        raise _WrongError(f"its schema is '{schema}', not '{ProfileReport.SCHEMA}'")
    if version != ProfileReport.VERSION:
        raise _WrongError(f"its version is {version}, this cfctl reads {ProfileReport.VERSION}")
    clocks = report.items("clocks", _clock)
    operations = report.items("operations", lambda table: (table.integer("clock"), _tally(table)))
    for _, tally in operations:
        # Of a program that runs, the count may be read before and the rest after some samples.
        if (tally.errors or 0) > max(tally.count, tally.in_range + tally.out_of_range) and not report.texts(
            "problems"
        ):
            raise _WrongError(f"'{tally.name}' has more errors than samples")
    edges = report.optional_items("edges", lambda table: (table.integer("clock"), _edge(table)))
    if any(clock >= len(clocks) for clock, _ in (*operations, *edges)):
        raise _WrongError("an operation or an edge names a clock that is not there")
    recordings = [
        Recording(
            clock,
            tuple(tally for of, tally in operations if of == index),
            (),
            edges=tuple(edge for of, edge in edges if of == index),
        )
        for index, clock in enumerate(clocks)
    ]
    # What belongs to the report as a whole goes with its first clock.
    if recordings:
        stacks = report.optional_table("stacks")
        recordings[0] = dataclasses.replace(
            recordings[0],
            processes=report.items("processes", _process),
            other_kinds=dict(report.counts("other_kinds")),
            problems=report.texts("problems"),
            stacks=None if stacks is None else _stacks(stacks),
        )
    host = report.optional_object("host")
    return [dataclasses.replace(recording, host=host) for recording in recordings]


def _clock(table: _Table) -> ReportClock:
    rate = table.table("rate")
    ns_per_tick = rate.optional_number("ns_per_tick")
    if ns_per_tick == 0:
        raise _WrongError("a clock has 0 ns per tick")
    reason = None if ns_per_tick is not None else rate.text("reason")
    return ReportClock(
        table.text("boot_id"),
        table.text("tick_source"),
        TickRate(ns_per_tick, rate.optional_number("uncertainty_ppb"), rate.text("method"), reason),
        table.integer("anchor_tick", U64_MAX),
        table.integer("anchor_unix_ns", U64_MAX),
        table.optional_number("floor_ns"),
    )


def _process(table: _Table) -> RecordedProcess:
    return RecordedProcess(
        table.integer("pid"), table.texts("command_line"), table.text("state"),
        table.integer("opened_unix_ns", U64_MAX), table.text("run_id"), table.integer("samples_lost"),
        table.integer("shards_refused"),
    )  # fmt: skip


def _edge(table: _Table) -> Edge:
    labels = "a list of pairs of texts"
    return Edge(
        (table.text("parent"), table.pairs("parent_labels", _is_text, labels)),
        (table.text("child"), table.pairs("child_labels", _is_text, labels)),
        table.integer("count"),
        table.integer("ticks"),
    )


def _stacks(table: _Table) -> StackProfile:
    stacks = table.items("stacks", lambda s: Stack(s.texts("frames"), s.integer("samples", _COUNT_MAX)))
    rate_hz = table.optional_number("rate_hz")
    try:
        return stack_profile(
            stacks, table.text("sampler"), rate_hz or 0.0, table.integer("failed"),
            table.optional_number("attached_after_ns"), table.truth("paused"),
        )  # fmt: skip
    except ValueError as error:
        raise _WrongError(f"the stacks are damaged: {error}") from None


def _tally(table: _Table) -> Tally:
    ticks = table.table("ticks")
    buckets = ticks.pairs("buckets", lambda v: _is_integer(v, _COUNT_MAX), "a list of pairs of integers")
    numbers = [bucket for bucket, _ in buckets]
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] >= HISTOGRAM_BUCKETS):
        raise _WrongError("the buckets of an operation do not ascend within the histogram")
    unit = ticks.optional_text("unit") or TICKS
    if unit not in UNITS:
        raise _WrongError("the times of an operation are in an unknown unit")
    return Tally(
        table.text("name"), table.pairs("labels", _is_text, "a list of pairs of texts"), table.integer("count"),
        table.optional_integer("errors", _COUNT_MAX), ticks.integer("sum"), table.integer("out_of_range"),
        table.optional_integer("threads", _COUNT_MAX),
        buckets, ticks.optional_integer("min"), ticks.optional_integer("max"), ticks.optional_integer("first"),
        ticks.optional_integer("last"), ticks.optional_integer("child_sum") or 0, unit, table.optional_text("gap"),
    )  # fmt: skip
