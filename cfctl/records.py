"""The record model: a measured value, a verdict, a document, and their form as JSON."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from functools import cache
from typing import Any, ClassVar, Final

_PLAIN: Final = frozenset({int, bool})
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Verdict(enum.StrEnum):
    """The three answers of every judgement."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Severity(enum.StrEnum):
    """How much an issue matters; ordered from low to critical by `rank`."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Return 0 for low up to 3 for critical."""
        return list(Severity).index(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """A measured value with its unit and error, or None with the reason why there is none.

    `uncertainty` is in the unit of the value and stated by `method`.
    """

    value: float | None
    unit: str
    uncertainty: float | None = None
    sample_count: int | None = None
    method: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) != (self.reason is not None):
            raise ValueError("a Measurement has a value, or None and a reason")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(
                "a Measurement's value is finite; what can not be measured is None with a reason"
            )

    @classmethod
    def missing(cls, unit: str, reason: str) -> Measurement:
        """Return the measurement that was not made, and why."""
        return cls(None, unit, reason=reason)


class JudgementLevel(enum.StrEnum):
    """How loudly a CI system shows a judgement that is not a pass."""

    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """One thing a document judges, in the form CI systems take: JUnit, annotations.

    `counts_as` is the verdict after the user's policy: an inconclusive one may count as a pass.
    """

    name: str
    group: str
    verdict: Verdict
    counts_as: Verdict
    level: JudgementLevel
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """The base of every result that is saved or printed as JSON.

    A subclass sets SCHEMA and VERSION; within a version fields are only added. ROWS names the field
    whose records are the rows of a table, for formats that hold nothing else (CSV, Markdown);
    ROWS_WITHOUT the fields of a row that no table can hold.
    """

    SCHEMA: ClassVar[str]
    VERSION: ClassVar[int]
    ROWS: ClassVar[str | None] = None
    ROWS_WITHOUT: ClassVar[frozenset[str]] = frozenset()

    def judgements(self) -> tuple[Judgement, ...] | None:
        """Return what the document judges, None when it judges nothing."""
        return None


def to_plain(value: Any) -> Any:
    """Return a record as dicts, lists and JSON scalars; a Document starts with schema and version.

    NaN and infinities, which JSON does not have, become None; half a surrogate pair, which UTF-8
    does not have, becomes U+FFFD.
    """
    kind: Any = type(value)
    is_plain = kind in _PLAIN or (kind is float and math.isfinite(value)) or (kind is str and value.isascii())
    if value is None or is_plain:
        return value
    if kind in {tuple, list}:
        # A histogram is a hundred thousand integers.
        return [item if type(item) is int else to_plain(item) for item in value]
    names = _field_names(kind)
    if names is not None:
        head = {"schema": value.SCHEMA, "version": value.VERSION} if isinstance(value, Document) else {}
        return head | {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {to_plain(str(key)): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_plain(item) for item in value), key=str)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if value is None or isinstance(value, (int, float)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


@cache
def _field_names(kind: Any) -> tuple[str, ...] | None:
    """Return the names of a dataclass's fields, None for another type; asking it each time is half of a document's time."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def to_json(value: Any, indent: int | None = 2) -> str:
    """Return a record as JSON text (RFC 8259, no NaN) that ends with a newline.

    It is ASCII: control and bidirectional characters of a name stay escaped on every terminal.
    """
    import json

    text = json.dumps(to_plain(value), indent=indent, allow_nan=False)
    return text.replace("\x7f", "\\u007f") + "\n"
