"""Checks of a process's memory as it tells of itself in its segment: heap, collector, pools, subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Fix
from cfctl.diagnose.checks.process_memory import resident_anonymous, size
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import REFUSES, SEEN_BY_CHECK, SPACE, not_measurable, observed
from cfctl.diagnose.record import Area, Scope
from cfctl.errors import UnobservableError
from cfctl.records import Severity
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.diagnose.live import SeenEntry
    from cfctl.diagnose.subject import Host

_MIB: Final = 1 << 20
_FREE_BYTES: Final = 16 * _MIB
_FREE_RATIO: Final = 0.5
_PAUSE_NS: Final = 10_000_000
_PAUSE_RATIO: Final = 0.05
_CYCLES_PER_S: Final = 1_000
_LEAST_ACQUIRES: Final = 1_000
_HIT_RATIO: Final = 0.9
_BENCH: Final = not_measurable("what a miss costs depends on the type: see cfctl pool bench")
_SHARE: Final = "it tells nothing of that: call cfctl.alloc.share_facts() in it"
_SHARE_OR_COUNT: Final = f"{_SHARE}, or run it under cfctl alloc run"


def _named(entry: SeenEntry) -> str:
    return safe_text(entry.now.name, 60)


@check(
    "MEM_FRAGMENTATION",
    "malloc holds much memory that nobody uses",
    Severity.MEDIUM,
    Area.PROCESS_MEMORY,
    rule=f"more than {_FREE_RATIO:.0%} and {_FREE_BYTES // _MIB} MiB of the heap is free, or of RssAnon not live",
    source="mallinfo2 (mallinfo(3)), or the live bytes of cfctl alloc run against RssAnon; judgement",
    solution="Limit the arenas (MALLOC_ARENA_MAX=2), call malloc_trim(0) after a peak, or try jemalloc or mimalloc.",
    impact=SPACE,
    scope=Scope.PROCESS,
    needs=("pid", "segments"),
)
def mem_fragmentation(host: Host) -> Outcome:
    """Free memory between live blocks is resident and of no use; new blocks land on cold pages."""
    used, whole, what = _heap(host)
    free = max(0, whole - used)
    text = f"{size(used)} of {size(whole)} ({what}) are in use"
    if free <= _FREE_BYTES or free <= _FREE_RATIO * whole:
        return Pass(text)
    return Issue(
        f"{text}; {size(free)} are held free.",
        Fix(privilege=None),
    )  # fmt: skip


def _heap(host: Host) -> tuple[int, int, str]:
    """Return bytes in use, bytes held, and what these are of."""
    for entry in host.entries("interpreter"):
        if entry.has("heap_known") and entry.value("heap_known"):
            used = host.saw("segment, mallinfo2 in use", entry.value("heap_in_use_bytes"))
            free = host.saw("segment, mallinfo2 free", entry.value("heap_free_bytes"))
            return used, used + free, "malloc's heap"
    for entry in host.entries("alloc_process"):
        live = host.saw("segment, live bytes counted by the preload", entry.value("live_bytes"))
        return live, resident_anonymous(host), "anonymous resident memory"
    raise UnobservableError(_SHARE_OR_COUNT)


def _interpreters(host: Host) -> Sequence[SeenEntry]:
    found = host.entries("interpreter")
    if not found:
        raise UnobservableError(_SHARE)
    return found


@check(
    "GC_UNCOLLECTABLE",
    "The collector can not free some objects",
    Severity.HIGH,
    Area.PROCESS_MEMORY,
    rule="uncollectable > 0",
    source="Python, gc module: gc.garbage",
    solution="Look at gc.garbage: print(cfctl.diagnose.memory.cycles()); break each cycle by weakref.ref.",
    impact=SPACE,
    scope=Scope.PROCESS,
    needs=("segments",),
)
def gc_uncollectable(host: Host) -> Outcome:
    """They lie in gc.garbage for good."""
    count = sum(host.saw("segment, uncollectable", e.value("uncollectable")) for e in _interpreters(host))
    if count == 0:
        return Pass("all garbage was collected")
    return Issue(
        f"{count} objects could not be collected.",
        Fix(privilege=None),
    )


@check(
    "GC_PAUSES",
    "The garbage collector pauses the program",
    Severity.MEDIUM,
    Area.PROCESS_MEMORY,
    rule="a pause > 10 ms, or > 5 % of the interval in pauses",
    source="judgement; the remedies: Python, gc.freeze and gc.set_threshold",
    solution="Call gc.freeze() once the program is set up, raise the thresholds (gc.set_threshold), and make fewer cycles.",
    impact=SEEN_BY_CHECK,
    scope=Scope.PROCESS,
    needs=("segments",),
)
def gc_pauses(host: Host) -> Outcome:
    """All Python threads stand still while it runs; a full collection visits every container."""
    longest_ns = 0
    ratio = 0.0
    for entry in _interpreters(host):
        longest_ns = max(longest_ns, host.saw("segment, longest pause, ns", entry.value("longest_pause_ns")))
        rise = entry.rise("pause_ns")
        seconds = host.live().course_ns / 1e9
        if rise is not None and seconds > 0:
            ratio = max(ratio, host.saw("segment, pauses in the interval, ns", rise) / 1e9 / seconds)
    text = f"{format_quantity(longest_ns, 'ns')} at most, {ratio:.1%} of the interval"
    if longest_ns <= _PAUSE_NS and ratio <= _PAUSE_RATIO:
        return Pass(text)
    return Issue(
        f"Pauses take {text}.",
        Fix(privilege=None),
        observed=observed(ratio * 1e9, "pauses counted by the interpreter over the interval") if ratio > 0 else None,
    )  # fmt: skip


@check(
    "GC_CYCLES",
    "The program makes reference cycles all the time",
    Severity.LOW,
    Area.PROCESS_MEMORY,
    rule=f"more than {_CYCLES_PER_S} objects a second are freed by the collector",
    source="judgement",
    solution="Find the cycles by cfctl alloc run --cycles -- python app.py, and hold the way back by weakref.ref.",
    impact=SPACE,
    scope=Scope.PROCESS,
    needs=("segments", "interval"),
)
def gc_cycles(host: Host) -> Outcome:
    """An object in a cycle lives until the collector finds it: memory is held, and the collector works."""
    seconds = host.live().course_ns / 1e9
    rises = [entry.rise("collected") for entry in _interpreters(host)]
    if seconds <= 0 or None in rises:
        raise UnobservableError("needs an interval: run with --duration")
    rate = host.saw("segment, objects collected in the interval", sum(rise or 0 for rise in rises)) / seconds
    if rate <= _CYCLES_PER_S:
        return Pass(f"{rate:.0f} objects a second")
    return Issue(
        f"{rate:.0f} objects a second are freed only by the collector.",
        Fix(privilege=None),
    )


def _pools(host: Host) -> Sequence[SeenEntry]:
    return host.entries("pool")


_NO_POOL: Final = NotApplicable("it has no cfctl.Pool")


@check(
    "POOL_MISSES",
    "A pool misses often",
    Severity.MEDIUM,
    Area.PROCESS_MEMORY,
    rule=f"hit ratio < {_HIT_RATIO:.0%} of {_LEAST_ACQUIRES} acquires or more",
    source="judgement",
    solution="Raise max_idle when items were dropped for want of room, else release what is acquired.",
    impact=_BENCH,
    scope=Scope.PROCESS,
    needs=("segments",),
)
def pool_misses(host: Host) -> Outcome:
    """Each miss makes an object, which is what the pool is there to spare."""
    pools = _pools(host)
    if not pools:
        return _NO_POOL
    poor = []
    dropped = 0
    for entry in pools:
        counts = [entry.rise(field) for field in ("hits", "misses", "discarded")]
        hits, misses, discarded = (
            entry.value(field) if rise is None else rise
            for field, rise in zip(("hits", "misses", "discarded"), counts, strict=True)
        )
        acquired = hits + misses
        if acquired >= _LEAST_ACQUIRES and hits < _HIT_RATIO * acquired:
            host.saw(f"segment, pool {_named(entry)}", f"{hits} hits, {misses} misses, {discarded} dropped")
            poor.append(f"{_named(entry)} {hits / acquired:.0%}")
            dropped += discarded
    if not poor:
        return Pass(f"{len(pools)} pools hit, or are asked too seldom to tell")
    solution = (
        "Raise max_idle: items were dropped for want of room."
        if dropped
        else "Release what is acquired: no item was dropped, so the missing ones are still out."
    )
    return Issue(f"Hit ratio: {', '.join(poor)}.", Fix(privilege=None, solution=solution))


@check(
    "POOL_LEAK",
    "A pool's items do not come back",
    Severity.HIGH,
    Area.PROCESS_MEMORY,
    rule="items lost, or more of them in use at the end of the interval, at their highest, and new ones made",
    source="judgement",
    solution="Use the block form, which releases whatever happens: with pool.item() as item.",
    impact=SPACE,
    scope=Scope.PROCESS,
    needs=("segments",),
)
def pool_leak(host: Host) -> Outcome:
    """The pool makes a new item for each that is not released: it is a leak with a counter."""
    pools = _pools(host)
    if not pools:
        return _NO_POOL
    leaking = []
    for entry in pools:
        lost, in_use = entry.value("lost"), entry.value("in_use")
        rises = in_use >= entry.value("high_water") and (entry.rise("in_use") or 0) > 0
        if lost or (rises and (entry.rise("created") or 0) > 0):
            host.saw(f"segment, pool {_named(entry)}", f"{in_use} in use, {lost} lost")
            leaking.append(f"{_named(entry)}: {lost} lost, {in_use} in use")
    if not leaking:
        return Pass(f"{len(pools)} pools get their items back")
    return Issue(
        f"{'; '.join(leaking)}.",
        Fix(privilege=None),
    )


@check(
    "POOL_MISUSE",
    "Items are released that must not be",
    Severity.HIGH,
    Area.PROCESS_MEMORY,
    rule="misuses > 0",
    source="cfctl.Pool: PoolError",
    solution="Find the PoolError in the program's log, and release once.",
    impact=REFUSES,
    scope=Scope.PROCESS,
    needs=("segments",),
)
def pool_misuse(host: Host) -> Outcome:
    """Who releases an item twice, or another's, may use it while somebody else does."""
    pools = _pools(host)
    if not pools:
        return _NO_POOL
    wrong = [(entry, entry.value("misuses")) for entry in pools if entry.value("misuses")]
    for entry, count in wrong:
        host.saw(f"segment, pool {_named(entry)}, misuses", count)
    if not wrong:
        return Pass(f"{len(pools)} pools refused no release")
    text = ", ".join(f"{_named(entry)} {count}" for entry, count in wrong)
    return Issue(
        f"Releases that were refused: {text}.",
        Fix(privilege=None),
    )


