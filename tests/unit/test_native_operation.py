"""The C binding of operations: what is recorded, and that nothing a caller passes can break it."""

from __future__ import annotations

import functools
import gc
import inspect
import pickle
import struct
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from cfctl import _native

# Offsets of cfctl/native/segment.h and operation.h; the reader proper is tested elsewhere.
FIRST_ENTRY, ENTRY, SHARD, OPERATION = (
    32,
    struct.Struct("<QQQIIII"),
    struct.Struct("<8Q"),
    struct.Struct("<8Q"),
)


@pytest.fixture(scope="module", autouse=True)
def segment(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("segments")
    directory.chmod(0o700)
    _native.segment_configure(str(directory), "test", _native.SEGMENT_DEFAULT_LIMIT_BYTES)
    _native.segment_open()


def recorded(name: str, field: int = 0) -> int:
    """Return one counter of an operation, summed over its shards: 0 count, 1 errors, 2 sum."""
    data = _native.segment_bytes()
    entry = struct.unpack_from("<Q", data, FIRST_ENTRY)[0]
    while entry:
        following, shard, _, _, _, name_bytes, _ = ENTRY.unpack_from(data, entry)
        if data[entry + 64 : entry + 64 + name_bytes] == name.encode():
            total = 0
            while shard:
                total += OPERATION.unpack_from(data, shard + SHARD.size)[field]
                shard = SHARD.unpack_from(data, shard)[0]
            return total
        entry = following
    return 0


def timed(name: str, function: Any) -> Any:
    return functools.update_wrapper(_native.TimedFunction(function, _native.Operation(name)), function)


def add(a: int, /, b: int = 2, *, c: int = 3) -> int:
    """Return a sum."""
    return a + b + c


timed_add = timed("timed_add", add)
timed_add.__qualname__ = "timed_add"


def test_a_call_returns_what_the_function_returns_and_counts_once() -> None:
    before = recorded("timed_add")
    assert timed_add(1) == 6
    assert timed_add(1, b=5, c=7) == 13
    assert recorded("timed_add") - before == 2


def test_an_exception_is_counted_and_raised_untouched() -> None:
    error = KeyError("x")

    def fail() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        timed("fail", fail)()
    assert caught.value is error
    assert (recorded("fail"), recorded("fail", 1)) == (1, 1)


def test_a_wrong_call_raises_the_functions_own_type_error() -> None:
    with pytest.raises(TypeError, match="add"):
        timed_add()


def test_a_timed_function_looks_like_the_function() -> None:
    assert timed_add.__doc__ == "Return a sum."
    assert inspect.signature(timed_add) == inspect.signature(add)
    assert pickle.loads(pickle.dumps(timed_add)) is timed_add
    assert weakref.ref(timed_add)() is timed_add


def test_a_timed_method_binds_like_a_function() -> None:
    class Holder:
        def method(self, value: int) -> tuple[Holder, int]:
            return self, value

        wrapped = timed("method", method)
        static = staticmethod(timed("static", lambda: 1))
        of_class: Any = classmethod(timed("of_class", lambda cls: cls))

    holder = Holder()
    assert holder.wrapped(3) == (holder, 3)
    assert Holder.wrapped(holder, 4) == (holder, 4)
    bound = holder.wrapped
    assert bound(5) == (holder, 5)
    assert Holder.static() == 1
    assert holder.of_class() is Holder
    assert recorded("method") == 3


def test_with_blocks_nest_and_count_errors() -> None:
    outer, inner = _native.Operation("outer"), _native.Operation("inner")
    with outer:
        for _ in range(3):
            with inner:
                pass
        with pytest.raises(ValueError, match="broken"), inner:
            raise ValueError("broken")
    assert (recorded("outer"), recorded("outer", 1)) == (1, 0)
    assert (recorded("inner"), recorded("inner", 1)) == (4, 1)
    assert recorded("outer", 2) >= recorded("inner", 2)


def test_equal_names_and_labels_share_one_row_and_others_do_not() -> None:
    first = _native.Operation("labelled", [("queue", "a")])
    again = _native.Operation("labelled", (("queue", "a"),))
    with first, again:
        pass
    assert recorded("labelled") == 2
    assert first.labels == (("queue", "a"),)
    with _native.Operation("labelled", [("queue", "b")]):
        pass
    assert recorded("labelled") == 2


def test_threads_are_all_counted() -> None:
    operation = _native.Operation("threads")

    def work() -> None:
        for _ in range(100):
            with operation:
                pass

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorded("threads") == 2000


def test_measured_samples_can_be_added() -> None:
    operation = _native.Operation("measured")
    operation.record_ticks(1000)
    operation.record_ticks(500, True)
    operation.record_since(_native.ticks())
    assert (recorded("measured"), recorded("measured", 1)) == (3, 1)
    assert recorded("measured", 2) >= 1500


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("",), ValueError),
        (("a\0b",), ValueError),
        (("x" * 2000,), ValueError),
        (("\udc80",), UnicodeEncodeError),
        ((3,), TypeError),
        ((), TypeError),
        (("x", [("k",)]), TypeError),
        (("x", [("k", 3)]), TypeError),
        (("x", ["kv"]), TypeError),
        (("x", 3), TypeError),
        (("x", [("k", "v\0")]), ValueError),
        (("x", [("k", "v" * 2000)]), ValueError),
    ],
)
def test_a_bad_operation_is_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        _native.Operation(*arguments)


