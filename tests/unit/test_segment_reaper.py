from __future__ import annotations

from pathlib import Path

from cfctl.segment.file import Liveness, SegmentFile
from cfctl.segment.reader import parse_segment
from cfctl.segment.reaper import prunable
from tests.unit.segment_builder import SegmentBuilder

HEADER = parse_segment(SegmentBuilder().build()).header
HOUR_NS = 3600 * 10**9
NOW = 1_000_000 * HOUR_NS


def file(name: str, age_h: int, size: int = 100, live: Liveness = Liveness.ENDED) -> SegmentFile:
    return SegmentFile(Path(name), size, NOW - age_h * HOUR_NS, live, HEADER)


def names(files: tuple[SegmentFile, ...]) -> list[str]:
    return [file.path.name for file in files]


def test_ended_segments_go_from_the_age_on_oldest_first() -> None:
    files = [file("young", 1), file("old", 10), file("older", 11), file("edge", 5)]
    assert names(prunable(files, NOW, 5 * HOUR_NS)) == ["older", "old", "edge"]


def test_a_live_segment_never_goes_however_old_or_large() -> None:
    files = [file("a", 99, 10**9, Liveness.LOCKED), file("b", 99, 10**9, Liveness.MAPPED)]
    assert prunable(files, NOW, 0, 0) == ()


def test_beyond_the_total_size_the_oldest_go_until_it_fits() -> None:
    files = [file("1h", 1), file("2h", 2), file("3h", 3), file("live", 4, 10**9, Liveness.LOCKED)]
    assert names(prunable(files, NOW, 99 * HOUR_NS, 200)) == ["3h"]
    assert names(prunable(files, NOW, 99 * HOUR_NS, 199)) == ["3h", "2h"]
    assert prunable(files, NOW, 99 * HOUR_NS, 300) == ()


def test_a_segment_from_the_future_is_young() -> None:
    assert prunable([file("x", -5)], NOW, HOUR_NS) == ()
