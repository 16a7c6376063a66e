"""`cfctl bus hz`: how often messages come, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.bus_commands.echo import (  # noqa: TC001 - Typer reads them
    DurationOption,
    PatternOption,
    TopicsArgument,
)
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.live import IntervalOption, UpdatesOption, interval_s, show_live
from cfctl.cli.output import FormatOption, JsonOption, Output, UnitOption, message
from cfctl.errors import InputError
from cfctl.text import safe_text
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from cfctl.bus.listening import Listener
    from cfctl.bus.rates import RateReport, Rates

# How long it waits for a message before it looks at the time again.
_SLICE_S = 0.05


def hz(
    topics: TopicsArgument = None,
    pattern: PatternOption = None,
    window: Annotated[
        int,
        typer.Option(
            "--window", metavar="N", min=2, max=1_000_000, help="Look at the last N messages of a topic."
        ),
    ] = 10_000,
    interval: IntervalOption = "1s",
    updates: UpdatesOption = None,
    duration: DurationOption = "0",
    format: FormatOption = None,
    json: JsonOption = False,
    unit: UnitOption = None,
) -> None:
    """Show how often messages come on topics, by rate, gaps and delay.

    The rate is that of publishing, by the publishers' stamps over the last --window messages of a
    topic, with its 95 % interval from 20 messages on. Messages that this command lost, because they
    came too fast for it, are counted and are part of the rate; no publisher waits for it. Gaps are
    between messages that followed one another. A topic without a new message is shown as silent.

    The delay is from publishing to receipt here: the wake-up of this process is in it. Percentiles that
    have too few samples to stand on are shown as low n: p50 needs 20, p99 1000.

    A terminal shows a table that is redrawn, a pipe gets a line for each topic and interval, with
    --json an object for each interval.

    Exit status: 3 when --duration or --updates ended before a message came.
    """
    from cfctl import paths
    from cfctl.bus.listening import Listener
    from cfctl.bus.rates import Rates
    from cfctl.render.bus_rates import lines, render

    if topics and pattern is not None:
        raise InputError("Topics and --pattern exclude each other.", "", "Choose one of the two.")
    where = Output.resolve(format, json, None, unit)
    seconds, duration_ns = interval_s(interval), parse_time_ns(duration, "s")
    with Listener(paths.segment_directory(), tuple(topics or ()), pattern) as listener:
        rates = Rates(listener.ns_per_tick, window)
        reports = _reports(listener, rates, seconds, duration_ns, updates)
        show_live(reports, where, render, lines)
    if rates.received == 0:
        chosen = pattern or ", ".join(topics or ()) or "any topic"
        message(f"cfctl: No message came on {safe_text(chosen, 200)}.")
        raise typer.Exit(ExitCode.UNMEASURED)


def _reports(
    listener: Listener, rates: Rates, seconds: float, duration_ns: int, updates: int | None
) -> Iterator[RateReport]:
    """Yield a report for each interval; the last one at the end of the duration."""
    from cfctl import _native
    from cfctl.cli.bus_commands.lines import require_reader

    began_ns = time.monotonic_ns()
    end_ns = began_ns + duration_ns if duration_ns else None
    number = 0
    while (updates is None or number < updates) and (end_ns is None or time.monotonic_ns() < end_ns):
        number += 1
        due_ns = began_ns + round(number * seconds * 1e9)
        due_ns = due_ns if end_ns is None else min(due_ns, end_ns)
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            rates.add(listener.hear(min(left_ns / 1e9, _SLICE_S)))
        require_reader()
        yield rates.report(time.time_ns(), time.monotonic_ns() - began_ns, _native.ticks(), listener.lost)
