"""What is exported to Prometheus: names, units, true counters, a cap on series, clean labels; the rules."""

from __future__ import annotations

import math
import random
import statistics
from array import array
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cfctl._native import HISTOGRAM_BUCKETS
from cfctl.monitor.alerts import AlertState, PerformanceAlert
from cfctl.monitor.durations import Durations, added
from cfctl.monitor.families import (
    GUIDE_COUNTERS,
    GUIDE_GAUGES,
    OTHER,
    Exposition,
    factor,
    family_name,
)
from cfctl.monitor.latency import EDGES_NS, distribution, window_mean, window_quantile
from cfctl.monitor.ledger import Ledger
from cfctl.monitor.metric import MetricKind, all_metrics, gauges
from cfctl.monitor.publishing import Published
from cfctl.monitor.rules import alert_name, expression, rules
from cfctl.monitor.snapshot import Distribution, Series, Snapshot, Total
from cfctl.monitor.targets import BUILT_IN_TARGETS, NoData, Operator, Target, TargetSeverity
from cfctl.monitor.text_format import Family, TextFormat
from cfctl.monitor.watch import Observation
from cfctl.profile.statistics import TimeScale
from cfctl.records import Measurement
from cfctl.segment.tick_rate import TickRate
from tests.unit.segment_builder import bucket_of

SCALE = TimeScale(TickRate(0.5, 1.0, "test"), 0, 0, None)
OPERATION = (("pid", "7"), ("process", "app"), ("operation", "parse"))


def snapshot(*found: Series | Total | Distribution) -> Snapshot:
    return Snapshot(
        0, 10**9,
        tuple(f for f in found if isinstance(f, Series)),
        tuple(f for f in found if isinstance(f, Total)),
        tuple(f for f in found if isinstance(f, Distribution)),
    )  # fmt: skip


def exported(*found: Series | Total | Distribution, exposition: Exposition | None = None) -> dict[str, Any]:
    """Return the samples of an exposition by name and labels, as a parser reads them."""
    text = TextFormat(openmetrics=True).text((exposition or Exposition()).families(snapshot(*found))).decode()
    parsed = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    samples = [s for family in parsed for s in family.samples]
    return {f"{s.name}{sorted(s.labels.items()) if s.labels else ''}": s.value for s in samples}


def test_values_leave_in_the_base_units_of_prometheus() -> None:
    found = exported(
        Series("temporal_accuracy", Measurement(5.0, "ns", 0.1)),
        Series("cpu_utilization", Measurement(0.25, "ratio", 0.1)),
        Series("memory_rss", Measurement(3e6, "B", 1.0), (("pid", "7"),)),
    )
    assert found["cfctl_temporal_accuracy_seconds"] == pytest.approx(5e-9)
    assert found["cfctl_cpu_utilization_ratio"] == 0.25
    assert found["cfctl_memory_rss_bytes[('pid', '7')]"] == 3e6
    assert found["chronofabric_cpu_usage_percent"] == 25.0


def test_what_was_not_measured_is_not_exported_and_never_0() -> None:
    found = exported(Series("cpu_utilization", Measurement.missing("ratio", "why")))
    assert not any("cpu" in name or "coherence" in name for name in found)


def durations(values: list[int]) -> Durations:
    buckets = array("Q", bytes(8 * HISTOGRAM_BUCKETS))
    for value in values:
        buckets[bucket_of(value)] += 1
    return Durations("ticks", len(values), 0, sum(values), 0, buckets.tobytes())


def test_a_histogram_runs_from_1_ns_to_10_s_and_holds_every_sample() -> None:
    assert (EDGES_NS[0], EDGES_NS[-1]) == (1, 10**10)
    whole = distribution("operation_duration", durations([4, 4000, 4_000_000, 2**39]), SCALE, OPERATION)
    assert whole is not None
    found = exported(whole)
    buckets = {name: value for name, value in found.items() if "duration_seconds_bucket" in name}
    assert len(buckets) == len(EDGES_NS) + 1
    at = {name.partition("'le', '")[2].partition("'")[0]: value for name, value in buckets.items()}
    assert (at["1e-09"], at["2e-09"], at["0.001"], at["0.005"], at["10.0"], at["+Inf"]) == (0, 1, 2, 3, 3, 4)
    assert next(v for n, v in found.items() if "duration_seconds_count" in n) == 4


