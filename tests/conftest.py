"""What all tests share: an environment of their own, and the command line as a process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# The tests see the installed package. `python -m pytest` would put the source tree before it, which
# has no compiled core, unless a developer copied one there: then the source tree is what is meant.
SOURCE_IS_COMPLETE = bool(list((ROOT / "cfctl").glob("_native*.so")))
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
if SOURCE_IS_COMPLETE:
    sys.path.insert(0, str(ROOT))

# The same examples in every run, and no deadline: that would be an assertion of wall-clock speed.
# `--hypothesis-profile=explore` looks for new ones.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=2000, deadline=None)
hypothesis.settings.load_profile("fixed")

# Where /dev/shm can not be used, the test process still has a directory for its one segment.
SEGMENTS = tempfile.TemporaryDirectory(prefix="cfctl-tests-")
os.environ["CFCTL_SEGMENT_DIR"] = SEGMENTS.name

# A shell without job control starts what runs in its background with SIGINT ignored, which programs inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Cfctl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True, scope="session")
def outside_the_source_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the source tree: `python -c` in a test would import the package from there, not the installed one."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("outside"))
    if SOURCE_IS_COMPLETE:
        os.environ["PYTHONPATH"] = str(ROOT)
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give every test a home of its own and no settings from outside."""
    from cfctl import config

    for name in list(os.environ):
        if name.startswith(("CFCTL_", "_CFCTL_", "XDG_", "LC_")) or name in {"NO_COLOR", "FORCE_COLOR"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    config.load.cache_clear()
    yield
    config.load.cache_clear()


@pytest.fixture
def root() -> Path:
    """Return the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def known_cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state file that holds this CPU's name, which py-cpuinfo takes more than a second to find."""
    from cfctl.host.fingerprint import CACHE_NAME, fingerprint

    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state))
        fingerprint()
    return state / "cfctl" / CACHE_NAME


def introduce(known_cpu: Path) -> None:
    """Let the processes of a test's own home know the CPU, as after the first command of a user."""
    directory = Path(os.environ["HOME"], ".local", "state", "cfctl")
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True)
        shutil.copy(known_cpu, directory)


@pytest.fixture
def cfctl(tmp_path: Path, known_cpu: Path) -> Cfctl:
    """Return a function that runs `cfctl ARGUMENTS` as a process in an empty directory."""
    directory = tmp_path / "work"
    directory.mkdir()

    def run(
        *arguments: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {"cwd": directory, "capture_output": True, "text": True, "timeout": 60}
        settings |= options
        if "stdout" in options or "stderr" in options:
            settings.pop("capture_output")
        if not {"HOME", "XDG_STATE_HOME"} & set(env or ()):
            introduce(known_cpu)
        return subprocess.run(
            [sys.executable, "-m", "cfctl", *arguments], env=os.environ | (env or {}), **settings
        )

    return run
