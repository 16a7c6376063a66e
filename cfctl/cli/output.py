"""The options of every reporting command and the one way a result leaves it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import config
from cfctl.cli.streams import TRANSLITERATE, discard
from cfctl.errors import InputError, StateError, os_error_reason
from cfctl.paths import write_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from cfctl.records import Document

TEXT = "text"


def exporter_names() -> list[str]:
    """Return the formats that have an exporter: the modules of `cfctl.export`."""
    import pkgutil

    import cfctl.export

    return sorted(module.name for module in pkgutil.iter_modules(cfctl.export.__path__))


def _complete_format(incomplete: str) -> list[str]:
    return [name for name in (TEXT, *exporter_names()) if name.startswith(incomplete)]


FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="Output format: text, json, ...", autocompletion=_complete_format
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result to FILE; - is stdout.")
]
UnitOption = Annotated[
    str | None,
    typer.Option("--unit", metavar="UNIT", help="Show times in ns, us, ms or s; by size without it."),
]


@dataclass(frozen=True, slots=True)
class Output:
    """Where a result goes and in which form; without a path to standard output, or to error."""

    format: str
    path: str | None
    unit: str | None
    color: str
    to_stderr: bool = False

    @classmethod
    def resolve(
        cls,
        format: str | None = None,
        json: bool = False,
        output: str | None = None,
        unit: str | None = None,
        to_stderr: bool = False,
    ) -> Output:
        """Return the output the options and settings ask for; the file is tried before anything is measured.

        `to_stderr` is for a command whose standard output is another program's; - still is stdout.
        Raises InputError for an unknown format or unit and for a file that can not be written.
        """
        settings = config.load()
        formats = (TEXT, *exporter_names())
        name = "json" if json else format or settings.get("format")
        if name not in formats:
            where = "" if format else f"{settings.resolved['format'].where}: "
            raise InputError(f"{where}There is no format '{name}'.", f"Formats: {', '.join(formats)}.")
        shown_unit = unit or settings.get("unit")
        if shown_unit not in {"auto", "ns", "us", "ms", "s"}:
            raise InputError(f"There is no unit '{shown_unit}'.", "Units: ns, us, ms, s, auto.")
        path = None if output in {None, "-", "/dev/stdout"} else output
        if path is not None:
            check_writable(path)
        shown = None if shown_unit == "auto" else shown_unit
        return cls(name, path, shown, settings.get("color"), to_stderr and output is None)

    def emit(self, document: Document, render: Callable[[Any, Console, str | None], None]) -> None:
        """Write a document: `render(document, console, shown_unit)` for text, else its exporter.

        Raises InputError when the format can not hold this kind of document, StateError when the
        result can not be written.
        """
        if self.format == TEXT:
            self._write(self.rendered(document, render))
            return
        data = import_module(f"cfctl.export.{self.format}").export(document)
        self._write(data.encode() if isinstance(data, str) else data)

    def write_text(self, text: str) -> None:
        """Write text that stands for itself; errors as `emit`, and BrokenPipeError when nobody reads it any more."""
        if not self._write(text.encode(errors="replace")):
            raise BrokenPipeError

    def rendered(self, document: Document, render: Callable[[Any, Console, str | None], None]) -> bytes:
        """Return the document as the text that `emit` would write."""
        # Rendered whole before the first byte leaves: a pipe that breaks is then one write that fails.
        stream = self._standard_stream() if self.path is None else None
        encoding = stream.encoding if stream else "utf-8"
        memory = io.BytesIO()
        with io.TextIOWrapper(memory, encoding, TRANSLITERATE, newline="\n") as text:
            console = make_console(stream, self.color, into=text)
            render(document, console, self.unit)
            text.flush()
            data = memory.getvalue()
        return data if console.is_terminal else re.sub(rb"[ \t]+\n", b"\n", data)

    def _write(self, data: bytes) -> bool:
        """Write, and return whether somebody reads it."""
        if self.path is not None:
            write_file(self.path, data)
            return True
        stream = self._standard_stream()
        try:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()
        except BrokenPipeError:
            discard(stream)
            return False
        except OSError as error:
            discard(stream)
            raise StateError(
                "The result could not be written.", os_error_reason(error), "Free space, or use -o."
            ) from error
        return True

    def _standard_stream(self) -> Any:
        return sys.stderr if self.to_stderr else sys.stdout


def make_console(stream: Any, color: str = "auto", into: Any = None) -> Console:
    """Return a rich Console for a stream, or for what is later written to it (`into`); None is a file.

    Colour only on a terminal unless it is asked for or refused; precedence: `color` never or always,
    NO_COLOR, FORCE_COLOR, TERM=dumb, the terminal. Nothing is highlighted, no markup or emoji code is
    interpreted: text from outside stays text. Writing to a closed pipe raises BrokenPipeError.
    """
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            """Let the command line decide; rich would exit 1, which says that there is a finding."""
            raise BrokenPipeError

    terminal = stream is not None and stream.isatty()
    colored = _wants_color(color, terminal)
    return PipeConsole(
        file=into or stream, width=_width(terminal), no_color=not colored, force_terminal=colored,
        color_system=("auto" if color == "auto" and terminal else "standard") if colored else None,
        highlight=False, markup=False, emoji=False, legacy_windows=False, soft_wrap=False,
    )  # fmt: skip


def _wants_color(color: str, terminal: bool) -> bool:
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return terminal and os.environ.get("TERM") != "dumb"


def _width(terminal: bool) -> int | None:
    """Return the width of tables: $COLUMNS within reason, the terminal's own (None), or 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return max(40, min(int(columns), 1000))
    return None if terminal else 80


def message(text: str) -> None:
    """Write one line for people to stderr."""
    print(text, file=sys.stderr)


def check_writable(path: str) -> None:
    """Raise InputError when a file can not be written, StateError when the disk refuses it.

    Nothing is left behind.
    """
    target = Path(path)
    with _file_errors(path):
        if target.exists() and not target.is_file():
            # Opening and closing a pipe would end it for its reader.
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return
        existed = target.exists()
        with open(path, "ab"):
            pass
        if not existed:
            target.unlink()


def write_file(path: str, data: bytes) -> None:
    """Write a file the user named; an old one is replaced whole or stays; errors as `check_writable`."""
    with _file_errors(path):
        write_result(Path(path), data)


@contextlib.contextmanager
def _file_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InputError(
            f"{path} can not be written.", os_error_reason(error), "Name another file."
        ) from error
    except BrokenPipeError:
        pass
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"{error}."
        raise StateError(f"{path} could not be written.", why, "Free space or name another file.") from error


def stdout_is_terminal() -> bool:
    """Return whether results go to a person's terminal."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
