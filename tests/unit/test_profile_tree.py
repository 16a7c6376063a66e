from __future__ import annotations

import io

import pytest
from rich.console import Console

from cfctl.errors import InputError
from cfctl.profile.edges import Edge, Key, edge_of
from cfctl.profile.report import ProfileReport, Recording, build_report
from cfctl.profile.saved import recordings_of
from cfctl.profile.tally import Tally
from cfctl.profile.tree import chosen_rows, tree_rows
from cfctl.records import to_plain
from cfctl.render.profile import render_tree
from cfctl.segment.reader import parse_segment
from tests.unit.profile_runs import CLOCK
from tests.unit.segment_builder import SUM, U64, SegmentBuilder

Row = tuple[int, str, int, float | None, float | None]


def key(name: str) -> Key:
    name, _, label = name.partition("/")
    return name, (("q", label),) if label else ()


def report(
    operations: dict[str, tuple[int, int]], edges: dict[tuple[str, str], tuple[int, int]]
) -> ProfileReport:
    """Operations as (count, ticks) and edges as (parent, child): (count, ticks); a tick is 0.5 ns."""
    tallies = []
    for name, (count, ticks) in operations.items():
        inside = sum(t for (parent, _), (_, t) in edges.items() if parent == name)
        tallies.append(
            Tally(*key(name), count, 0, ticks, 0, 1, ((1, count),) if count else (), 1, 1, 1, 2, inside)
        )
    made = tuple(Edge(key(parent), key(child), *numbers) for (parent, child), numbers in edges.items())
    return build_report([Recording(CLOCK, tuple(tallies), (), edges=made)])


def rows(found: ProfileReport) -> list[Row]:
    return [(row.depth, row.name, row.count, row.total, row.own) for row in tree_rows(found)]


def test_a_chain_goes_on_below_and_each_has_its_own_time() -> None:
    found = report({"a": (1, 100), "b": (2, 60), "c": (4, 20)}, {("a", "b"): (2, 60), ("b", "c"): (4, 20)})
    assert rows(found) == [(0, "a", 1, 50.0, 20.0), (1, "b", 2, 30.0, 20.0), (2, "c", 4, 10.0, 10.0)]
    assert [o.self_share for o in found.operations] == [0.4, 0.4, 0.2]


def test_an_operation_in_two_places_stands_in_both_with_what_it_had_there() -> None:
    found = report(
        {"a": (1, 100), "b": (1, 80), "leaf": (5, 50)}, {("a", "leaf"): (2, 20), ("b", "leaf"): (3, 30)}
    )
    assert rows(found) == [
        (0, "a", 1, 50.0, 40.0),
        (1, "leaf", 2, 10.0, 10.0),
        (0, "b", 1, 40.0, 25.0),
        (1, "leaf", 3, 15.0, 15.0),
    ]


def test_what_ran_inside_of_a_shared_operation_stands_once() -> None:
    found = report(
        {"a": (1, 100), "s": (3, 50), "leaf": (6, 40)}, {("a", "s"): (2, 40), ("s", "leaf"): (6, 40)}
    )
    assert rows(found) == [
        (0, "a", 1, 50.0, 30.0),
        (1, "s", 2, 20.0, None),
        (0, "s", 3, 25.0, 5.0),
        (1, "leaf", 6, 20.0, 20.0),
    ]
    shared = [row for row in tree_rows(found) if row.name == "s"]
    assert [(row.elsewhere, row.places) for row in shared] == [(True, 0), (False, 2)]


def test_recursion_counts_the_outermost_samples_and_their_time_once() -> None:
    found = report({"a": (1, 100), "fib": (9, 90)}, {("a", "fib"): (1, 30), ("fib", "fib"): (8, 60)})
    assert rows(found) == [(0, "a", 1, 50.0, 35.0), (1, "fib", 1, 15.0, 15.0)]
    assert [row.recursions for row in tree_rows(found)] == [0, 8]


