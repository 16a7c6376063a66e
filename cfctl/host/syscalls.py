"""What syscalls say about a host: asked of this kernel, or captured in syscalls.json."""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import resource
import struct
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Protocol

from cfctl import paths
from cfctl.errors import CfctlError, UnobservableError

if TYPE_CHECKING:
    from pathlib import Path

CAPTURE_NAME: Final = "syscalls.json"
UNLIMITED: Final = -1
CAP_IPC_LOCK: Final = 14
CAP_SYS_NICE: Final = 23
_PR_GET_TIMERSLACK: Final = 30
_PR_GET_TSC: Final = 25
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GCOALESCE: Final = 0x0E
_ETHTOOL_GRINGPARAM: Final = 0x10
_MSR_DEVICE: Final = "/dev/cpu/0/msr"
_MSR_SMI_COUNT: Final = 0x34
_SYSLOG_READ_ALL: Final = 3
_SYSLOG_SIZE_BUFFER: Final = 10
_MAX_LOG_BYTES: Final = 16 << 20


class SyscallError(UnobservableError):
    """Raised when a syscall gives no answer, or a capture does not hold it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.source = name
        self.cause = why


@dataclass(frozen=True, slots=True)
class ClockState:
    """The kernel's discipline of the wall clock, from adjtimex(2) with modes 0.

    `state` is the return value (5 is TIME_ERROR), `frequency_ppm` the rate correction,
    `tick_us` the length of a tick (10000 nominal), `max_error_us` and `est_error_us` its errors.
    """

    state: int
    status: int
    max_error_us: int
    est_error_us: int
    frequency_ppm: float
    tick_us: int


@dataclass(frozen=True, slots=True)
class Uname:
    """uname(2): release and version of the kernel, and the machine's architecture."""

    release: str
    version: str
    machine: str


@dataclass(frozen=True, slots=True)
class Coalescing:
    """How long a network device may hold received packets back: ETHTOOL_GCOALESCE."""

    rx_us: int
    adaptive_rx: int


@dataclass(frozen=True, slots=True)
class Ring:
    """The length of a network device's receive ring, and the longest it can have: ETHTOOL_GRINGPARAM."""

    rx: int
    rx_max: int


@dataclass(frozen=True, slots=True)
class Collector:
    """The garbage collector of the interpreter that asks: on or off, and allocations between two runs."""

    enabled: int
    threshold: int


class Syscalls(Protocol):
    """The questions a check may ask of a kernel; each raises SyscallError without an answer."""

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC, ns."""

    def adjtimex(self) -> ClockState:
        """Return the discipline of the wall clock."""

    def clock_resolution_ns(self) -> int:
        """Return clock_getres(CLOCK_MONOTONIC), ns."""

    def timer_slack_ns(self) -> int:
        """Return prctl(PR_GET_TIMERSLACK), ns."""

    def tsc_readable(self) -> bool:
        """Return whether this thread may execute rdtsc: prctl(PR_GET_TSC)."""

    def limit(self, name: str) -> int:
        """Return the soft limit of RLIMIT_`name`; UNLIMITED for none."""

    def affinity(self, pid: int) -> tuple[int, ...]:
        """Return the CPUs a thread may run on; pid 0 is the caller."""

    def policy(self, pid: int) -> str:
        """Return the scheduling policy: OTHER, FIFO, RR, BATCH, IDLE, DEADLINE."""

    def uname(self) -> Uname:
        """Return the kernel's release, version and machine."""

    def capabilities(self) -> int:
        """Return the effective capability set as a bit mask."""

    def kernel_log(self) -> str:
        """Return the kernel's log as far as its ring still holds it: syslog(2)."""

    def coalescing(self, link: str) -> Coalescing:
        """Return how long a network link may hold received packets back."""

    def ring(self, link: str) -> Ring:
        """Return the length of a network link's receive ring."""

    def smi_count(self) -> int:
        """Return how many system management interrupts CPU 0 has taken: MSR 34H of Intel CPUs."""

    def collector(self) -> Collector:
        """Return the state of this interpreter's garbage collector."""


_POLICIES: Final = {0: "OTHER", 1: "FIFO", 2: "RR", 3: "BATCH", 5: "IDLE", 6: "DEADLINE", 7: "EXT"}


