"""Completing topics and processes of the bus."""

from __future__ import annotations


def complete_topics(incomplete: str) -> list[str]:
    """Return the topics of this user that begin like that: those that somebody publishes on or subscribes to."""
    from cfctl import paths
    from cfctl.bus.presence import topic_names
    from cfctl.errors import SegmentError

    try:
        topics = topic_names(paths.segment_directory())
    except SegmentError:
        return []
    return [topic for topic in topics if topic.isprintable() and topic.startswith(incomplete)]
