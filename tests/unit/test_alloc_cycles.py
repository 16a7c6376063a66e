"""Reference cycles: found, told as a chain, and nothing kept alive or run because of it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cfctl.alloc.cycle_graph import find_cycles
from cfctl.alloc.cycle_launch import cycles_environment, load_cycles
from cfctl.alloc.cycles import CycleReport, CycleWatch
from cfctl.diagnose.memory import cycles
from cfctl.records import to_plain


class Parent:
    def __init__(self, children: int = 2) -> None:
        self.children = [Child(self) for _ in range(children)]


class Child:
    def __init__(self, parent: Parent) -> None:
        self.parent = parent


class Slotted:
    __slots__ = ("__weakref__", "other")

    other: object


class Named:
    def __init__(self) -> None:
        self.callback = self.go

    def go(self) -> None:
        pass


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    gc.collect()
    flags, garbage = gc.get_debug(), len(gc.garbage)
    yield
    assert (gc.get_debug(), len(gc.garbage)) == (flags, garbage)
    assert not any(getattr(each, "__self__", None).__class__ is CycleWatch for each in gc.callbacks)


def name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def self_slot() -> None:
    first, second = Slotted(), Slotted()
    first.other, second.other = second, first


def recursive_closure() -> None:
    def walk(depth: int) -> int:
        return walk(depth - 1) if depth else 0

    walk(2)


def kept_exception() -> None:
    try:
        raise ValueError
    except ValueError as error:
        kept = error
        assert kept


def self_list() -> None:
    items: list[object] = []
    items.append(items)


def self_dict() -> None:
    items: dict[str, object] = {}
    items["me"] = items


@pytest.mark.parametrize(
    ("make", "chain", "advised"),
    [
        (Parent, f"{name(Child)}.parent -> {name(Parent)}.children -> list[", "Child.parent = weakref.ref(parent)"),
        (self_slot, f"{name(Slotted)}.other -> {name(Slotted)}.other -> {name(Slotted)}", "weakref.ref(other)"),
        (recursive_closure, "cell (closure variable) -> function recursive_closure", "closure"),
        (kept_exception, "frame (local kept) -> ValueError", "del it once it is handled"),
        (Named, f"{name(Named)}.callback -> method.__self__ -> {name(Named)}", "weakref.WeakMethod"),
        (self_list, "list[0] -> list", "clear the container"),
        (self_dict, "dict['me'] -> dict", "clear the container"),
    ],
)  # fmt: skip
def test_each_kind_of_cycle_is_told_with_how_to_break_it(
    make: Callable[[], object], chain: str, advised: str
) -> None:
    def act() -> None:
        for _ in range(5):
            make()

    found = cycles(act)
    (group,) = [group for group in found.groups if chain in group.chain]
    assert group.count == 5
    assert advised in group.advice
    assert not group.uncollectable
    assert group.chain in str(found)
    assert group.size_bytes > 0


def test_what_is_no_cycle_or_is_still_used_is_not_reported() -> None:
    kept = Parent()
    found = cycles(lambda: [weakref.ref(kept), object(), [[], {}]])
    assert found.groups == ()
    assert kept.children[0].parent is kept


def test_what_hangs_on_a_cycle_is_no_part_of_it() -> None:
    def make() -> None:
        node = Slotted()
        tail = [Slotted() for _ in range(10)]
        node.other = (node, tail)

    (group,) = cycles(make).groups
    assert (group.count, group.objects) == (1, 2)


def test_a_long_ring_is_one_cycle_and_its_shortest_way_is_told() -> None:
    def make() -> None:
        ring = [Parent(0) for _ in range(2000)]
        for index, node in enumerate(ring):
            node.following = ring[(index + 1) % 2000]  # type: ignore[attr-defined]
            node.before = ring[index - 1]  # type: ignore[attr-defined]

    (group,) = cycles(make).groups
    assert group.count == 1
    assert group.objects >= 2000
    assert len(group.links) == 2


def test_finalizers_run_once_and_the_memory_is_given_back() -> None:
    ended = []
    alive: list[weakref.ref[Any]] = []

    class Finalized:
        def __init__(self) -> None:
            self.me = self
            alive.append(weakref.ref(self))

        def __del__(self) -> None:
            ended.append(id(self))

    with CycleWatch(share=float("inf")) as watch:
        for _ in range(20):
            Finalized()
        gc.collect()
        assert all(each() is None for each in alive)
        gc.collect()
    assert len(ended) == 20
    assert watch.report().groups[0].count == 20
    assert not [each for each in gc.get_objects() if type(each).__name__ == "Finalized"]


def test_an_object_that_hides_its_attributes_runs_no_code_of_its_own() -> None:
    ran = []

    class Hostile:
        def __init__(self) -> None:
            object.__setattr__(self, "me", self)

        def __getattribute__(self, name: str) -> object:
            ran.append(name)
            raise RuntimeError(name)

        def __eq__(self, other: object) -> bool:
            ran.append("==")
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            ran.append("repr")
            raise RuntimeError

    def act() -> None:
        for _ in range(3):
            Hostile()

    found = cycles(act)
    assert found.groups[0].count == 3
    assert ran == []


def test_a_watch_spends_no_more_than_its_share() -> None:
    now = 0

    def clock() -> int:
        nonlocal now
        now += 1000
        return now

    watch = CycleWatch(share=0.0, clock=clock)
    with watch:
        for _ in range(10):
            Parent()
            gc.collect()
    found = watch.report()
    # The first is looked at, as nothing was spent before.
    assert (found.examined, found.collections) == (1, 10)


def test_garbage_that_a_program_wants_to_keep_is_left_to_it() -> None:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        found = cycles(Parent)
        assert found.groups[0].count == 1
        kept = [each for each in gc.garbage if isinstance(each, Parent)]
        assert len(kept) == 1
        assert kept[0].children[0].parent is kept[0]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_no_objects_have_no_cycles() -> None:
    assert find_cycles([]) == []


def watched(
    code: str, tmp_path: Path, **variables: str
) -> tuple[subprocess.CompletedProcess[str], CycleReport | None]:
    result = tmp_path / "cycles.json"
    environment = cycles_environment({**os.environ, **variables}, result)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )
    return ended, load_cycles(result)


def test_another_program_is_watched_without_being_edited(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "print(os.environ.get('PYTHONPATH'), 'CFCTL_CYCLES_REQUEST' in os.environ)\n"
        "class Node: pass\n"
        "for _ in range(100):\n"
        "    node = Node(); node.parent = node\n"
        "sys.exit(7)\n"
    )
    ended, found = watched(code, tmp_path, PYTHONPATH="/nowhere")
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "/nowhere False\n", "")
    assert found is not None
    assert found.groups[0].chain == "__main__.Node.parent -> __main__.Node"
    assert "weakref.ref(parent)" in found.groups[0].advice


def test_a_watched_program_that_is_killed_leaves_no_report(tmp_path: Path) -> None:
    ended, found = watched("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert ended.returncode == -9
    assert found is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"groups": 5}', '{"groups": [{"links": [{}]}]}', "\0"])
def test_a_report_that_is_damaged_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "damaged").write_text(text)
    assert load_cycles(tmp_path / "damaged") is None


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    found = cycles(Parent)
    (tmp_path / "report").write_text(json.dumps(to_plain(found)))
    assert load_cycles(tmp_path / "report") == found
