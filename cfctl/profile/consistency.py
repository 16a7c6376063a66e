"""What can not be true of an operation's counters: damage shows as fields that contradict each other.

A writer stores the fields of a sample one after the other: the histogram, the moments, the count, the
sum, the extremes, the errors (native/operation.h says what holds after each store). So fields may disagree by the samples that were on their way when the
writer was killed, one for each shard that had an owner, and by any number while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cfctl.profile.tally import Tally, bucket_bounds

if TYPE_CHECKING:
    from cfctl.segment.records import Entry, SegmentHeader

# A sample can end before its segment is opened, as its thread opens it to store the sample: more
# ticks than that takes (several seconds), at any rate a counter runs.
_OPENING_TICKS: Final = 1 << 34
_ROUNDING: Final = 1e-12
# Ten years at 3.6 GHz.
_LIFETIME_TICKS: Final = 1 << 60


def contradictions(tally: Tally, entry: Entry, live: bool) -> Iterator[str]:
    """Yield what can not be true of the counters of one entry, a clause each."""
    on_their_way = entry.live_shards
    counted = tally.in_range + tally.out_of_range
    if tally.errors is not None and tally.errors > max(counted, tally.count):
        yield f"{tally.errors} errors in {counted} samples"
    if tally.threads is not None and tally.threads > counted + entry.shards:
        yield f"{tally.threads} threads for {counted} samples"
    if live:
        # The count is copied before the buckets, so it is behind them, by what was recorded while
        # the copy was made: in a stalled reader that can be seconds.
        if tally.count > counted + on_their_way or counted > 2 * tally.count + (1 << 32):
            yield f"a count of {tally.count} but {counted} samples in the histogram"
        return
    if abs(counted - tally.count) > on_their_way:
        yield f"a count of {tally.count} but {counted} samples in the histogram"
    if tally.buckets and tally.count > on_their_way:
        yield from _impossible_times(tally, on_their_way)


def _impossible_times(tally: Tally, on_their_way: int) -> Iterator[str]:
    least, most = tally.least_and_most()
    # Beyond 2^53 ticks (a month) the sums are rounded.
    least, most = least * (1 - _ROUNDING), most * (1 + _ROUNDING)
    lowest, highest = bucket_bounds(tally.buckets[0][0]), bucket_bounds(tally.buckets[-1][0])
    unsummed = on_their_way * highest[1]
    if tally.sum_ticks < least - unsummed or (not tally.out_of_range and tally.sum_ticks > most):
        yield f"a sum of {tally.sum_ticks} ticks where the histogram holds {least:.0f} to {most:.0f}"
    if tally.min_ticks is None or tally.max_ticks is None or tally.min_ticks > tally.max_ticks:
        yield f"a minimum of {tally.min_ticks} and a maximum of {tally.max_ticks} ticks"
        return
    if tally.min_ticks < lowest[0] or (not on_their_way and tally.min_ticks > lowest[1]):
        yield f"a minimum of {tally.min_ticks} ticks outside of the lowest bucket"
    if tally.out_of_range == 0 and (
        tally.max_ticks > highest[1] or (not on_their_way and tally.max_ticks < highest[0])
    ):
        yield f"a maximum of {tally.max_ticks} ticks outside of the highest bucket"


def impossible_dates(tally: Tally, header: SegmentHeader, now_tick: int | None) -> bool:
    """Return whether an operation was recorded before its segment was opened, or in the future.

    `now_tick` is the reader's own, None when it is of another boot or source.
    """
    first, last = tally.first_tick, tally.last_tick
    if first is None or last is None:
        return False
    latest = header.opened.tick + _LIFETIME_TICKS if now_tick is None else now_tick + _OPENING_TICKS
    return not header.opened.tick - _OPENING_TICKS <= first <= last <= latest
