"""Measuring threads: one per CPU, pinned, started together, stopped by one word, undisturbed by us."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from cfctl import _native
from cfctl.errors import InputError, UnobservableError, os_error_reason

if TYPE_CHECKING:
    from cfctl.probe.scheduling import Scheduling

T = TypeVar("T")
Progress = Callable[[float], None]

# After the last thread is ready, each needs the interpreter once to get into its loop.
_START_DELAY_NS: Final = 10_000_000
_START_DELAY_A_THREAD_NS: Final = 2_000_000
# A wake-up of the main thread disturbs a measured CPU when there is no other to run on.
_LOOK_S: Final = 0.25
_LOOK_RARELY_S: Final = 1.0


class StopWord:
    """The word that ends all loops, alone on its page: its cache line is nobody else's."""

    def __init__(self) -> None:
        self.view = memoryview(mmap.mmap(-1, mmap.PAGESIZE))[:4]

    def set(self) -> None:
        """End the loops; each sees it at its next turn, sample or wake-up."""
        self.view[0] = 1

    @property
    def is_set(self) -> bool:
        """Return whether the loops were ended."""
        return self.view[0] != 0


@dataclass(frozen=True, slots=True)
class Lane:
    """What a measuring thread is given: its CPU, the stop word, and the common start."""

    cpu: int | None
    stop: memoryview
    ready: Callable[[], int]
    """Waits until all threads are ready and returns the tick at which to begin."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What each thread returned, in the order of the CPUs, and whether Ctrl-C ended them."""

    results: tuple[T, ...]
    interrupted: bool


def usable_cpus(wanted: Sequence[int] | None) -> tuple[int, ...]:
    """Return the CPUs to measure: the wanted ones, all this process may run on for None.

    Raises InputError for a CPU that this process may not run on.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if wanted is None:
        return tuple(allowed)
    from cfctl.host.cpus import format_cpu_list

    if not wanted:
        raise InputError(
            "No CPU was named.", "There is nothing to measure.", f"Usable: {format_cpu_list(allowed)}."
        )
    if outside := sorted(set(wanted) - set(allowed)):
        raise InputError(
            f"CPU {format_cpu_list(outside)} can not be measured.",
            "It is offline, does not exist, or is outside this process's affinity or cpuset.",
            f"Usable: {format_cpu_list(allowed)}.",
        )
    return tuple(sorted(set(wanted)))


def run_pinned(
    cpus: Sequence[int | None],
    body: Callable[[Lane], T],
    *,
    scheduling: Scheduling,
    expected_ns: int = 0,
    on_progress: Progress | None = None,
    start_delay_ticks: Callable[[int], int] | None = None,
) -> Outcome[T]:
    """Run `body` in one thread per CPU (None: not pinned) and return what each returned.

    The caller sleeps meanwhile, on a CPU that is not measured if there is one; Ctrl-C sets the stop
    word, and what was measured by then is returned. Raises what the first failing thread raised.
    """
    stop = StopWord()
    delay_ns = _START_DELAY_NS + _START_DELAY_A_THREAD_NS * len(cpus)
    delay = start_delay_ticks(delay_ns) if start_delay_ticks else 0
    crew = _Crew(len(cpus), delay)
    results: dict[int, T] = {}

    def work(index: int, cpu: int | None) -> None:
        try:
            _settle(cpu, scheduling)
            results[index] = body(Lane(cpu, stop.view, crew.ready))
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            crew.fail(error)
            stop.set()
        finally:
            crew.leave()

    threads = [
        threading.Thread(target=work, args=(index, cpu), name=f"cfctl-probe-{cpu}", daemon=True)
        for index, cpu in enumerate(cpus)
    ]
    with _quiet_interpreter(), _aside([cpu for cpu in cpus if cpu is not None]) as has_own_cpu:
        try:
            for thread in threads:
                thread.start()
        except BaseException:
            # Ctrl-C, or no thread to be had, before there was anything to measure.
            stop.set()
            crew.abort()
            raise
        look_s = _LOOK_S if has_own_cpu else _LOOK_RARELY_S
        interrupted = _wait(crew, stop, expected_ns, look_s, on_progress)
        for thread in threads:
            thread.join()
    if crew.error is not None:
        raise crew.error
    return Outcome(tuple(results[index] for index in range(len(cpus)) if index in results), interrupted)


class _Crew:
    """The threads' common start and end."""

    def __init__(self, size: int, start_delay_ticks: int) -> None:
        self._barrier = threading.Barrier(size, self._set_start)
        self._delay_ticks = start_delay_ticks
        self._start_tick = 0
        self._left = size
        self._lock = threading.Lock()
        self.done = threading.Event()
        self.error: BaseException | None = None

    def _set_start(self) -> None:
        self._start_tick = _native.ticks() + self._delay_ticks

    def ready(self) -> int:
        self._barrier.wait()
        return self._start_tick

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.error = self.error or error
        self.abort()

    def abort(self) -> None:
        self._barrier.abort()

    def leave(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.done.set()


def _settle(cpu: int | None, scheduling: Scheduling) -> None:
    if cpu is not None:
        try:
            os.sched_setaffinity(0, {cpu})
        except OSError as error:
            raise UnobservableError(f"CPU {cpu} can not be measured.", os_error_reason(error)) from error
    scheduling.apply()


def _wait(crew: _Crew, stop: StopWord, expected_ns: int, look_s: float, on_progress: Progress | None) -> bool:
    """Wait for the crew and return whether Ctrl-C ended it; a second one is raised."""
    begin_ns = time.monotonic_ns()
    try:
        while not crew.done.wait(look_s if on_progress else None):
            if on_progress and expected_ns:
                on_progress(min(1.0, (time.monotonic_ns() - begin_ns) / expected_ns))
    except KeyboardInterrupt:
        stop.set()
        crew.done.wait()
        return True
    return False


@contextlib.contextmanager
def _quiet_interpreter() -> Iterator[None]:
    """Keep the garbage collector from running in a measuring thread."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _aside(measured: list[int]) -> Iterator[bool]:
    """Keep the calling thread off the measured CPUs, and give whether there is another for it."""
    allowed = os.sched_getaffinity(0)
    others = allowed - set(measured)
    if not others or others == allowed:
        yield bool(others)
        return
    os.sched_setaffinity(0, others)
    try:
        yield True
    finally:
        os.sched_setaffinity(0, allowed)
