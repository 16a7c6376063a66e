"""A smoke run of each command: it ends with a documented exit code, and what it prints as JSON is JSON.

The commands are found by walking the program, so a new one is run too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from cfctl.cli.app import app
from cfctl.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from tests.conftest import Cfctl

pytestmark = pytest.mark.host

SAVED = str(Path(__file__).parents[1] / "golden" / "compare" / "calibration.json")
# What a command needs to end soon; all others are run with --json alone.
ARGUMENTS: dict[str, list[str]] = {
    "bench": ["--section", "pool"],
    "bus echo": ["--duration", "20ms"],
    "bus hz": ["--duration", "20ms"],
    "bus pub": ["topic", "message", "--timeout", "0"],
    "bus record": ["-o", "trace", "--duration", "20ms"],
    "bus verify": [str(Path(__file__).parent / "bus_trace.jsonl")],
    "diagnose temporal": ["--duration", "0", "--no-measure"],
    "bus bench": ["--duration", "50ms"],
    "check": ["--window", "200ms"],
    "calibrate": ["--duration", "10ms"],
    "compare": [SAVED, SAVED],
    "diagnose explain": ["TIMER_SLACK"],
    "diagnose latency": ["--quick"],
    "probe core-to-core": ["--samples", "20"],
    "probe cost": ["--samples", "20"],
    "probe jitter": ["--duration", "50ms"],
    "probe wakeup": ["--duration", "50ms"],
    "capture": ["-o", "host.tar.gz", "--interval", "50ms", "--duration", "100ms"],
    "profile save": ["-o", "saved.json"],
    "profile compare": [
        "--interleave",
        f"{sys.executable} -c pass",
        f"{sys.executable} -c pass",
        "--rounds",
        "1",
    ],
    "profile import": [str(Path(__file__).parent / "pyperf_result.json")],
    "profile bench": ["--fast", "pass"],
    "targets validate": [str(Path(__file__).parent / "targets.toml")],
    "top": ["--interval", "1ms"],
    "alloc run": ["--", sys.executable, "-c", "pass"],
    "profile run": ["--", sys.executable, "-c", "pass"],
    "diagnose memory": [str(os.getpid()), "--duration", "0"],
    "pool bench": ["--factory", "collections:deque", "--duration", "1ms"],
}


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Yield every command that is no group, with its options."""
    if not hasattr(command, "list_commands"):
        yield " ".join(words), {spelling for parameter in command.params for spelling in parameter.opts}
        return
    for name in command.list_commands(None):
        yield from leaves(command.get_command(None, name), (*words, name))


TAKES_THE_CPUS = {"bus bench"}
COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_with_a_documented_code_and_valid_json(cfctl: Cfctl, name: str) -> None:
    if name in TAKES_THE_CPUS and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("it takes two CPUs whole, and must not run beside other tests")
    reports = "--json" in COMMANDS[name]
    result = cfctl(*name.split(), *(["--json"] if reports else []), *ARGUMENTS.get(name, []))
    assert "Traceback" not in result.stderr
    assert "bug in cfctl" not in result.stderr
    assert result.returncode in {ExitCode.OK, ExitCode.FINDING, ExitCode.UNMEASURED}, result.stderr
    if result.returncode == ExitCode.UNMEASURED and not result.stdout:
        assert result.stderr.startswith("cfctl: ")
    elif reports and result.stdout:
        document = json.loads(result.stdout)
        assert list(document)[:2] == ["schema", "version"]
        assert document["schema"].startswith("cfctl.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(cfctl: Cfctl, name: str) -> None:
    result = cfctl(*name.split(), "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: cfctl {name}")
    assert len(result.stdout.splitlines()) >= 4
