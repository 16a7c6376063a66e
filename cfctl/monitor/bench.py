"""The bench: work of cfctl's own for every target, one section after the other, and what was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.bench.disturbance import DISTURBED, lost_share, waited_ns
from cfctl.bench.workers import Worker, require_alive, workers
from cfctl.bench.workload import WAITING
from cfctl.errors import CfctlError, InputError, StateError
from cfctl.monitor.check import NotApplicable, asked, run_check
from cfctl.monitor.metric import Subject, gauges
from cfctl.monitor.repeats import combined, median_of
from cfctl.monitor.segments import LiveSegments
from cfctl.monitor.snapshot import Collector, Series, Snapshot
from cfctl.monitor.targets import BUILT_IN
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint
    from cfctl.monitor.check import CheckDocument, InconclusivePolicy
    from cfctl.monitor.metric import Labels
    from cfctl.monitor.targets import Target

# At this share of the usable CPUs the bench is what keeps them busy, whatever else runs.
_OCCUPIED: Final = 0.9
# What a new connection costs, and the first allocations, are not what is measured.
_WARM_UP_S: Final = 0.2
# What is no worse while other programs run.
_UNDISTURBED: Final = frozenset({"memory_rss", "packet_loss", "temporal_accuracy", "calibration_age"})


@dataclass(frozen=True, slots=True)
class Plan:
    """A section: what it does, the processes that run at once, for how long, and the metrics it is for.

    `metrics` are patterns. Of `memory_rss` only `memory_of`'s is kept, of the operations not the waiting.
    """

    name: str
    what: str
    roles: tuple[str, ...]
    duration_s: float
    metrics: tuple[str, ...]
    memory_of: str = ""

    def concerns(self, metric: str) -> bool:
        """Return whether the section is for a metric."""
        return any(fnmatchcase(metric, pattern) for pattern in self.metrics)


PLANS: Final = (
    Plan(
        "throughput", "One process publishes as fast as another one receives.", ("receive", "publish"), 2.0,
        ("message_rate", "publish_rate", "packet_loss", "memory_rss", "cpu_utilization"), "publish",
    ),
    Plan(
        "latency", "One message at a time, to a subscriber that spins.", ("receive_spinning", "publish_paced"), 2.5,
        ("message_latency_*",),
    ),
    Plan(
        "schedule", "Messages with deadlines through the dispatcher.", ("schedule",), 2.0,
        ("phase_coherence", "schedul*", "deadline_misses", "hlc_drift"),
    ),
    Plan("operations", "An operation with nothing in it: what timing costs.", ("operate",), 0.7, ("operation_*",)),
    Plan("pool", "An item is taken from a pool and given back.", ("take_and_return",), 0.7, ("pool_*",)),
    Plan("clock", "Tick-derived time against its reference.", (), 0.0, ("temporal_accuracy", "calibration_age")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """What one section measured.

    `lost`: CPU time that other programs and the hypervisor took from it; `spun`: CPU time burnt by
    waiting on purpose; both per time, 1 is a whole CPU. `problem`: why nothing could be measured.
    """

    name: str
    what: str
    duration_ns: int
    series: tuple[Series, ...]
    lost: Measurement
    spun: Measurement
    problem: str | None = None

    @property
    def disturbed(self) -> bool:
        """Return whether so much was lost that what it measured may be made of that."""
        return (self.lost.value or 0.0) > DISTURBED


@dataclass(frozen=True, slots=True)
class BenchDocument(Document):
    """What the bench measured, by section; of several runs the medians, of the calm ones where there are any."""

    SCHEMA: ClassVar[str] = "cfctl.bench"
    VERSION: ClassVar[int] = 1
    sections: tuple[Section, ...]
    runs: int = 1
    host: Fingerprint | None = None

    def snapshot(self) -> Snapshot:
        """Return all that was measured as one snapshot, whose window is that of all sections."""
        return Snapshot(
            time.time_ns(),
            sum(section.duration_ns for section in self.sections),
            tuple(series for section in self.sections for series in section.series),
            problems=tuple(f"{s.name}: {s.problem}" for s in self.sections if s.problem),
        )

    def notes(self) -> tuple[str, ...]:
        """Return what is told and not judged: CPU time that was burnt on purpose, and that others took."""
        spun = (
            f"{s.name}: {s.spun.value:.2f} CPUs were burnt by deliberate spin-waiting, which is not judged."
            for s in self.sections
            if (s.spun.value or 0.0) > DISTURBED
        )
        lost = (
            f"{s.name}: other programs and the hypervisor took {s.lost.value:.2f} CPUs meanwhile."
            for s in self.sections
            if s.disturbed
        )
        return (*spun, *lost)

    def doubts(self) -> dict[tuple[str, Labels], str]:
        """Return why a miss says nothing of this machine at rest, by metric and labels of a disturbed series."""
        return {
            (series.metric, series.labels): (
                f"Other programs and the hypervisor took {section.lost.value or 0:.0%} of a CPU from the bench meanwhile; "
                "on a quiet machine it may be met."
            )
            for section in self.sections
            if section.disturbed
            for series in section.series
            if series.metric not in _UNDISTURBED
        }


@dataclass
class Bench:
    """Runs sections; takes the sum of their durations and half a second for each. Not thread-safe.

    With `settle` it is calibrated first where no calibration is saved, and the clock's section waits
    until that is 60 s old.
    """

    plans: Sequence[Plan] = PLANS
    settle: bool = False
    began: Callable[[Plan], None] = lambda _plan: None
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    start: Callable[[Sequence[str], str], AbstractContextManager[dict[str, Worker]]] = field(
        default=workers, repr=False
    )

    def run(self) -> BenchDocument:
        """Return what all sections measured; one that fails has a problem, and its metrics are missing."""
        if self.settle:
            _calibrated()
        sections = []
        for plan in self.plans:
            self.began(plan)
            try:
                sections.append(self._measured(plan))
            except CfctlError as error:
                sections.append(failed(plan, str(error)))
        return BenchDocument(tuple(sections))

    def _measured(self, plan: Plan) -> Section:
        with self.start(plan.roles, f"bench {os.getpid()} {plan.name}") as started:
            pids = {role: worker.pid for role, worker in started.items()}
            self.sleep(_WARM_UP_S if started else 0.0)
            # No process of the bench runs while the clock settles.
            settle = self.settle and plan.concerns("temporal_accuracy")
            collector = Collector(Subject(tuple(pids.values()), settle=settle), LiveSegments())
            first, waited_before = collector.collect(), waited_ns(pids.values())
            self.sleep(plan.duration_s)
            waited, last = waited_ns(pids.values()), collector.collect()
            require_alive(started)
        usable = len(os.sched_getaffinity(0))
        found = section_of(plan, first, last, pids, _grown(waited_before, waited), usable)
        if pids and not any(s.labels for s in found.series if s.metric != "memory_rss"):
            # Of memory the kernel tells; all else the processes have to record themselves.
            raise StateError("The bench's processes recorded nothing that can be read.", *last.problems[:1])
        return found


def _calibrated() -> None:
    """Publish a calibration of this process where none is saved, so that it ages while the sections run."""
    from cfctl.monitor.sources.clock import LibraryClock

    clock = LibraryClock()
    try:
        if clock.calibration() is None:
            clock.calibrate()
    except CfctlError:
        # The clock's section meets it again, and says so.
        return


def chosen(names: Sequence[str]) -> tuple[Plan, ...]:
    """Return the plans of sections by name, all of them without one; raises InputError."""
    known = {plan.name: plan for plan in PLANS}
    for name in names:
        if name not in known:
            raise InputError(f"The bench has no section '{name}'.", f"There are: {', '.join(known)}.")
    return tuple(plan for plan in PLANS if not names or plan.name in names)


def plans_for(metrics: Iterable[str]) -> tuple[Plan, ...]:
    """Return the sections that measure any of some metrics."""
    wanted = set(metrics)
    return tuple(plan for plan in PLANS if any(map(plan.concerns, wanted)))


def failed(plan: Plan, reason: str) -> Section:
    """Return a section that could not be measured: all it is for is missing, with the reason."""
    missing = Measurement.missing("ratio", reason)
    series = tuple(
        Series(name, Measurement.missing(metric.unit, reason), subject=f"the bench's section {plan.name}")
        for name, metric in gauges().items()
        if plan.concerns(name)
    )
    return Section(plan.name, plan.what, 0, series, missing, missing, reason)


def section_of(
    plan: Plan, first: Snapshot, last: Snapshot, pids: dict[str, int], waited: int | None, usable: int
) -> Section:
    """Return what a plan is for of the window between two snapshots of its processes, which `usable` CPUs had."""
    cpus = len(last.of("cpu_core_utilization"))
    spun = spun_share(first, last)
    own = [s.measurement.value for s in last.of("process_cpu") if s.measurement.value is not None]
    busy, steal = (_value(last, name) for name in ("cpu_utilization", "cpu_steal"))
    lost = lost_share(
        waited_ns=waited, window_ns=last.window_ns, busy_cpus=None if busy is None else busy * cpus,
        own_cpus=sum(own) if len(own) == len(pids) else None, steal_cpus=None if steal is None else steal * cpus,
    ) if pids else Measurement.missing("ratio", "no process of its own")  # fmt: skip
    memory_of = str(pids.get(plan.memory_of, ""))
    kept = (
        _of_section(plan, _load(series, sum(own), spun.value or 0.0, cpus, usable))
        for series in last.series
        if plan.concerns(series.metric)
        and (series.metric != "memory_rss" or dict(series.labels).get("pid") == memory_of)
    )
    return Section(plan.name, plan.what, last.window_ns, tuple(kept), lost, spun)


def _of_section(plan: Plan, series: Series) -> Series:
    """Return a series of one of the bench's processes as the section's: its pid and names are of one run only."""
    if not series.labels:
        return series
    whose = f" ({plan.memory_of})" if series.metric == "memory_rss" else ""
    subject = f"the bench's section {plan.name}{whose}"
    return replace(series, labels=(("section", plan.name),), subject=subject)


def spun_share(first: Snapshot, last: Snapshot) -> Measurement:
    """Return the CPU time that the workload's processes burnt by waiting, per time."""

    def spent_ns(snapshot: Snapshot) -> float:
        return sum(
            each.sum_ns
            for each in snapshot.distributions
            if each.metric == "operation_duration" and dict(each.labels).get("operation") == WAITING
        )

    if last.window_ns <= 0:
        return Measurement.missing("ratio", "no time went by")
    share = max(0.0, spent_ns(last) - spent_ns(first)) / last.window_ns
    return Measurement(share, "ratio", None, 2, "CPU time inside the calls that wait for a message")


