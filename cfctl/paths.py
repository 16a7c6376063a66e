"""Where cfctl keeps files, and the one way it writes and reads them.

Below the command line this module and `config` are the only ones that read the environment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cfctl.errors import InputError, StateError, os_error_reason
from cfctl.units import parse_bytes

# A state file is read whole; anything larger was not written by cfctl.
MAX_STATE_BYTES = 16 << 20
# No write takes so long: a temporary file of that age is a killed writer's.
_STALE_S = 3600

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def environment() -> dict[str, str]:
    """Return a copy of this process's environment, to start another with."""
    return dict(os.environ)


def segment_directory() -> Path:
    """Return the directory of this user's segments: $CFCTL_SEGMENT_DIR, else /dev/shm/cfctl-<uid>."""
    own = f"/dev/shm/cfctl-{os.geteuid()}"  # noqa: S108
    # Absolute, as a forked child may have changed its working directory before it records.
    return Path(os.environ.get("CFCTL_SEGMENT_DIR") or own).absolute()


def timeline_wanted() -> bool:
    """Return whether CFCTL_TIMELINE asks for the timeline of samples: set, and not 0."""
    return os.environ.get("CFCTL_TIMELINE", "0") not in {"", "0"}


def segment_run_id() -> str | None:
    """Return the id of the `profile run` this process belongs to: $CFCTL_RUN_ID."""
    return os.environ.get("CFCTL_RUN_ID") or None


def segment_limit_bytes() -> int | None:
    """Return how large a process's segment may grow: $CFCTL_SEGMENT_LIMIT, None when it is not set.

    Raises InputError when it is no size from 64 KiB to 128 MiB.
    """
    text = os.environ.get("CFCTL_SEGMENT_LIMIT")
    if not text:
        return None
    limit_bytes = parse_bytes(text, "B")
    if not 64 << 10 <= limit_bytes <= 128 << 20:
        raise InputError(
            f"CFCTL_SEGMENT_LIMIT={text} can not be used.",
            "A segment is 64 KiB to 128 MiB large.",
            "Set it to a size like 32MiB.",
        )
    return limit_bytes


def state_directory() -> Path:
    """Return the directory of calibrations and other state: $XDG_STATE_HOME/cfctl.

    The XDG Base Directory Specification in two lines of the standard library: an instrumented
    application reads it, and that must work without any dependency.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "cfctl"


def user_config_file() -> Path:
    """Return the path of the user's configuration file, whether it exists or not."""
    import platformdirs

    return Path(platformdirs.user_config_dir("cfctl", appauthor=False)) / "config.toml"


