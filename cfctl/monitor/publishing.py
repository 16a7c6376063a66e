"""The latest observation as text for Prometheus, for a scrape or a file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.monitor.families import Exposition
from cfctl.monitor.text_format import TextFormat
from cfctl.paths import write_result

if TYPE_CHECKING:
    from cfctl.monitor.text_format import Family
    from cfctl.monitor.watch import Observation


class Published:
    """What is exported: of the latest observation, so that a scrape measures nothing itself.

    All scrapes between two observations get the same text. Any thread may call it.
    """

    def __init__(self, exposition: Exposition | None = None) -> None:
        self._exposition = exposition or Exposition()
        self._lock = threading.Lock()
        self._families: tuple[Family, ...] = ()
        self._formats = {openmetrics: TextFormat(openmetrics) for openmetrics in (False, True)}
        self._texts: dict[bool, bytes] = {}

    def update(self, observation: Observation) -> None:
        """Take the place of the observation before."""
        families = self._exposition.families(
            observation.snapshot, observation.alerts, observation.targets_current
        )
        with self._lock:
            self._families = families
            self._texts.clear()

    def text(self, openmetrics: bool = False, names: frozenset[str] = frozenset()) -> bytes:
        """Return the families, or those with the names, as text; no line before the first observation."""
        with self._lock:
            if names:
                chosen = [family for family in self._families if family.named(names)]
                return TextFormat(openmetrics).text(chosen)
            if openmetrics not in self._texts:
                self._texts[openmetrics] = self._formats[openmetrics].text(self._families)
            return self._texts[openmetrics]

    def write(self, path: Path) -> None:
        """Replace a file for node_exporter's textfile collector: write, fsync, rename; raises OSError."""
        write_result(path, self.text())
