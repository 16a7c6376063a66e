"""`cfctl bus record` and `cfctl bus verify`: a trace of messages and its causality."""

from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.bus_commands.topics import complete_topics
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, check_writable, message
from cfctl.cli.progress import progress
from cfctl.errors import InputError, StateError, os_error_reason
from cfctl.records import Verdict
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.bus.trace import Recorded


def record(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Write the trace to FILE.")],
    topics: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC]...",
            help="Record these topics; by default all, later ones included, except requests and replies.",
            autocompletion=complete_topics,
        ),
    ] = None,
    duration: Annotated[
        str, typer.Option("--duration", metavar="TIME", help="Stop after TIME; 0 records until interrupted.")
    ] = "10s",
    max_messages: Annotated[
        int, typer.Option("--max-messages", metavar="N", min=1, max=2_000_000, help="Stop after N messages.")
    ] = 100_000,
    payload: Annotated[bool, typer.Option("--payload", help="Record payloads too, as base64.")] = False,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="Make publishers wait for the recorder, so that it loses nothing."),
    ] = False,
) -> None:
    """Record the messages of topics: ids, senders, stamps, dependencies and ticks; payloads only on request.

    The trace is a file of JSON lines, one per message, in the order in which the recorder took them
    from their rings. Recording stops at --duration or --max-messages, whichever comes first, and an
    interrupt also completes the trace. A killed recording leaves a trace without its last line, and
    cfctl bus verify says so.

    Publishers do not wait for the recorder: if it is too slow it loses messages, and counts them. With
    --lossless they wait for it as for any subscriber. That can change what you record, so the
    messages that full rings rejected during the recording are reported.

    Exit status: 3 if no message arrived.
    """
    from cfctl import paths
    from cfctl.bus.trace import Limits, Recorder

    if output == "-":
        raise InputError("A trace goes to a file.", "- is standard output.", "Name a file with -o.")
    check_writable(output)
    limits = Limits(max_messages, parse_time_ns(duration, "s") or None)
    recorder = Recorder(paths.segment_directory(), topics or (), with_payload=payload, lossless=lossless)
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            recorded = recorder.record(file.write, limits, _interrupt())
    except OSError as error:
        raise StateError(
            f"The trace {output} could not be written.",
            os_error_reason(error),
            "Free space, or name another file.",
        ) from error
    _summarize(recorded, output)
    if recorded.messages == 0:
        raise typer.Exit(ExitCode.UNMEASURED)


def _summarize(recorded: Recorded, output: str) -> None:
    """Write to stderr what was recorded, what was lost, and what the recording did to publishers."""
    messages, topics = _counted(recorded.messages, "message"), _counted(len(recorded.topics), "topic")
    message(f"cfctl: recorded {messages} on {topics}; next: cfctl bus verify {output}")
    if recorded.is_full:
        message("cfctl: the trace is full; for a longer one, raise --max-messages")
    if recorded.damaged:
        message(f"cfctl: {_counted(recorded.damaged, 'message')} could not be read (counted as dropped)")
    if recorded.dropped:
        lost = _counted(recorded.dropped, "message")
        advice = (
            "" if recorded.rejected is not None else "; --lossless avoids that, and makes publishers wait"
        )
        message(f"cfctl: {lost} lost before they could be recorded{advice}")
    if recorded.rejected:
        lost = _counted(recorded.rejected, "message")
        message(
            f"cfctl: full rings rejected {lost} during the recording; without --lossless publishers do not wait for the recorder"
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _interrupt() -> Callable[[], bool]:
    """Return a function that says whether an interrupt came; it replaces the exception."""
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: came.append(number))
    return lambda: bool(came)


def verify(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="A file that cfctl bus record wrote.")],
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Verify the order and causality of a recorded trace.

    These are violations: a message out of order in its ring, or twice; a message received before it
    was published, or published before a message it depends on, by the tick counter; a message that
    depends on itself, or messages that depend on each other in a circle; a hybrid clock stamp that is
    not above the stamps of the message's causes and of earlier messages on its ring; and values of the
    trace that contradict each other.

    Vector clocks with one place per ring count the pairs of concurrent messages. The order in which
    the recorder took messages from different rings is its own and is not judged. Dependencies on
    messages outside the trace are counted. Deadlines are not judged.

    Exit status: 1 for a violation; 2 for a file that is not a trace; 3 if no violation was found but
    the trace is empty, cut off, or lost messages.
    """
    from pathlib import Path

    from cfctl.bus.verification import verify_trace
    from cfctl.render.causality import render

    where = Output.resolve(format, json, output)
    # A trace is millions of records without a cycle, which the collector would look through again and again.
    gc.disable()
    with progress("verifying") as show:
        report = verify_trace(Path(trace), show)
    where.emit(report, render)
    if report.verdict is Verdict.FAIL:
        raise typer.Exit(ExitCode.FINDING)
    if report.verdict is Verdict.INCONCLUSIVE:
        raise typer.Exit(ExitCode.UNMEASURED)
