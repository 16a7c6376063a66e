"""A real Prometheus scrapes `cfctl monitor`, keeps its numbers, and fires the alert of a target that is missed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("prometheus") is None or shutil.which("promtool") is None,
        reason="prometheus and promtool (Debian package prometheus) are not installed",
    ),
]

T = TypeVar("T")
DEADLINE_S = 120.0
# 50 messages and 4000 samples of 150 us, then 40 samples a round: quick ones, and slow ones once it is told to.
PROGRAM = """
import select, sys, cfctl
from cfctl.bus import Bus, Packet
bus, profiler = Bus(), cfctl.Profiler()
subscription = bus.subscribe("prices")
for _ in range(50):
    bus.publish(Packet("prices", b"x"))
    subscription.recv(5.0)
startup, work = profiler.operation("start\\nup"), profiler.operation("work")
for _ in range(4000):
    startup.record(150_000)
duration_ns = 150_000
while True:
    if select.select([sys.stdin], [], [], 0.05)[0]:
        sys.stdin.readline()
        duration_ns = 5_000_000
    for _ in range(40):
        work.record(duration_ns)
"""
TARGETS = """
[targets.work]
metric = "operation_p50"
operator = "<"
threshold = "1 ms"
severity = "critical"
where = { operation = "wo?k" }
for = "0 s"
keep-firing-for = "1 min"
"""
CONFIGURATION = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 200ms}}
rule_files: [rules.yml]
scrape_configs: [{{job_name: cfctl, static_configs: [{{targets: ['{target}']}}]}}]
"""


@contextmanager
def running(*command: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def match_in(lines: IO[str] | None, pattern: str) -> str:
    assert lines is not None
    read = []
    for line in lines:
        read.append(line)
        found = re.search(pattern, line)
        if found:
            return found[1]
    raise AssertionError(f"it ended without {pattern}: {''.join(read[-5:])}")


def eventually(ask: Callable[[], T], good: Callable[[T], bool] = bool) -> T:
    end = time.monotonic() + DEADLINE_S
    while not good(answer := ask()):
        assert time.monotonic() < end, f"still {answer}"
        time.sleep(0.1)
    return answer


class Prometheus:
    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/api/v1/"

    def ask(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self._url + path, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            # It is up before it is ready.
            if error.code != 503:
                raise
            return {}

    def query(self, expression: str) -> dict[str, float]:
        """Return the values of an instant query by the label "operation"."""
        found = self.ask("query?" + urllib.parse.urlencode({"query": expression}))
        return {row["metric"].get("operation", ""): float(row["value"][1]) for row in found.get("result", ())}

    def firing(self) -> list[str]:
        found = self.ask("alerts").get("alerts", ())
        return [alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"]


@pytest.fixture
def monitored(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Prometheus, str]]:
    """Yield the program, the Prometheus that scrapes its monitor, and the monitor's address."""
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "segments")}
    (tmp_path / "targets.toml").write_text(TARGETS)
    cfctl = (sys.executable, "-m", "cfctl", "monitor")
    targets = ("--targets", tmp_path / "targets.toml", "--target", "work")
    subprocess.run([*cfctl, "rules", *targets, "-o", tmp_path / "rules.yml"], check=True, env=environment)
    with ExitStack() as stack:
        program = stack.enter_context(
            running(sys.executable, "-c", PROGRAM, env=environment, stdin=subprocess.PIPE)
        )
        monitor = stack.enter_context(
            running(
                *cfctl, "--no-calibrate", "--interval", "500ms", "--prometheus", "127.0.0.1:0", *targets,
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        address = match_in(monitor.stderr, r"metrics at http://(\S+)/metrics")
        (tmp_path / "prometheus.yml").write_text(CONFIGURATION.format(target=address))
        prometheus = stack.enter_context(
            running(
                "prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", "--web.listen-address=127.0.0.1:0",
                f"--storage.tsdb.path={tmp_path / 'data'}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        yield program, Prometheus(match_in(prometheus.stderr, r'"Listening on" address=(\S+)')), address


def promtool(*arguments: str | Path, stdin: bytes | None = None) -> tuple[int, str]:
    result = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, timeout=60)
    return result.returncode, (result.stdout + result.stderr).decode()


def test_prometheus_keeps_the_segments_numbers_and_fires_when_the_program_misses_its_target(
    monitored: tuple[subprocess.Popen[str], Prometheus, str], tmp_path: Path
) -> None:
    program, prometheus, address = monitored
    samples = eventually(
        lambda: prometheus.query("cfctl_operation_samples_total"), lambda found: found.get("start�up") == 4000
    )
    assert samples["work"] > 0
    for family, expected in (
        ("chronofabric_messages_published_total", 50), ("chronofabric_messages_delivered_total", 50),
        ("chronofabric_messages_dropped_total", 0), ("chronofabric_active_subscriptions", 1),
        ("chronofabric_message_latency_seconds_count", 50), ("cfctl_series_dropped_total", 0),
        ("cfctl_config_last_reload_successful", 1),
    ):  # fmt: skip
        assert prometheus.query(family) == {"": expected}, family
    quantiles = prometheus.query("histogram_quantile(0.5, cfctl_operation_duration_seconds_bucket)")
    assert 1e-4 < quantiles["start�up"] < 2e-4
    growth = "sum by (operation) (rate(cfctl_operation_samples_total[1m])) > 0"
    assert eventually(lambda: prometheus.query(growth)).keys() == {"work"}
    measured = "cfctl_operation_p50_seconds"
    assert eventually(lambda: prometheus.query(measured), lambda found: "work" in found)["work"] < 1e-3
    assert prometheus.firing() == []

    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        status, said = promtool("check", "metrics", stdin=answer.read())
    # The guide's own name is all that it finds fault with.
    assert said.split("\n") == [
        'chronofabric_hlc_drift_nanoseconds use base unit "seconds" instead of "nanoseconds"',
        "",
    ] or (status, said) == (0, ""), said
    status, said = promtool("check", "rules", tmp_path / "rules.yml")
    assert (status, "SUCCESS: 1 rules found" in said) == (0, True), said

    assert program.stdin is not None
    program.stdin.write("slow\n")
    program.stdin.flush()
    assert eventually(prometheus.firing) == ["CfctlWork"]
    assert eventually(lambda: prometheus.query('cfctl_alert_firing{target="work"}')) == {"": 1}
    assert prometheus.query(measured)["work"] == pytest.approx(5e-3, rel=0.01)
