"""Where cfctl keeps files, and the one way it writes and reads them.

Apart from `config` this is the only module that reads the environment.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from cfctl.errors import StateError, os_error_reason

# A state file is read whole; anything larger was not written by cfctl.
MAX_STATE_BYTES = 16 << 20


def segment_directory() -> Path:
    """Return the directory of this user's segments: $CFCTL_SEGMENT_DIR, else /dev/shm/cfctl-<uid>."""
    return Path(os.environ.get("CFCTL_SEGMENT_DIR") or f"/dev/shm/cfctl-{os.geteuid()}")  # noqa: S108


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
    """Make a directory of mode 0700 that belongs to this user and is no symbolic link.

    Raises StateError when it can not be made or belongs to someone else.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
    except OSError as error:
        raise StateError(
            f"The directory {path} can not be made.",
            os_error_reason(error),
            "Make it writable, or name another.",
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StateError(
            f"The directory {path} is not used.",
            "It is a link, a file, or belongs to another user.",
            "Remove it, or name another directory.",
        )
    if status.st_mode & 0o077:
        path.chmod(0o700)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by write, fsync, rename, fsync of the directory; mode 0600.

    A reader sees the old content or the new, also after a crash. Raises StateError, and then the
    old file stands and no temporary file is left.
    """
    ensure_private_directory(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", closefd=True) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StateError(
            f"{path} can not be written.",
            os_error_reason(error),
            "Free space or make the directory writable.",
        ) from error


def read_bounded(path: Path, max_bytes: int = MAX_STATE_BYTES) -> bytes:
    """Return the content of a regular file that belongs to this user or root, at most `max_bytes`.

    Raises FileNotFoundError when there is none, StateError for a link, a device, another owner,
    or a larger file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "It is a symbolic link." if error.errno == errno.ELOOP else os_error_reason(error)
        raise StateError(f"{path} can not be read.", why, "Remove it or make it readable.") from error
    with open(fd, "rb", closefd=True) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {os.geteuid(), 0}:
            raise StateError(f"{path} is not read.", "It is no regular file of this user.", "Remove it.")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise StateError(f"{path} is not read.", f"It holds more than {max_bytes} bytes.", "Remove it.")
    return data


def read_json_state(path: Path) -> dict[str, Any] | None:
    """Return a JSON state file's object, or None when there is no such file.

    A corrupt file is set aside as `<name>.corrupt` (never overwritten) and StateError is raised.
    """
    try:
        data = read_bounded(path)
    except FileNotFoundError:
        return None
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise TypeError("the top level is no object")  # noqa: TRY301
    except (ValueError, TypeError, RecursionError) as error:
        aside = _set_aside(path)
        raise StateError(
            f"{path} is corrupt.",
            f"{type(error).__name__}: {error}.",
            f"It was set aside as {aside}; run again.",
        ) from error
    return value


def _set_aside(path: Path) -> Path:
    for number in range(100):
        aside = path.with_name(f"{path.name}.corrupt" + (f".{number}" if number else ""))
        if not aside.exists():
            with contextlib.suppress(OSError):
                path.rename(aside)
            return aside
    return path
