"""The exceptions cfctl raises; each holds what failed, why, and the next step to take.

CfctlError
  +-- InputError            the caller named something that can not be used
  |     +-- ConfigError     a configuration or targets file, or a key or value in one
  +-- UnobservableError     the machine or its permissions do not let cfctl measure
  |     +-- CalibrationError  the clock could not be calibrated
  +-- SegmentError          a segment is missing, foreign, torn or truncated
  +-- PoolError             an item is not the pool's, or is released twice
  +-- StateError            a state file or directory can not be read or written, or an object has ended
  |     +-- LimitError      a limit is reached, which the message names
  +-- ResourceExhausted     a ring was full: nothing was accepted
  +-- SubscriptionNotFound  a subscription has ended, or never was this bus's
  +-- TemporalViolation     a deadline had passed before its message was published
  +-- BusTimeout            peers, a reply or a lock did not come in time
  +-- ClockOffsetError      a message is stamped too far ahead of this host's clock
"""

from __future__ import annotations


class CfctlError(Exception):
    """What failed, why, and what to do, one sentence each."""

    def __init__(self, what: str, why: str = "", todo: str = "") -> None:
        super().__init__(what, why, todo)
        self.what = what
        self.why = why
        self.todo = todo

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.todo) if part)


class InputError(CfctlError):
    """Raised when the caller names something that can not be used."""


class ConfigError(InputError):
    """Raised for a configuration or targets file, or a key or value in one."""


class UnobservableError(CfctlError):
    """Raised when the machine or its permissions do not let cfctl measure."""


class CalibrationError(UnobservableError):
    """Raised when the clock could not be calibrated at all."""


class SegmentError(CfctlError):
    """Raised when a segment is missing, foreign, torn or truncated."""


class PoolError(CfctlError):
    """Raised when an item is not the pool's, or is released twice, or the factory made no new one."""


class StateError(CfctlError):
    """Raised when a state file or directory can not be read or written, or an object has ended."""


class LimitError(StateError):
    """Raised when a limit is reached, which the message names."""


class ResourceExhausted(CfctlError):  # noqa: N818 - the word of the bus's vocabulary
    """Raised when a ring was full: nothing was accepted."""


class SubscriptionNotFound(CfctlError):  # noqa: N818 - the word of the bus's vocabulary
    """Raised for a subscription that has ended, or never was this bus's."""


class TemporalViolation(CfctlError):  # noqa: N818 - the word of the bus's vocabulary
    """Raised when a deadline had passed before its message was published."""


class BusTimeout(CfctlError):  # noqa: N818 - what it is called everywhere
    """Raised when peers, a reply or a lock of the bus did not come in time."""


class ClockOffsetError(CfctlError):
    """Raised when a message is stamped too far ahead of this host's clock."""


def os_error_reason(error: OSError, *, with_file: bool = True) -> str:
    """Return the kernel's reason as a sentence, with the file the error names."""
    reason = (error.strerror or type(error).__name__).rstrip(".")
    where = f" ({error.filename})" if error.filename and with_file else ""
    return f"{reason}{where}."