def _load(series: Series, own_cpus: float, spun_cpus: float, cpus: int, usable: int) -> Series:
    """Return the machine's CPU utilization without what was spun; missing where the bench is all of it."""
    measured = series.measurement
    if series.metric != "cpu_utilization" or measured.value is None or cpus == 0:
        return series
    if own_cpus >= _OCCUPIED * usable:
        reason = f"The bench itself occupies all {usable} CPUs it may use ({own_cpus / usable:.0%} of them)."
        return replace(series, measurement=Measurement.missing("ratio", reason))
    method = f"{measured.method}; without the CPU time burnt by deliberate spin-waiting"
    value = max(0.0, measured.value - spun_cpus / cpus)
    return replace(series, measurement=replace(measured, value=value, method=method))


def merged(runs: Sequence[BenchDocument]) -> BenchDocument:
    """Return several runs as one; of each section those that nothing disturbed, where there are any.

    What disturbed a run is known apart from what it measured, so leaving it out chooses no result.
    """
    found = []
    for number, section in enumerate(runs[0].sections):
        every = [run.sections[number] for run in runs]
        whole = [each for each in every if each.problem is None] or every
        calm = [each for each in whole if not each.disturbed] or whole
        together = combined([Snapshot(0, each.duration_ns, each.series) for each in calm])
        found.append(
            replace(
                calm[-1], name=section.name, duration_ns=together.window_ns, series=together.series,
                lost=median_of([each.lost for each in calm]), spun=median_of([each.spun for each in calm]),
            )
        )  # fmt: skip
    return BenchDocument(tuple(found), len(runs), runs[-1].host)


def judged(
    targets: Iterable[Target], measured: BenchDocument, policy: InconclusivePolicy,
    host: Fingerprint | None = None, named: bool = False,
) -> CheckDocument:  # fmt: skip
    """Return the verdicts on what the bench measured; what it could not measure is inconclusive.

    Targets of a user's own program that the bench has nothing of are not applicable, unless `named`.
    """
    snapshot = measured.snapshot()
    about: list[Target] = []
    apart: list[NotApplicable] = []
    for target in targets:
        if named or target.source == BUILT_IN or target.matching(snapshot):
            about.append(target)
        else:
            apart.append(NotApplicable(target, "The bench measures nothing that it is about."))
    found = run_check(asked(tuple(about)), snapshot, policy, host, measured.doubts())
    return replace(
        found, not_applicable=(*found.not_applicable, *apart), notes=measured.notes(), runs=measured.runs
    )


def _value(snapshot: Snapshot, metric: str) -> float | None:
    return next((series.measurement.value for series in snapshot.of(metric)), None)


def _grown(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)
