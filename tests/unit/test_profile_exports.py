from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from cfctl.errors import InputError
from cfctl.export import collapsed, hgrm, openmetrics, perfetto, speedscope
from cfctl.profile.report import ProfileReport, RecordedProcess, Recording, ReportClock, build_report
from cfctl.profile.stacks import Stack, parse_collapsed, stack_profile
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


def perfetto_samples(document: dict[str, Any]) -> list[tuple[int, int, str, int]]:
    """The samples as (start, duration in ns, operation, thread that the lane is named after)."""
    threads = {
        event["tid"]: int(event["args"]["name"].split()[1].rstrip(","))
        for event in document["traceEvents"]
        if event["name"] == "thread_name"
    }
    return [
        (round(e["ts"] * 1000), round(e["dur"] * 1000), e["name"], threads[e["tid"]])
        for e in document["traceEvents"]
        if e["ph"] == "X"
    ]


@given(SPANS)
def test_perfetto_has_a_complete_event_for_each_sample(spans: list[tuple[int, int, str, int]]) -> None:
    document = json.loads(perfetto.export(trace(*spans)))
    assert sorted(perfetto_samples(document)) == sorted(spans)
    assert {event["pid"] for event in document["traceEvents"]} == {7}


FRACTIONS = st.lists(
    st.tuples(st.floats(0, 1e13), st.floats(0, 1e4), st.sampled_from("abc"), st.just(1)), min_size=1
)


def perfetto_drops(events: list[dict[str, Any]]) -> int:
    """How many complete events Perfetto would drop: it keeps a stack for each thread (slice_tracker.cc)."""
    dropped = 0
    stacks: dict[int, list[int]] = {}
    for event in sorted(events, key=lambda event: float(event["ts"])):
        stack = stacks.setdefault(event["tid"], [])
        start = truncated_ns(event["ts"])
        end = start + truncated_ns(event["dur"])
        while stack and stack[-1] <= start:
            stack.pop()
        if stack and end > stack[-1]:
            dropped += 1
        else:
            stack.append(end)
    return dropped


def truncated_ns(written: str) -> int:
    """A time in microseconds as Perfetto reads its text (json_utils.cc): digits after the third are cut."""
    whole, _, fraction = written.partition(".")
    return int(whole) * 1000 + int(fraction[:3].ljust(3, "0"))


@given(st.one_of(SPANS, FRACTIONS))
def test_perfetto_drops_no_event(spans: list[tuple[float, float, str, int]]) -> None:
    text = perfetto.export(trace(*spans))
    events = [e for e in json.loads(text, parse_float=str, parse_int=str)["traceEvents"] if e["ph"] == "X"]
    assert len(events) == len(spans)
    assert perfetto_drops(events) == 0


def test_what_counts_the_dropped_events_finds_an_overlap() -> None:
    events = [
        {"tid": 1, "ts": "1.000", "dur": "2.0"},
        {"tid": 1, "ts": "2.0", "dur": "1.001"},
        {"tid": 2, "ts": "2.0", "dur": "1.001"},
    ]
    assert perfetto_drops(events) == 1


def test_samples_that_end_with_their_parents_stay_in_its_lane() -> None:
    """The ends of two samples are one tick; times ticks, the sums of start and duration differ by rounding."""
    per_tick = 0.4089323154980481
    spans = [(start * per_tick, (1_000_003 - start) * per_tick, "a", 1) for start in range(0, 1_000_003, 333)]
    assert any(start + length != spans[0][1] for start, length, *_ in spans)
    (profile,) = json.loads(speedscope.export(trace(*spans)))["profiles"]
    assert len(profile["events"]) == 2 * len(spans)


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


