"""Completing topics and processes of the bus."""

from __future__ import annotations


def complete_topics(incomplete: str) -> list[str]:
    """Return the topics of this user's rings that begin like that."""
    from cfctl import paths
    from cfctl.bus.rings import list_rings
    from cfctl.errors import SegmentError

    try:
        rings, _ = list_rings(paths.segment_directory())
    except SegmentError:
        return []
    topics = {ring.topic for ring in rings if ring.topic.isprintable()}
    return sorted(topic for topic in topics if topic.startswith(incomplete))
