"""`cfctl bus bench` on this machine: what it counts balances; what can not be measured is refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from cfctl.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from tests.conftest import Cfctl

pytestmark = pytest.mark.host
NEEDS_TWO = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 or "PYTEST_XDIST_WORKER" in os.environ,
    reason="it takes two CPUs whole, and must not run beside other tests",
)


def measured(cfctl: Cfctl, *arguments: str) -> str:
    """Return what a bench printed; a machine too busy for a calibration says so with 3, which is no fault."""
    result = cfctl("bus", "bench", *arguments)
    if result.returncode == ExitCode.UNMEASURED and "could not be calibrated" in result.stderr:
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr
    return result.stdout


@NEEDS_TWO
@pytest.mark.parametrize("where", ["--processes", "--threads"])
def test_every_message_that_was_offered_is_delivered_lost_or_never_accepted(cfctl: Cfctl, where: str) -> None:
    document = json.loads(measured(cfctl, where, "--duration", "100ms", "--rate", "20000", "--json"))
    assert (document["schema"], document["offered"]) == ("cfctl.bus-bench", 2000)
    assert document["delivered"] + document["dropped"] + document["never_accepted"] == document["offered"]
    assert (
        document["loss"]["value"] == (document["dropped"] + document["never_accepted"]) / document["offered"]
    )
    assert document["floor"]["value"] > 0
    assert document["one_way"]["sample_count"] == document["delivered"]
    assert document["one_way"]["min_ns"] > 0


@NEEDS_TWO
def test_a_scheduled_run_has_a_phase_and_says_what_was_late(cfctl: Cfctl) -> None:
    text = measured(cfctl, "--scheduled", "--duration", "200ms", "--wait", "park")
    assert "phase coherence" in text
    assert "deadlines missed" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [("--subscribers", "0"), ("--rate", "0"), ("--rate", "-5"), ("--wait", "sleep"), ("--duration", "0s"), ("--size", "1"),
     ("--cpus", "99999")],
)  # fmt: skip
def test_what_can_not_be_measured_is_refused(cfctl: Cfctl, arguments: tuple[str, str]) -> None:
    result = cfctl("bus", "bench", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("cfctl: ")