@pytest.mark.parametrize("arguments", [(), (-1,), (1 << 64,), ("x",), (1, 2, 3), (1.5,)])
def test_a_bad_sample_is_refused(arguments: tuple[Any, ...]) -> None:
    operation = _native.Operation("bad sample")
    with pytest.raises((TypeError, OverflowError)):
        operation.record_ticks(*arguments)
    with pytest.raises((TypeError, OverflowError)):
        operation.record_since(*arguments)
    assert recorded("bad sample") == 0


def test_a_bad_timed_function_is_refused() -> None:
    with pytest.raises(TypeError):
        _native.TimedFunction(3, _native.Operation("x"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _native.TimedFunction(add, "x")  # type: ignore[arg-type]


def test_a_cycle_through_a_timed_function_is_collected() -> None:
    class Holder:
        def __init__(self) -> None:
            self.call = timed("cycle", lambda: self)

    gone = weakref.ref(Holder())
    gc.collect()
    assert gone() is None


def test_calls_leak_no_reference() -> None:
    marker = object()
    identity = timed("identity", lambda value: value)
    operation = _native.Operation("references")
    with operation:  # from now on it keeps its two bound methods
        pass
    before = sys.getrefcount(marker), sys.getrefcount(operation), sys.getrefcount(None)
    for _ in range(1000):
        identity(marker)
        with operation:
            operation.record_ticks(1)
    assert sys.getrefcount(marker) == before[0]
    assert sys.getrefcount(operation) == before[1]
    assert sys.getrefcount(None) - before[2] < 100


@pytest.mark.parametrize(
    ("histogram", "quantiles"),
    [
        (b"", [0.5]),
        (b"1234567", [0.5]),
        (bytes(8 * 4353), [0.5]),
        (bytes(8), [0.9, 0.5]),
        (bytes(8), [1.5]),
        (bytes(8), [float("nan")]),
        (bytes(8), [0.1] * 65),
    ],
)
def test_a_bad_histogram_or_quantile_is_refused(histogram: bytes, quantiles: list[float]) -> None:
    with pytest.raises(ValueError, match=r"histogram|quantiles"):
        _native.histogram_quantiles(histogram, quantiles)


def test_histograms_merge_and_bounds_are_checked() -> None:
    into = bytearray(struct.pack("<4352Q", *([1] * 4352)))
    _native.histogram_merge(into, bytes(into))
    assert struct.unpack("<4352Q", into) == (2,) * 4352
    with pytest.raises(ValueError, match="differ"):
        _native.histogram_merge(into, bytes(8))
    with pytest.raises((TypeError, BufferError)):
        _native.histogram_merge(bytes(8), bytes(8))  # type: ignore[arg-type]
    assert _native.histogram_bounds(127) == (127, 1)
    assert _native.histogram_bounds(256) == (256, 2)
    with pytest.raises(ValueError, match="4352"):
        _native.histogram_bounds(4352)


def test_a_segment_that_can_have_no_file_is_in_anonymous_memory(tmp_path: Path) -> None:
    program = (
        "import errno; from cfctl import _native as n\n"
        f"n.segment_configure({str(tmp_path / 'none' / 'directory')!r}, None, 1 << 20)\n"
        "with n.Operation('x'): pass\n"
        "path, error = n.segment_open()\n"
        "assert (path, error) == ('', errno.ENOENT), (path, error)\n"
        "assert n.segment_bytes()[:8] == b'CFCTLSEG'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_full_segment_refuses_counts_and_goes_on(tmp_path: Path) -> None:
    program = (
        "import struct; from cfctl import _native as n\n"
        f"n.segment_configure({str(tmp_path / 'none' / 'directory')!r}, None, 100_000)\n"
        "operations = [n.Operation(f'operation {i}') for i in range(10)]\n"
        "for operation in operations * 2:\n"
        "    with operation: pass\n"
        "refused, lost = struct.unpack_from('<QQ', n.segment_bytes(), 40)\n"
        "assert refused == 8 and lost == 16, (refused, lost)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


LAST_TICK = 7
# native/operation.h: values that come faster than this may share a moment.
BRISK_TICKS = 1 << 18


def test_slow_values_from_elsewhere_each_have_their_own_moment() -> None:
    operation = _native.Operation("slow values")
    operation.record(5)
    for _ in range(20):
        start = _native.ticks()
        while _native.ticks() < start + BRISK_TICKS:
            pass
        before = _native.ticks()
        operation.record(5)
        assert recorded("slow values", LAST_TICK) >= before


def test_of_eight_values_in_a_row_one_has_its_own_moment() -> None:
    operation = _native.Operation("brisk values")
    for _ in range(1000):
        operation.record(5)
    for _ in range(20):
        before = _native.ticks()
        for _ in range(8):
            operation.record(5)
        assert before <= recorded("brisk values", LAST_TICK) <= _native.ticks()
    assert recorded("brisk values") == 1160
