"""Reference cycles that a program makes again and again, or that can not be collected at all."""

from __future__ import annotations

import gc
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl import _native
from cfctl.alloc.cycle_graph import FoundCycle, Link, find_cycles
from cfctl.records import Document
from cfctl.text import safe_text

if TYPE_CHECKING:
    from types import TracebackType

MAX_OBJECTS: Final = 20_000
MAX_GROUPS: Final = 1_000
# Of the time, so that a program under watch goes on at its pace.
MAX_SHARE: Final = 0.05
# Names by which an object holds what holds it.
_BACK: Final = re.compile(r"(?i)parent|owner|root|outer|container|manager|back|prev|self|bus|app\b|context")


@dataclass(frozen=True, slots=True)
class CycleGroup:
    """Cycles of one shape: how many were found, and who holds whom.

    `chain` reads from an object by its attributes and items back to itself. `objects` and
    `size_bytes` (shallow, sys.getsizeof) are of all that hold each other. `collections` counts the
    examined collections that found some. `uncollectable`: the collector gave up on them.
    """

    chain: str
    links: tuple[Link, ...]
    count: int
    objects: int
    size_bytes: int
    collections: int
    uncollectable: bool
    advice: str


@dataclass(frozen=True, slots=True)
class CycleReport(Document):
    """The reference cycles that became garbage while a program was watched, most objects first.

    `examined` of `collections` collections were looked into; of the others only the number is known.
    `skipped_objects` were too many to look at. `garbage_objects` is all that the examined
    collections found, what merely hung on a cycle included.
    """

    SCHEMA: ClassVar[str] = "cfctl.cycles"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "groups"
    duration_ns: int
    collections: int
    examined: int
    garbage_objects: int
    skipped_objects: int
    groups: tuple[CycleGroup, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, most: int = 20) -> list[str]:
        """Return the report as lines of text: of each shape the chain of references and the advice."""
        total = sum(group.count for group in self.groups)
        looked = f"{self.examined} of {self.collections} collections over {self.duration_ns / 1e9:.3g} s"
        lines = [f"{total} reference cycles of {len(self.groups)} shapes in {looked}"]
        for group in self.groups[:most]:
            state = ", never freed" if group.uncollectable else ""
            lines += [
                f"{group.count} x, {group.objects} objects, {group.size_bytes} B{state}",
                f"  {safe_text(group.chain, 600)}",
                f"  {safe_text(group.advice, 600)}",
            ]
        if len(self.groups) > most:
            lines.append(f"and {len(self.groups) - most} shapes more")
        if self.skipped_objects:
            lines.append(f"{self.skipped_objects} objects were too many to look at")
        return lines


class _Tally:
    """What is known of one shape so far."""

    def __init__(self, links: tuple[Link, ...], uncollectable: bool) -> None:
        self.links = links
        self.uncollectable = uncollectable
        self.count = self.objects = self.size_bytes = self.collections = self.last = 0

    def add(self, cycle: FoundCycle, collection: int) -> None:
        self.count += 1
        self.objects += len(cycle.objects)
        self.size_bytes += sum(sys.getsizeof(each, 0) for each in cycle.objects)
        if self.last != collection:
            self.collections += 1
            self.last = collection


