"""Checks of what else runs on the CPUs of a hot thread: isolation, ticks, callbacks, watchdogs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Fix, boot, kernel_parameter, sysctl, write
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import (
    PER_SWITCH,
    PER_WAKEUP,
    SCHEDULED_OUT,
    SOFTIRQ,
    TICK,
    TOO_RARE,
    cost_of,
    time_lost_to,
)
from cfctl.diagnose.record import Actor, Area
from cfctl.errors import UnobservableError
from cfctl.host.cpus import format_cpu_list, format_cpu_mask, parse_cpu_list
from cfctl.host.kernel import build_options
from cfctl.host.view import Lack, UnreadableError, garbage
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_CPU: Final = "sys/devices/system/cpu"
_NO_ISOLATED: Final = "no CPU is isolated"
_REALTIME: Final = "tuned 2.28 realtime"


def _housekeeping(host: Host, isolated: tuple[int, ...]) -> str:
    return format_cpu_list(set(host.online()) - set(isolated))


def _candidates(host: Host) -> str:
    """Return the CPUs to isolate on this machine: all but the first two."""
    return format_cpu_list(host.online()[2:]) or "LIST"


@check(
    "CPU_NOT_ISOLATED",
    "No CPU is kept free for hot threads",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="no isolated CPU; low with fewer than 4 CPUs",
    source=f"{_REALTIME}; kernel, Documentation/admin-guide/kernel-parameters.txt, isolcpus",
    solution="Keep CPUs for the hot threads.",
    impact=time_lost_to(*SCHEDULED_OUT),
)
def cpu_not_isolated(host: Host) -> Outcome:
    """The scheduler may put any other task on the CPU of a hot thread, which then waits for a time
    slice: milliseconds."""
    isolated = host.isolated()
    partitions = [
        path for path in host.view.matching("sys/fs/cgroup/*/cpuset.cpus.partition")
        if host.view.text(path) == "isolated"
    ]  # fmt: skip
    if isolated or partitions:
        return Pass(
            f"isolated: CPU {format_cpu_list(isolated)}" if isolated else f"partition /{partitions[0]}"
        )
    few = host.cpu_count() < 4
    fix = (
        Fix(privilege=None, solution="Isolate CPUs only on a machine with at least 4.")
        if few
        else boot(f"isolcpus=managed_irq,domain,{_candidates(host)}")
    )
    return Issue(
        f"None of {host.cpu_count()} CPUs is isolated.",
        fix,
        severity=Severity.LOW if few else None,
        # Isolating one of two or three CPUs starves the rest: nobody is asked to.
        actor=Actor.INFORMATIONAL if few else None,
    )


@check(
    "NOHZ_FULL_OFF",
    "The tick interrupts busy loops",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="no nohz_full CPU; low with fewer than 4 CPUs",
    source="kernel, Documentation/timers/no_hz.rst; measured: 251 ticks/s, median 20 us each",
    solution="Stop the tick on the CPUs of the hot threads.",
    impact=time_lost_to(*TICK),
)
def nohz_full_off(host: Host) -> Outcome:
    """The scheduler's tick interrupts a busy CPU 100 to 1000 times a second, each time for
    microseconds and with cold caches after it."""
    path = f"{_CPU}/nohz_full"
    few = Severity.LOW if host.cpu_count() < 4 else None
    enable = boot(
        f"nohz_full={_candidates(host)} rcu_nocbs={_candidates(host)}",
    )
    try:
        cpus = host.cpu_list(path)
    except UnreadableError as error:
        if error.lack is not Lack.MISSING:
            raise
        # The file comes with CONFIG_NO_HZ_FULL; the build options tell "off" from "not there".
        options = build_options(host.view)
        host.saw("CONFIG_NO_HZ_FULL", options.get("NO_HZ_FULL", "not set"))
        if options.get("NO_HZ_FULL") == "y":
            raise
        return Issue(
            "The kernel was built without CONFIG_NO_HZ_FULL.",
            Fix(privilege=None, solution="Use a kernel built with CONFIG_NO_HZ_FULL."),
            severity=few,
        )
    if cpus:
        return Pass(f"no tick on busy CPU {format_cpu_list(cpus)}")
    return Issue("The tick runs on all CPUs.", enable, severity=few)


@check(
    "RCU_NOCBS_OFF",
    "RCU callbacks run on isolated CPUs",
    Severity.LOW,
    Area.SCHEDULER,
    rule="an isolated CPU is in neither rcu_nocbs nor nohz_full",
    source="kernel, Documentation/RCU/Design; kernel-parameters.txt, rcu_nocbs",
    solution="Move the callbacks to other CPUs.",
    impact=time_lost_to(*SOFTIRQ),
)
def rcu_nocbs_off(host: Host) -> Outcome:
    """Work deferred by the kernel (RCU callbacks) runs on the CPU that queued it, after an
    interrupt."""
    isolated = host.isolated()
    if not isolated:
        return NotApplicable(_NO_ISOLATED)
    parameters = host.parameters()
    covered: set[int] = set()
    for name in ("rcu_nocbs", "nohz_full"):
        value = parameters.get(name, "")
        host.saw(f"/proc/cmdline {name}", value)
        try:
            covered |= set(isolated) if value == "all" else set(parse_cpu_list(value))
        except ValueError:
            raise garbage("proc/cmdline", value, "a CPU list") from None
    exposed = format_cpu_list(set(isolated) - covered)
    if not exposed:
        return Pass("callbacks of isolated CPUs run elsewhere")
    return Issue(
        f"RCU callbacks run on isolated CPU {exposed}.",
        boot(f"rcu_nocbs={format_cpu_list(isolated)}"),
    )


@check(
    "WORKQUEUE_MASK",
    "Kernel work may run on isolated CPUs",
    Severity.LOW,
    Area.SCHEDULER,
    rule="the mask of unbound workqueues includes an isolated CPU",
    source="tuned 2.28 cpu-partitioning; kernel, Documentation/core-api/workqueue.rst",
    solution="Restrict unbound work to the other CPUs.",
    impact=time_lost_to(*SCHEDULED_OUT),
)
def workqueue_mask(host: Host) -> Outcome:
    """Unbound kernel work, write-back among it, is put on any CPU of the mask."""
    isolated = host.isolated()
    if not isolated:
        return NotApplicable(_NO_ISOLATED)
    path = "sys/devices/virtual/workqueue/cpumask"
    both = format_cpu_list(set(host.cpu_mask(path)) & set(isolated))
    if not both:
        return Pass("unbound work stays off isolated CPUs")
    return Issue(
        f"Kernel work may run on isolated CPU {both}.",
        write(path, format_cpu_mask(set(host.online()) - set(isolated))),
    )


@check(
    "WATCHDOG_NMI",
    "The hard-lockup watchdog interrupts every CPU",
    Severity.LOW,
    Area.SCHEDULER,
    rule="kernel.nmi_watchdog is 1",
    source=f"{_REALTIME}; kernel, Documentation/admin-guide/lockup-watchdogs.rst",
    solution="Switch it off.",
    impact=TOO_RARE,
)
def watchdog_nmi(host: Host) -> Outcome:
    """A performance counter raises a non-maskable interrupt on each CPU every few seconds, and is
    lost to profilers."""
    if host.sysctl("kernel.nmi_watchdog") == 0:
        return Pass("no hard-lockup watchdog")
    return Issue(
        "The hard-lockup watchdog is on.",
        sysctl("kernel.nmi_watchdog", 0, "A hard lockup is then not detected."),
    )


@check(
    "WATCHDOG_SOFT",
    "The soft-lockup watchdog runs on target CPUs",
    Severity.LOW,
    Area.SCHEDULER,
    rule="kernel.watchdog is 1 and its mask covers isolated CPUs, or target CPUs where none is isolated",
    source="kernel, Documentation/admin-guide/lockup-watchdogs.rst",
    solution="Keep the watchdog off the hot CPUs.",
    impact=cost_of("context_switch", PER_SWITCH),
)
def watchdog_soft(host: Host) -> Outcome:
    """A timer and a stopper thread run on each CPU of the mask every few seconds, before everything
    else."""
    if host.sysctl("kernel.watchdog") == 0:
        return Pass("no soft-lockup watchdog")
    mask = host.cpu_list("proc/sys/kernel/watchdog_cpumask")
    isolated = host.isolated()
    hit = sorted(set(mask) & set(isolated or host.target_cpus()))
    if not hit:
        return Pass(f"the watchdog runs on CPU {format_cpu_list(mask)} only")
    keep = _housekeeping(host, isolated) if isolated else "0"
    return Issue(
        f"The watchdog runs on CPU {format_cpu_list(hit)}.",
        sysctl("kernel.watchdog_cpumask", keep),
        events_per_s=_watchdog_switches(host),
    )


def _watchdog_switches(host: Host) -> float | None:
    """Return how often a second the watchdog switches a CPU to its thread and back; None when it is not known.

    Source: kernel, Documentation/admin-guide/lockup-watchdogs.rst: it runs every 2/5 of watchdog_thresh.
    """
    try:
        threshold_s = host.sysctl("kernel.watchdog_thresh")
    except UnreadableError:
        return None
    return 2 / (0.4 * threshold_s) if threshold_s > 0 else None


@check(
    "SKEW_TICK",
    "All CPUs tick at the same moment",
    Severity.LOW,
    Area.SCHEDULER,
    rule="more than 16 CPUs without skew_tick=1",
    source=f"{_REALTIME}; kernel-parameters.txt, skew_tick",
    solution="Spread the ticks.",
    impact=time_lost_to(*TICK),
)
def skew_tick(host: Host) -> Outcome:
    """Ticks of many CPUs contend for the same locks when they come together."""
    if host.cpu_count() <= 16:
        return NotApplicable(f"{host.cpu_count()} CPUs, not more than 16")
    value = host.saw("/proc/cmdline skew_tick", host.parameters().get("skew_tick", ""))
    if value == "1":
        return Pass("ticks are spread")
    return Issue(f"{host.cpu_count()} CPUs tick together.", boot("skew_tick=1"))


@check(
    "KERNEL_DEBUG_BUILD",
    "The kernel is a debug build",
    Severity.LOW,
    Area.SCHEDULER,
    rule="PROVE_LOCKING, KASAN, DEBUG_PREEMPT or SLUB_DEBUG_ON is set",
    source="kernel, lib/Kconfig.debug",
    solution="Use a production kernel.",
    impact=cost_of("syscall", is_bound=True),
)
def kernel_debug_build(host: Host) -> Outcome:
    """Lock and memory checkers slow every kernel operation down by a factor."""
    options = build_options(host.view)
    names = ("PROVE_LOCKING", "KASAN", "DEBUG_PREEMPT", "SLUB_DEBUG_ON")
    found = [name for name in names if options.get(name) == "y"]
    host.saw("kernel build options", found, ", ".join(f"{name}={options.get(name, 'n')}" for name in names))
    if not found:
        return Pass("no debug options")
    return Issue(f"The kernel was built with {', '.join(found)}.", Fix(privilege=None))


@check(
    "KERNEL_HZ",
    "The tick is slow and timers depend on it",
    Severity.LOW,
    Area.SCHEDULER,
    rule="CONFIG_HZ < 1000 without high-resolution timers",
    source="kernel, kernel/Kconfig.hz",
    solution="Use a kernel with CONFIG_HIGH_RES_TIMERS.",
    impact=cost_of("wakeup", PER_WAKEUP, is_bound=True),
)
def kernel_hz(host: Host) -> Outcome:
    """Without high-resolution timers a sleep ends with a tick; with them fewer ticks are better."""
    options = build_options(host.view)
    hz = options.get("HZ", "")
    if not hz.isdecimal():
        raise UnobservableError("the build options name no HZ")
    host.saw("CONFIG_HZ", int(hz))
    resolution = host.asked("clock_getres(CLOCK_MONOTONIC), ns", host.view.syscalls.clock_resolution_ns)
    if int(hz) >= 1000 or resolution <= 1:
        return Pass(f"{hz} ticks a second")
    return Issue(
        f"The kernel ticks {hz} times a second, and timers wait for it.",
        Fix(persist=(kernel_parameter("remove highres=off"),)),
    )