# https://www.speedscope.app/file-format-schema.json (draft 6, of jlfwong/speedscope at e341b0a): the
# properties of each object with their types, those it requires first.
Types = dict[str, Any]
NUMBER, TEXT = (int, float), str
SPEEDSCOPE_FILE: tuple[Types, Types] = (
    {"$schema": {"https://www.speedscope.app/file-format-schema.json"}, "profiles": list, "shared": dict},
    {"name": TEXT, "activeProfileIndex": NUMBER, "exporter": TEXT},
)
SPEEDSCOPE_FRAME: tuple[Types, Types] = ({"name": TEXT}, {"file": TEXT, "line": NUMBER, "col": NUMBER})
SPEEDSCOPE_UNITS = {"none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}
SPEEDSCOPE_PROFILE: Types = {"name": TEXT, "unit": SPEEDSCOPE_UNITS, "startValue": NUMBER, "endValue": NUMBER}
SPEEDSCOPE_PROFILES: dict[str, tuple[Types, Types]] = {
    "evented": (SPEEDSCOPE_PROFILE | {"type": {"evented"}, "events": list}, {}),
    "sampled": (SPEEDSCOPE_PROFILE | {"type": {"sampled"}, "samples": list, "weights": list}, {}),
}
SPEEDSCOPE_EVENT: tuple[Types, Types] = ({"type": {"O", "C"}, "frame": NUMBER, "at": NUMBER}, {})


def check_object(found: object, required: Types, optional: Types) -> None:
    """An object has what is required and nothing unknown (the schema allows more), each of its type."""
    assert isinstance(found, dict)
    assert set(required) <= set(found) <= set(required | optional), found
    for key, value in found.items():
        wanted = (required | optional)[key]
        if isinstance(wanted, set):
            assert value in wanted
        else:
            assert isinstance(value, wanted)
            assert not isinstance(value, bool)
            assert not isinstance(value, float) or math.isfinite(value)


def check_speedscope(document: dict[str, Any]) -> None:
    """The schema, and what src/lib/file-format-spec.ts says beside its types and the importer throws for."""
    check_object(document, *SPEEDSCOPE_FILE)
    assert document["exporter"].startswith("cfctl@")
    assert set(document["shared"]) == {"frames"}
    frames = document["shared"]["frames"]
    for frame in frames:
        check_object(frame, *SPEEDSCOPE_FRAME)
    assert document["profiles"]
    for profile in document["profiles"]:
        check_object(profile, *SPEEDSCOPE_PROFILES[profile["type"]])
        assert profile["startValue"] <= profile["endValue"]
        if profile["type"] == "evented":
            check_speedscope_events(profile)
            used = {event["frame"] for event in profile["events"]}
        else:
            assert len(profile["samples"]) == len(profile["weights"])
            assert all(weight >= 0 for weight in profile["weights"])
            used = {frame for sample in profile["samples"] for frame in sample}
        assert all(type(frame) is int and 0 <= frame < len(frames) for frame in used)


def check_speedscope_events(profile: dict[str, Any]) -> None:
    opened = []
    before = profile["startValue"]
    for event in profile["events"]:
        check_object(event, *SPEEDSCOPE_EVENT)
        assert before <= event["at"] <= profile["endValue"]
        before = event["at"]
        if event["type"] == "O":
            opened.append(event["frame"])
        else:
            assert opened.pop() == event["frame"]
    assert opened == []


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda d: d["profiles"][0]["events"].pop(), "not closed"),
        (lambda d: d["profiles"][0]["events"].reverse(), "closed before it is opened"),
        (lambda d: d["profiles"][0].update(unit="ns"), "no unit of the format"),
        (lambda d: d["profiles"][0].update(endValue=1), "events after the end"),
        (lambda d: d["profiles"][0].pop("name"), "no name"),
        (lambda d: d["profiles"][0]["events"][0].update(frame=9), "no such frame"),
        (lambda d: d["shared"]["frames"][0].update(line="12"), "a line that is no number"),
        (lambda d: d.update(version="1"), "a property that is not in the schema"),
    ],
)
def test_what_checks_speedscope_files_finds_a_broken_one(break_it: Any, why: str) -> None:
    document = json.loads(speedscope.export(trace((0, 10, "a", 1), (2, 3, "b", 1))))
    check_speedscope(document)
    break_it(document)
    with pytest.raises((AssertionError, IndexError)):
        check_speedscope(document)


