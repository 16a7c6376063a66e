"""Recordings: whole up to the last acknowledged record, bounded, and never another file's end."""

from __future__ import annotations

import os
import random
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import InputError, StateError
from cfctl.monitor.alerts import AlertBook
from cfctl.monitor.metric import Subject
from cfctl.monitor.recording import Recorder, decoded, documents, encoded, replay
from cfctl.monitor.segments import LiveSegments
from cfctl.monitor.snapshot import Collector, Distribution, Series, Snapshot, Total
from cfctl.monitor.targets import BUILT_IN_TARGETS
from cfctl.monitor.watch import Observation
from cfctl.records import Measurement

SNAPSHOT = Snapshot(
    5,
    10**9,
    (
        Series(
            "m",
            Measurement(1.5, "ns", 0.5, 3, "how"),
            (("operation", "\u202e|x"),),
            "a test",
            Measurement(10.0, "ns"),
        ),
    ),
    (Total("t", 2.0, (("k", "v"),)),),
    (Distribution("d", ((1, 2), (5, 3)), 4, 10.5),),
    ("a problem",),
)


def test_a_recording_gives_back_its_observations(tmp_path: Path) -> None:
    path = tmp_path / "r"
    book = AlertBook((replace(BUILT_IN_TARGETS[1], metric="m", unit="ns", threshold=1.0, for_ns=0),))
    transitions = book.update(SNAPSHOT)
    assert transitions
    first = Observation(SNAPSHOT, book.alerts(), transitions, targets_current=False)
    second = Observation(Collector(Subject(), LiveSegments()).collect(), (), ())
    for each in (first, second):
        with Recorder(path) as recorder:
            recorder.append(each)
    assert list(replay(path)) == [first, second]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [1, 5, 9, 10, 40, -2, -1])
def test_a_torn_last_record_is_left_out_and_cut_off_by_the_next_recorder(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "r"
    line = encoded({"n": 1, "text": "x" * 60})
    path.write_bytes(line + line[:cut])
    assert len(list(documents(path))) == 1
    with Recorder(path) as recorder:
        recorder.append({"n": 2})
    assert [document["n"] for document in documents(path)] == [1, 2]


def test_a_file_of_somebody_else_is_neither_recorded_to_nor_replayed(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    for content in (b"dear diary\n", b"hello", b"{}\n", b"deadbeef dinner at eight\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no recording"):
            Recorder(path)
        with pytest.raises(InputError, match="no recording"):
            list(replay(path))
        assert path.read_bytes() == content


def test_a_broken_record_in_the_middle_is_damage_and_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "r"
    line = encoded({"n": 1})
    path.write_bytes(line + line.replace(b'"n"', b'"m"') + line)
    with pytest.raises(StateError, match="damaged"):
        list(documents(path))
    with pytest.raises(StateError, match="damaged"):
        Recorder(path)
    assert len(path.read_bytes()) == 3 * len(line)


def test_documents_of_another_kind_are_no_observations(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(encoded({"schema": "cfctl.check"}))
    with pytest.raises(InputError, match="no observation"):
        list(replay(path))


def test_a_second_recorder_is_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path / "r"), pytest.raises(InputError, match="being recorded"):
        Recorder(tmp_path / "r")


def test_links_pipes_and_directories_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(encoded({"n": 1}))
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "", "missing/r"):
        with pytest.raises(InputError, match="can not be written"):
            Recorder(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        list(replay(tmp_path / "nothing"))


def test_a_recording_stays_within_its_limit_and_keeps_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with Recorder(path, limit_bytes=2000) as recorder:
        for number in range(200):
            recorder.append({"n": number, "text": "x" * 30})
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2000
    numbers = [document["n"] for document in documents(path)]
    assert numbers == list(range(numbers[0], 200))
    assert len(numbers) > 15


def test_a_full_disk_is_an_error_and_the_recording_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "r"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Recorder(path) as recorder:
            recorder.append({"n": 1})
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, old[1]))
            with pytest.raises(StateError, match="could not be written"):
                recorder.append({"n": 2, "text": "x" * 100})
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            recorder.append({"n": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [document["n"] for document in documents(path)] == [1, 3]


@given(
    st.dictionaries(
        st.text(), st.none() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_every_document_comes_back_and_no_damage_does(document: dict[str, object]) -> None:
    line = encoded(document)
    found = decoded(line)
    assert found is not None
    assert encoded(found) == line
    assert decoded(line[:-1]) is None
    damaged = bytearray(line)
    damaged[len(line) // 2] ^= 0x01
    assert decoded(bytes(damaged)) is None


def test_a_recorder_killed_200_times_loses_no_acknowledged_record(tmp_path: Path) -> None:
    path, when = tmp_path / "r", random.Random(1)
    number = 0
    for _ in range(200):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.dup2(write, 1)
                _record_for_ever(path, number)
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read, "rb") as acknowledged:
            acknowledged.readline()
            for _ in range(when.randrange(20_000)):
                pass
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            told = [int(line) for line in acknowledged.read().split(b"\n") if line]
        kept = [document["n"] for document in documents(path)]
        assert kept == list(range(kept[0], kept[-1] + 1))
        assert kept[-1] >= max(told, default=number)
        number = kept[-1] + 1


def _record_for_ever(path: Path, number: int) -> None:
    recorder = Recorder(path, 20_000)
    while True:
        recorder.append({"n": number, "text": "x" * (number * 37 % 900)})
        os.write(1, b"%d\n" % number)
        number += 1
