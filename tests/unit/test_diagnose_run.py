from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cfctl.diagnose import engine
from cfctl.diagnose.advice import Command, Fix, actor_for, addressed
from cfctl.diagnose.budget import Budget
from cfctl.diagnose.engine import Issue, Outcome, Pass, check
from cfctl.diagnose.impact import NOT_YET
from cfctl.diagnose.record import Actor, Area, CheckResult, Commands, Scope, Status, Threshold
from cfctl.diagnose.run import Request, diagnose, judged, ranked
from cfctl.errors import InputError
from cfctl.host.environment import Environment
from cfctl.records import Severity, Verdict
from tests.hosts.cases import GOOD
from tests.hosts.fake_host import FakeHost, MemoryView

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cfctl.diagnose.measurements import Measurements
    from cfctl.diagnose.probing import ProbePlan
    from cfctl.diagnose.subject import Host
    from cfctl.host.view import HostView

BARE, GUEST = Environment("none", "none", ()), Environment("kvm", "none", ())
CONTAINER = Environment("none", "docker", ())


def result(
    id: str, severity: Severity = Severity.HIGH, status: Status = Status.ISSUE, **more: Any
) -> CheckResult:
    actor = Actor.YOU if status is Status.ISSUE else None
    base = CheckResult(
        id, Area.CLOCK, "t", status, severity, actor, "d", "w", None, None, Commands(), (), Threshold("r", "s"),
        None, None, None,
    )  # fmt: skip
    return replace(base, **more)


def test_an_issue_of_yours_at_the_limit_fails() -> None:
    verdict, reason = judged([result("A"), result("B", Severity.LOW)], Severity.HIGH)
    assert verdict is Verdict.FAIL
    assert "A" in reason
    assert "B" not in reason


@pytest.mark.parametrize("actor", [Actor.HOST_OPERATOR, Actor.INFORMATIONAL])
def test_what_others_must_fix_does_not_fail(actor: Actor) -> None:
    assert judged([result("A", Severity.CRITICAL, actor=actor)], Severity.LOW)[0] is Verdict.PASS


@pytest.mark.parametrize("status", [Status.UNOBSERVABLE, Status.ERROR])
def test_what_is_not_seen_counts_only_when_it_is_required(status: Status) -> None:
    results = [result("A", status=status), result("B", status=Status.PASS)]
    assert judged(results, Severity.LOW)[0] is Verdict.PASS
    assert judged(results, Severity.LOW, ("A",))[0] is Verdict.INCONCLUSIVE
    assert judged([], Severity.LOW, ("A",))[0] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("status", [Status.UNOBSERVABLE, Status.ERROR])
def test_a_host_of_which_nothing_is_seen_is_not_judged(status: Status) -> None:
    others = [result("B", status=Status.NOT_APPLICABLE), result("C", status=status)]
    verdict, reason = judged([result("A", status=status), *others], Severity.LOW)
    assert verdict is Verdict.INCONCLUSIVE
    assert reason == "nothing was observed: 2 of 3 checks could not see"


def test_a_required_check_that_does_not_apply_is_satisfied() -> None:
    assert judged([result("A", status=Status.NOT_APPLICABLE)], Severity.LOW, ("A",))[0] is Verdict.PASS


def test_results_are_ranked_by_status_severity_loss_and_actor() -> None:
    names = ["P", "low", "high-2", "high-1", "U", "operator"]
    results = [
        result("P", status=Status.PASS),
        result("low", Severity.LOW, impact_ns_per_s=9e9),
        result("high-2", impact_ns_per_s=1.0),
        result("high-1", impact_ns_per_s=2.0),
        result("U", Severity.CRITICAL, Status.UNOBSERVABLE),
        result("operator", impact_ns_per_s=1.0, actor=Actor.HOST_OPERATOR),
    ]
    assert {r.id for r in results} == set(names)
    assert [r.id for r in ranked(results)] == ["high-1", "high-2", "operator", "low", "U", "P"]


@pytest.mark.parametrize(
    ("scope", "environment", "writable", "actor"),
    [
        (Scope.PROCESS, CONTAINER, False, Actor.YOU),
        (Scope.KERNEL, BARE, True, Actor.YOU),
        (Scope.KERNEL, GUEST, True, Actor.YOU),
        (Scope.KERNEL, CONTAINER, True, Actor.YOU),
        (Scope.KERNEL, CONTAINER, False, Actor.HOST_OPERATOR),
        (Scope.MACHINE, GUEST, True, Actor.HOST_OPERATOR),
        (Scope.MACHINE, BARE, True, Actor.YOU),
        (Scope.MACHINE, CONTAINER, False, Actor.HOST_OPERATOR),
    ],
)
def test_who_acts_follows_from_where_the_remedy_lies(
    scope: Scope, environment: Environment, writable: bool, actor: Actor
) -> None:
    assert actor_for(scope, environment, writable) is actor


