"""A capture: what the checks read of a host, and what was measured on it, as one archive."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cfctl import __version__
from cfctl.diagnose.engine import catalogue, run_check
from cfctl.diagnose.measure import measure_host
from cfctl.diagnose.offline import INDEX_NAME, MOMENTS, READS_NAME, SCHEMA, VERSION, open_captured
from cfctl.diagnose.probing import DEFAULT_DURATION_NS, LATENCY, ProbePlan, probe_host
from cfctl.diagnose.profiles import PROFILES, use_of
from cfctl.diagnose.requirements import hardware
from cfctl.diagnose.subject import Facts, Sample, sampled
from cfctl.errors import InputError
from cfctl.host.archive import pack
from cfctl.host.capture import RecordingView
from cfctl.host.syscalls import CAPTURE_NAME
from cfctl.host.view import HostView
from cfctl.records import to_json, to_plain

if TYPE_CHECKING:
    from cfctl.diagnose.measurements import Measurements

# Counters of the start of the interval by target and sample.
Samples = dict[int | None, dict[Sample, Any]]
Probe = Callable[[ProbePlan, "Measurements", Callable[[str], None]], "Measurements"]
NOT_WANTED: Final = "the capture was made without measurements"


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What to capture; `interval_ns` 0 takes one view.

    The latency of the use that a profile names is probed for `duration_ns`.
    """

    sysroot: str = "/"
    pid: int | None = None
    interval_ns: int = 2_000_000_000
    measure: bool = True
    profile: str = "timer"
    duration_ns: int = DEFAULT_DURATION_NS


@dataclass(frozen=True, slots=True)
class Capture:
    """An archive, and how many files of the host it holds."""

    archive: bytes
    host_files: int


def capture(
    request: CaptureRequest,
    *,
    open_view: Callable[[str], HostView] = HostView,
    measure: Callable[[], Measurements] = measure_host,
    probe: Probe = probe_host,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[str], None] = lambda _: None,
) -> Capture:
    """Return a host as an archive: the reads of all checks under all profiles, and the measurements.

    A captured host is captured again as it was. Takes the interval and the time of the measurements.
    """
    before, now, samples, measurements, reason = _opened(request, open_view, measure, probe, sleep, progress)
    progress("recording what the checks read")
    for pid, values in samples.items():
        _ask_everything(before, now, pid, values, measurements)
    brand = hardware(now).host.cpu_brand
    moments = {MOMENTS[0]: before, MOMENTS[1]: now}
    files: dict[str, bytes] = {}
    for name, view in moments.items():
        if view is not None:
            files |= _moment(name, view)
    host_files = sum(len(view.files) for view in moments.values() if view is not None)
    index = {
        "schema": SCHEMA, "version": VERSION, "cfctl": __version__, "files": len(files) + 1,
        "pid": request.pid, "cpu_brand": brand, "measurements": to_plain(measurements),
        "measurements_reason": reason,
    }  # fmt: skip
    files[INDEX_NAME] = to_json(index).encode()
    return Capture(pack(files), host_files)


def _opened(
    request: CaptureRequest,
    open_view: Callable[[str], HostView],
    measure: Callable[[], Measurements],
    probe: Probe,
    sleep: Callable[[float], None],
    progress: Callable[[str], None],
) -> tuple[RecordingView | None, RecordingView, Samples, Measurements | None, str | None]:
    """Return recording views of the start and end of the interval, and what was measured, or why not."""
    if request.sysroot != "/":
        again = open_captured(request.sysroot, open_view)
        before = None if again.before is None else RecordingView(again.before)
        now = RecordingView(again.now)
        samples = _sample_all(before, request.pid)
        _sample_all(now, request.pid)
        return before, now, samples, again.measurements, again.reason
    before = RecordingView(open_view("/")) if request.interval_ns > 0 else None
    samples = _sample_all(before, request.pid)
    if before is not None:
        progress(f"watching counters for {request.interval_ns / 1e9:g} s")
        sleep(request.interval_ns / 1e9)
    now = RecordingView(open_view("/"))
    # Read at the end of the interval, before the probes show in the counters.
    _sample_all(now, request.pid)
    if not request.measure:
        return before, now, samples, None, NOT_WANTED
    progress("measuring the clock")
    plan = ProbePlan(use_of(request.profile), _all_probes(), request.duration_ns)
    return before, now, samples, probe(plan, measure(), progress), None


def _all_probes() -> frozenset[str]:
    """Return the probes of all checks and of a target."""
    return frozenset({LATENCY, *(name for check in catalogue() for name in check.probes)} - {"measurements"})


def _sample_all(view: RecordingView | None, pid: int | None) -> Samples:
    """Return every counter that a check compares, for no target and for the one that is named."""
    targets = dict.fromkeys((None, pid))
    if view is None:
        return {target: {} for target in targets}
    _check_target(view, pid)
    samples = {sample for check in catalogue() for sample in check.samples}
    return {target: {sample: sampled(sample, view, target) for sample in samples} for target in targets}


def _check_target(view: HostView, pid: int | None) -> None:
    if pid is not None and not view.exists(f"proc/{pid}"):
        raise InputError(f"There is no process {pid}.", "It ended, or lives in another PID namespace.")


def _ask_everything(
    before: RecordingView | None,
    now: RecordingView,
    pid: int | None,
    values: dict[Sample, Any],
    measurements: Measurements | None,
) -> None:
    """Let every check of every profile ask what it asks, with the measurements and without them."""
    _check_target(now, pid)
    for profile in PROFILES:
        for measured in (measurements, None):
            facts = Facts(now, pid, profile, measured, before, values)
            for check in catalogue():
                run_check(check, facts)


def _moment(name: str, view: RecordingView) -> dict[str, bytes]:
    files = {f"{name}/{path}": data for path, data in view.files.items()}
    files[f"{name}/{CAPTURE_NAME}"] = json.dumps(view.answers, sort_keys=True).encode()
    files[f"{name}/{READS_NAME}"] = json.dumps(to_plain(view.reads), sort_keys=True).encode()
    return files
