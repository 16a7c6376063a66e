"""Functions named as MODULE:QUALNAME or PACKAGE.*, as `--function` takes them."""

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
_EVERYTHING_IN: Final = ".*"
_MODULE_BODY: Final = "<module>"


@dataclass(frozen=True, slots=True)
class FunctionPattern:
    """A module's __name__ and a function's __qualname__; in both * and ? stand for any characters.

    With `inside` the functions of the modules that a package holds are meant too. A module's own
    body, which runs once as it is imported, is no function: wildcards do not stand for it.
    """

    module: str
    qualname: str
    inside: bool = False

    def __str__(self) -> str:
        return self.module + _EVERYTHING_IN if self.inside else f"{self.module}:{self.qualname}"

    def matches(self, module: str, qualname: str) -> bool:
        """Return whether a function of that module and qualified name is meant."""
        if qualname == _MODULE_BODY != self.qualname or not _matches(self.qualname, qualname):
            return False
        return _matches(self.module, module) or (
            self.inside and _matches(self.module + _EVERYTHING_IN, module)
        )

    def matches_operation(self, name: str) -> bool:
        """Return whether an operation of this name was recorded for the pattern."""
        module, _, qualname = name.partition(":")
        return self.matches(module, qualname)


def _matches(pattern: str, text: str) -> bool:
    return fnmatchcase(text, pattern) if _WILD & set(pattern) else text == pattern


def parse_pattern(text: str) -> FunctionPattern:
    """Return the pattern in "json.decoder:JSONDecoder.decode", "__main__:f" or "json.*".

    Raises InputError for anything else.
    """
    package = text.removesuffix(_EVERYTHING_IN)
    if package != text and _MODULE.fullmatch(package):
        return FunctionPattern(package, "*", inside=True)
    module, colon, qualname = text.partition(":")
    if not colon or not _MODULE.fullmatch(module) or not _QUALNAME.fullmatch(qualname):
        raise InputError(
            f"'{text}' names no function.",
            "It should be MODULE:NAME, MODULE:CLASS.NAME, or PACKAGE.* for all in a package.",
            "Write it like json.decoder:JSONDecoder.decode, or __main__:work for the script itself.",
        )
    return FunctionPattern(module, qualname)


def unmatched(patterns: Iterable[FunctionPattern], names: Iterable[str]) -> list[FunctionPattern]:
    """Return the patterns that match none of the operation names."""
    known = list(names)
    return [pattern for pattern in patterns if not any(map(pattern.matches_operation, known))]
