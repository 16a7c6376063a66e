"""pyperf's JSON: each value is the mean of a loop, in seconds."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from cfctl.profile.sources import SourceError, counted_tally, recording_of

if TYPE_CHECKING:
    from cfctl.profile.report import Recording
    from cfctl.profile.tally import Tally

NAME: Final = "pyperf"
_GAP: Final = "pyperf keeps the means of loops only"
_METHOD: Final = "pyperf, each sample the mean of a loop"
# Loops of short statements differ by parts of a nanosecond: times are kept in ps, below a second.
_NS_PER_TICK: Final = 1e-3
_LIMIT_S: Final = 1.0


def recognises(data: bytes) -> bool:
    """Return whether the data may be such a file."""
    return data.lstrip()[:1] == b"{" and b'"benchmarks"' in data


def read(data: bytes) -> Recording:
    """Return one operation for each benchmark, without its warm-ups; raises SourceError."""
    try:
        document = json.loads(data)
        values = [(_name(document, b), _values(b)) for b in document["benchmarks"]]
    except RecursionError:
        raise SourceError("it is nested too deeply") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"it has another structure ({type(error).__name__}: {error})") from error
    longest = max((value for _, found in values for value in found), default=0.0)
    ns_per_tick = _NS_PER_TICK if longest < _LIMIT_S else 1.0
    tallies = (_tally(name, found, ns_per_tick) for name, found in values)
    return recording_of(NAME, _METHOD, ns_per_tick, tallies)


def _name(document: dict[str, Any], benchmark: dict[str, Any]) -> str:
    name = benchmark.get("metadata", {}).get("name") or document.get("metadata", {}).get("name")
    return name if isinstance(name, str) and name else "benchmark"


def _values(benchmark: dict[str, Any]) -> list[float]:
    values = [float(value) for run in benchmark["runs"] for value in run.get("values", ())]
    if not all(math.isfinite(value) and 0 <= value < 1e6 for value in values):
        raise ValueError("a value is no time")
    return values


def _tally(name: str, values_s: Iterable[float], ns_per_tick: float) -> Tally:
    counts = Counter(round(value * 1e9 / ns_per_tick) for value in values_s)
    return counted_tally(name, counts.items(), _GAP)
