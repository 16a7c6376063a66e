"""The root command: finds the command modules, turns exceptions into a message and an exit code."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pkgutil
import re
import sys
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from cfctl import __version__
from cfctl.cli import commands, streams
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.typer_app import CLICK_PACKAGE, ClickException, command_app
from cfctl.errors import CfctlError, InputError, os_error_reason
from cfctl.text import safe_text


@cache
def command_names() -> tuple[str, ...]:
    """Return the names of all commands and groups: the modules of `cfctl.cli.commands`."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(commands.__path__)))


def summary(name: str) -> str:
    """Return a command's summary: the first line of its module, which is read and not imported.

    The help and a TAB list all commands, and must not pay for what each of them imports.
    """
    for directory in commands.__path__:
        for path in (f"{directory}/{name}.py", f"{directory}/{name}/__init__.py"):
            with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as module:
                return module.readline().partition("`: ")[2].strip().strip('"').rstrip(".")
    return ""


class CommandModules(typer.core.TyperGroup):
    """A group whose commands are the modules of `cfctl.cli.commands`, imported when they are named."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Only the names: Typer suggests the nearest of them for a misspelled one.
        self.commands: dict[str, Any] = dict.fromkeys(command_names())

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the commands with their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in command_names()])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return the commands, or options, that begin with what was typed."""
        item: Any = import_module(f"{CLICK_PACKAGE}.shell_completion").CompletionItem
        names = [name for name in command_names() if name.startswith(incomplete)]
        # Past TyperGroup, which would import every command for its help.
        options = super(typer.core.TyperGroup, self).shell_complete(ctx, incomplete)
        return [*(item(name, help=summary(name)) for name in names), *options]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the commands' names."""
        return list(command_names())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return the command of that name, None when there is no such module."""
        if cmd_name not in command_names():
            return None
        command = typer.main.get_command(import_module(f"{commands.__name__}.{cmd_name}").app)
        command.name = cmd_name
        _keep_indented_paragraphs(command)
        return command


def _keep_indented_paragraphs(command: Any) -> None:
    """Mark the examples in help texts, so that Click prints them as they stand instead of filling them."""
    command.help = re.sub(r"(?m)(\A|\n\n)(?=  )", "\\1\b\n", command.help or "")
    for subcommand in getattr(command, "commands", {}).values():
        _keep_indented_paragraphs(subcommand)


app = command_app(cls=CommandModules, name="cfctl", no_args_is_help=True)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"cfctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Can this machine, and this program on it, meet a microsecond latency budget?

    cfctl measures what is in the way and names what exactly fixes it.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit the process."""
    streams.prepare_standard_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every exception ends here."""
    # --debug is an option of the root command and stands before the first command's name.
    debug = "--debug" in itertools.takewhile(lambda word: word.startswith("-"), arguments)
    try:
        status = _invoke(arguments)
    except typer.Exit as error:
        status = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        status = ExitCode.INTERRUPTED
    except BrokenPipeError:
        status = ExitCode.OK
    except ClickException as error:
        status = _report_usage(error)
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes a message
        if debug:
            import traceback

            traceback.print_exc()
        if isinstance(error, OSError) and not streams.stdout_works():
            # It was raised by what was printed; flush_stdout below says so, once.
            status = ExitCode.OK
        else:
            status = report_error(error if isinstance(error, CfctlError) else _as_cfctl_error(error))
    return streams.flush_stdout(int(status))


def _invoke(arguments: list[str]) -> int:
    command: Any = typer.main.get_command(app)
    if instruction := os.environ.get("_CFCTL_COMPLETE"):
        from cfctl.cli import completion

        return completion.respond(command, instruction)
    # Not Command.main(): it exits 1 for a broken pipe, and 1 says that there is a finding.
    with command.make_context("cfctl", list(arguments)) as context:
        command.invoke(context)
    return ExitCode.OK


def report_error(error: CfctlError) -> ExitCode:
    """Print what failed, why and what to do to stderr; return the exit code that belongs to it."""
    parts = [safe_text(part, 600) for part in (error.what, error.why, error.todo) if part]
    print("cfctl: " + "\n       ".join(parts), file=sys.stderr)
    return ExitCode.USAGE if isinstance(error, InputError) else ExitCode.UNMEASURED


def _as_cfctl_error(error: Exception) -> CfctlError:
    if isinstance(error, OSError):
        return CfctlError(
            "Something could not be read or written.", os_error_reason(error), "cfctl --debug shows where."
        )
    if isinstance(error, MemoryError):
        return CfctlError("The memory did not suffice.", "", "Free memory or raise the limit.")
    return CfctlError(
        "This is a bug in cfctl.",
        f"{type(error).__name__}: {error}",
        "Please report it with the output of the same command after 'cfctl --debug'.",
    )


def _report_usage(error: Any) -> int:
    """Print Typer's usage message, which quotes the user's words, without what a terminal interprets."""
    text = io.StringIO()
    error.show(file=text)
    for line in text.getvalue().splitlines():
        print(safe_text(line, 600), file=sys.stderr)
    return int(error.exit_code)
