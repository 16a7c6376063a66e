"""Start-up: the command line against a two-command Typer app, and `import cfctl` in an application.

All programs are run in turn, round by round, so that a slow moment of the machine meets each of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import cfctl
from tests.benchmarks.figure import Figure

ROUNDS = 25
IMPORT_ROUNDS = 40
RATIO_GOAL = 1.25
IMPORT_GOAL_MS = 5.0

TWO_COMMANDS = """
import typer

app = typer.Typer()


@app.command()
def first(name: str = "x", count: int = 1) -> None:
    "Do the first thing."
    print(name, count)


@app.command()
def second(path: str, force: bool = False) -> None:
    "Do the second thing."
    print(path, force)


if __name__ == "__main__":
    app(prog_name="twoapp")
"""
# Both programs get the same path: the package under test, installed or in the source tree.
ENVIRON = os.environ | {"PYTHONPATH": str(Path(cfctl.__file__).parent.parent)}
CFCTL = "import sys; sys.argv[0] = 'cfctl'; from cfctl.__main__ import main; main()"


def run() -> list[Figure]:
    """Return the ratios of three kinds of start, and the cost of the import."""
    with tempfile.TemporaryDirectory() as directory:
        app = Path(directory) / "twoapp.py"
        app.write_text(TWO_COMMANDS)
        return [*_start_figures(app), _import_figure(directory)]


def _start_figures(app: Path) -> list[Figure]:
    two_app = [sys.executable, str(app)]
    ours = [sys.executable, "-c", CFCTL]
    tab_of_app = {"_TWOAPP_COMPLETE": "complete_bash", "COMP_WORDS": "twoapp ", "COMP_CWORD": "1"}
    tab_of_cfctl = {"_CFCTL_COMPLETE": "complete_bash", "_CFCTL_LINE": "cfctl "}
    kinds = {
        "cfctl --version": ([*ours, "--version"], {}),
        "cfctl --help": ([*ours, "--help"], {}),
        "TAB after cfctl": (ours, tab_of_cfctl),
        "TAB after cfctl config show --": (ours, tab_of_cfctl | {"_CFCTL_LINE": "cfctl config show --"}),
        "app --help": ([*two_app, "--help"], {}),
        "app, plain --help": ([*two_app, "--help"], {"TYPER_USE_RICH": "0"}),
        "app TAB": (two_app, tab_of_app),
    }
    times_ms: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, (command, environ) in kinds.items():
            times_ms[name].append(_run_ms(command, environ, str(app.parent)))
    return [
        # The plain help of the app is the harder rival: it loads no rich either.
        _ratio(
            "cfctl --version / app --help (plain)", times_ms["cfctl --version"], times_ms["app, plain --help"]
        ),
        _ratio("cfctl --help / app --help (plain)", times_ms["cfctl --help"], times_ms["app, plain --help"]),
        _ratio(
            "cfctl --help / app --help (as Typer makes it)", times_ms["cfctl --help"], times_ms["app --help"]
        ),
        _ratio("TAB after cfctl / TAB after app", times_ms["TAB after cfctl"], times_ms["app TAB"]),
        _ratio(
            "TAB after cfctl config show -- / TAB after app",
            times_ms["TAB after cfctl config show --"],
            times_ms["app TAB"],
        ),
    ]


def _ratio(name: str, ours_ms: Sequence[float], theirs_ms: Sequence[float]) -> Figure:
    ratios = tuple(ours / theirs for ours, theirs in zip(ours_ms, theirs_ms, strict=True))
    label = f"{name} [{median(ours_ms):.0f} / {median(theirs_ms):.0f} ms]"
    return Figure(label, ratios, "x", RATIO_GOAL)


def _import_figure(directory: str) -> Figure:
    bare, importing = [], []
    for _ in range(IMPORT_ROUNDS):
        bare.append(_run_ms([sys.executable, "-c", "pass"], {}, directory))
        importing.append(_run_ms([sys.executable, "-c", "import cfctl"], {}, directory))
    beyond = tuple(ours - theirs for ours, theirs in zip(importing, bare, strict=True))
    return Figure(
        "import cfctl beyond python -c pass",
        beyond,
        "ms",
        IMPORT_GOAL_MS,
        reference=median(bare),
        reference_name="of python -c pass",
    )


def _run_ms(command: list[str], environ: dict[str, str], directory: str) -> float:
    start = time.perf_counter()
    subprocess.run(
        command,
        env=ENVIRON | environ,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return (time.perf_counter() - start) * 1e3