def test_a_command_that_this_kernel_does_not_know_is_not_given() -> None:
    fix = Fix((Command("new", "proc/sys/new"), Command("old", "proc/sys/old"), Command("any")))
    view = MemoryView({"proc/sys/old": "1"}, {})
    assert addressed(fix, "Do it.", Actor.YOU, view) == ("Do it.", Commands(("old", "any"), ()))
    assert addressed(fix, "Do it.", Actor.HOST_OPERATOR, view) == (
        "ask the host operator: do it (old).",
        Commands(),
    )


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test register checks of its own and forget them."""
    engine.every_check()
    known = dict(engine._registered)
    yield
    engine._registered.clear()
    engine._registered.update(known)
    engine.every_check.cache_clear()


@pytest.mark.usefixtures("registered")
def test_a_check_that_raises_is_an_error_and_the_others_go_on(tmp_path: Path) -> None:
    engine.every_check.cache_clear()

    @check(
        "BROKEN",
        "Broken",
        Severity.LOW,
        Area.CLOCK,
        rule="never",
        source="a test",
        solution="Stop.",
        impact=NOT_YET,
    )
    def broken(host: Host) -> Outcome:
        """It breaks."""
        raise ZeroDivisionError("\x1b[31mred")

    FakeHost.load("bare_tuned").build(tmp_path)
    diagnosis = diagnose(Request(sysroot=str(tmp_path)))
    found = {r.id: r for r in diagnosis.checks}
    assert found["BROKEN"].status is Status.ERROR
    assert "ZeroDivisionError" in str(found["BROKEN"].reason)
    assert "\x1b" not in str(found["BROKEN"].reason)
    assert diagnosis.counts["error"] == 1
    assert len(found) == len(engine.catalogue())


def probed(plan: ProbePlan, measured: Measurements, progress: object) -> Measurements:
    assert plan.wanted == {"slack"}
    return replace(measured, effects=GOOD.effects)


def test_a_cost_comes_from_the_probe_that_measures_it() -> None:
    live = LiveHost()
    request = Request(only=("TIMER_SLACK",))
    diagnosis = diagnose(request, open_view=live.open_view, sleep=live.sleep, probe=probed)
    found = diagnosis.checks[0]
    assert found.impact is not None
    assert (found.impact.value, found.impact.unit) == (53e3, "ns/wake-up")
    assert found.impact_ns_per_s == 53e3 * 5e3
    assert found.verify == "cfctl diagnose latency --only TIMER_SLACK --pid PID"


def test_a_cost_that_was_not_measured_is_missing_with_its_reason() -> None:
    live = LiveHost()
    request = Request(only=("TIMER_SLACK", "FD_LIMIT"), measure=False)
    diagnosis = diagnose(request, open_view=live.open_view, sleep=live.sleep)
    reasons = {check.id: check.impact.reason for check in diagnosis.checks if check.impact}
    assert reasons == {
        "TIMER_SLACK": "not measured",
        "FD_LIMIT": "it does not slow the program down, it makes it fail",
    }


def test_a_missed_target_fails_and_one_that_can_not_be_judged_is_inconclusive() -> None:
    def budget(verdict: Verdict) -> Budget:
        return Budget(0.99, 50_000, "timer", verdict, "why", None, None, None, None, None)

    assert judged([], Severity.HIGH, (), budget(Verdict.FAIL)) == (Verdict.FAIL, "the target is missed")
    assert judged([], Severity.HIGH, (), budget(Verdict.INCONCLUSIVE))[0] is Verdict.INCONCLUSIVE
    assert judged([], Severity.HIGH, (), budget(Verdict.PASS))[0] is Verdict.PASS
    assert judged([result("A")], Severity.HIGH, (), budget(Verdict.PASS))[0] is Verdict.FAIL


@pytest.mark.usefixtures("registered")
def test_a_sample_that_raises_is_an_error_of_its_check_only(tmp_path: Path) -> None:
    engine.every_check.cache_clear()

    def broken_sample(view: HostView, pid: int | None) -> int:
        raise KeyError("counter")

    @check(
        "BROKEN",
        "Broken",
        Severity.LOW,
        Area.CLOCK,
        rule="never",
        source="a test",
        solution="Stop.",
        impact=NOT_YET,
        sample=broken_sample,
    )
    def broken(host: Host) -> Outcome:
        """It breaks."""
        return Pass(str(host.change(broken_sample)))

    diagnosis = diagnose(Request(sysroot=str(FakeHost.load("bare_tuned").build(tmp_path))))
    assert [(r.id, r.reason) for r in diagnosis.checks if r.status is Status.ERROR] == [
        ("BROKEN", "KeyError: 'counter'")
    ]


@pytest.mark.usefixtures("registered")
def test_two_checks_can_not_share_an_id() -> None:
    def register(module: str) -> None:
        def judge(host: Host) -> Outcome:
            """Say nothing."""
            return Pass("fine")

        judge.__module__ = module
        check(
            "TWICE",
            "Twice",
            Severity.LOW,
            Area.CLOCK,
            rule="never",
            source="a test",
            solution="Stop.",
            impact=NOT_YET,
        )(judge)

    register("one")
    with pytest.raises(ValueError, match="two checks are called TWICE"):
        register("another")


@pytest.mark.usefixtures("registered")
def test_text_of_a_check_can_not_carry_an_escape_sequence() -> None:
    @check(
        "LOUD",
        "Loud",
        Severity.LOW,
        Area.CLOCK,
        rule="always",
        source="a test",
        solution="Stop.",
        impact=NOT_YET,
        scope=Scope.PROCESS,
    )
    def loud(host: Host) -> Outcome:
        """It shouts."""
        host.saw("name", "\x1b[31mred\x1b]0;title\x07")
        return Issue("\x1b[2Jcleared", Fix())

    from cfctl.diagnose.subject import Facts

    found = engine.run_check(engine._registered["LOUD"], Facts(MemoryView({}, {}), None, "timer", None))
    assert "\x1b" not in f"{found.description}{found.evidence[0].raw}"


def live_request(**more: Any) -> Request:
    return Request(only=("CPU_STEAL", "THP_ALWAYS"), measure=False, **more)


class LiveHost:
    """Views of a guest whose clock moves when the diagnosis sleeps; counts what happens."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.slept: list[float] = []
        self.host = FakeHost.load("kvm_guest")

    def open_view(self, sysroot: str) -> HostView:
        assert sysroot == "/"
        return MemoryView(self.host.files, {**self.host.syscalls, "monotonic_ns": self.now_ns})

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)


