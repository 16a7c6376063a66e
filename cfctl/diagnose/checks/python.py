"""Checks of a Python program: its global lock and its garbage collector."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Fix
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import COLLECTION, GIL, PER_COLLECTION, PER_HAND_OVER, cost_of
from cfctl.diagnose.record import Actor, Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.processes import directory, run_delay
from cfctl.host.view import garbage, shown
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

# The interpreter that runs a script stands first, also when the script was started by its own name.
_INTERPRETER: Final = re.compile(r"python(?:\d+(?:\.\d+)*)?(t?)")
_BUSY_RATIO: Final = 0.1


def _build(host: Host) -> str | None:
    """Return "" for a target that is Python, "t" without the global lock; None for another program."""
    path = f"{directory(host.pid)}/cmdline"
    command = host.view.text(path).split("\0")[0]
    if not command:
        raise garbage(path, "", "the command line of a program")
    host.saw(shown(path), command)
    match = _INTERPRETER.fullmatch(command.rpartition("/")[2])
    return None if match is None else match[1]


@check(
    "PY_GIL_SWITCH",
    "Threads of a Python program wait for its global lock",
    Severity.LOW,
    Area.PROCESS,
    rule="two or more threads of a Python target with the global lock each run > 10 % of the interval",
    source="Python, sys.setswitchinterval: 5 ms by default; judgement",
    solution="Put the hot one into a process of its own, or lower the interval: sys.setswitchinterval(0.0005).",
    impact=cost_of(GIL, PER_HAND_OVER),
    scope=Scope.PROCESS,
    sample=run_delay,
)
def py_gil_switch(host: Host) -> Outcome:
    """A thread that wakes up asks for the global lock and waits for the switch interval, 5 ms by
    default, before a thread that computes lets it go."""
    build = _build(host)
    if build is None:
        return NotApplicable("the target is no Python program")
    if build == "t":
        return NotApplicable("this build of Python has no global lock")
    change = host.change(run_delay)
    shares = {
        path: (after.run_ns - change.before[path].run_ns) / 1e9 / change.seconds
        for path, after in change.after.items()
        if path in change.before
    }
    busy = sorted((share for share in shares.values() if share > _BUSY_RATIO), reverse=True)
    host.saw(
        f"{shown(directory(host.pid))}/task/*/schedstat, share of the time each busy thread ran",
        [round(share, 3) for share in busy[:8]],
        f"{len(busy)} of {len(shares)} threads: {', '.join(f'{share:.0%}' for share in busy[:8]) or 'none'}",
    )
    if len(busy) < 2:
        return Pass(f"{len(busy)} of {len(shares)} threads run more than {_BUSY_RATIO:.0%} of the time")
    return Issue(
        f"{len(busy)} busy threads share one global lock.",
        Fix(
            privilege=None,
        ),
    )


@check(
    "PY_GC_ENABLED",
    "The garbage collector may run at any allocation",
    Severity.LOW,
    Area.PROCESS,
    rule="gc.isenabled() in the Python program that asks",
    source="Python, gc: gc.disable and gc.freeze",
    solution="In a hot Python program: gc.freeze() and gc.disable() after its warm-up.",
    impact=cost_of(COLLECTION, PER_COLLECTION),
    scope=Scope.PROCESS,
)
def py_gc_enabled(host: Host) -> Outcome:
    """A collection walks the objects of the program, a full one all of them: milliseconds in the
    middle of whatever allocated."""
    if host.pid is not None:
        if _build(host) is None:
            return NotApplicable("the target is no Python program")
        raise UnobservableError(
            "another interpreter's collector does not show from outside: ask gc.isenabled() in the program"
        )
    collector = host.asked("gc.isenabled, gc.get_threshold", host.view.syscalls.collector)
    if not collector.enabled:
        return Pass("the collector is off in the program that asks")
    return Issue(
        f"The collector runs after {collector.threshold} allocations, as in every Python program until it is told not to.",
        Fix(privilege=None),
        # The program that asks is mostly cfctl itself: it says how programs start, nobody has to act.
        actor=Actor.INFORMATIONAL,
    )