@given(st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=60))
def test_no_sample_counts_below_an_edge_that_it_lies_above(values: list[int]) -> None:
    whole = distribution("m", durations(values), SCALE, ())
    assert whole is not None
    for edge, seen in whole.cumulative:
        assert seen <= sum(value * 0.5 <= edge for value in values)
        assert seen >= sum(value * 0.5 * (1 + 1 / 64) < edge for value in values)


@given(st.lists(st.integers(0, 2**40 - 1)), st.lists(st.integers(0, 2**40 - 1)))
def test_a_window_is_what_came_after_the_reading_before(before: list[int], after: list[int]) -> None:
    assert durations(before + after).since(durations(before)) == durations(after)
    assert durations(after).since(None) == durations(after)
    whole = added([durations(before), durations(after)])
    assert whole is not None
    assert whole.in_range == len(before + after)
    assert whole.histogram == durations(before + after).histogram


@pytest.mark.parametrize("quantile", [0.5, 0.99])
def test_a_quantile_of_a_window_lies_within_its_error_of_the_samples(quantile: float) -> None:
    values = random.Random(7).choices(range(1, 10**6), k=5000)
    found = window_quantile(durations(values), SCALE, quantile, 1000)
    exact = sorted(values)[math.ceil(quantile * 5000) - 1] * 0.5
    assert found.value == pytest.approx(exact, rel=0.004)
    assert found.value is not None
    assert found.uncertainty is not None
    assert found.uncertainty < found.value * 0.1
    mean = window_mean(durations(values), SCALE)
    assert mean.value == pytest.approx(sum(values) / 5000 * 0.5)
    assert mean.uncertainty == pytest.approx(2 * statistics.stdev(values) * 0.5 / 5000**0.5, rel=0.01)


def test_damaged_histograms_are_measured_without_an_error() -> None:
    full = Durations("ns", 2**64, 0, 2**70, 2**64 - 1, b"\xff" * 8 * HISTOGRAM_BUCKETS)
    short = Durations("ns", 3, 0, 3, 0, b"\0" * 80)
    assert short.since(full) == short
    assert added([full, short]) == full
    for each in (full, short, full.since(full), short.since(None)):
        window_quantile(each, SCALE, 0.99, 1)
        window_mean(each, SCALE)
        assert distribution("m", each, SCALE, ()) is not None


@pytest.mark.parametrize("openmetrics", [False, True])
def test_the_text_is_what_prometheus_client_writes(openmetrics: bool) -> None:
    labels = [("a", 'q"\n\\'), ("é", "")]
    gauge = GaugeMetricFamily("g_seconds", "Gauge \\ of.", labels=("x", "le"))
    counter = CounterMetricFamily("c", "Counter.", labels=())
    histogram = HistogramMetricFamily("h_seconds", "Histogram.", labels=("b", "a"))
    for number, pair in enumerate(labels):
        gauge.add_metric(pair, 1.5e-9 * number)
        histogram.add_metric(pair, [("0.5", 1), ("+Inf", 2 + number)], sum_value=1e9)
    counter.add_metric((), 3)

    class Library:
        def collect(self) -> Any:
            return gauge, counter, histogram

    generate: Any = generate_openmetrics if openmetrics else generate_latest
    ours = (
        Family("g_seconds", MetricKind.GAUGE, "Gauge \\ of.", ("x", "le"),
               {pair: (1.5e-9 * number,) for number, pair in enumerate(labels)}),
        Family("c", MetricKind.COUNTER, "Counter.", (), {(): (3,)}),
        Family("h_seconds", MetricKind.HISTOGRAM, "Histogram.", ("b", "a"),
               {pair: (1, 2 + number, 2 + number, 1e9) for number, pair in enumerate(labels)}, ("0.5", "+Inf")),
        Family("empty", MetricKind.GAUGE, "Nothing."),
    )  # fmt: skip
    form = TextFormat(openmetrics)
    first = form.text(ours)
    # Prometheus takes 1e+09 and 1000000000.0 for the same number.
    assert first.replace(b"1000000000.0", b"1e+09") == generate(Library())
    assert form.text(ours) == first
    assert form.text(ours[:1]) == first[: first.index(b"# HELP c")] + (b"# EOF\n" if openmetrics else b"")


