"""What the kernel's refusals mean for an endpoint of the bus that is opened."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from cfctl.errors import CfctlError, InputError, LimitError, SegmentError, StateError, os_error_reason

if TYPE_CHECKING:
    from cfctl.bus.config import BusConfig

SEATS: Final = 256
RINGS: Final = 256
PATTERNS: Final = 64
PUBLISHERS: Final = 65520
_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


def endpoint_error(error: OSError, what: str, config: BusConfig) -> CfctlError:
    """Return why a publisher or subscription could not be opened; `what` is a sentence that says which."""
    code = error.errno
    if code == errno.ECHILD:
        return StateError(
            what, "A forked child cannot use its parent's bus.", "Make a Bus of its own in the child."
        )
    if code == errno.EBUSY:
        why = "Another process has been changing the topic for 2 s: it may be stopped."
        return StateError(what, why, "Continue or end it (SIGCONT, SIGKILL), then try again.")
    if code in _SPACE:
        why = (
            f"There is no space left for it in {config.directory}: {os_error_reason(error, with_file=False)}"
        )
        todo = (
            f"Free space, lower BusConfig.channel_buffer_size (now {config.channel_buffer_size}) or "
            "BusConfig.arena_bytes, or name another directory with CFCTL_SEGMENT_DIR."
        )
        return StateError(what, why, todo)
    if code in _DESCRIPTORS:
        return StateError(
            what, "The process has no file descriptor left.", "Raise its limit, ulimit -n, or close files."
        )
    if code == errno.EPERM:
        why = f"{config.directory}, or a file of the bus in it, is not private to this user."
        return StateError(what, why, "Name a directory of mode 0700 that is yours with CFCTL_SEGMENT_DIR.")
    if code == errno.EINVAL:
        return _unusable_error(what, config)
    return StateError(what, os_error_reason(error), "Look at the directory of CFCTL_SEGMENT_DIR.")


def publisher_error(error: OSError, topic: str, config: BusConfig) -> CfctlError:
    """Return why a topic cannot be published on."""
    what = f"Nothing can be published on {topic[:64]!r}."
    if error.errno == errno.EUSERS:
        why = f"Its limits are {RINGS} publishers with unread messages and {SEATS} subscriptions."
        return LimitError(what, why, "Close publishers that are no longer used, or use several topics.")
    if error.errno == errno.EAGAIN:
        why = f"{PUBLISHERS} publishers are the limit of {config.directory}."
        return LimitError(what, why, "Close publishers, or name another directory with CFCTL_SEGMENT_DIR.")
    return endpoint_error(error, what, config)


def _unusable_error(what: str, config: BusConfig) -> SegmentError:
    why = f"A file of the bus in {config.directory} is torn, or of another version of cfctl."
    return SegmentError(what, why, "End the programs that use it, then remove it: cfctl segments prune.")


def subscription_error(error: OSError, of: str, config: BusConfig, *, is_pattern: bool) -> CfctlError:
    """Return why a topic or pattern cannot be subscribed to."""
    what = f"{of[:64]!r} cannot be subscribed to."
    if error.errno == errno.EUSERS:
        why = f"{SEATS} subscriptions, groups and members of groups are the limit of a topic"
        why += f", {PATTERNS} patterns that of a directory." if is_pattern else "."
        return LimitError(what, why, "End subscriptions, or share one between threads.")
    if error.errno == errno.EINVAL and is_pattern and not 1 <= len(of.encode()) <= 208:
        return InputError(what, "A pattern is 1 to 208 bytes of UTF-8.", "Shorten it.")
    if error.errno == errno.EAGAIN:
        # A ring that is listed was finished: one without its beginning has lost it since.
        return _unusable_error(what, config)
    return endpoint_error(error, what, config)