class CycleWatch:
    """Looks into what the garbage collector finds, from start to stop; a context manager too.

    In the collections it examines, garbage is kept (gc.DEBUG_SAVEALL) until it was looked at and is
    then cleared as the collector itself does; finalizers ran before, as always. Looking takes 3 us an
    object and at most a twentieth of the time unless `share` allows more; other collections are only
    counted. One watch at a time.
    """

    def __init__(self, share: float = MAX_SHARE, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._share = share
        self._clock = clock
        self._shapes: dict[tuple[object, ...], _Tally] = {}
        self._collections = self._examined = self._garbage = self._skipped = 0
        self._started_ns = self._spent_ns = self._ended_ns = 0
        self._saved_flags: int | None = None
        self._mark = 0
        self._old_garbage = 0

    def start(self) -> None:
        """Begin; what lies in gc.garbage by now is left alone."""
        self._started_ns = self._clock()
        self._old_garbage = len(gc.garbage)
        gc.callbacks.append(self._collection)

    def stop(self) -> CycleReport:
        """End and return what was found."""
        if self._collection in gc.callbacks:
            gc.callbacks.remove(self._collection)
            self._ended_ns = self._clock()
            if gc.garbage[self._old_garbage :]:
                self._look(gc.garbage[self._old_garbage :], uncollectable=True)
        return self.report()

    def __enter__(self) -> CycleWatch:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collections += 1
            elapsed_ns = self._clock() - self._started_ns
            if self._spent_ns <= self._share * elapsed_ns:
                flags = gc.get_debug()
                self._mark = len(gc.garbage)
                self._saved_flags = flags
                gc.set_debug(flags | gc.DEBUG_SAVEALL)
            return
        if self._saved_flags is None:
            return
        flags, self._saved_flags = self._saved_flags, None
        gc.set_debug(flags)
        self._examined += 1
        if flags & gc.DEBUG_SAVEALL:
            # The program itself wants to keep it.
            self._look(gc.garbage[self._mark :], uncollectable=False)
            return
        found = gc.garbage[self._mark :]
        del gc.garbage[self._mark :]
        # What the collector gives up on is the program's to see there, as it would be without us.
        kept = found[len(found) - info["uncollectable"] :] if info["uncollectable"] else []
        try:
            self._look(found, uncollectable=False)
        finally:
            gc.garbage.extend(kept)
            if not kept:
                _native.clear_garbage(found)

    def _look(self, found: Sequence[object], uncollectable: bool) -> None:
        begun_ns = self._clock()
        self._garbage += len(found)
        self._skipped += max(0, len(found) - MAX_OBJECTS)
        for cycle in find_cycles(found[:MAX_OBJECTS]):
            links = _canonical(cycle.links)
            shape = (uncollectable, *(_shape(link) for link in links))
            tally = self._shapes.get(shape)
            if tally is None:
                if len(self._shapes) >= MAX_GROUPS:
                    self._skipped += len(cycle.objects)
                    continue
                tally = self._shapes[shape] = _Tally(links, uncollectable)
            tally.add(cycle, self._examined)
        self._spent_ns += self._clock() - begun_ns

    def report(self) -> CycleReport:
        """Return what was found so far."""
        tallies = sorted(self._shapes.values(), key=lambda each: (-each.objects, chain_text(each.links)))
        groups = tuple(
            CycleGroup(
                chain_text(each.links), each.links, each.count, each.objects, each.size_bytes,
                each.collections, each.uncollectable, advice(each.links),
            )
            for each in tallies
        )  # fmt: skip
        ended_ns = self._ended_ns or self._clock()
        return CycleReport(
            ended_ns - self._started_ns,
            self._collections,
            self._examined,
            self._garbage,
            self._skipped,
            groups,
        )


def cycles(action: Callable[[], object] | None = None) -> CycleReport:
    """Return the reference cycles that a call of `action` leaves behind; without one, those there are now.

    Collects before (with an action), and after; str() of the result is a text with each chain of
    references and how to break it. Everything that is found is looked into, however long it takes.
    """
    if action is not None:
        gc.collect()
    watch = CycleWatch(share=float("inf"))
    with watch:
        if action is not None:
            action()
        gc.collect()
    return watch.report()


def _shape(link: Link) -> tuple[str, str]:
    """Return a step without what differs from one cycle to the next: indices and keys."""
    return link.holder, "[...]" if link.via.startswith("[") else link.via


def _canonical(links: tuple[Link, ...]) -> tuple[Link, ...]:
    """Return the cycle from where it always begins: at an application's class, the first by name."""

    def order(start: int) -> tuple[object, ...]:
        turned = links[start:] + links[:start]
        return ("." not in turned[0].holder, *(_shape(link) for link in turned))

    best = min(range(len(links)), key=order)
    return links[best:] + links[:best]


def chain_text(links: Sequence[Link]) -> str:
    """Return "Parent.children -> list[0] -> Child.parent -> Parent"."""
    return " -> ".join([*(f"{link.holder}{link.via}" for link in links), links[0].holder])


def advice(links: Sequence[Link]) -> str:
    """Return how to break a cycle."""
    holders = {link.holder for link in links}
    if holders & {"traceback", "frame"}:
        return (
            "An exception is kept, and its traceback holds the frame that keeps it: del it once it is "
            "handled, or keep str(error)."
        )
    attributes = [link for link in links if link.via.startswith(".") and not link.via.startswith(".__")]
    if "method" in holders and attributes:
        return (
            f"{attributes[0].holder}{attributes[0].via} holds a bound method of the object itself: keep a "
            f"weakref.WeakMethod, or its name."
        )
    if any("closure" in link.via for link in links) and not attributes:
        return "A function refers to itself through its closure: pass it as an argument, or make it no inner function."
    if not attributes:
        return "Break the cycle where it is no longer needed: clear the container, or hold one side by weakref.ref."
    back = next((link for link in attributes if _BACK.search(link.via)), attributes[-1])
    name = back.via[1:]
    return (
        f"Use a weak reference for the way back: {back.holder}{back.via} = weakref.ref({name}), read as "
        f"{back.via}()."
    )
