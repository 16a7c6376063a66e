"""The command of an alert: no shell, its document on standard input, bounded in number and time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cfctl.errors import InputError
from cfctl.monitor import hook
from cfctl.monitor.alerts import AlertState, PerformanceAlert, Transition
from cfctl.monitor.hook import CommandHook
from cfctl.monitor.targets import TargetSeverity

TRANSITION = Transition(
    5, True, PerformanceAlert(TargetSeverity.CRITICAL, "m", 1.0, 2.0, "$(touch pwned); `id`", "ns", "t", (), "s", AlertState.FIRING, 4)
)  # fmt: skip


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_the_command_gets_the_transition_as_json_and_no_shell_sees_it(tmp_path: Path) -> None:
    told: list[str] = []
    run = CommandHook(
        [sys.executable, "-c", "import sys; open('got', 'w').write(sys.stdin.read())", "; touch pwned"],
        told.append,
    )
    run(TRANSITION)
    until(lambda: Path("got").exists() and Path("got").read_text().endswith("\n"))
    document = json.loads(Path("got").read_text())
    assert (document["fired"], document["alert"]["description"]) == (True, "$(touch pwned); `id`")
    run.close()
    assert not Path("pwned").exists()
    assert told == []


def test_a_command_that_can_not_be_started_or_fails_is_a_sentence() -> None:
    told: list[str] = []
    CommandHook(["/no/such/program"], told.append)(TRANSITION)
    assert "could not be started" in told[0]
    run = CommandHook([sys.executable, "-c", "raise SystemExit(3)"], told.append)
    run(TRANSITION)

    def told_of_the_end() -> bool:
        run.poll()
        return len(told) == 2

    until(told_of_the_end)
    assert "status 3" in told[1]
    with pytest.raises(InputError, match="empty"):
        CommandHook([], told.append)


def test_a_command_that_takes_too_long_is_killed() -> None:
    told: list[str] = []
    now = [0.0]
    run = CommandHook([sys.executable, "-c", "import time; time.sleep(600)"], told.append, lambda: now[0])
    run(TRANSITION)
    run.poll()
    assert told == []
    now[0] = hook.TIMEOUT_S + 1
    run.poll()
    assert "killed" in told[0]
    run.close()


def test_no_more_than_some_commands_run_at_a_time() -> None:
    told: list[str] = []
    run = CommandHook([sys.executable, "-c", "import time; time.sleep(600)"], told.append)
    for _ in range(hook.MAX_RUNNING + 2):
        run(TRANSITION)
    assert sum("not started" in sentence for sentence in told) == 2
    for child, _ in run._running:
        child.kill()
    run.close()
