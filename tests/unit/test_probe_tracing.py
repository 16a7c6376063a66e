"""Perf rings and tracepoints: parsing of records, nesting of spans, distrust of an incomplete trace."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import UnobservableError
from cfctl.probe import tracing
from cfctl.probe.attribution import Cause
from cfctl.probe.kernel_spans import spans_of
from cfctl.probe.tracing import Event, Switch, Tracepoint, events_in, switches_in

SWITCH = Tracepoint("sched/sched_switch", 11, {"prev_pid": (8, 4), "next_comm": (12, 16)})
TIMER_IN = Tracepoint("irq_vectors/local_timer_entry", 12, {})
TIMER_OUT = Tracepoint("irq_vectors/local_timer_exit", 13, {})
SOFTIRQ_IN = Tracepoint("irq/softirq_entry", 14, {"vec": (8, 4)})
SOFTIRQ_OUT = Tracepoint("irq/softirq_exit", 15, {"vec": (8, 4)})
HANDLER_IN = Tracepoint("irq/irq_handler_entry", 16, {"irq": (8, 4), "name": (12, 4)}, frozenset({"name"}))
HANDLER_OUT = Tracepoint("irq/irq_handler_exit", 17, {"irq": (8, 4)})
FAULT = Tracepoint("exceptions/page_fault_user", 18, {})
TID = 4711


def record(kind: int, body: bytes, misc: int = 0) -> bytes:
    return struct.pack("=IHH", kind, misc, 8 + len(body)) + body


def sample(ns: int, raw: bytes, tid: int = TID) -> bytes:
    return record(9, struct.pack("=IIQI", tid, tid, ns, len(raw)) + raw)


def raw(tracepoint: Tracepoint, rest: bytes = b"") -> bytes:
    return struct.pack("=HBBi", tracepoint.id, 0, 0, TID) + rest


def event(ns: int, tracepoint: Tracepoint, rest: bytes = b"", tid: int = TID) -> Event:
    return Event(ns, tid, tracepoint, raw(tracepoint, rest))


def test_switch_records_tell_out_from_in() -> None:
    data = record(14, struct.pack("=Q", 5), 1 << 13) + record(14, struct.pack("=Q", 9))
    assert switches_in(data) == ([Switch(5, True), Switch(9, False)], True)


def test_a_lost_record_is_known() -> None:
    assert switches_in(record(2, b"\0" * 16)) == ([], False)
    assert events_in(record(2, b"\0" * 16), [TIMER_IN]) == ([], False)


def test_samples_are_sorted_and_unknown_ones_left_out() -> None:
    data = sample(20, raw(TIMER_OUT)) + sample(10, raw(TIMER_IN)) + sample(15, raw(FAULT))
    events, complete = events_in(data, [TIMER_IN, TIMER_OUT])
    assert complete
    assert [(e.ns, e.tracepoint.name) for e in events] == [(10, TIMER_IN.name), (20, TIMER_OUT.name)]


@given(st.binary(max_size=400))
def test_garbage_in_a_ring_is_no_crash(data: bytes) -> None:
    switches_in(data)
    for found in events_in(data, [SWITCH, SOFTIRQ_IN, HANDLER_IN])[0]:
        spans_of([found], TID)


def test_nested_interrupts_become_nested_spans() -> None:
    events = [
        event(10, SOFTIRQ_IN, struct.pack("=I", 3)),
        event(20, TIMER_IN),
        event(30, TIMER_OUT),
        event(40, SOFTIRQ_OUT, struct.pack("=I", 3)),
    ]
    found = [(s.start_ns, s.end_ns, s.cause, s.detail) for s in spans_of(events, TID)]
    assert found == [(10, 40, Cause.SOFTIRQ, "NET_RX"), (20, 30, Cause.TIMER_TICK, "local timer")]


def test_an_entry_without_an_exit_does_not_spoil_the_next() -> None:
    events = [
        event(1, SOFTIRQ_IN, struct.pack("=I", 1)),
        event(5, TIMER_IN),
        event(8, TIMER_OUT),
        event(9, SOFTIRQ_OUT),
    ]
    assert [s.cause for s in spans_of([events[0], *events[1:3]], TID)] == [Cause.TIMER_TICK]
    assert spans_of([events[3]], TID) == []
    assert len(spans_of(events, TID)) == 2


def test_a_switch_names_the_task_that_took_the_cpu() -> None:
    rest = struct.pack("=i16s", TID, b"stress-ng\0rubbish")
    found = spans_of([event(7, SWITCH, rest)], TID)
    assert [(s.start_ns, s.cause, s.detail) for s in found] == [(7, Cause.SCHEDULED_OUT, "stress-ng")]
    assert spans_of([event(7, SWITCH, rest)], TID + 1) == []


def test_an_interrupt_named_as_the_architectures_timer_is_a_tick() -> None:
    def entry(name: bytes) -> bytes:
        return struct.pack("=iI", 30, (len(name) + 1) << 16 | 16) + name + b"\0"

    tick = [event(1, HANDLER_IN, entry(b"arch_timer")), event(2, HANDLER_OUT, struct.pack("=i", 30))]
    disk = [event(1, HANDLER_IN, entry(b"virtio0")), event(2, HANDLER_OUT, struct.pack("=i", 30))]
    assert [(s.cause, s.detail) for s in spans_of(tick, TID)] == [(Cause.TIMER_TICK, "irq 30 arch_timer")]
    assert [(s.cause, s.detail) for s in spans_of(disk, TID)] == [(Cause.DEVICE_IRQ, "irq 30 virtio0")]


def test_another_threads_fault_is_not_ours() -> None:
    assert spans_of([event(3, FAULT, tid=1)], TID) == []
    assert [s.cause for s in spans_of([event(3, FAULT)], TID)] == [Cause.PAGE_FAULT]


FORMAT = """name: irq_handler_entry
ID: 225
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int irq;\toffset:8;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] name;\toffset:12;\tsize:4;\tsigned:0;
\tfield:char next_comm[16];\toffset:40;\tsize:16;\tsigned:0;
"""


def test_tracepoints_are_read_from_a_mounted_tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "events" / "irq" / "irq_handler_entry"
    directory.mkdir(parents=True)
    (directory / "format").write_text(FORMAT)
    (directory / "id").write_text("225\n")
    (tmp_path / "events" / "irq" / "enable").write_text("0")
    monkeypatch.setattr(tracing, "TRACEFS", (tmp_path,))
    found = tracing.kernel_tracepoints()
    assert [(t.name, t.id) for t in found] == [("irq/irq_handler_entry", 225)]
    assert found[0].fields["irq"] == (8, 4)
    assert found[0].fields["next_comm"] == (40, 16)
    assert found[0].located == {"name"}


def test_a_tracefs_without_these_tracepoints_is_unobservable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "events").mkdir()
    monkeypatch.setattr(tracing, "TRACEFS", (tmp_path,))
    with pytest.raises(UnobservableError, match="has none of them"):
        tracing.kernel_tracepoints()