def test_scrapes_of_one_observation_get_the_same_text_and_the_next_ones_the_next() -> None:
    published = Published()
    assert (published.text(), published.text(True)) == (b"", b"# EOF\n")
    for value in (0.25, 0.5):
        found = snapshot(Series("cpu_utilization", Measurement(value, "ratio", 0.1)))
        published.update(Observation(found, (), ()))
        text = published.text()
        assert f"cfctl_cpu_utilization_ratio {value}\n".encode() in text
        assert published.text() is text
    chosen = published.text(False, frozenset({"chronofabric_messages_published_total"}))
    assert chosen.splitlines()[-1] == b"chronofabric_messages_published_total 0.0"
    assert chosen.count(b"# TYPE") == 1


def test_counters_are_totals_and_a_process_that_ends_takes_nothing_from_their_sum() -> None:
    ledger = Ledger()
    totals = []
    for values in ({"1": 10, "2": 5}, {"1": 12, "2": 7}, {"1": 15}, {"1": 16, "3": 2}, {"1": 3}, {}):
        ledger.update(snapshot(*(Total("m", value, (("pid", pid),)) for pid, value in values.items())))
        totals.append(ledger.total("m"))
    # Process 1 began anew with 3 in the last but one: its 16 stay.
    assert totals == [15, 19, 22, 25, 28, 28]


@pytest.mark.parametrize("seed", range(10))
def test_the_sum_over_processes_never_falls_whatever_comes_and_goes(seed: int) -> None:
    choose = random.Random(seed)
    ledger, before, before_histogram = Ledger(), 0.0, 0
    values: dict[str, int] = {}
    for _ in range(200):
        for pid in choose.sample("abcdef", 2):
            values[pid] = 0 if choose.random() < 0.2 else values.get(pid, 0) + choose.randrange(5)
        shown = {pid: value for pid, value in values.items() if choose.random() < 0.9}
        ledger.update(
            snapshot(
                *(Total("m", value, (("pid", pid),)) for pid, value in shown.items()),
                *(
                    Distribution("d", ((1, value),), value, 0.0, (("pid", pid),))
                    for pid, value in shown.items()
                ),
            )
        )
        whole = ledger.distribution("d")
        assert ledger.total("m") >= before
        assert whole is None or whole.count >= before_histogram
        before, before_histogram = ledger.total("m"), whole.count if whole else 0


def operation_total(number: int) -> Total:
    labels = (("pid", "7"), ("process", "app"), ("operation", f"op{number}"))
    return Total("operation_samples", 10.0, labels)


def test_more_series_than_the_cap_are_one_named_other_and_are_counted() -> None:
    exposition = Exposition(most=3)
    found = exported(*map(operation_total, range(5)), exposition=exposition)
    series = {
        name: value for name, value in found.items() if name.startswith("cfctl_operation_samples_total")
    }
    assert len(series) == 4
    assert next(value for name, value in series.items() if f"'{OTHER}'" in name) == 20.0
    assert found["cfctl_series_dropped_total"] == 2


def test_a_series_keeps_its_place_while_it_is_there() -> None:
    exposition = Exposition(most=2)
    exported(*map(operation_total, (5, 6)), exposition=exposition)
    found = exported(*map(operation_total, (1, 2, 5, 6)), exposition=exposition)
    assert sum("'op5'" in name or "'op6'" in name for name in found) == 2
    found = exported(*map(operation_total, (1, 2, 6)), exposition=exposition)
    assert sum("'op1'" in name or "'op6'" in name for name in found) == 2