@check(
    "SUBSCRIPTIONS_LEFT",
    "Subscriptions are never ended",
    Severity.MEDIUM,
    Area.PROCESS_MEMORY,
    rule="some were made and none ended in the interval",
    source="the performance guide, Subscription Management",
    solution="Unsubscribe when the subscriber goes, or keep no reference: a dropped subscription ends by itself.",
    impact=SPACE,
    scope=Scope.PROCESS,
    needs=("segments",),
)
def subscriptions_left(host: Host) -> Outcome:
    """Each holds a place in every ring of its topic, which waits for it, and counters in the segment."""
    found = host.entries("bus_dispatcher")
    if not found:
        return NotApplicable("it has no cfctl.bus.Bus")
    left = []
    total = 0
    for entry in found:
        open_now = entry.value("subscribed") - entry.value("unsubscribed")
        total += host.saw(f"segment, {_named(entry)}, subscriptions open", open_now)
        made, ended = entry.rise("subscribed"), entry.rise("unsubscribed")
        if made and not ended:
            left.append(f"{_named(entry)} made {made}, {open_now} are open")
    if not left:
        if not found[0].segment.has_interval and total:
            raise UnobservableError("needs an interval: run with --duration")
        return Pass(f"{total} subscriptions open, none that pile up")
    return Issue(f"None ended in the interval: {'; '.join(left)}.", Fix(privilege=None))
