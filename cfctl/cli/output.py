"""The options of every reporting command and the one way a result leaves it."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import config
from cfctl.errors import InputError, StateError, os_error_reason

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
    """Where a result goes and in which form."""

    format: str
    path: str | None
    unit: str | None
    color: str

    @classmethod
    def resolve(
        cls,
        format: str | None = None,
        json: bool = False,
        output: str | None = None,
        unit: str | None = None,
    ) -> Output:
        """Return the output the options and settings ask for; the file is tried before anything is measured.

        Raises InputError for an unknown format or unit and for a file that can not be written.
        """
        settings = config.load()
        name = "json" if json else format or settings.get("format")
        if name != TEXT and name not in exporter_names():
            raise InputError(
                f"There is no format '{name}'.", f"Formats: {', '.join((TEXT, *exporter_names()))}."
            )
        shown_unit = unit or settings.get("unit")
        if shown_unit not in {"auto", "ns", "us", "ms", "s"}:
            raise InputError(f"There is no unit '{shown_unit}'.", "Units: ns, us, ms, s, auto.")
        path = None if output in {None, "-"} else output
        if path is not None:
            _check_writable(path)
        return cls(name, path, None if shown_unit == "auto" else shown_unit, settings.get("color"))

    def emit(self, document: Document, render: Callable[[Any, Console, str | None], None]) -> None:
        """Write a document: `render(document, console, shown_unit)` for text, else its exporter.

        Raises InputError when the format can not hold this kind of document.
        """
        if self.format != TEXT:
            exporter = import_module(f"cfctl.export.{self.format}")
            data = exporter.export(document)
            self._write(data.encode() if isinstance(data, str) else data)
            return
        with self._text_stream() as stream:
            render(document, make_console(stream, self.color), self.unit)

    def _write(self, data: bytes) -> None:
        if self.path is None:
            sys.stdout.flush()
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.buffer.write(data)
            return
        with _file_errors(self.path), open(self.path, "wb") as file:
            file.write(data)

    @contextlib.contextmanager
    def _text_stream(self) -> Iterator[Any]:
        if self.path is None:
            with contextlib.suppress(BrokenPipeError):
                yield sys.stdout
            return
        with _file_errors(self.path), open(self.path, "w", encoding="utf-8") as file:
            yield file


def make_console(stream: Any, color: str = "auto") -> Console:
    """Return a rich Console for one stream; colour only on a terminal unless asked for or refused.

    Precedence: `color` never/always, NO_COLOR, TERM=dumb, the terminal. Nothing is highlighted,
    no markup or emoji code is interpreted: text from outside stays text.
    """
    from rich.console import Console

    plain = color == "never" or (
        color == "auto" and (bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb")
    )
    terminal = stream.isatty()
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    width = None if terminal or os.environ.get("COLUMNS") else 80
    return Console(
        file=stream, width=width, no_color=plain, force_terminal=True if color == "always" else terminal and not plain,
        highlight=False, markup=False, emoji=False, legacy_windows=False, soft_wrap=False,
    )  # fmt: skip


def message(text: str) -> None:
    """Write one line for people to stderr."""
    print(text, file=sys.stderr)


def _check_writable(path: str) -> None:
    with _file_errors(path), open(path, "ab"):
        pass


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
    except OSError as error:
        raise StateError(
            f"{path} could not be written.", os_error_reason(error), "Free space or name another file."
        ) from error


def stdout_is_terminal() -> bool:
    """Return whether results go to a person's terminal."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
