"""`cfctl bus pub`: publish from the shell."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cfctl.cli.bus_commands.topics import complete_topics
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import message
from cfctl.errors import BusTimeout, InputError, os_error_reason
from cfctl.text import safe_text
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from cfctl.bus import Publisher

_STDIN: Final = "-"
_MAX_RATE_HZ: Final = 1e7
# A payload may take half of the arena, whose least size is the default.
_ARENA_BYTES: Final = 1 << 20
_MAX_PAYLOAD_BYTES: Final = 1 << 29


@dataclass(frozen=True, slots=True)
class _Source:
    """Where payloads are from: one that is given, or the lines of standard input."""

    payload: bytes | None
    as_hex: bool

    @property
    def arena_bytes(self) -> int:
        return max(_ARENA_BYTES, 2 * len(self.payload or b""))

    def payloads(self, count: int | None, rate_hz: float | None, most_bytes: int) -> Iterable[bytes]:
        if self.payload is None:
            return itertools.islice(_lines(most_bytes, as_hex=self.as_hex), count)
        if count is None and rate_hz is not None:
            return itertools.repeat(self.payload)
        return itertools.repeat(self.payload, count or 1)


def pub(
    topic: Annotated[str, typer.Argument(help="Topic to publish on.", autocompletion=complete_topics)],
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="The message; - for a message of each line of stdin."),
    ] = None,
    hex: Annotated[bool, typer.Option("--hex", help="DATA, or each line, is hexadecimal.")] = False,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Publish the whole FILE as one message; - is stdin."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="HZ", help="Messages a second, until interrupted without --count."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", min=1, help="Publish N messages; of lines, the first N."),
    ] = None,
    wait_for: Annotated[
        int | None,
        typer.Option(
            "--wait-for",
            metavar="N",
            min=0,
            max=256,
            help="Publish nothing before N subscriptions are there.",
        ),
    ] = None,
    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="TIME", help="How long to wait for subscriptions, and for room."),
    ] = "1s",
    priority: Annotated[
        int, typer.Option("--priority", metavar="P", min=0, max=255, help="Higher ones overtake lower ones.")
    ] = 0,
) -> None:
    """Publish messages on a topic: one, several at a rate, or each line of standard input.

      cfctl bus pub orders '{"id": 7}'
      tail -f app.log | cfctl bus pub logs -
      cfctl bus pub ticks now --rate 100 --count 1000

    It waits for a subscription, as long as --timeout says, then publishes anyway and says that nobody
    subscribes. With --wait-for N it publishes nothing before N are there. A
    message stays only until those that subscribe now have taken it: nothing is kept for
    those that come after this command has ended.

    Messages at a --rate are due at fixed times, whether or not there is room; without one each
    waits for room. A message is refused, and counted on standard error, when it found none.

    Exit status: 3 when a message was refused, or the subscriptions of --wait-for did not come.
    """
    from cfctl import paths
    from cfctl.bus import Bus, BusConfig
    from cfctl.bus.sending import send

    if rate is not None and not 0 < rate <= _MAX_RATE_HZ:
        raise InputError(
            f"A rate of {rate:g} cannot be used.", "It is above 0, to 10000000 messages a second."
        )
    timeout_s = parse_time_ns(timeout, "s") / 1e9
    source = _source(data, file, as_hex=hex)
    config = BusConfig(directory=paths.segment_directory(), arena_bytes=source.arena_bytes)
    with Bus(config, own=True) as bus:
        publisher = bus.publisher(topic, priority=priority)
        _await_subscriptions(publisher, wait_for, timeout_s, config.directory)
        try:
            payloads = source.payloads(count, rate, publisher.max_payload)
            send(publisher, payloads, rate_hz=rate, timeout_s=timeout_s)
        finally:
            # Its own counts: an interrupt comes at any moment.
            counts = publisher.counts()
            _report(counts["published"], counts["rejected"], counts["readers"])
    if counts["rejected"]:
        raise typer.Exit(ExitCode.UNMEASURED)


def _source(data: str | None, file: str | None, *, as_hex: bool) -> _Source:
    if (data is None) == (file is None):
        what = "There is no message." if data is None else "There are two messages."
        raise InputError(what, "It is DATA or --file FILE.", "Give one of the two; '' is an empty message.")
    if file is not None:
        content = _read(file)
        return _Source(_from_hex(content) if as_hex else content, as_hex=False)
    assert data is not None
    if data == _STDIN:
        return _Source(None, as_hex)
    given = os.fsencode(data)
    return _Source(_from_hex(given) if as_hex else given, as_hex=False)


def _read(file: str) -> bytes:
    """Return a file's content. Raises InputError when it cannot be read or is larger than any message."""
    try:
        if file == _STDIN:
            content = sys.stdin.buffer.read(_MAX_PAYLOAD_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(_MAX_PAYLOAD_BYTES + 1)
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"{error}."
        raise InputError(f"{file} cannot be read.", why, "Name another file.") from error
    if len(content) > _MAX_PAYLOAD_BYTES:
        raise InputError(f"{file} cannot be sent.", f"A message has at most {_MAX_PAYLOAD_BYTES} bytes.")
    return content


def _lines(most_bytes: int, *, as_hex: bool) -> Iterator[bytes]:
    # Two characters for a byte, and the line's end.
    most_characters = most_bytes * (2 if as_hex else 1) + 1
    while line := sys.stdin.buffer.readline(most_characters + 1):
        if len(line) > most_characters or (len(line) == most_characters and not line.endswith(b"\n")):
            raise InputError(
                "A line cannot be sent.", f"It is longer than {most_bytes} bytes.", "Use --file."
            )
        line = line.removesuffix(b"\n")
        yield _from_hex(line) if as_hex else line


def _from_hex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError as error:
        raise InputError(
            f"'{safe_text(text, 40)}' is not hexadecimal.",
            "A byte is two of 0-9 and a-f.",
            "Write it like 00ff.",
        ) from error


def _await_subscriptions(
    publisher: Publisher, wait_for: int | None, timeout_s: float, directory: Path
) -> None:
    """Wait for subscriptions; without an order for one, and go on without. Raises BusTimeout."""
    try:
        publisher.wait_for_subscribers(1 if wait_for is None else wait_for, timeout_s)
    except BusTimeout as error:
        advice = _nearest(publisher.topic, directory)
        if wait_for is not None:
            there = publisher.readers
            why = f"{there} {'is' if there == 1 else 'are'} there. {advice}".rstrip()
            raise BusTimeout(
                f"{wait_for} subscriptions did not come in time: nothing was published.", why
            ) from error
        message(f"cfctl: Nobody subscribes to '{safe_text(publisher.topic, 64)}'. {advice}".rstrip())


def _nearest(topic: str, directory: Path) -> str:
    """Return a sentence about the topic with the nearest name that is subscribed to, "" when none is near."""
    import difflib

    from cfctl.bus.presence import Role, topic_names

    others = [name for name in topic_names(directory, Role.SUBSCRIBER) if name != topic]
    found = difflib.get_close_matches(topic, others, 1)
    return f"There are subscriptions to '{safe_text(found[0], 64)}'." if found else ""


def _report(published: int, refused: int, subscriptions: int) -> None:
    messages = "1 message" if published == 1 else f"{published} messages"
    there = "1 subscription" if subscriptions == 1 else f"{subscriptions} subscriptions"
    rest = f", {refused} refused, as the ring was full" if refused else ""
    message(f"cfctl: {messages} published for {there}{rest}.")
