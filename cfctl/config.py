"""Settings in layers: option > environment > project file > user file > default.

A setting is declared once, in SETTINGS; the command line, the environment (CFCTL_SECTION_NAME),
both files and `cfctl config` follow from that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import paths
from cfctl.errors import ConfigError, InputError, StateError, os_error_reason
from cfctl.units import NS_PER_S, format_quantity, parse_bytes, parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_CONFIG_BYTES = 1 << 20
# Tables of the project file that belong to a domain and are read there, not settings.
FOREIGN_TABLES = frozenset({"targets"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its key ("section.name"), default, reader of text or TOML values, and meaning."""

    key: str
    default: Any
    read: Callable[[Any], Any]
    help: str

    @property
    def unit(self) -> str | None:
        """Return the base unit of its value, None for a word or a flag."""
        units: dict[Callable[[Any], Any], str] = {_seconds: "ns", _size: "B"}
        return units.get(self.read)

    @property
    def environment_name(self) -> str:
        """Return the environment variable that sets it: CFCTL_SECTION_NAME."""
        return "CFCTL_" + self.key.replace(".", "_").replace("-", "_").upper()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A setting's value and the layer that won: "environment", a file's path, or "default"."""

    setting: Setting
    value: Any
    source: str

    @property
    def where(self) -> str:
        """Return what to name in a message: the variable, the file, or "default"."""
        return self.setting.environment_name if self.source == "environment" else self.source


def _choice(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise InputError(f"'{value}' is not one of {', '.join(choices)}.")
        return str(value)

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"'{value}' is no text.")
    return value


def _seconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"'{value}' is no time.")
    return parse_time_ns(str(value), None if isinstance(value, str) else "s")


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"'{value}' is no size.")
    return parse_bytes(str(value), None if isinstance(value, str) else "B")


def _flag(value: Any) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    found = words.get(str(value).lower())
    if found is None:
        raise InputError(f"'{value}' is neither true nor false.")
    return found


SETTINGS: tuple[Setting, ...] = (
    Setting("format", "text", _text, "output format of reporting commands"),
    Setting("color", "auto", _choice("auto", "always", "never"), "colour on a terminal"),
    Setting("unit", "auto", _choice("auto", "ns", "us", "ms", "s"), "unit of times in tables"),
    Setting("calibrate.duration", 100_000_000, _seconds, "length of a calibration"),
    Setting(
        "calibrate.reference", "raw", _choice("raw", "monotonic", "realtime"), "clock to calibrate against"
    ),
    Setting("calibrate.snap", True, _flag, "take over the kernel's own rate when both agree"),
    Setting("calibrate.watch-interval", 60_000_000_000, _seconds, "time between rechecks of --watch"),
    Setting(
        "diagnose.fail-on",
        "high",
        _choice("low", "medium", "high", "critical"),
        "least severity that exits 1",
    ),
    Setting("diagnose.interval", 2_000_000_000, _seconds, "time between the two views of counter checks"),
    Setting(
        "diagnose.profile",
        "timer",
        _choice("timer", "busy-poll", "ipc", "network", "container", "ci"),
        "kind of workload",
    ),
    Setting(
        "check.inconclusive", "report", _choice("report", "pass", "fail"), "how an inconclusive target counts"
    ),
    Setting(
        "segments.max-age", 7 * 86_400_000_000_000, _seconds, "age after which ended segments are pruned"
    ),
    Setting("segments.max-total", 256 << 20, _size, "bytes that ended segments may hold together"),
)
_BY_KEY = {setting.key: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Config:
    """All settings resolved, with their sources; `get` returns a value by key.

    `foreign` holds the FOREIGN_TABLES of each file as (file, {name: table}), lowest layer first.
    """

    resolved: Mapping[str, Resolved]
    project_file: Path | None
    user_file: Path
    foreign: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def get(self, key: str) -> Any:
        """Return a setting's value; KeyError is a programming error."""
        return self.resolved[key].value


def find_project_file(start: Path) -> Path | None:
    """Return the nearest cfctl.toml, or pyproject.toml with [tool.cfctl], upwards from `start`."""
    for directory in (start, *start.parents):
        own = directory / "cfctl.toml"
        if own.is_file():
            return own
        pyproject = directory / "pyproject.toml"
        if pyproject.is_file() and _tool_table(pyproject, strict=False) is not None:
            return pyproject
    return None


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's content; raises ConfigError that names the file and the line."""
    import tomllib

    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{path} is not read.", f"It holds more than {MAX_CONFIG_BYTES} bytes.", "Shorten it."
            )
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can not be read.", os_error_reason(error), "Make it readable.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is no valid TOML.", f"{error}.", "Correct the file or move it away."
        ) from error


