"""The one way a Typer app is made here, so that every command behaves and prints alike."""

from __future__ import annotations

from typing import Any

import typer

# Typer carries its own copy of Click since 0.26; the base of its public exception says where it is.
ClickException: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
CLICK_PACKAGE = ClickException.__module__.rpartition(".")[0]


def command_app(help_text: str | None = None, **settings: Any) -> typer.Typer:
    """Return an empty Typer app with the house settings.

    Help is plain text: it is ready in half the time of boxed help, and reads the same on a
    terminal, in a pipe and in a man page.
    """
    if help_text is not None:
        settings["help"] = help_text
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        **settings,
    )


def command_group(help_text: str) -> typer.Typer:
    """Return an empty group that shows its help when no command is named."""
    app = command_app(help_text, no_args_is_help=True)
    # A callback keeps a group with a single command a group.
    app.callback()(lambda: None)
    return app
