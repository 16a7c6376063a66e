"""The report of the calling process itself, also when its segment is in anonymous memory."""

from __future__ import annotations

from cfctl import _native
from cfctl.profile.recording import record_of_segment
from cfctl.profile.report import ProfileReport, build_report
from cfctl.segment.file import Liveness
from cfctl.segment.reader import parse_segment
from cfctl.segment.tick_rate import local_clock


def own_report() -> ProfileReport:
    """Return the report of this process's open segment."""
    segment = parse_segment(_native.segment_bytes())
    return build_report([record_of_segment(segment, Liveness.LOCKED, local_clock())])