class RealSyscalls:
    """The syscalls of this kernel, asked by this process."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC, ns."""
        return time.monotonic_ns()

    def adjtimex(self) -> ClockState:
        """Return the discipline of the wall clock; struct timex as in <sys/timex.h>."""
        word = struct.calcsize("l")
        buffer = ctypes.create_string_buffer(64 * word)
        state = self._call("adjtimex", buffer)
        # modes (int, padded), offset, freq, maxerror, esterror, status (int, padded), constant,
        # precision, tolerance, time (two words), tick.
        frequency, max_error, est_error = struct.unpack_from("3l", buffer, 2 * word)
        (status,) = struct.unpack_from("i", buffer, 5 * word)
        (tick,) = struct.unpack_from("l", buffer, 11 * word)
        return ClockState(state, status, max_error, est_error, frequency / 65536, tick)

    def clock_resolution_ns(self) -> int:
        """Return clock_getres(CLOCK_MONOTONIC), ns."""
        return round(time.clock_getres(time.CLOCK_MONOTONIC) * 1e9)

    def timer_slack_ns(self) -> int:
        """Return prctl(PR_GET_TIMERSLACK), ns."""
        return self._call("prctl", _PR_GET_TIMERSLACK, 0, 0, 0, 0)

    def tsc_readable(self) -> bool:
        """Return whether this thread may execute rdtsc: prctl(PR_GET_TSC)."""
        mode = ctypes.c_int(0)
        self._call("prctl", _PR_GET_TSC, ctypes.byref(mode), 0, 0, 0)
        return mode.value == 1

    def limit(self, name: str) -> int:
        """Return the soft limit of RLIMIT_`name`; UNLIMITED for none."""
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is None:
            raise SyscallError(f"getrlimit(RLIMIT_{name})", "not known on this platform")
        soft, _ = resource.getrlimit(number)
        return UNLIMITED if soft == resource.RLIM_INFINITY else soft

    def affinity(self, pid: int) -> tuple[int, ...]:
        """Return the CPUs a thread may run on; pid 0 is the caller."""
        try:
            return tuple(sorted(os.sched_getaffinity(pid)))
        except OSError as error:
            raise SyscallError(f"sched_getaffinity({pid})", error.strerror or "failed") from error

    def policy(self, pid: int) -> str:
        """Return the scheduling policy: OTHER, FIFO, RR, BATCH, IDLE, DEADLINE."""
        try:
            # SCHED_RESET_ON_FORK (0x40000000) is or-ed into the number.
            number = os.sched_getscheduler(pid) & 0xFFFF
        except OSError as error:
            raise SyscallError(f"sched_getscheduler({pid})", error.strerror or "failed") from error
        return _POLICIES.get(number, str(number))

    def uname(self) -> Uname:
        """Return the kernel's release, version and machine."""
        found = os.uname()
        return Uname(found.release, found.version, found.machine)

    def capabilities(self) -> int:
        """Return the effective capability set as a bit mask, from capget(2)."""
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)()
        self._call("capget", header, data)
        return data[0] | data[3] << 32

    def kernel_log(self) -> str:
        """Return the kernel's log as far as its ring still holds it: syslog(2)."""
        size = self._call("klogctl", _SYSLOG_SIZE_BUFFER, None, 0)
        buffer = ctypes.create_string_buffer(min(size, _MAX_LOG_BYTES))
        length = self._call("klogctl", _SYSLOG_READ_ALL, buffer, len(buffer))
        return buffer.raw[:length].decode("utf-8", "replace")

    def coalescing(self, link: str) -> Coalescing:
        """Return how long a network link may hold received packets back."""
        # struct ethtool_coalesce of <linux/ethtool.h>: command, rx_coalesce_usecs, ..., adaptive at 10.
        words = self._ethtool(link, _ETHTOOL_GCOALESCE, 23)
        return Coalescing(words[1], words[10])

    def ring(self, link: str) -> Ring:
        """Return the length of a network link's receive ring."""
        # struct ethtool_ringparam: command, four maxima (rx first), four lengths (rx first).
        words = self._ethtool(link, _ETHTOOL_GRINGPARAM, 9)
        return Ring(words[5], words[1])

    def _ethtool(self, link: str, command: int, size_words: int) -> tuple[int, ...]:
        import fcntl
        import socket

        data = ctypes.create_string_buffer(struct.pack(f"={size_words}I", command, *[0] * (size_words - 1)))
        request = struct.pack("16sP16x", link.encode()[:15], ctypes.addressof(data))
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError as error:
            raise SyscallError(f"ioctl(SIOCETHTOOL, {link})", error.strerror or "failed") from error
        return struct.unpack_from(f"={size_words}I", data)

    def smi_count(self) -> int:
        """Return how many system management interrupts CPU 0 has taken: MSR 34H of Intel CPUs."""
        try:
            fd = os.open(_MSR_DEVICE, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = os.pread(fd, 8, _MSR_SMI_COUNT)
            finally:
                os.close(fd)
        except OSError as error:
            raise SyscallError(_MSR_DEVICE, error.strerror or "failed") from error
        return int.from_bytes(content, "little") & 0xFFFF_FFFF

    def collector(self) -> Collector:
        """Return the state of this interpreter's garbage collector."""
        return Collector(int(gc.isenabled()), gc.get_threshold()[0])

    def _call(self, name: str, *arguments: Any) -> int:
        function = getattr(self._libc, name, None)
        if function is None:
            raise SyscallError(name, "not in this C library")
        longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        result = int(function(*longs))
        if result < 0:
            number = ctypes.get_errno()
            raise SyscallError(name, f"{errno.errorcode.get(number, number)}, {os.strerror(number)}")
        return result


def _is_number(value: Any, kind: type[Any]) -> bool:
    """Return whether a JSON value is a number of 64 bits, whole for `kind` int."""
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        return False
    return -(2**63) <= value < 2**64


class CapturedSyscalls:
    """The answers another host gave, from the syscalls.json of its capture.

    A name maps to its answer or to a refusal, {"error": why, "source": syscall}; affinity and policy map a pid ("0" is
    the captured process) to its answer, limits a name to a number.
    """

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    @classmethod
    def load(cls, sysroot: Path) -> CapturedSyscalls:
        """Return the answers in `sysroot`/syscalls.json; none when it is absent or not understood."""
        try:
            answers = json.loads(paths.read_bounded(sysroot / CAPTURE_NAME))
        except (OSError, ValueError, RecursionError, CfctlError):
            answers = {}
        return cls(answers if isinstance(answers, dict) else {})

    def _answer(self, name: str, key: str | None = None) -> Any:
        answer = self._answers.get(name)
        if key is not None and isinstance(answer, dict) and "error" not in answer:
            answer = answer.get(key)
            name = f"{name}({key})"
        if answer is None:
            raise SyscallError(name, "not in the capture")
        if isinstance(answer, dict) and "error" in answer:
            raise SyscallError(str(answer.get("source", name))[:80], str(answer["error"])[:200])
        return answer

    def _number(self, name: str, key: str | None = None) -> int:
        answer = self._answer(name, key)
        if not _is_number(answer, int):
            raise SyscallError(name, "the capture holds no number")
        return int(answer)

    def _record(self, name: str, kind: type[Any], key: str | None = None) -> Any:
        answer = self._answer(name, key)
        if not isinstance(answer, dict):
            raise SyscallError(name, "the capture holds no object")
        values = {}
        for field in fields(kind):
            value = answer.get(field.name)
            kind_of_field = {"str": str, "float": float}.get(str(field.type), int)
            if not (isinstance(value, str) if kind_of_field is str else _is_number(value, kind_of_field)):
                raise SyscallError(name, f"the capture's {field.name} is not understood")
            values[field.name] = value
        return kind(**values)

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC when the host was captured, ns; 0 when the capture does not say."""
        try:
            return self._number("monotonic_ns")
        except SyscallError:
            return 0

    def adjtimex(self) -> ClockState:
        """Return the discipline of the wall clock."""
        state: ClockState = self._record("adjtimex", ClockState)
        return state

    def clock_resolution_ns(self) -> int:
        """Return clock_getres(CLOCK_MONOTONIC), ns."""
        return self._number("clock_resolution_ns")

    def timer_slack_ns(self) -> int:
        """Return the captured process's timer slack, ns."""
        return self._number("timer_slack_ns")

    def tsc_readable(self) -> bool:
        """Return whether the captured process could execute rdtsc."""
        return bool(self._answer("tsc_readable"))

    def limit(self, name: str) -> int:
        """Return the soft limit of RLIMIT_`name`; UNLIMITED for none."""
        return self._number("limits", name)

    def affinity(self, pid: int) -> tuple[int, ...]:
        """Return the CPUs a thread could run on; pid 0 is the captured process."""
        answer = self._answer("affinity", str(pid))
        if not isinstance(answer, list) or not answer or not all(_is_number(cpu, int) for cpu in answer):
            raise SyscallError("affinity", "the capture holds no list of CPUs")
        return tuple(sorted(answer))

    def policy(self, pid: int) -> str:
        """Return the scheduling policy."""
        return str(self._answer("policy", str(pid)))[:20]

    def uname(self) -> Uname:
        """Return the kernel's release, version and machine."""
        name: Uname = self._record("uname", Uname)
        return name

    def capabilities(self) -> int:
        """Return the effective capability set as a bit mask."""
        return self._number("capabilities")

    def kernel_log(self) -> str:
        """Return the captured kernel log."""
        return str(self._answer("kernel_log"))

    def coalescing(self, link: str) -> Coalescing:
        """Return how long a network link could hold received packets back."""
        found: Coalescing = self._record("coalescing", Coalescing, link)
        return found

    def ring(self, link: str) -> Ring:
        """Return the length of a network link's receive ring."""
        found: Ring = self._record("ring", Ring, link)
        return found

    def smi_count(self) -> int:
        """Return how many system management interrupts CPU 0 had taken."""
        return self._number("smi_count")

    def collector(self) -> Collector:
        """Return the state of the captured interpreter's garbage collector."""
        found: Collector = self._record("collector", Collector)
        return found
