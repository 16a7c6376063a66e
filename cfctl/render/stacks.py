"""Sampled stacks as the functions they were found in, with the error of each share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cfctl.render.table import cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cfctl.profile.stacks import StackFunction, StackProfile
    from cfctl.records import Measurement

_FUNCTIONS_SHOWN: Final = 15
_NAME_WIDTH: Final = 200
# A long name is broken before its file, where no word is torn.
_LINE_WIDTH: Final = 44


def render_stacks(profile: StackProfile, console: Console) -> None:
    """Print the functions that most samples were found in, and how the samples were taken."""
    console.print(cell(_heading(profile), "bold"), soft_wrap=True)
    table = column_table([("function", "left"), ("samples", "right"), ("self", "right"), ("total", "right")])
    for column in table.columns[1:]:
        column.no_wrap = True
    for function in profile.functions[:_FUNCTIONS_SHOWN]:
        table.add_row(
            _name(function),
            cell(function.own_samples),
            cell(_share(function.own)),
            cell(_share(function.total)),
        )
    console.print(table)
    for line in _footnotes(profile):
        console.print(cell(line, "dim"), soft_wrap=True)


def _heading(profile: StackProfile) -> str:
    rate = f" at {profile.rate_hz:.0f} Hz" if profile.rate_hz else ""
    failed = f", {profile.failed} more could not be read" if profile.failed else ""
    return f"Stacks: {profile.samples} samples{rate} by {safe_text(profile.sampler, 80)}{failed}"


def _name(function: StackFunction) -> Text:
    name = f"{function.name} ({function.file})" if function.file else function.name
    text = cell(safe_text(name, _NAME_WIDTH))
    start = len(safe_text(function.name, _NAME_WIDTH))
    if len(text.plain) > _LINE_WIDTH and start < len(text.plain):
        return text[:start].append("\n ").append(text[start:])
    return text


def _share(share: Measurement) -> str:
    if share.value is None or share.uncertainty is None:
        return "-"
    digits = 0 if share.uncertainty >= 0.01 else 1
    return f"{share.value * 100:.{digits}f} ±{share.uncertainty * 100:.{digits}f} %"


def _footnotes(profile: StackProfile) -> Iterator[str]:
    left = len(profile.functions) - _FUNCTIONS_SHOWN
    if left > 0:
        yield f"and {left} more functions; --format json, collapsed or speedscope has all stacks"
    yield "Shares are of running threads' samples, ± with 95 % confidence; self is without its callees"
    if profile.paused:
        yield "The program stood still for each sample: operations' times beyond p99 may hold such pauses"
    if profile.attached_after_ns is not None:
        yield f"Sampling began {format_quantity(profile.attached_after_ns, 'ns', digits=2)} after the start"
