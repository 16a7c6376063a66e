"""Whatever the files of a bus say, no sentence about it holds a None or a negative number of messages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from cfctl.bus.reading import BusReader
from cfctl.bus.report import report_of
from cfctl.cli.output import make_console
from cfctl.diagnose.engine import catalogue, run_check
from cfctl.diagnose.live import Live
from cfctl.diagnose.record import Area, Status, Subject
from cfctl.diagnose.subject import Facts
from cfctl.host.view import HostView
from cfctl.render.bus_state import render, summary_line
from tests.unit.bus_files import (
    CLOSED,
    GROUP,
    MEMBER,
    OWN,
    REDELIVER,
    LineOf,
    RingFile,
    SeatOf,
    TopicFile,
    living,
)

WRITER, ALIVE, DEAD = 2**33, 2**34, 2**35
CHECKS = {check.id: check for check in catalogue(Subject.TEMPORAL) if check.area is Area.BUS}
SEATS = {
    0: SeatOf(7, ALIVE, pid=41), 1: SeatOf(8, DEAD, pid=42), 2: SeatOf(9, ALIVE, pid=43, flags=OWN),
    3: SeatOf(10, kind=GROUP, flags=REDELIVER, name=b"workers", pid=0, abandoned=5, redelivered=4),
    4: SeatOf(11, ALIVE, pid=41, kind=MEMBER, group=3, name=b"workers", ring=0xA1, begin=2, end=4),
    5: SeatOf(12, DEAD, pid=44, kind=MEMBER, group=3, name=b"workers", ring=0xA1, begin=4, end=5),
    6: SeatOf(13, DEAD, pid=44, kind=MEMBER, group=200, name=b"\xff\xfe"),
}  # fmt: skip
LINES = {
    0: LineOf(7, ALIVE, position=3), 1: LineOf(8, DEAD), 2: LineOf(9, ALIVE), 3: LineOf(10, position=2, claim=5),
    7: LineOf(14, DEAD, position=1), 9: LineOf(15, ALIVE, position=5),
}  # fmt: skip
DIRECTORIES: dict[str, list[RingFile | TopicFile]] = {
    "a ring alone": [RingFile(participant=DEAD, tail=5, rejected=3)],
    "everybody": [RingFile(participant=WRITER, tail=19, rejected=9, lines=LINES), TopicFile(seats=SEATS)],
    "overwriting": [RingFile(participant=WRITER, tail=900, overwrite=1, lines=LINES), TopicFile(seats=SEATS)],
    "orphaned": [RingFile(participant=WRITER, tail=9, orphaned=2)],
    "closed": [RingFile(participant=WRITER, tail=16, state=CLOSED, lines=LINES), TopicFile(seats=SEATS)],
    "listeners alone": [TopicFile(seats=SEATS)],
    "an empty page": [TopicFile()],
}


@pytest.mark.parametrize(
    "lives", [(), (WRITER,), (ALIVE,), (WRITER, ALIVE)], ids=["nobody", "writer", "reader", "all"]
)
@pytest.mark.parametrize("name", DIRECTORIES)
@pytest.mark.parametrize("which", [None, "41", "prices"])
def test_odd_files_end_in_whole_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, lives: tuple[int, ...], which: str | None
) -> None:
    directory = tmp_path / "bus"
    for file in DIRECTORIES[name]:
        file.write(directory)
    with living(directory, *lives):
        reader = BusReader(directory)
        before = reader.read()
        for report in (report_of(before, None, which), report_of(reader.read(), before, which)):
            render(report, make_console(sys.stdout), None)
            texts = [capsys.readouterr().out, summary_line(report)]
            for check in CHECKS.values():
                found = run_check(
                    check, Facts(HostView(), None, "timer", None, live=Live((), "no bus", bus=report))
                )
                assert found.status is not Status.ERROR, found.reason
                texts += [found.description or "", found.solution or "", found.reason or ""]
            for text in texts:
                assert "None" not in text
                assert not re.search(r"(?<![\w.e+-])-\d", text)
                assert not re.search(r"\bprocess 0\b", text)
                assert not re.search(r"\b1 (messages|subscriptions|rings|publishers|topics|times)\b", text)