def project_table(path: Path) -> dict[str, Any]:
    """Return cfctl's own table of a project file: the whole cfctl.toml, or [tool.cfctl]."""
    if path.name == "pyproject.toml":
        return _tool_table(path, strict=True) or {}
    return read_toml(path)


def _tool_table(path: Path, *, strict: bool) -> dict[str, Any] | None:
    try:
        table = read_toml(path).get("tool", {}).get("cfctl")
    except (ConfigError, AttributeError):
        # Somebody else's broken pyproject.toml on the way up is no reason to stop.
        if strict:
            raise
        return None
    return table if isinstance(table, dict) else None


@cache
def load(start: Path | None = None) -> Config:
    """Return the settings of this process; cached, one read per command.

    Raises ConfigError for an unreadable file, an unknown key or a bad value, naming where it stands.
    """
    try:
        project = find_project_file(start or Path.cwd())
    except OSError:
        # A working directory that is gone or closed to us holds no settings either.
        project = None
    user = paths.user_config_file()
    tables = []
    if project is not None:
        tables.append((str(project), project_table(project)))
    if _is_file(user):
        tables.append((str(user), read_toml(user)))
    layers: list[tuple[str, dict[str, Any]]] = [("environment", _from_environment(os.environ))]
    layers += [(source, _flatten(table, source)) for source, table in tables]
    resolved = {setting.key: _resolve(setting, layers) for setting in SETTINGS}
    foreign = tuple(
        (source, {name: table[name] for name in FOREIGN_TABLES if name in table})
        for source, table in reversed(tables)
    )
    return Config(resolved, project, user, foreign)


def _is_file(path: Path) -> bool:
    """Return whether a file is there; one in a directory closed to this user is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {s.key: environ[s.environment_name] for s in SETTINGS if environ.get(s.environment_name)}


def _flatten(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if name in FOREIGN_TABLES:
            continue
        items = (
            {f"{name}.{key}": item for key, item in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
        if not items and not any(key.startswith(f"{name}.") for key in _BY_KEY):
            items = {name: value}
        for key, item in items.items():
            if key not in _BY_KEY:
                raise ConfigError(
                    f"{source}: unknown setting '{key}'.", _nearest(key), "See: cfctl config show"
                )
            flat[key] = item
    return flat


def _nearest(key: str) -> str:
    import difflib

    found = difflib.get_close_matches(key, _BY_KEY, 1)
    return f"Is '{found[0]}' meant?" if found else "No setting has this name."


def _resolve(setting: Setting, layers: list[tuple[str, dict[str, Any]]]) -> Resolved:
    for source, values in layers:
        if setting.key in values:
            try:
                return Resolved(setting, setting.read(values[setting.key]), source)
            except InputError as error:
                name = setting.environment_name if source == "environment" else f"{source}: {setting.key}"
                raise ConfigError(
                    f"{name} can not be used.", str(error), setting.help.capitalize() + "."
                ) from error
    return Resolved(setting, setting.default, "default")


def write_default(path: Path) -> None:
    """Write a user file in which every setting stands, commented out, with its default.

    Raises StateError when the file exists or can not be written.
    """
    if _is_file(path):
        raise StateError(
            f"{path} exists.", "A configuration is never overwritten.", "Edit it, or move it away."
        )
    lines = ["# cfctl: uncomment what you change; an option or CFCTL_* variable goes before this file.\n"]
    section = ""
    for setting in sorted(SETTINGS, key=lambda s: ("." in s.key, s.key)):
        head, _, name = setting.key.rpartition(".")
        if head != section:
            lines.append(f"\n[{head}]\n")
            section = head
        lines.append(f"# {setting.help}\n# {name} = {_toml_value(setting)}\n")
    paths.write_atomically(path, "".join(lines).encode())


def _toml_value(setting: Setting) -> str:
    if setting.unit == "ns":
        return f'"{setting.default / 1e9:g}s"'
    if setting.unit == "B":
        return f'"{setting.default >> 20}MiB"'
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return f'"{setting.default}"'


def shown(setting: Setting, value: Any) -> str:
    """Return a value as people read it: times and sizes with their unit, flags as TOML writes them."""
    if setting.unit == "ns":
        hours, rest_ns = divmod(value, 3600 * NS_PER_S)
        if hours and not rest_ns:
            return f"{hours} h"
        return f"{value / NS_PER_S:g} s" if value >= NS_PER_S else format_quantity(value, "ns")
    if setting.unit == "B":
        return f"{value / (1 << 20):g} MiB"
    return str(value).lower() if isinstance(value, bool) else str(value)
