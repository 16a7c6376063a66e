"""The bus as its files show it at one moment: the topics and rings of a directory and the segments beside them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cfctl.bus.rings import Ring, list_bus
from cfctl.errors import SegmentError
from cfctl.segment.directory import list_segments
from cfctl.segment.file import read_with_state
from cfctl.segment.tick_rate import LocalClock, local_clock

if TYPE_CHECKING:
    from cfctl.bus.topic_pages import TopicPage
    from cfctl.segment.file import Liveness
    from cfctl.segment.records import Segment, SegmentHeader

PUBLISHER = "bus_publisher"
SUBSCRIBER = "bus_subscriber"
DISPATCHER = "bus_dispatcher"
LATENESS = "bus_lateness"
CLOCK = "hlc"


@dataclass(frozen=True, slots=True)
class BusReading:
    """All topics and rings of a directory and the segments of the processes that have a bus, at `monotonic_ns`.

    Reading took `took_ns`, by which counters of one reading may lie apart. `problems` name what could not be read.
    """

    directory: Path
    topics: tuple[TopicPage, ...]
    rings: tuple[Ring, ...]
    segments: tuple[tuple[Segment, Liveness], ...]
    local: LocalClock
    monotonic_ns: int
    unix_ns: int
    took_ns: int
    problems: tuple[str, ...]

    @property
    def live(self) -> bool:
        """Return whether a publisher or subscriber of it runs."""
        return any(state.live for _, state in self.segments) or any(topic.alive for topic in self.topics)


def is_own(header: SegmentHeader) -> bool:
    """Return whether a process is one of cfctl's own commands, by how it was started."""
    arguments = header.command_line
    if any(Path(each).name == "cfctl" for each in arguments[:2]):
        return True
    if "-m" not in arguments[:4]:
        return False
    module = arguments[arguments.index("-m") + 1 :][:1]
    return any(each == "cfctl" or each.startswith("cfctl.") for each in module)


class BusReader:
    """Reads the bus of a directory again and again; what has ended is read once. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ended: dict[Path, tuple[Segment, Liveness] | None] = {}

    def read(self) -> BusReading:
        """Return the bus now; some ms. Raises SegmentError for a directory that cannot be read."""
        began_ns = time.monotonic_ns()
        files = list_bus(self._directory)
        problems = [str(error) for error in files.errors]
        listing = list_segments((self._directory,), self._ended.keys())
        problems += [str(each.error) for each in listing.unreadable]
        segments = []
        for file in listing.files:
            try:
                segment, state = read_with_state(file.path)
            except SegmentError as error:
                problems.append(str(error))
                continue
            found = (segment, state) if any(e.kind.startswith("bus_") for e in segment.entries) else None
            if not state.live:
                self._ended[file.path] = found
            elif found is not None:
                segments.append(found)
        segments += [found for path, found in self._ended.items() if found is not None and path.exists()]
        ended_ns = time.monotonic_ns()
        return BusReading(
            self._directory, files.topics, files.rings, tuple(segments), local_clock(), (began_ns + ended_ns) // 2, time.time_ns(),
            ended_ns - began_ns, tuple(problems),
        )  # fmt: skip