def test_operations_that_call_each_other_end() -> None:
    found = report(
        {"a": (3, 100), "b": (2, 40)}, {("a", "b"): (2, 40), ("b", "a"): (2, 30)}
    )  # a was called once from outside
    assert [(depth, name, count) for depth, name, count, _, _ in rows(found)] == [
        (0, "a", 3),
        (1, "b", 2),
        (2, "a", 2),
    ]
    ring = report({"a": (2, 30), "b": (2, 40)}, {("a", "b"): (2, 40), ("b", "a"): (2, 30)})
    assert {name for _, name, *_ in rows(ring)} == {"a", "b"}


def test_a_parent_that_has_not_ended_holds_its_children() -> None:
    found = report({"main": (0, 0), "step": (5, 50)}, {("main", "step"): (5, 50)})
    assert rows(found) == [(0, "main", 0, None, None), (1, "step", 5, 25.0, 25.0)]


def test_the_own_times_of_all_operations_are_the_whole() -> None:
    found = report(
        {"a": (1, 100), "b/x": (2, 60), "b/y": (2, 10), "c": (4, 20)},
        {("a", "b/x"): (2, 60), ("a", "b/y"): (2, 10), ("b/x", "c"): (4, 20)},
    )
    assert sum(row.own or 0.0 for row in tree_rows(found)) == 50.0
    assert sum(o.self_share or 0.0 for o in found.operations) == pytest.approx(1)


def test_a_branch_is_chosen_by_its_name_and_the_longest_lines_keep_their_parents() -> None:
    found = tree_rows(
        report({"a": (1, 100), "b": (2, 60), "c": (4, 20)}, {("a", "b"): (2, 60), ("b", "c"): (4, 20)})
    )
    assert [row.name for row in chosen_rows(found, ["b*"])] == ["b", "c"]
    assert [row.name for row in chosen_rows(found, (), 2)] == ["a", "b"]


def test_a_saved_report_keeps_its_edges() -> None:
    found = report({"a": (1, 100), "b/x": (2, 60)}, {("a", "b/x"): (2, 60)})
    document = dict(to_plain(found))
    assert document["edges"][0]["child_labels"] == [["q", "x"]]
    assert rows(build_report(recordings_of(document))) == rows(found)
    twice = build_report([*recordings_of(document), *recordings_of(document)])
    assert [(edge.count, edge.ticks) for edge in twice.edges] == [(4, 120)]
    without = {name: value for name, value in document.items() if name not in {"edges", "stacks"}}
    assert build_report(recordings_of(without)).edges == ()
    document["edges"][0]["clock"] = 7
    with pytest.raises(InputError, match="clock"):
        recordings_of(document)


def test_an_entry_of_a_segment_is_an_edge_only_with_a_parent() -> None:
    builder = SegmentBuilder({})
    fields = (("count", "1", U64, SUM, 0, 1, 0), ("sum", "ticks", U64, SUM, 8, 1, 0))
    payload = (3).to_bytes(8, "little") + (70).to_bytes(8, "little")
    labels = {b"parent": b"a", b"parent.q": b"x", b"child.parent": b"y"}
    builder.entry(b"b", [payload, payload], b"edge", fields, labels)
    builder.entry(b"b", [payload], b"edge", fields)
    edge, orphan = parse_segment(builder.build()).entries
    assert edge_of(edge) == Edge(("a", (("q", "x"),)), ("b", (("parent", "y"),)), 6, 140)
    assert edge_of(orphan) is None


def test_the_tree_fits_a_terminal_and_says_what_its_marks_mean() -> None:
    found = report(
        {"serve": (1000, 9_000_000), "evil\x1b[31m": (3000, 500_000), "fib": (90, 400), "leaf": (9, 30)},
        {
            ("serve", "evil\x1b[31m"): (2000, 400_000),
            ("evil\x1b[31m", "leaf"): (9, 30),
            ("fib", "fib"): (80, 300),
        },
    )
    text = io.StringIO()
    render_tree(found, Console(file=text, width=80), None)
    shown = text.getvalue()
    assert "\x1b" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines()[:12])
    assert "in itself" in shown
    assert "(all)" in shown
    assert "stands once" in shown
