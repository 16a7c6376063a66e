"""No content of any file makes a check fail itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl.diagnose.engine import catalogue, run_check
from cfctl.diagnose.record import CheckResult, Status
from cfctl.diagnose.subject import Facts, sampled
from cfctl.host.fingerprint import fingerprint
from cfctl.records import to_json
from tests.hosts.cases import GOOD
from tests.hosts.fake_host import FakeHost, MemoryView

if TYPE_CHECKING:
    from collections.abc import Mapping

TUNED = FakeHost.load("bare_tuned")
GUEST = FakeHost.load("kvm_guest")
# What real files are made of, in any order, and anything else.
PIECES = st.sampled_from(
    ["0", "1", "-1", "max", "cpu0", "CPU0", ":", "=", ",", "-", "/", "\n", " ", "\t", "\0", "[", "]", "kB", "some",
     "avg10=", "nan", "9" * 30, "ff", "0::/", " - cgroup2 x rw", "(", ")", "Udp:", "processor", "flags", "\x1b[31m"]
)  # fmt: skip
TEXT = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=60))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def all_results(early: MemoryView, late: MemoryView, pid: int | None) -> list[CheckResult]:
    checks = catalogue()
    samples = {sample: sampled(sample, early, pid) for c in checks for sample in c.samples}
    facts = Facts(late, pid, "timer", GOOD, early, samples)
    return [run_check(check, facts) for check in checks]


def assert_sound(results: list[CheckResult]) -> None:
    assert [(r.id, r.reason) for r in results if r.status is Status.ERROR] == []
    assert "\\u001b" not in to_json(results)
    assert "\x1b" not in to_json(results)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from([TUNED, GUEST]), st.sampled_from([None, 4242]))
def test_garbage_in_some_files_is_no_error(data: st.DataObject, host: FakeHost, pid: int | None) -> None:
    (early, answers), (late, later_answers) = host.moments()
    for files in (early, late):
        for path in data.draw(st.lists(st.sampled_from(sorted(files)), max_size=30, unique=True)):
            files[path] = data.draw(TEXT)
    assert_sound(all_results(MemoryView(early, answers), MemoryView(late, later_answers), pid))


@settings(max_examples=25, deadline=None)
@given(TEXT, TEXT)
def test_the_same_garbage_in_every_file_is_no_error(first: str, second: str) -> None:
    (early, answers), (late, later_answers) = TUNED.moments()
    assert_sound(
        all_results(
            MemoryView(dict.fromkeys(early, first), answers),
            MemoryView(dict.fromkeys(late, second), later_answers),
            4242,
        )
    )


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(TUNED.syscalls)), JSON, max_size=10))
def test_garbage_in_captured_answers_is_no_error(garbage: Mapping[str, Any]) -> None:
    (early, answers), (late, later_answers) = TUNED.moments()
    view = MemoryView(late, {**later_answers, **garbage})
    assert_sound(all_results(MemoryView(early, answers), view, 4242))
    assert fingerprint(view).cpu_brand is not None


def test_files_that_go_backwards_are_no_error() -> None:
    (early, answers), (late, later_answers) = TUNED.moments()
    larger = {path: re.sub(r"\b\d+\b", lambda m: str(int(m[0]) * 2), text) for path, text in early.items()}
    assert_sound(all_results(MemoryView({**early, **larger}, answers), MemoryView(late, later_answers), 4242))
