"""The man pages and completion scripts, made from the commands themselves.

`python -m cfctl.cli.manual DIR` writes DIR/man and DIR/completions; both are checked in, and a test
compares them with what this module makes.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import typer
import typer.main

from cfctl import __version__, config
from cfctl.cli.app import app
from cfctl.cli.completion import SCRIPTS
from cfctl.cli.exit_codes import EXIT_CODE_HELP, WRAPPER_EXIT_CODE_HELP
from cfctl.cli.typer_app import CLICK_PACKAGE

# Not today's date: the same sources give the same pages. The changelog has the same date.
RELEASE_DATE: Final = "2026-11-23"

_ENVIRONMENT: Final = {
    "NO_COLOR": "no colour when set and not empty",
    "FORCE_COLOR": "colour also in a pipe; CFCTL_COLOR goes before both",
    "COLUMNS": "width of tables and help",
    "CFCTL_SEGMENT_DIR": "directory of segments, instead of /dev/shm/cfctl-UID",
    "CFCTL_SEGMENT_LIMIT": "how large the segment of a process may grow, such as 64MiB; 32MiB without it",
    "CFCTL_TIMELINE": "1 keeps the latest 8192 samples of each thread of a program, with their moments",
    "CFCTL_TICK_SOURCE": "os: measure with clock_gettime(2) instead of the CPU's tick counter",
}
_FILES: Final = {
    "cfctl.toml, or [tool.cfctl] in pyproject.toml": "settings and targets of a project: the nearest one, "
    "from the working directory upwards",
    "$XDG_CONFIG_HOME/cfctl/config.toml": "settings of the user; ~/.config without the variable",
    "$XDG_STATE_HOME/cfctl": "saved calibrations; ~/.local/state without the variable",
    "/dev/shm/cfctl-UID": "segments, which instrumented programs write and cfctl reads",  # noqa: S108
}
_ROFF: Final = str.maketrans({
    "\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq",
})  # fmt: skip


def roff(text: str) -> str:
    """Return text that troff prints as it is, whatever it starts with or contains."""
    text = text.translate(_ROFF)
    text = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", text)
    return re.sub(r"(?m)^\.", r"\\&.", text)


def pages() -> dict[str, str]:
    """Return the man page of the program, of each group and of each command, by file name."""
    made = {}
    for words, context in _walk(_root_context()):
        made["-".join(words) + ".1"] = "\n".join(_page(words, context)) + "\n"
    return made


def generated_files() -> dict[str, str]:
    """Return every generated file's content by its path in the source tree."""
    files = {f"man/{name}": text for name, text in pages().items()}
    return files | {f"completions/{name}": text for name, text in SCRIPTS.values()}


def _root_context() -> Any:
    command: Any = typer.main.get_command(app)
    return _context(command, "cfctl")


def _context(command: Any, name: str, parent: Any = None) -> Any:
    context_class = import_module(f"{CLICK_PACKAGE}.core").Context
    return context_class(command, parent, name, **command.context_settings)


