"""Records read back from JSON that came from outside, checked against the types of their fields."""

from __future__ import annotations

import dataclasses
import enum
import math
import sys
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cfctl.diagnose import latency, measurements
from cfctl.probe import distribution
from cfctl.records import Measurement

T = TypeVar("T")
# What the modules of the records import for their annotations only.
_NAMES = {
    **vars(distribution),
    **vars(latency),
    **vars(measurements),
    "Measurement": Measurement,
    "Mapping": Mapping,
}
_MAX_TEXT = 4096
_MAX_ITEMS = 100_000


def restored(kind: type[T], value: Any, where: str = "the record") -> T:
    """Return the record of a dataclass type that a JSON object holds; raises ValueError for anything else.

    Fields that a later release added are ignored; one that is missing takes its default.
    """
    if not isinstance(value, dict):
        raise _wrong(where, "an object")
    # A name of the record's own module goes before one of another's.
    hints = get_type_hints(kind, None, _NAMES | vars(sys.modules[kind.__module__]))
    content = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in value:
            content[field.name] = _as(hints[field.name], value[field.name], f"{where}.{field.name}")
    try:
        return kind(**content)
    except TypeError as error:
        raise ValueError(f"{where} is not complete: {error}") from None


def _as(hint: Any, value: Any, where: str) -> Any:
    """Return a JSON value as the type an annotation names."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        if value is None and len(kinds) < len(arguments):
            return None
        return _as(kinds[0], value, where)
    if origin is tuple:
        return _as_tuple(arguments, value, where)
    if origin in {dict, Mapping}:
        return _as_mapping(arguments, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return restored(hint, value, where)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    return value if hint is Any else _as_scalar(hint, value, where)


def _as_mapping(arguments: tuple[Any, ...], value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
        raise _wrong(where, "an object")
    return {_as(str, key, where): _as(arguments[1], item, f"{where}.{key}") for key, item in value.items()}


def _as_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise _wrong(where, "a list")
    kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(kinds) != len(value):
        raise _wrong(where, f"a list of {len(kinds)}")
    return tuple(
        _as(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _as_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is str and isinstance(value, str) and len(value) <= _MAX_TEXT:
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if not isinstance(value, bool):
        # The bound keeps arithmetic on a hostile record within a float's range.
        if hint is int and isinstance(value, int) and abs(value) < 1 << 64:
            return value
        if hint is float and isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1e30:
            return float(value)
    raise _wrong(where, {str: "a text", bool: "true or false", int: "an integer"}.get(hint, "a number"))


def _wrong(where: str, expected: str) -> ValueError:
    return ValueError(f"{where[:200]} is not {expected}")
