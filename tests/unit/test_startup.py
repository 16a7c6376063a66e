"""What starts often stays light: which modules a start, a TAB and an application's import load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfctl.cli.app import command_names

HEAVY = {
    "numpy",
    "psutil",
    "cpuinfo",
    "rich",
    "pydantic",
    "pyperf",
    "junitparser",
    "prometheus_client",
    "textual",
}

RUN = """
import atexit, sys
atexit.register(lambda: print("MODULES", *sorted(sys.modules), file=sys.stderr))
from cfctl.__main__ import main
sys.argv = ["cfctl", *{arguments!r}]
main()
"""


def loaded(arguments: list[str], tmp_path: Path, env: dict[str, str] | None = None) -> tuple[str, set[str]]:
    """Return what a command line prints and the top-level modules it loads."""
    import cfctl

    environ = os.environ | {"PYTHONPATH": str(Path(cfctl.__file__).parent.parent)} | (env or {})
    result = subprocess.run(
        [sys.executable, "-c", RUN.format(arguments=arguments)],
        capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    modules = next(line for line in result.stderr.splitlines() if line.startswith("MODULES"))
    return result.stdout, {name.partition(".")[0] for name in modules.split()[1:]}


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], *([name, "--help"] for name in command_names())], ids=" ".join
)
def test_version_and_help_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    printed, modules = loaded(arguments, tmp_path)
    assert printed.startswith(("cfctl ", "Usage: cfctl"))
    assert not modules & HEAVY


@pytest.mark.parametrize("line", ["cfctl ", "cfctl --", "cfctl config sh", "cfctl check --"])
def test_a_tab_loads_nothing_heavy(line: str, tmp_path: Path) -> None:
    printed, modules = loaded([], tmp_path, {"_CFCTL_COMPLETE": "complete_bash", "_CFCTL_LINE": line})
    assert printed.startswith("plain\t")
    assert not modules & HEAVY


def test_the_check_would_see_a_heavy_module(tmp_path: Path) -> None:
    _, modules = loaded(["config", "show"], tmp_path)
    assert "rich" in modules


def test_import_cfctl_loads_no_third_party_module_and_no_command_line(tmp_path: Path) -> None:
    import cfctl

    script = "import sys; before = set(sys.modules); import cfctl; print(*sorted(set(sys.modules) - before))"
    environ = os.environ | {"PYTHONPATH": str(Path(cfctl.__file__).parent.parent)}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environ, cwd=tmp_path, check=True
    )
    loaded_modules = result.stdout.split()
    assert "cfctl" in loaded_modules
    assert "cfctl.cli" not in loaded_modules
    assert {name.partition(".")[0] for name in loaded_modules} <= sys.stdlib_module_names | {"cfctl"}
