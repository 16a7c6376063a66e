"""A program with a bus, a pool and operations, seen by the monitor while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.host
PROGRAM = """
import cfctl
from cfctl.bus import Bus, Packet
bus, pool = Bus(), cfctl.Pool(dict)
work = cfctl.Profiler().operation("work")
subscription = bus.subscribe("prices")
while True:
    bus.publish(Packet("prices", b"x"))
    subscription.recv(1.0)
    with work, pool.item():
        pass
"""
WANTED = (
    "message_rate",
    "message_latency_p50",
    "packet_loss",
    "pool_hit_ratio",
    "operation_p50",
    "active_subscriptions",
)


def test_its_messages_pools_and_operations_have_values_and_their_totals_grow(tmp_path: Path) -> None:
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "segments")}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment)
    monitor = subprocess.Popen(
        [sys.executable, "-m", "cfctl", "monitor", "--no-calibrate", "--json", "--interval", "300ms", "--pid", str(program.pid)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert monitor.stdout is not None
        delivered: list[float] = []
        values: dict[str, Any] = {}
        for line in monitor.stdout:
            snapshot = json.loads(line)["snapshot"]
            values |= {
                s["metric"]: s["measurement"]["value"]
                for s in snapshot["series"]
                if s["measurement"]["value"] is not None
            }
            delivered += [t["value"] for t in snapshot["totals"] if t["metric"] == "messages_delivered"]
            if len(delivered) > 3 and values.keys() >= set(WANTED):
                break
        assert values["message_rate"] > 0
        assert values["packet_loss"] == 0
        assert values["active_subscriptions"] == 1
        assert 0 < values["pool_hit_ratio"] <= 1
        assert delivered == sorted(delivered)
        assert delivered[-1] > delivered[0]
    finally:
        monitor.terminate()
        program.kill()
        monitor.communicate(timeout=60)
        program.wait()
