"""Sampled stacks: which function a program was found in, of how many samples, and how sure that is.

The samples are those of a sampling profiler that ran beside the program. They estimate shares of
its time; operations are measured exactly, one by one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cfctl.records import Measurement

# A damaged file must not make a report of any size.
MAX_STACKS: Final = 1_000_000
MAX_DEPTH: Final = 2_000
_FRAME_LENGTH: Final = 1_000
_NO_FRAMES: Final = "[no frames]"
# Two-sided 95 % of the normal distribution.
_Z: Final = 1.959964
_METHOD: Final = "share of the samples, 95 % Wilson interval"
_LINE: Final = re.compile(r"(.*?)(?: \((.*?)(?::\d+)?\))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack, the outermost frame first, as "function (file:line)", and how often it was found."""

    frames: tuple[str, ...]
    samples: int


@dataclass(frozen=True, slots=True)
class StackFunction:
    """A function with the share of samples in it (`own`) and in it or what it called (`total`).

    A recursive function counts once for each sample. `file` is "" where it is not known.
    """

    name: str
    file: str
    own_samples: int
    total_samples: int
    own: Measurement
    total: Measurement


@dataclass(frozen=True, slots=True)
class StackProfile:
    """Samples at `rate_hz` of all threads that were running, not waiting.

    `failed` readings of a stack are not among the samples. `attached_after_ns` is how long after
    the program's start sampling began, None when it is not known; `paused` says that the program stood
    still for each sample. `functions` are those of the
    stacks, most of their own time first.
    """

    sampler: str
    rate_hz: float
    samples: int
    failed: int
    attached_after_ns: float | None
    functions: tuple[StackFunction, ...]
    stacks: tuple[Stack, ...]
    paused: bool = False


def parse_collapsed(text: str) -> list[Stack]:
    """Return the stacks in the lines "outer;inner COUNT" that flame graph tools share.

    Raises ValueError for a line without a count, and for more than a million lines.
    """
    lines = [line for line in text.split("\n") if line]
    if len(lines) > MAX_STACKS:
        raise ValueError(f"there are more than {MAX_STACKS} stacks")
    return [_parsed(line) for line in lines]


def _parsed(line: str) -> Stack:
    frames, _, count = line.rpartition(" ")
    if not (count.isascii() and count.isdigit()) or len(count) > 15:
        raise ValueError(f"a line has no count: {line[:80]!r}")
    # py-spy finds a thread between two frames, too.
    names = frames.split(";") if frames else [_NO_FRAMES]
    return Stack(tuple(frame[:_FRAME_LENGTH] for frame in names[:MAX_DEPTH]), int(count))


def stack_profile(
    stacks: Iterable[Stack],
    sampler: str,
    rate_hz: float,
    failed: int,
    attached_after_ns: float | None,
    paused: bool = False,
) -> StackProfile:
    """Return the profile of some stacks; equal ones are joined. Raises ValueError for too many."""
    counts: dict[tuple[str, ...], int] = {}
    for stack in stacks:
        counts[stack.frames] = counts.get(stack.frames, 0) + stack.samples
    if len(counts) > MAX_STACKS or any(not frames or len(frames) > MAX_DEPTH for frames in counts):
        raise ValueError("a stack is empty or too deep, or there are too many")
    joined = sorted(
        (Stack(frames, samples) for frames, samples in counts.items()), key=lambda s: (-s.samples, s.frames)
    )
    samples = sum(stack.samples for stack in joined)
    return StackProfile(
        sampler,
        rate_hz,
        samples,
        failed,
        attached_after_ns,
        _functions(joined, samples),
        tuple(joined),
        paused,
    )


def merge_stacks(profiles: Sequence[StackProfile]) -> StackProfile | None:
    """Return the stacks of several profiles as one, None without any."""
    if len(profiles) <= 1:
        return profiles[0] if profiles else None
    rates = {profile.rate_hz for profile in profiles}
    return stack_profile(
        (stack for profile in profiles for stack in profile.stacks),
        ", ".join(dict.fromkeys(profile.sampler for profile in profiles)),
        rates.pop() if len(rates) == 1 else 0.0,
        sum(profile.failed for profile in profiles),
        None,
        any(profile.paused for profile in profiles),
    )


def _functions(stacks: Sequence[Stack], samples: int) -> tuple[StackFunction, ...]:
    own: dict[tuple[str, str], int] = {}
    total: dict[tuple[str, str], int] = {}
    for stack in stacks:
        functions = [function_of(frame) for frame in stack.frames]
        own[functions[-1]] = own.get(functions[-1], 0) + stack.samples
        for function in set(functions):
            total[function] = total.get(function, 0) + stack.samples
    found = [
        StackFunction(
            *function, own.get(function, 0), whole, _share(own.get(function, 0), samples), _share(whole, samples)
        )
        for function, whole in total.items()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda f: (-f.own_samples, -f.total_samples, f.name, f.file)))


def function_of(frame: str) -> tuple[str, str]:
    """Return (function, file) of a frame "function (file:line)", without its line."""
    match = _LINE.fullmatch(frame)
    assert match is not None
    return match[1], match[2] or ""


def _share(part: int, whole: int) -> Measurement:
    """Return a share and the half width of its interval.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927). It takes the
    samples for independent; those of a loop that beats with the sampler are not.
    """
    if not whole:
        return Measurement.missing("ratio", "no samples")
    share = part / whole
    half = _Z / (1 + _Z**2 / whole) * math.sqrt(share * (1 - share) / whole + _Z**2 / (4 * whole**2))
    return Measurement(share, "ratio", half, whole, _METHOD)
