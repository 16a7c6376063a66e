from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from cfctl.errors import InputError
from cfctl.export import hgrm, openmetrics, perfetto, speedscope
from cfctl.profile.report import RecordedProcess, Recording, ReportClock, build_report
from cfctl.profile.tally import Tally
from cfctl.profile.trace import Trace, TraceSpan
from cfctl.segment.tick_rate import TickRate
from tests.unit.segment_builder import bucket_of

if TYPE_CHECKING:
    from cfctl.records import Document

CLOCK = ReportClock("boot", "tsc", TickRate(1.0, 1.0, "test"), 0, 0, 20.0)


def report(operations: dict[str, list[int]], errors: int = 0, **labels: str) -> Document:
    tallies = []
    for name, values in operations.items():
        buckets: dict[int, int] = {}
        for value in values:
            buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
        tallies.append(
            Tally(
                name, tuple(labels.items()), len(values), errors, sum(values), 0, 1, tuple(sorted(buckets.items())),
                min(values), max(values), 1, 2,
            )
        )  # fmt: skip
    process = RecordedProcess(1, ("app",), "ended", 1, "", 0, 0)
    return build_report([Recording(CLOCK, tuple(tallies), (process,))])


VALUES = st.lists(st.integers(1_000, 10**9), min_size=1, max_size=300)


@given(VALUES)
def test_hgrm_gives_the_percentiles_of_the_hdrhistogram_package(values: list[int]) -> None:
    text = hgrm.export(report({"op": values}))
    peer = HdrHistogram(1, 10**12, 3)
    for value in values:
        peer.record_value(value)
    rows = [
        line.split()
        for line in text.splitlines()
        if line.strip() and not line.startswith(("#", " " * 7 + "V"))
    ]
    assert rows[-1][1:] == ["1.000000000000", str(len(values))]
    for value_us, percentile, seen, *_ in rows:
        # The rank itself, so that rounding of the share picks no other sample.
        expected = peer.get_value_at_percentile((int(seen) - 0.25) / len(values) * 100)
        assert float(value_us) * 1000 == pytest.approx(expected, rel=0.01)
        assert float(percentile) == pytest.approx(int(seen) / len(values), abs=1e-9)


def test_hgrm_names_each_operation_and_what_has_no_histogram() -> None:
    text = hgrm.export(report({"a": [2_000], "b": [3_000]}))
    assert [line for line in text.splitlines() if line.startswith("#[") and "us]" in line] == [
        "#[b, us]",
        "#[a, us]",
    ]
    assert "#[Max     =        3.000, Total count    =            1]" in text


@given(VALUES)
def test_openmetrics_reads_back_with_every_sample(values: list[int]) -> None:
    text = openmetrics.export(report({"op": values}, errors=1, queue='a"b\\'))
    families = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    samples = {s.name: s for s in families["cfctl_operation_samples"].samples}
    assert samples["cfctl_operation_samples_total"].value == len(values)
    assert samples["cfctl_operation_samples_total"].labels == {"operation": "op", "labels": 'queue=a"b\\'}
    assert families["cfctl_operation_errors"].samples[0].value == 1
    times = families["cfctl_operation_duration_seconds"].samples
    buckets = {s.labels["le"]: s.value for s in times if s.name.endswith("_bucket")}
    assert buckets["+Inf"] == len(values)
    assert list(buckets.values()) == sorted(buckets.values())
    for edge, seen in buckets.items():
        assert seen <= sum(value <= float(edge) * 1e9 * (1 + 1e-12) for value in values)
        assert seen >= sum(value <= float(edge) * 1e9 * 0.992 for value in values)
    total = next(s.value for s in times if s.name.endswith("_sum"))
    assert total == pytest.approx(sum(values) * 1e-9)


def trace(*spans: tuple[float, float, str, int]) -> Trace:
    made = [
        TraceSpan(start, length, name, (("q", "x"),), name == "bad", thread, None)
        for start, length, name, thread in spans
    ]
    return Trace(
        7, ("python", "app.py"), 0, tuple(sorted(made, key=lambda s: (s.start_ns, -s.duration_ns))), ()
    )


SPANS = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 50), st.sampled_from("abc"), st.integers(1, 3)), min_size=1
)


@given(SPANS)
def test_perfetto_has_a_complete_event_for_each_sample(spans: list[tuple[int, int, str, int]]) -> None:
    document = json.loads(perfetto.export(trace(*spans)))
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    found = sorted((e["ts"] * 1000, e["dur"] * 1000, e["name"], e["tid"]) for e in events)
    assert [(round(ts), round(dur), *rest) for ts, dur, *rest in found] == sorted(spans)
    assert {event["pid"] for event in document["traceEvents"]} == {7}


@given(SPANS)
def test_speedscope_events_nest_and_keep_every_sample(spans: list[tuple[int, int, str, int]]) -> None:
    document = json.loads(speedscope.export(trace(*spans)))
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    names = [frame["name"] for frame in document["shared"]["frames"]]
    assert sorted(s for p in document["profiles"] for s in nested(p, names)) == sorted(spans)


def nested(profile: dict[str, Any], names: list[str]) -> list[tuple[int, int, str, int]]:
    """The samples of an evented profile, which has to keep speedscope's rules."""
    assert profile["type"] == "evented"
    assert profile["unit"] == "nanoseconds"
    stack: list[tuple[int, float]] = []
    found = []
    at = profile["startValue"]
    for event in profile["events"]:
        assert set(event) == {"type", "frame", "at"}
        assert event["at"] >= at
        at = event["at"]
        if event["type"] == "O":
            stack.append((event["frame"], at))
        else:
            frame, start = stack.pop()
            assert frame == event["frame"]
            thread = int(profile["name"].split()[1].rstrip(","))
            found.append((round(start), round(at - start), names[frame], thread))
    assert stack == []
    assert profile["endValue"] >= at
    return found


@pytest.mark.parametrize("exporter", [hgrm, openmetrics, perfetto, speedscope])
def test_another_document_is_refused(exporter: Any) -> None:
    other = report({"op": [1]}) if exporter in {perfetto, speedscope} else trace((0, 1, "a", 1))
    with pytest.raises(InputError):
        exporter.export(other)


def test_names_from_outside_can_not_break_the_formats() -> None:
    evil = 'x"\n# EOF\x1b[31m'
    text = openmetrics.export(report({evil: [1000]}))
    assert "\x1b" not in text
    assert len(list(text_string_to_metric_families(text))) == 3  # type: ignore[no-untyped-call]
    assert "\x1b" not in hgrm.export(report({evil: [1000]}))
    assert not math.isnan(json.loads(perfetto.export(trace((0, 1, evil, 1))))["traceEvents"][1]["ts"])
