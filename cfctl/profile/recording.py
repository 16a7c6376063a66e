"""From a segment to what it brings to a report."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.errors import StateError
from cfctl.profile.consistency import contradictions, impossible_dates
from cfctl.profile.edges import KIND as EDGE
from cfctl.profile.edges import Edge, edge_of
from cfctl.profile.report import RecordedProcess, Recording, ReportClock
from cfctl.profile.tally import KIND, Tally, tally_of
from cfctl.segment.file import Liveness, read_with_state, state_word
from cfctl.segment.format import TickSource
from cfctl.segment.tick_rate import LocalClock, SavedRate, local_clock, tick_rate

if TYPE_CHECKING:
    from cfctl.segment.records import Segment, SegmentHeader

_FLOOR_READS = 2_000


def record_of_file(path: Path) -> Recording:
    """Return what the segment in a file brings to a report; raises SegmentError."""
    segment, state = read_with_state(path)
    return record_of_segment(segment, state, local_clock())


def record_of_segment(segment: Segment, state: Liveness, local: LocalClock) -> Recording:
    """Return what a segment brings to a report, with everything wrong in it as a problem."""
    header = segment.header
    problems = list(segment.problems)
    try:
        saved = saved_rate()
    except StateError as error:
        saved = None
        problems.append(str(error))
    clock = _clock_of(header, local, saved)
    now_tick = local.pair.tick if clock.floor_ns is not None else None
    tallies: list[Tally] = []
    edges: list[Edge] = []
    other_kinds: dict[str, int] = {}
    for entry in segment.entries:
        edge = edge_of(entry) if entry.kind == EDGE else None
        if edge is not None:
            edges.append(edge)
            continue
        tally = tally_of(entry) if entry.kind == KIND else None
        if tally is None:
            other_kinds[entry.kind] = other_kinds.get(entry.kind, 0) + 1
            continue
        tallies.append(tally)
        wrong = list(contradictions(tally, entry, state.live))
        if impossible_dates(tally, header, now_tick):
            wrong.append("samples before the segment was opened or in the future")
        problems += [f"The operation '{tally.name}' is damaged: {clause}." for clause in wrong]
    process = RecordedProcess(
        header.pid, header.command_line, state_word(header, state), header.opened_unix_ns, header.run_id,
        header.samples_lost, header.shards_refused,
    )  # fmt: skip
    return Recording(clock, tuple(tallies), (process,), other_kinds, tuple(problems), None, tuple(edges))


def _clock_of(header: SegmentHeader, local: LocalClock, saved: SavedRate | None) -> ReportClock:
    rate = tick_rate(header, local, saved)
    same_counter = local.boot_id == header.boot_id != "" and local.counts_os_ns == (
        header.tick_source is TickSource.OS
    )
    floor_ns = None
    if same_counter and rate.ns_per_tick is not None:
        floor_ns = timer_floor_ticks() * rate.ns_per_tick
    return ReportClock(
        header.boot_id,
        header.tick_source.name.lower(),
        rate,
        header.opened.tick,
        header.opened_unix_ns,
        floor_ns,
    )


def saved_rate() -> SavedRate | None:
    """Return the rate of the calibration that was saved in this boot, None when there is none.

    Raises StateError for a corrupt history, which is set aside.
    """
    from cfctl.clock.history import saved_calibration

    calibration = saved_calibration()
    if calibration is None:
        return None
    return SavedRate(
        1e9 / calibration.frequency_hz, calibration.frequency_uncertainty_ppb, calibration.boot_id or "",
        "the saved calibration",
    )  # fmt: skip


def timer_floor_ticks() -> float:
    """Return what two neighbouring readings of the tick counter differ by: the median, in ticks.

    An upper bound of what an empty span reads, as the readings are made from Python; about 100 us.
    """
    from cfctl._native import ticks

    readings = [ticks() for _ in range(_FLOOR_READS + 1)]
    return sorted(later - earlier for earlier, later in itertools.pairwise(readings))[_FLOOR_READS // 2]
