"""The history: round trips, limits, corruption, other users' directories, concurrent writers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cfctl import _native
from cfctl.clock import environment, history
from cfctl.clock.calibration import Calibration, ClusterPoint, from_plain
from cfctl.errors import InputError, StateError
from cfctl.records import to_json, to_plain
from tests.unit.clock_worlds import calibration


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "cfctl"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Calibration:
    """A calibration that holds for the environment of these tests."""
    monkeypatch.setattr(environment, "observe", lambda: environment.Environment("tsc", "boot", 0, 0, None))
    return calibration(source=_native.tick_source()[0])


def test_there_is_no_history_before_the_first_calibration() -> None:
    assert history.load() == []
    assert history.saved_calibration() is None


def test_a_calibration_comes_back_as_it_was_saved() -> None:
    made = calibration(points=(ClusterPoint(1, 2, -0.5, 0.01),), host={"kernel": "6"}, disruption_marker=7)
    saved = history.save(made)
    assert saved.note is None
    assert history.load() == [made]
    assert saved.path.stat().st_mode & 0o777 == 0o600


def test_the_newest_that_holds_is_found(here: Calibration) -> None:
    for made in (here, replace(here, created_realtime_ns=9), replace(here, boot_id="other"),
                 replace(here, verdict="degraded"), replace(here, reference="realtime"),
                 replace(here, suspended_ns=10**9), replace(here, clocksource="hpet"),
                 replace(here, disruption_marker=3), replace(here, method="median"),
                 replace(here, source="cntvct")):  # fmt: skip
        history.save(made)
    assert history.saved_calibration() == replace(here, created_realtime_ns=9)


def test_without_a_boot_id_nothing_holds(here: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    history.save(replace(here, boot_id=None))
    monkeypatch.setattr(environment, "observe", lambda: environment.Environment("tsc", None, 0, 0, None))
    assert history.saved_calibration() is None


def test_a_calibration_of_another_time_namespace_is_moved(here: Calibration) -> None:
    history.save(replace(here, time_namespace_offset_ns=100, base_ns=here.base_ns + 100))
    found = history.saved_calibration()
    assert found is not None
    assert found.to_ns(here.base_tick) == here.base_ns


def test_the_history_is_bounded() -> None:
    for number in range(history.MAX_ENTRIES + 3):
        history.save(calibration(created_realtime_ns=number))
    loaded = history.load()
    assert len(loaded) == history.MAX_ENTRIES
    assert loaded[-1].created_realtime_ns == history.MAX_ENTRIES + 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"a":' * 2000])
def test_a_corrupt_history_is_set_aside_and_a_new_one_begun(state: Path, content: bytes) -> None:
    history.save(calibration())
    history.path().write_bytes(content)
    saved = history.save(calibration())
    assert "set aside" in (saved.note or "")
    assert len(history.load()) == 1
    assert (state / "calibrations.json.corrupt").read_bytes() == content


def test_reading_a_corrupt_history_says_so_once(state: Path) -> None:
    history.save(calibration())
    history.path().write_bytes(b"{")
    with pytest.raises(StateError, match="corrupt"):
        history.saved_calibration()
    assert history.saved_calibration() is None


def test_a_foreign_file_is_neither_used_nor_overwritten(state: Path) -> None:
    history.save(calibration())
    history.path().write_text('{"schema": "else"}')
    with pytest.raises(StateError, match="holds no"):
        history.save(calibration())
    assert history.path().read_text() == '{"schema": "else"}'


def test_entries_of_a_later_version_are_kept_but_not_used() -> None:
    history.save(calibration())
    content = json.loads(history.path().read_text())
    content["calibrations"].insert(0, {"schema": "cfctl.calibration", "version": 2, "new": True})
    content["calibrations"][1]["added_later"] = 1
    history.path().write_text(json.dumps(content))
    assert history.load() == [calibration()]
    history.save(calibration())
    assert json.loads(history.path().read_text())["calibrations"][0]["new"] is True


def test_a_state_directory_that_can_not_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(StateError, match="cfctl"):
        history.save(calibration())


def test_concurrent_writers_lose_nothing(state: Path) -> None:
    program = (
        "import json, sys; from cfctl.clock import history; from cfctl.clock.calibration import from_plain\n"
        "value, first = json.loads(sys.argv[1]), int(sys.argv[2]) * 100\n"
        "for i in range(10): history.save(from_plain(value | {'created_realtime_ns': first + i}))"
    )
    saved = to_json(calibration())
    writers = [subprocess.Popen([sys.executable, "-c", program, saved, str(n)]) for n in range(4)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    made = sorted(each.created_realtime_ns for each in history.load())
    assert made == sorted(n * 100 + i for n in range(4) for i in range(10))


@pytest.mark.parametrize(
    "change",
    [
        {"mult": 0}, {"mult": 1 << 64}, {"shift": 0}, {"shift": 65}, {"mult": "1"}, {"mult": True}, {"source": "x"},
        {"frequency_hz": 0}, {"frequency_hz": None}, {"points": 5}, {"points": [{}]}, {"base_tick": 1 << 70},
        {"verdict": "good"}, {"snapped": 1}, {"version": 2}, {"schema": "x"}, {"boot_id": 5},
    ],
)  # fmt: skip
def test_a_damaged_calibration_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        from_plain(to_plain(calibration()) | change)


def test_a_missing_field_is_named() -> None:
    value = to_plain(calibration())
    del value["base_ns"]
    with pytest.raises(InputError, match="base_ns"):
        from_plain(value)
    with pytest.raises(InputError):
        from_plain(None)
