"""The typed face of the C core."""

def ticks() -> int:
    """Return the current tick of the selected source."""
