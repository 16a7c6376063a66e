"""Functions named as MODULE:QUALNAME, as `--function` takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from cfctl.errors import InputError

_MODULE: Final = re.compile(r"(?:[\w*?]+)(?:\.[\w*?]+)*")
_QUALNAME: Final = re.compile(r"(?:[\w*?]+|<\w+>)(?:\.(?:[\w*?]+|<\w+>))*")
_WILD: Final = frozenset("*?")


@dataclass(frozen=True, slots=True)
class FunctionPattern:
    """A module's __name__ and a function's __qualname__; in both * and ? stand for any characters."""

    module: str
    qualname: str

    def __str__(self) -> str:
        return f"{self.module}:{self.qualname}"

    def matches(self, module: str, qualname: str) -> bool:
        """Return whether a function of that module and qualified name is meant."""
        return _matches(self.module, module) and _matches(self.qualname, qualname)

    def matches_operation(self, name: str) -> bool:
        """Return whether an operation of this name was recorded for the pattern."""
        module, _, qualname = name.partition(":")
        return self.matches(module, qualname)


def _matches(pattern: str, text: str) -> bool:
    return fnmatchcase(text, pattern) if _WILD & set(pattern) else text == pattern


def parse_pattern(text: str) -> FunctionPattern:
    """Return the pattern in "json.decoder:JSONDecoder.decode" or "__main__:f".

    Raises InputError for anything else.
    """
    module, colon, qualname = text.partition(":")
    if not colon or not _MODULE.fullmatch(module) or not _QUALNAME.fullmatch(qualname):
        raise InputError(
            f"'{text}' names no function.",
            "It should be MODULE:NAME or MODULE:CLASS.NAME.",
            "Write it like json.decoder:JSONDecoder.decode, or __main__:work for the script itself.",
        )
    return FunctionPattern(module, qualname)


def unmatched(patterns: Iterable[FunctionPattern], names: Iterable[str]) -> list[FunctionPattern]:
    """Return the patterns that match none of the operation names."""
    known = list(names)
    return [pattern for pattern in patterns if not any(map(pattern.matches_operation, known))]