HOSTILE = ["a\nb", 'quo"te', "back\\slash", "\x1b[31m", "\u202eevil", '{x="y"}', "\ud800", "# HELP", "é"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_label_text_reaches_no_exposition_as_it_is(text: str) -> None:
    labels = (("pid", "7"), ("process", text), ("operation", text), (text, text))
    families = Exposition().families(snapshot(Total("operation_samples", 1.0, labels)))
    lines = TextFormat().text(families)
    for forbidden in (b"\x1b", b"\xe2\x80\xae", b"a\nb"):
        assert forbidden not in lines
    samples = [s for family in parse_text(lines.decode()) for s in family.samples]
    assert sum(s.name == "cfctl_operation_samples_total" for s in samples) == 1


def test_the_guides_histogram_has_the_guides_buckets() -> None:
    whole = Distribution("message_latency", tuple((edge, 5) for edge in EDGES_NS), 5, 50.0)
    found = exported(whole)
    edges = [n for n in found if n.startswith("chronofabric_message_latency_seconds_bucket")]
    assert sorted(n.partition("'le', '")[2].partition("'")[0] for n in edges) == [
        "+Inf", "0.0001", "0.001", "0.01", "1e-05", "1e-06",
    ]  # fmt: skip


def test_alerts_and_the_state_of_the_configuration_are_series() -> None:
    alert = PerformanceAlert(
        TargetSeverity.CRITICAL, "m", 1.0, 2.0, "d", "ns", "loss", (), "this machine", AlertState.FIRING, 0
    )
    families = Exposition().families(
        snapshot(), [alert, replace(alert, target="x", state=AlertState.PENDING)], False
    )
    samples = {(f.name, labels[:1]): value for f in families for labels, (value,) in f.series.items()}
    assert samples["cfctl_alert_firing", ("loss",)] == 1
    assert samples["cfctl_alert_firing", ("x",)] == 0
    assert samples["cfctl_config_last_reload_successful", ()] == 0


@pytest.mark.parametrize("name", all_metrics())
def test_every_metric_has_a_valid_name_that_says_its_unit(name: str) -> None:
    metric = all_metrics()[name]
    exported_name = family_name(metric)
    assert exported_name.startswith("cfctl_")
    if metric.unit == "ns":
        assert exported_name.endswith("_seconds")
        assert factor(metric) == 1e-9
    assert metric.kind is not MetricKind.HISTOGRAM or metric.unit in {"ns", "B"}


def test_every_name_of_the_guide_stands_for_a_metric_that_exists() -> None:
    named = {row[1] for row in (*GUIDE_GAUGES, *GUIDE_COUNTERS)} | {"message_latency"}
    assert named <= set(all_metrics())


def test_a_rule_is_true_while_its_target_is_missed() -> None:
    by_name = {target.name: expression(target) for target in BUILT_IN_TARGETS}
    assert by_name["cpu-utilization"] == "cfctl_cpu_utilization_ratio >= 0.8"
    assert by_name["temporal-accuracy"] == "abs(cfctl_temporal_accuracy_seconds) > 1e-08"
    assert alert_name(BUILT_IN_TARGETS[0]) == "CfctlTemporalAccuracy"


def test_patterns_become_matchers_on_the_exported_labels() -> None:
    target = Target(
        "p99", "operation_p99", Operator.BELOW, 1000.0, "ns", TargetSeverity.CRITICAL,
        where=(("operation", "pa?se*"), ("queue", "a.b")), no_data=NoData.ALERT,
    )  # fmt: skip
    expected = 'cfctl_operation_p99_seconds{operation=~"pa.se.*", labels=~"(.*,)?queue=a\\\\.b(,.*)?"}'
    assert expression(target) == f"{expected} >= 1e-06 or absent({expected})"


def test_the_rule_file_has_one_alert_per_target_with_its_times() -> None:
    text = rules([replace(BUILT_IN_TARGETS[0], for_ns=90 * 10**9, name='q"uote')])
    assert "        for: 90000ms" in text
    assert "        keep_firing_for: 30000ms" in text
    assert '- alert: "CfctlQUote"' in text
    assert all(gauges()[target.metric] for target in BUILT_IN_TARGETS)
