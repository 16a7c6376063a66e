"""The root command: finds the command modules, turns exceptions into a message and an exit code."""

from __future__ import annotations

import os
import pkgutil
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from cfctl import __version__
from cfctl.cli import commands
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.typer_app import command_app
from cfctl.errors import CfctlError, InputError
from cfctl.text import safe_text

# Typer carries its own copy of Click; the base of its public exception is the class to catch.
ClickException: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class CommandModules(typer.core.TyperGroup):
    """A group whose commands are the modules of `cfctl.cli.commands`, imported when they are named."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the commands' names: those of the modules."""
        return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, None when there is no such module."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = typer.main.get_command(import_module(f"{commands.__name__}.{cmd_name}").app)
        command.name = cmd_name
        return command


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
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(arguments, prog_name="cfctl", standalone_mode=False)
    except ClickException as error:
        error.show()
        status = error.exit_code
    except CfctlError as error:
        if arguments[:1] == ["--debug"]:
            raise
        status = report_error(error)
    except (KeyboardInterrupt, typer.Abort):
        status = ExitCode.INTERRUPTED
    sys.exit(_flush_stdout(status if isinstance(status, int) else ExitCode.OK))


def report_error(error: CfctlError) -> ExitCode:
    """Print what failed, why and what to do to stderr; return the exit code that belongs to it."""
    parts = [safe_text(part, 600) for part in (error.what, error.why, error.todo) if part]
    print("cfctl: " + "\n       ".join(parts), file=sys.stderr)
    return ExitCode.USAGE if isinstance(error, InputError) else ExitCode.UNMEASURED


def _flush_stdout(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our pipe went away (`cfctl ... | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"cfctl: the output could not be written: {error.strerror}.", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or ExitCode.UNMEASURED
    return status