def ensure_private_directory(path: Path) -> None:
    """Make a directory of mode 0700, unless there is one that is private to this user already.

    One that exists is never changed: it may be shared on purpose. Raises StateError for one that is open to others, is
    a link or another user's, or cannot be made.
    """
    try:
        _make_missing(path)
        fd = os.open(path, _DIRECTORY_FLAGS | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise _not_used(path, "It is a link or a file.") from error
        raise StateError(
            f"The directory {path} cannot be made.",
            os_error_reason(error),
            "Make it writable, or name another.",
        ) from error
    if status.st_uid != os.geteuid():
        raise _not_used(path, "It belongs to another user.")
    if status.st_mode & 0o077:
        raise _not_used(path, f"It is open to others (mode {stat.S_IMODE(status.st_mode):04o}, not 0700).")


def _not_used(path: Path, why: str) -> StateError:
    return StateError(f"The directory {path} is not used.", why, "Name a directory that is private to you.")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a state file by write, fsync, rename, fsync of the directory; mode 0600.

    Missing directories are made with mode 0700; one that exists is left as it is, but has to belong
    to this user. A reader sees the old content or the new, also after a crash. Raises StateError,
    and then the old file stands and no temporary file is left; what a killed writer left is removed
    by the first one an hour later.
    """
    try:
        _make_missing(path.parent)
        directory = os.open(path.parent, _DIRECTORY_FLAGS)
        try:
            if os.fstat(directory).st_uid != os.geteuid():
                raise StateError(
                    f"{path} is not written.",
                    f"The directory {path.parent} belongs to another user.",
                    "Set HOME or XDG_STATE_HOME to a directory of this user.",
                )
            _sweep(directory, path.name)
            _replace(directory, path.name, data, 0o600)
        finally:
            os.close(directory)
    except OSError as error:
        raise StateError(
            f"{path} can not be written.",
            os_error_reason(error),
            "Free space or make the directory writable.",
        ) from error


def write_result(path: Path, data: bytes) -> None:
    """Write a file the user named; raises OSError.

    A new or regular file is replaced whole, so that nothing is lost when the disk is full; a device,
    a pipe, or a file in a directory that takes no new files is written in place.
    """
    try:
        mode = path.stat().st_mode
        replaceable = stat.S_ISREG(mode) and os.access(path, os.W_OK)
    except FileNotFoundError:
        mode, replaceable = None, True
    if replaceable:
        path = path.resolve()
        with contextlib.suppress(PermissionError):
            directory = os.open(path.parent, _DIRECTORY_FLAGS)
            try:
                _replace(directory, path.name, data, None if mode is None else stat.S_IMODE(mode))
            finally:
                os.close(directory)
            return
    with open(path, "wb") as file:
        file.write(data)


def _temporary_prefix(name: str) -> str:
    return f".{name[:48]}."


def _sweep(directory: int, name: str) -> None:
    """Remove the temporary files of writers of `name` that were killed: older than any write takes."""
    oldest = time.time() - _STALE_S
    for found in os.listdir(directory):
        random = found.removeprefix(_temporary_prefix(name)).removesuffix(".tmp")
        if f"{_temporary_prefix(name)}{random}.tmp" == found and len(random) == 12:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(found, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_mtime < oldest:
                    os.unlink(found, dir_fd=directory)


def _replace(directory: int, name: str, data: bytes, mode: int | None) -> None:
    """Replace a file in an open directory; without a mode the umask decides, as for any new file."""
    # By the directory's descriptor: nobody can swap the path between the steps. A random name,
    # because two threads may write the same file.
    temporary = f"{_temporary_prefix(name)}{os.urandom(6).hex()}.tmp"
    fd = os.open(temporary, _NEW_FILE_FLAGS, 0o600 if mode is not None else 0o666, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            if mode is not None:
                os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def _make_missing(path: Path) -> None:
    """Make a directory and its missing parents, each of mode 0700 (pathlib gives 0700 to the last only)."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)


def read_bounded(path: Path, max_bytes: int = MAX_STATE_BYTES) -> bytes:
    """Return the content of a regular file that belongs to this user or root, at most `max_bytes`.

    Raises FileNotFoundError when there is none, StateError for a link, a device, another owner,
    or a larger file.
    """
    with _state_errors(path):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in {os.geteuid(), 0}:
                raise StateError(f"{path} is not read.", "It is no regular file of this user.", "Remove it.")
            with open(fd, "rb", closefd=False) as file:
                data = file.read(max_bytes + 1)
        finally:
            os.close(fd)
    if len(data) > max_bytes:
        raise StateError(f"{path} is not read.", f"It holds more than {max_bytes} bytes.", "Remove it.")
    return data


@contextlib.contextmanager
def _state_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "It is a symbolic link." if error.errno == errno.ELOOP else os_error_reason(error)
        raise StateError(f"{path} can not be read.", why, "Remove it or make it readable.") from error


def read_json_state(path: Path) -> dict[str, Any] | None:
    """Return a JSON state file's object, or None when there is no such file.

    A corrupt file is set aside as `<name>.corrupt` (never overwritten) and StateError is raised.
    """
    try:
        data = read_bounded(path)
    except FileNotFoundError:
        return None
    import json

    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise TypeError("the top level is no object")  # noqa: TRY301
    except (ValueError, TypeError, RecursionError) as error:
        aside = _set_aside(path)
        todo = f"It was set aside as {aside}; run again." if aside else "Move it away and run again."
        raise StateError(f"{path} is corrupt.", f"{type(error).__name__}: {error}.", todo) from error
    return value


def _set_aside(path: Path) -> Path | None:
    """Return where the file was moved to, None when it can not be moved."""
    for number in range(100):
        aside = path.with_name(f"{path.name}.corrupt" + (f".{number}" if number else ""))
        try:
            # link() never overwrites, unlike rename().
            os.link(path, aside)
            path.unlink()
        except FileExistsError:
            continue
        except OSError:
            return None
        return aside
    return None
