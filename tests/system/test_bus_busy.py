"""What is closed while other threads use it ends with the documented error; nothing crashes, hangs or is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import bus_busy
from tests.soak.bus_payloads import WrongError


@pytest.fixture(autouse=True)
def often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "bus"))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("how", [0, 1, 2])
@pytest.mark.parametrize("name", list(bus_busy.USES))
def test_a_use_ends_when_what_it_uses_is_closed(name: str, how: int) -> None:
    for delay_s in (0.0, 0.0005, 0.002):
        bus_busy.close_while_used(name, how, delay_s)


def test_closing_at_random_leaves_no_descriptor_and_no_thread() -> None:
    assert sum(bus_busy.busy(60, lambda _: None, seed=3).values()) == 60


def test_the_check_finds_a_use_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = iter([ValueError("seeded")])

    def use(place: bus_busy.Place) -> None:
        raise next(ended)

    monkeypatch.setitem(bus_busy.USES, "seeded", use)
    with pytest.raises(WrongError, match="seeded"):
        bus_busy.close_while_used("seeded", 2, 0.0)
