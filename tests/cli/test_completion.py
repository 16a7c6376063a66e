"""What a TAB is answered, before any shell is involved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cfctl.cli.app import command_names
from cfctl.cli.completion import SCRIPTS

if TYPE_CHECKING:
    from tests.conftest import Cfctl


def complete(cfctl: Cfctl, line: str) -> list[list[str]]:
    result = cfctl(env={"_CFCTL_COMPLETE": "complete_bash", "_CFCTL_LINE": line})
    assert (result.returncode, result.stderr) == (0, "")
    return [row.split("\t") for row in result.stdout.splitlines()]


def test_the_first_word_is_one_of_the_commands(cfctl: Cfctl) -> None:
    assert [row[1] for row in complete(cfctl, "cfctl ")] == list(command_names())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cfctl conf", ["config"]),
        ("cfctl config ", ["show", "path", "init"]),
        ("cfctl config show --form", ["--format"]),
        ("cfctl config show --format j", ["json", "junit"]),
        ("cfctl config show --format=ma", ["markdown"]),
        ("cfctl --ver", ["--version"]),
        ("cfctl check --git", ["--github"]),
    ],
)
def test_candidates_begin_with_what_was_typed(cfctl: Cfctl, line: str, expected: list[str]) -> None:
    assert [row[1] for row in complete(cfctl, line)] == expected


@pytest.mark.parametrize("line", ["cfctl check --junit ", "cfctl check -o rep", "cfctl check --targets=t"])
def test_where_a_file_belongs_the_shell_is_asked_for_files(cfctl: Cfctl, line: str) -> None:
    assert complete(cfctl, line) == [["file", "", ""]]


@pytest.mark.parametrize(
    "line", ["", "cfctl", 'cfctl "', "cfctl 'a b", "cfctl \\", "cfctl nothing ", "cfctl --x=", "\x00"[:0]]
)
def test_any_line_is_answered_without_an_error(cfctl: Cfctl, line: str) -> None:
    complete(cfctl, line)


def test_the_words_of_zsh_and_fish_are_taken_as_they_are(cfctl: Cfctl) -> None:
    env = {"_CFCTL_COMPLETE": "complete_zsh", "_CFCTL_WORDS": "cfctl\nconfig", "_CFCTL_INCOMPLETE": "sh"}
    assert cfctl(env=env).stdout.startswith("plain\tshow\tShow every setting")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_of_a_shell_can_be_printed(cfctl: Cfctl, shell: str) -> None:
    assert cfctl(env={"_CFCTL_COMPLETE": f"source_{shell}"}).stdout == SCRIPTS[shell][1]


@pytest.mark.parametrize("instruction", ["complete_tcsh", "source", "steal_bash", "\x1b[31m"])
def test_an_unknown_instruction_is_refused(cfctl: Cfctl, instruction: str) -> None:
    result = cfctl(env={"_CFCTL_COMPLETE": instruction})
    assert result.returncode == 2
    assert "bash, zsh, fish" in result.stderr
    assert "\x1b" not in result.stderr