@given(st.one_of(SPANS, FRACTIONS))
def test_a_timeline_keeps_the_rules_of_speedscopes_schema(spans: list[tuple[float, float, str, int]]) -> None:
    check_speedscope(json.loads(speedscope.export(trace(*spans))))


PERFETTO_KEYS = {"ph", "name", "pid", "tid", "args"}


@given(SPANS)
def test_a_timeline_keeps_the_rules_of_the_trace_event_format(spans: list[tuple[int, int, str, int]]) -> None:
    document = json.loads(perfetto.export(trace(*spans)))
    assert document["displayTimeUnit"] in {"ms", "ns"}
    for event in document["traceEvents"]:
        if event["ph"] == "M":
            assert event["name"] in {"process_name", "thread_name"}
            assert set(event) == PERFETTO_KEYS
            assert set(event["args"]) == {"name"}
        else:
            assert event["ph"] == "X"
            assert set(event) == PERFETTO_KEYS | {"cat", "ts", "dur"}
            assert event["ts"] >= 0
            assert event["dur"] >= 0
        assert type(event["pid"]) is type(event["tid"]) is int


def stacked(*stacks: tuple[str, int]) -> Document:
    found = [Stack(tuple(frames.split(";")), samples) for frames, samples in stacks]
    empty = build_report([])
    return dataclasses.replace(empty, stacks=stack_profile(found, "py-spy 0", 100.0, 0, None))


STACKS = st.lists(
    st.tuples(st.lists(st.sampled_from(["f (a.py:1)", "g (b.py:22)", "h"]), min_size=1).map(";".join), st.integers(1, 99)),
    min_size=1,
)  # fmt: skip


@given(STACKS)
def test_stacks_keep_the_rules_of_speedscopes_schema_and_their_weights(stacks: list[tuple[str, int]]) -> None:
    document = json.loads(speedscope.export(stacked(*stacks)))
    check_speedscope(document)
    (profile,) = document["profiles"]
    assert sum(profile["weights"]) == pytest.approx(sum(samples for _, samples in stacks) / 100)
    assert profile["endValue"] == pytest.approx(sum(profile["weights"]))


@given(STACKS)
def test_collapsed_stacks_read_back_as_they_were(stacks: list[tuple[str, int]]) -> None:
    report = stacked(*stacks)
    assert isinstance(report, ProfileReport)
    assert report.stacks is not None
    assert tuple(parse_collapsed(collapsed.export(report))) == report.stacks.stacks


def test_a_frame_with_a_semicolon_or_a_line_end_stays_one_frame() -> None:
    text = collapsed.export(
        dataclasses.replace(
            build_report([]),
            stacks=stack_profile([Stack(("a;b\n9", "c\x1b[31m"), 3)], "x", 1.0, 0, None),
        )
    )
    (stack,) = parse_collapsed(text)
    assert len(stack.frames) == 2
    assert "\x1b" not in text


@pytest.mark.parametrize("exporter", [collapsed, hgrm, openmetrics, perfetto, speedscope])
def test_another_document_is_refused(exporter: Any) -> None:
    other = report({"op": [1]}) if exporter in {collapsed, perfetto, speedscope} else trace((0, 1, "a", 1))
    with pytest.raises(InputError):
        exporter.export(other)


def test_names_from_outside_can_not_break_the_formats() -> None:
    evil = 'x"\n# EOF\x1b[31m'
    text = openmetrics.export(report({evil: [1000]}))
    assert "\x1b" not in text
    assert len(list(text_string_to_metric_families(text))) == 3  # type: ignore[no-untyped-call]
    assert "\x1b" not in hgrm.export(report({evil: [1000]}))
    assert not math.isnan(json.loads(perfetto.export(trace((0, 1, evil, 1))))["traceEvents"][-1]["ts"])
