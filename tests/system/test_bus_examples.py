"""The programs of docs/bus.md run as they stand, and print what stands below them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUS = ROOT / "docs" / "bus.md"
# A fenced block with its language, or a heading.
_PART = re.compile(
    r"^```(?P<language>\w+)\n(?P<text>.*?)^```$|^#+ (?P<heading>[^\n]+)", re.MULTILINE | re.DOTALL
)
PATIENCE_S = 120


@dataclass
class Example:
    """A program of the document: the heading above it, its text, and what it prints."""

    heading: str
    program: str
    output: str | None = None


def examples(document: str) -> list[Example]:
    """Return the programs of a document; a block of text below one, with only prose between, is its output."""
    found: list[Example] = []
    heading, awaits_output = "", False
    for part in _PART.finditer(document):
        if part["heading"]:
            heading, awaits_output = part["heading"], False
        elif part["language"] == "python":
            found.append(Example(heading, part["text"]))
            awaits_output = True
        elif part["language"] == "text" and awaits_output:
            found[-1].output = part["text"]
            awaits_output = False
    return found


def outcome(example: Example, directory: Path) -> str:
    """Return what a program prints; fails when it ends by an error or does not end."""
    program = directory / "program.py"
    program.write_text(example.program)
    done = subprocess.run(
        [sys.executable, str(program)], cwd=directory, capture_output=True, text=True, timeout=PATIENCE_S,
        env=os.environ | {"CFCTL_SEGMENT_DIR": str(directory / "rings"), "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def prints(example: Example, directory: Path) -> bool:
    """Return whether a program prints what the document says."""
    return outcome(example, directory) == example.output


ALL = examples(BUS.read_text())
WITH_OUTPUT = [each for each in ALL if each.output is not None]


@pytest.mark.parametrize("example", WITH_OUTPUT, ids=lambda each: each.heading)
def test_a_program_of_the_document_prints_what_stands_below_it(example: Example, tmp_path: Path) -> None:
    modules = re.findall(r"^(?:import|from) (\w+)", example.program, re.MULTILINE)
    missing = [each for each in modules if importlib.util.find_spec(each) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    assert prints(example, tmp_path)


def test_the_first_two_programs_work_together(tmp_path: Path) -> None:
    publisher, subscriber = [each for each in ALL if each.heading == "First steps"]
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "rings")}
    with subprocess.Popen([sys.executable, "-c", publisher.program], env=environment) as running:
        assert outcome(subscriber, tmp_path) == "".join(f"EURUSD {each}\n" for each in range(5))
        assert running.wait(PATIENCE_S) == 0


def test_each_system_and_recipe_is_run() -> None:
    document = BUS.read_text()
    run = {each.heading for each in WITH_OUTPUT}
    systems = document.split("\n## Complete systems\n")[1]
    headings = [each["heading"] for each in _PART.finditer(systems) if each["heading"]]
    assert [each for each in headings if each not in run] == ["Short recipes"]
    assert document.count("```python\n") == len(WITH_OUTPUT) + 2


def test_a_wrong_output_and_a_program_that_fails_are_found(tmp_path: Path) -> None:
    document = "# Seeded\n\n```python\nprint(1)\n```\n\n```text\n2\n```\n"
    (wrong,) = examples(document)
    assert not prints(wrong, tmp_path)
    with pytest.raises(AssertionError):
        prints(Example("fails", "raise SystemExit(3)\n", ""), tmp_path)
