"""`cfctl bus echo`: messages as they come."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cfctl.cli.bus_commands.topics import complete_topics
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import JsonOption, message, stdout_is_terminal
from cfctl.errors import InputError
from cfctl.text import safe_text
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from cfctl.bus.listening import Heard, Listener

# How long it waits for a message before it looks whether anybody still reads its output.
_SLICE_S: Final = 0.2
# Losses are reported at most so often while messages come.
_LOSS_EVERY_S: Final = 1.0

TopicsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TOPIC]...", help="Topics; all without one.", autocompletion=complete_topics),
]
PatternOption = Annotated[
    str | None,
    typer.Option("--pattern", metavar="P", help="Topics whose name it matches: * any characters, ? one."),
]
DurationOption = Annotated[
    str, typer.Option("--duration", metavar="TIME", help="End after this time; 0 runs until interrupted.")
]


@dataclass(frozen=True, slots=True)
class _Form:
    """How messages are shown."""

    json: bool
    raw: bool
    hex: bool
    whole: bool
    since_unix_ns: int | None

    def write(self, heard: list[Heard]) -> None:
        from cfctl.cli.bus_commands.lines import write_lines, write_payloads
        from cfctl.render.messages import json_line, text_line

        if self.raw:
            write_payloads([each.message.payload for each in heard])
        elif self.json:
            write_lines([json_line(each) for each in heard])
        else:
            write_lines([
                text_line(each, since_unix_ns=self.since_unix_ns, as_hex=self.hex, whole=self.whole)
                for each in heard
            ])  # fmt: skip


def echo(
    topics: TopicsArgument = None,
    pattern: PatternOption = None,
    history: Annotated[
        int,
        typer.Option(
            "--history",
            metavar="N",
            min=0,
            max=1 << 20,
            help="Show the last N messages of each publisher first.",
        ),
    ] = 0,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="End after N messages.")
    ] = None,
    duration: DurationOption = "0",
    relative: Annotated[
        bool, typer.Option("--relative", help="Show times since the start, not of the day.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Show payloads whole, not their start.")] = False,
    hex: Annotated[bool, typer.Option("--hex", help="Show payloads in hexadecimal.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write payloads alone, as they are, a line each.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the messages of topics as they come, a line each.

    A line holds the time the message was published, its topic, size, delay and payload. The delay is
    from publishing to receipt here: the wake-up of this process is in it, and the messages taken
    before it. Messages of the history have none. Text is shown as it is, without what a
    terminal would interpret; a payload that is no text as a bytes literal, b'\\x00...'. For rates see
    cfctl bus hz.

    With --json each line is an object: payloads of UTF-8 are text, others base64, as encoding says.
    --raw does not write to a terminal, which would interpret what it gets.

    No publisher waits for this command. What it was too slow for is lost here alone and counted on
    standard error.

    Exit status: 3 when --duration ended before a message came, or before --count messages had.
    """
    from cfctl import paths
    from cfctl.bus.listening import Listener

    duration_ns = parse_time_ns(duration, "s")
    _check(topics, pattern, json=json, raw=raw, as_hex=hex)
    form = _Form(json, raw, hex, full, time.time_ns() if relative else None)
    with Listener(paths.segment_directory(), tuple(topics or ()), pattern, history) as listener:
        shown = _show(listener, form, count, duration_ns)
    if shown < (count or 1) and duration_ns:
        where = pattern or ", ".join(topics or ()) or "any topic"
        message(f"cfctl: {shown} of {count or 1} messages came on {safe_text(where, 200)} in {duration}.")
        raise typer.Exit(ExitCode.UNMEASURED)


def _check(topics: list[str] | None, pattern: str | None, *, json: bool, raw: bool, as_hex: bool) -> None:
    if json + raw + as_hex > 1:
        raise InputError("--json, --raw and --hex exclude each other.", "", "Choose one of them.")
    if topics and pattern is not None:
        raise InputError("Topics and --pattern exclude each other.", "", "Choose one of the two.")
    if raw and stdout_is_terminal():
        raise InputError(
            "Raw payloads are not written to a terminal.",
            "It would interpret what they hold.",
            "Pipe them to a program or a file, or leave --raw out.",
        )


def _show(listener: Listener, form: _Form, count: int | None, duration_ns: int) -> int:
    """Show messages until an end is reached; return how many. The losses are reported also at an interrupt."""
    from cfctl.cli.bus_commands.lines import require_reader

    losses = Losses(listener)
    end_s = time.monotonic() + duration_ns / 1e9 if duration_ns else float("inf")
    shown = 0
    try:
        while (count is None or shown < count) and (left_s := end_s - time.monotonic()) > 0:
            most = {} if count is None else {"most": count - shown}
            heard = listener.hear(min(left_s, _SLICE_S), **most)
            if heard:
                form.write(heard)
                shown += len(heard)
            else:
                require_reader()
            losses.report()
    finally:
        losses.report(at_end=True)
    return shown


class Losses:
    """Says on standard error how many messages a listener lost, once a second at most."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._reported = 0
        self._next_s = 0.0

    def report(self, *, at_end: bool = False) -> None:
        """Report losses that are new."""
        now_s = time.monotonic()
        if now_s < self._next_s and not at_end:
            return
        self._next_s = now_s + _LOSS_EVERY_S
        lost = self._listener.lost
        if lost > self._reported:
            self._reported = lost
            message(
                f"cfctl: {lost} {'message' if lost == 1 else 'messages'} lost here so far: they came too fast."
            )