def test_a_live_run_sleeps_once_for_all_counters() -> None:
    live = LiveHost()
    diagnosis = diagnose(live_request(interval_ns=3_000_000_000), open_view=live.open_view, sleep=live.sleep)
    assert live.slept == [3.0]
    assert diagnosis.interval_s == 3.0
    assert {r.id: r.status for r in diagnosis.checks} == {"CPU_STEAL": Status.PASS, "THP_ALWAYS": Status.PASS}


def test_an_interval_of_zero_takes_one_view_and_says_so() -> None:
    live = LiveHost()
    diagnosis = diagnose(live_request(interval_ns=0), open_view=live.open_view, sleep=live.sleep)
    assert live.slept == []
    steal = next(r for r in diagnosis.checks if r.id == "CPU_STEAL")
    assert (steal.status, str(steal.reason).split(":")[0]) == (Status.UNOBSERVABLE, "needs two samples")


def test_no_interval_is_waited_for_when_no_counter_is_asked_for() -> None:
    live = LiveHost()
    diagnose(Request(only=("THP_ALWAYS",)), open_view=live.open_view, sleep=live.sleep)
    assert live.slept == []


def test_probes_run_only_for_what_is_an_issue_here() -> None:
    live, asked = LiveHost(), []

    def remember(plan: ProbePlan, measured: Measurements, progress: object) -> Measurements:
        asked.append(plan.wanted)
        return measured

    # The guest's timers are slack and its huge pages tame: only the first is worth a probe.
    request = Request(only=("TIMER_SLACK", "THP_ALWAYS", "NET_BUSY_POLL"), skip=("NET_BUSY_POLL",))
    found = diagnose(request, open_view=live.open_view, sleep=live.sleep, probe=remember)
    assert {result.id: result.status for result in found.checks}["THP_ALWAYS"] is Status.PASS
    assert asked == [{"slack"}]


def test_measurements_are_made_only_when_a_check_needs_them() -> None:
    live, made = LiveHost(), []

    def measure() -> Measurements:
        made.append(1)
        return GOOD

    diagnose(Request(only=("THP_ALWAYS",)), open_view=live.open_view, sleep=live.sleep, measure=measure)
    assert made == []
    diagnosis = diagnose(
        Request(only=("TSC_CPU_SKEW",)), open_view=live.open_view, sleep=live.sleep, measure=measure
    )
    assert made == [1]
    assert diagnosis.measurements == GOOD


@pytest.mark.parametrize(
    ("request_", "hint"),
    [
        (Request(only=("THP_ALWAY",)), "THP_ALWAYS"),
        (Request(skip=("NOPE",)), "--list"),
        (Request(required=("CPU_STEEL",)), "CPU_STEAL"),
        (Request(profile="fast"), "busy-poll"),
        (Request(sysroot="/proc/self/status"), "no capture"),
        (Request(pid=999_999_999, measure=False, interval_ns=0), "process 999999999"),
    ],
)
def test_what_does_not_exist_is_refused_with_a_hint(request_: Request, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        diagnose(request_)
