"""Text from outside can not reach a sink with anything that the sink interprets."""

from __future__ import annotations

import io
import json
import random
import re
import unicodedata
import xml.etree.ElementTree as ET

import pytest

from cfctl.cli.output import make_console
from cfctl.export import csv, github, junit, markdown
from cfctl.export import json as json_export
from cfctl.monitor.check import CheckDocument, InconclusivePolicy, TargetResult
from cfctl.monitor.targets import Operator, Target, TargetSeverity
from cfctl.records import Measurement, Verdict
from cfctl.render.check import render
from cfctl.text import safe_text

SEEDS = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "\x9b31m", "\x9d0;t\x9c",
    "\u202eevil\u202c", "\u2066x\u2069", "\u200b\u200d\ufeff", "[bold red]markup[/bold red]", "[/x]", "[link=http://x]y",
    ":smile:", "a\r\nb", "a\nb\tc", "\x00", "\x7f", "\udc80\udcff", "\ud800", "\U000e0041", "\ue000", "\uffff",
    "=1+1", "@SUM(A1)", "+1", "-1", "<script>alert(1)</script>", "]]>", "&amp;", "%0A::error::x", "::error::x",
    "| a | b |", "`code`", "\u2028\u2029", "x" * 5000, "\N{COMBINING ACUTE ACCENT}" * 300, "\x85\x8d",
]  # fmt: skip
ALLOWED_CONTROLS = {"\n", "\t", "\r"}


def hostile_strings() -> list[str]:
    """Return 500 hostile strings: each seed, and random mixtures of them."""
    rng = random.Random(20261123)
    strings = list(SEEDS)
    while len(strings) < 500:
        parts = rng.sample(SEEDS, rng.randint(1, 4))
        strings.append("".join(part[: rng.randint(1, 60)] for part in parts))
    return strings


HOSTILE = hostile_strings()


def interpreted(text: str) -> set[str]:
    """Return the characters of a text that a terminal or a viewer acts on."""
    return {
        char
        for char in text
        if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char not in ALLOWED_CONTROLS
    }


def document(name: str) -> CheckDocument:
    """Return a document in which every text from outside is `name`."""
    target = Target(name, "memory_rss", Operator.BELOW, 1.0, "B", TargetSeverity.CRITICAL, name)
    results = tuple(
        TargetResult(target, measured, name, ((name, name),), None, verdict, verdict, target.margin(measured))
        for measured, verdict in (
            (Measurement.missing("B", name), Verdict.INCONCLUSIVE),
            (Measurement(2.0, "B", 0.5), Verdict.FAIL),
            (Measurement(0.1, "B", 0.5), Verdict.PASS),
        )
    )
    return CheckDocument(Verdict.FAIL, InconclusivePolicy.REPORT, results, problems=(name,))


def test_there_are_500_hostile_strings_and_they_are_hostile() -> None:
    assert len(HOSTILE) == 500
    assert sum(bool(interpreted(text)) for text in HOSTILE) > 300


def test_safe_text_leaves_nothing_that_is_interpreted() -> None:
    for text in HOSTILE:
        assert not interpreted(safe_text(text))
        assert not set(safe_text(text)) & ALLOWED_CONTROLS


def test_safe_text_leaves_ordinary_text_as_it_is() -> None:
    for text in ("nginx: worker", "Überwachung", "プロセス", "a" * 200, "[x] = <y>"):
        assert safe_text(text) == text


def test_safe_text_cuts_what_is_too_long_with_an_ellipsis() -> None:
    assert safe_text("x" * 500) == "x" * 199 + "…"
    assert safe_text("abcdef", 4) == "abc…"


def test_safe_text_reads_bytes_that_are_no_utf_8() -> None:
    assert safe_text(b"a\xffb") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("color", ["never", "always"])
def test_the_terminal_gets_no_escape_sequence_but_our_own(color: str) -> None:
    own = re.compile(r"\x1b\[[0-9;]*m")
    for text in HOSTILE:
        stream = io.StringIO()
        render(document(text), make_console(None, color, into=stream), None)
        shown = stream.getvalue()
        plain = own.sub("", shown) if color == "always" else shown
        assert not interpreted(plain)
        stream.close()


def test_rich_markup_in_a_name_is_shown_and_not_interpreted() -> None:
    stream = io.StringIO()
    render(document("[bold]x[/bold]"), make_console(None, into=stream), None)
    assert "[bold]x[/bold]" in stream.getvalue()


def test_json_is_valid_and_ascii_for_every_hostile_string() -> None:
    for text in HOSTILE:
        exported = json_export.export(document(text))
        assert not interpreted(exported)
        assert exported.isascii()
        assert len(json.loads(exported)["results"]) == 3


def test_junit_is_well_formed_for_every_hostile_string() -> None:
    for text in HOSTILE:
        exported = junit.export(document(text))
        assert not interpreted(exported.decode())
        suite = ET.fromstring(exported).find("testsuite")
        assert suite is not None
        assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")


def test_a_name_can_not_start_an_annotation_of_its_own() -> None:
    for text in HOSTILE:
        lines = github.export(document(text)).splitlines()
        assert len(lines) == 2
        assert all(re.match(r"::(error|notice) title=[^:,]*::", line) for line in lines)
        assert not interpreted("".join(lines))


def test_a_csv_field_is_no_formula() -> None:
    import csv as reader

    for text in HOSTILE:
        rows = list(reader.DictReader(io.StringIO(csv.export(document(text)))))
        assert len(rows) == 3
        for row in rows:
            assert not row["subject"].startswith(("=", "+", "-", "@"))
            assert not interpreted("".join(row.values()))


def test_a_markdown_row_stays_one_row() -> None:
    for text in HOSTILE:
        lines = markdown.export(document(text)).splitlines()
        assert len(lines) == 5
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        assert "<script>" not in "".join(lines)