def _walk(context: Any, words: tuple[str, ...] = ("cfctl",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, context
    for name, command in _subcommands(context):
        yield from _walk(_context(command, name, context), (*words, name))


def _subcommands(context: Any) -> Iterator[tuple[str, Any]]:
    command = context.command
    # Not isinstance: the vendored Click's classes are not the ones anybody can import.
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        found = command.get_command(context, name)
        if not found.hidden:
            yield name, found


def _page(words: tuple[str, ...], context: Any) -> Iterator[str]:
    command = context.command
    title = "-".join(words)
    summary, *paragraphs = _paragraphs(command.help or "")
    yield f'.TH {roff(title.upper())} 1 "{RELEASE_DATE}" "cfctl {__version__}" "cfctl manual"'
    yield from (".SH NAME", f"{roff(title)} \\- {roff(summary.rstrip('.'))}")
    yield from (".SH SYNOPSIS", *_synopsis(words, context))
    yield ".SH DESCRIPTION"
    for paragraph in paragraphs or [summary]:
        yield from _paragraph(paragraph)
    arguments = [p for p in _parameters(context) if p.param_type_name == "argument" and _help(p)]
    options = [p for p in _parameters(context) if p.param_type_name == "option"]
    yield from _section("ARGUMENTS", {f"\\fI{roff(_metavar(p, context))}\\fR": _help(p) for p in arguments})
    yield from _section("OPTIONS", {_option_term(p, context): _option_text(p) for p in options})
    subcommands = {
        "-".join((*words, name)): _paragraphs(found.help)[0] for name, found in _subcommands(context)
    }
    yield from _section("COMMANDS", {_reference(name): text for name, text in subcommands.items()})
    codes = EXIT_CODE_HELP | (WRAPPER_EXIT_CODE_HELP if len(words) == 1 or words[-1] == "run" else {})
    yield from _section("EXIT STATUS", {f"\\fB{code:d}\\fR": codes[code] for code in sorted(codes)})
    if len(words) == 1:
        yield from _section("ENVIRONMENT", _environment())
        yield from _section("FILES", {f"\\fI{roff(name)}\\fR": text for name, text in _FILES.items()})
    yield from _see_also(words, list(subcommands))


def _paragraphs(text: str) -> list[str]:
    # Without the mark that keeps Click from filling an example.
    return re.split(r"\n\s*\n", text.replace("\b\n", "").strip("\n")) if text.strip() else [""]


def _paragraph(text: str) -> Iterator[str]:
    if text.startswith(" "):
        yield from (".PP", ".RS 4", ".nf", roff(textwrap.dedent(text)), ".fi", ".RE")
    else:
        yield from (".PP", roff(" ".join(text.split())))


def _synopsis(words: tuple[str, ...], context: Any) -> Iterator[str]:
    parts = ["[\\fIOPTIONS\\fR]"]
    if hasattr(context.command, "list_commands"):
        parts += ["\\fICOMMAND\\fR", "[\\fIARGS\\fR]..."]
    for parameter in _parameters(context):
        if parameter.param_type_name == "argument":
            word = f"\\fI{roff(_metavar(parameter, context))}\\fR"
            word = word if parameter.required else f"[{word}]"
            parts.append(word + ("..." if parameter.nargs == -1 else ""))
    yield f"\\fB{roff(' '.join(words))}\\fR " + " ".join(parts)


def _section(title: str, entries: Mapping[str, str]) -> Iterator[str]:
    if entries:
        yield f".SH {title}"
    for term, text in entries.items():
        yield from (".TP", term, roff(" ".join(text.split())) or "\\&")


def _parameters(context: Any) -> list[Any]:
    return [p for p in context.command.get_params(context) if not getattr(p, "hidden", False)]


def _help(parameter: Any) -> str:
    return getattr(parameter, "help", None) or ""


def _metavar(parameter: Any, context: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return "|".join(str(getattr(choice, "value", choice)) for choice in choices)
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    return str(parameter.make_metavar(context))


def _option_term(parameter: Any, context: Any) -> str:
    spellings = [*sorted(parameter.opts, key=len), *sorted(parameter.secondary_opts, key=len)]
    term = ", ".join(f"\\fB{roff(spelling)}\\fR" for spelling in spellings)
    is_flag = parameter.is_flag or getattr(parameter, "count", False)
    return term if is_flag else f"{term} \\fI{roff(_metavar(parameter, context))}\\fR"


def _option_text(parameter: Any) -> str:
    text = _help(parameter)
    default = parameter.default
    if default is not None and not parameter.is_flag and not callable(default) and default != ():
        text += f" Default: {getattr(default, 'value', default)}."
    variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
    return text + "".join(f" Environment: {name}." for name in variables)


def _environment() -> dict[str, str]:
    settings = {
        setting.environment_name: f"{setting.help}; default {config.shown(setting, setting.default)}"
        for setting in config.SETTINGS
    }
    return {f"\\fB{roff(name)}\\fR": text for name, text in (settings | _ENVIRONMENT).items()}


def _reference(name: str) -> str:
    return f"\\fB{roff(name)}\\fR(1)"


def _see_also(words: tuple[str, ...], subcommands: list[str]) -> Iterator[str]:
    related = [*("-".join(words[:depth]) for depth in range(1, len(words))), *subcommands]
    if related:
        yield from (".SH SEE ALSO", ", ".join(map(_reference, related)))


def main(arguments: list[str]) -> int:
    """Write all generated files under a directory and remove pages of commands that are gone."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m cfctl.cli.manual DIR", file=sys.stderr)
        return 2
    root = Path(arguments[0])
    files = generated_files()
    for old in (root / "man").glob("cfctl*.1"):
        if f"man/{old.name}" not in files:
            old.unlink()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
