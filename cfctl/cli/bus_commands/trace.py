"""`cfctl bus record` and `cfctl bus verify`: a trace of messages and its causality."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.bus_commands.topics import complete_topics
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, check_writable, message
from cfctl.errors import InputError, StateError, os_error_reason
from cfctl.records import Verdict
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Callable


def record(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Write the trace to FILE.")],
    topics: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC]...", help="Topics; all that there are or come.", autocompletion=complete_topics
        ),
    ] = None,
    duration: Annotated[
        str, typer.Option("--duration", metavar="TIME", help="How long to record; 0 until interrupted.")
    ] = "10s",
    max_messages: Annotated[
        int, typer.Option("--max-messages", metavar="N", min=1, max=2_000_000, help="End after N messages.")
    ] = 100_000,
    payload: Annotated[bool, typer.Option("--payload", help="Record payloads too, as base64.")] = False,
) -> None:
    """Record the messages of topics: ids, senders, stamps, dependencies and ticks; payloads on demand only.

    The trace is JSON lines, a message each in the order of receipt, and is bounded by --duration and
    --max-messages, whichever is reached first. An interrupt ends it well, too. A trace without its
    last line was cut off, which cfctl bus verify says.

    A recording is a subscription like any other: publishers that do not overwrite wait for it.

    Exit status: 3 when no message came.
    """
    from cfctl import paths
    from cfctl.bus.trace import Limits, Recorder

    if output == "-":
        raise InputError("A trace goes to a file.", "- is standard output.", "Name a file with -o.")
    check_writable(output)
    limits = Limits(max_messages, parse_time_ns(duration, "s") or None)
    recorder = Recorder(paths.segment_directory(), topics or (), with_payload=payload)
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            found = recorder.record(file.write, limits, _interrupt())
    except OSError as error:
        raise StateError(
            f"The trace {output} could not be written.",
            os_error_reason(error),
            "Free space, or name another file.",
        ) from error
    lost = f", {found.dropped} dropped before they were recorded" if found.dropped else ""
    message(
        f"cfctl: {found.messages} messages of {len(found.topics)} topics recorded{lost}; cfctl bus verify {output}"
    )
    if found.messages == 0:
        raise typer.Exit(ExitCode.UNMEASURED)


def _interrupt() -> Callable[[], bool]:
    """Return a function that tells whether the user has interrupted, instead of an exception."""
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: came.append(number))
    return lambda: bool(came)


def verify(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="A file of cfctl bus record.")],
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Verify the causality of a recorded trace with vector clocks.

    Each ring is a process whose sendings are in its own order, and the recorder one that received
    them; a declared dependency is a receipt at the publisher that declared it. Violations: a message
    out of its ring's order or twice, received before one it depends on, stamped not after it, or
    published before it by the tick counter. Dependencies on messages outside of the trace are
    counted, and nothing is said of them.

    Exit status: 1 for a violation, 2 for a file that is no trace, 3 for a trace that is empty or cut
    off and shows none.
    """
    from pathlib import Path

    from cfctl.bus.verification import verify_trace
    from cfctl.render.causality import render

    where = Output.resolve(format, json, output)
    found = verify_trace(Path(trace))
    where.emit(found, render)
    if found.verdict is Verdict.FAIL:
        raise typer.Exit(ExitCode.FINDING)
    if found.verdict is Verdict.INCONCLUSIVE:
        raise typer.Exit(ExitCode.UNMEASURED)
