"""The latest observation as Prometheus families, for a scrape or a file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.monitor.families import Exposition
from cfctl.paths import write_result

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from cfctl.monitor.watch import Observation


class Published:
    """What is exported: of the latest observation, so that a scrape measures nothing itself.

    `families` may be called from any thread.
    """

    def __init__(self, exposition: Exposition | None = None) -> None:
        self._exposition = exposition or Exposition()
        self._lock = threading.Lock()
        self._latest: tuple[Family, ...] = ()

    def update(self, observation: Observation) -> None:
        """Take the place of the observation before."""
        families = self._exposition.families(
            observation.snapshot, observation.alerts, observation.targets_current
        )
        with self._lock:
            self._latest = families

    def families(self) -> tuple[Family, ...]:
        """Return the families; () before the first observation."""
        with self._lock:
            return self._latest

    def write(self, path: Path) -> None:
        """Replace a file for node_exporter's textfile collector: write, fsync, rename; raises OSError."""
        write_result(path, as_text(self.families()))


def as_text(families: tuple[Family, ...]) -> bytes:
    """Return families in the Prometheus text format, which the textfile collector reads."""
    from prometheus_client.exposition import generate_latest

    class _Collected:
        def collect(self) -> tuple[Family, ...]:
            return families

    return bytes(generate_latest(_Collected()))
