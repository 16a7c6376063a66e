"""Saved documents taken apart without trust: each value is checked when it is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cfctl.compare.comparison import Figure
from cfctl.errors import InputError
from cfctl.text import safe_text

_MAX_ITEMS: Final = 1_000_000


class Fields:
    """A JSON object of a saved document; what is not as it should be raises InputError."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(where, "an object")
        self._value: Mapping[str, Any] = value
        self._where = where

    def _take(self, key: str, ok: Callable[[Any], bool], expected: str) -> Any:
        value = self._value.get(key)
        if not ok(value):
            raise _wrong(f"{self._where}.{key}", expected)
        return value

    def has(self, key: str) -> bool:
        """Return whether there is something other than null."""
        return self._value.get(key) is not None

    def number(self, key: str) -> float:
        """Return a finite number."""
        return float(self._take(key, is_number, "a number"))

    def optional_number(self, key: str) -> float | None:
        """Return a finite number, None for null."""
        return self.number(key) if self.has(key) else None

    def count(self, key: str) -> int:
        """Return an integer from 0."""
        return int(self._take(key, _is_count, "a count"))

    def text(self, key: str) -> str:
        """Return a text, cleaned."""
        return safe_text(self._take(key, lambda value: isinstance(value, str), "a text"))

    def optional_text(self, key: str) -> str | None:
        """Return a text, cleaned, None for null."""
        return self.text(key) if self.has(key) else None

    def value(self, key: str) -> Any:
        """Return whatever is there, None for nothing; for comparing with another document's."""
        return self._value.get(key)

    def table(self, key: str) -> Fields:
        """Return an object."""
        return Fields(self._value.get(key), f"{self._where}.{key}")

    def tables(self, key: str) -> list[Fields]:
        """Return a list of objects."""
        values = self._take(key, lambda value: isinstance(value, list) and len(value) <= _MAX_ITEMS, "a list")
        return [Fields(value, f"{self._where}.{key}[{index}]") for index, value in enumerate(values)]

    def items(self, key: str) -> Iterator[tuple[str, Fields]]:
        """Yield the members of an object whose values are objects."""
        table = self.table(key)
        for name in table._value:
            yield safe_text(name), table.table(name)

    def pairs(self, key: str) -> list[tuple[int, int]]:
        """Return a list of pairs of integers from 0."""

        def is_pairs(value: Any) -> bool:
            return isinstance(value, list) and all(
                isinstance(pair, list) and len(pair) == 2 and all(map(_is_count, pair)) for pair in value
            )

        return [(first, second) for first, second in self._take(key, is_pairs, "a list of pairs")]

    def measurement(self, key: str, factor: float = 1.0) -> Figure:
        """Return a saved Measurement as a figure; `factor` widens its standard error to an interval."""
        found = self.table(key)
        if not found.has("value"):
            return Figure.missing(found.optional_text("reason") or "not measured")
        uncertainty = found.optional_number("uncertainty")
        return Figure.within(found.number("value"), None if uncertainty is None else factor * uncertainty)


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number that arithmetic takes without surprise."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
        and abs(value) < 1e30
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def _wrong(where: str, expected: str) -> InputError:
    return InputError(
        "A result can not be compared.",
        f"{safe_text(where)} is not {expected}.",
        "Save it again with this cfctl.",
    )
