from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import pickle
import sys
import threading
import weakref
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cfctl
from cfctl.profile.profiler import LABEL_SETS, OTHER, Operation, Profiler

if TYPE_CHECKING:
    from cfctl.profile.statistics import OperationStatistics


@pytest.fixture(scope="module", autouse=True)
def segment_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("segments") / "own"
        patch.setenv("CFCTL_SEGMENT_DIR", str(directory))
        yield directory


@pytest.fixture
def profiler() -> Profiler:
    return Profiler()


def recorded(profiler: Profiler, name: str) -> OperationStatistics:
    (found,) = [operation for operation in profiler.report().operations if operation.name == name]
    return found


@(pickled_by_name := Profiler().operation("pickled"))
def timed_function(value: int, factor: int = 2) -> int:
    """Multiplied."""
    return value * factor


def test_a_decorated_function_looks_like_itself() -> None:
    assert timed_function(3) == 6
    assert timed_function(3, factor=3) == 9
    assert timed_function.__name__ == "timed_function"
    assert timed_function.__doc__ == "Multiplied."
    assert list(inspect.signature(timed_function).parameters) == ["value", "factor"]
    assert pickle.loads(pickle.dumps(timed_function)) is timed_function


def test_every_call_is_a_sample_and_an_exception_an_error_that_goes_on(profiler: Profiler) -> None:
    error = ValueError("mine")

    @profiler.operation("fails at 3")
    def fails(value: int) -> int:
        if value == 3:
            raise error
        return value

    assert [fails(value) for value in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="mine") as caught:
        fails(3)
    assert caught.value is error
    found = recorded(profiler, "fails at 3")
    assert (found.count, found.errors, found.error_ratio) == (4, 1, 0.25)


def test_a_block_is_a_sample_and_nests_in_itself(profiler: Profiler) -> None:
    operation = profiler.operation("block")
    with operation as entered:
        assert entered is operation
        with operation:
            pass
    with pytest.raises(KeyError), operation:
        raise KeyError
    found = recorded(profiler, "block")
    assert (found.count, found.errors) == (3, 1)


@pytest.mark.parametrize(
    ("exit_", "errors"),
    [
        (SystemExit, 0), (SystemExit(None), 0), (SystemExit(0), 0), (SystemExit(False), 0),
        (SystemExit(3), 1), (SystemExit("a message"), 1), (SystemExit(1 << 80), 1), (SystemExit(0.0), 1),
        (KeyboardInterrupt, 1),
    ],
)  # fmt: skip
def test_a_program_that_ends_well_inside_of_an_operation_is_no_error(
    profiler: Profiler, exit_: type[BaseException] | BaseException, errors: int
) -> None:
    operation = profiler.operation(f"ends with {exit_!r}")

    @operation
    def function() -> None:
        raise exit_

    @operation
    def generator() -> Iterator[int]:
        yield 1
        raise exit_

    @operation
    async def coroutine() -> None:
        raise exit_

    def block() -> None:
        with operation:
            raise exit_

    def span() -> None:
        with operation.span():
            raise exit_

    expected = exit_ if isinstance(exit_, type) else type(exit_)
    for run in (function, lambda: list(generator()), lambda: coroutine().send(None), block, span):
        with pytest.raises(expected) as caught:
            run()
        assert isinstance(exit_, type) or caught.value is exit_
    found = recorded(profiler, operation.name)
    assert (found.count, found.errors) == (5, 5 * errors)


def test_a_block_can_be_entered_through_the_class_and_by_an_exit_stack(profiler: Profiler) -> None:
    operation = profiler.operation("stacked")
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(operation) is operation
        assert Operation.__enter__(operation) is operation
        Operation.__exit__(operation, None, None, None)
        stack.enter_context(profiler.operation("stacked too"))
    stack = contextlib.ExitStack()
    stack.enter_context(operation)
    stack.__exit__(KeyError, KeyError(), None)
    found = recorded(profiler, "stacked")
    assert (found.count, found.errors) == (3, 1)
    for arguments in ((), (object(),), (None,)):
        with pytest.raises(TypeError, match="__enter__"):
            Operation.__enter__(*arguments)
    with pytest.raises(TypeError, match="__exit__"):
        Operation.__dict__.get("__exit__", Operation.__exit__).__get__(object(), object)
    assert (Operation.__enter__.__name__, Operation.__exit__.__name__) == ("__enter__", "__exit__")


def test_an_operation_and_its_kept_methods_are_collected() -> None:
    from cfctl import _native

    class Weak(_native.Operation):
        __slots__ = ("__weakref__",)

    operation = Weak("collected")
    gone = weakref.ref(operation)
    with operation:
        pass
    del operation
    gc.collect()
    assert gone() is None


def test_record_operation_returns_what_the_function_returns(profiler: Profiler) -> None:
    assert profiler.record_operation("recorded", divmod, 7, 2) == (3, 1)
    assert profiler.record_operation("recorded", dict, name="x", function=1) == {"name": "x", "function": 1}
    with pytest.raises(ZeroDivisionError):
        profiler.record_operation("recorded", divmod, 7, 0)
    found = recorded(profiler, "recorded")
    assert (found.count, found.errors) == (3, 1)


def test_methods_of_every_sort_can_be_decorated_on_either_side(profiler: Profiler) -> None:
    operation = profiler.operation("methods")

    class Thing:
        @operation
        def plain(self, value: int) -> tuple[Any, int]:
            return self, value

        @operation
        @classmethod
        def outer_class(cls) -> type:
            return cls

        @classmethod
        @operation
        def inner_class(cls) -> type:
            return cls

        @operation
        @staticmethod
        def outer_static(value: int) -> int:
            return value

        @staticmethod
        @operation
        def inner_static(value: int) -> int:
            return value

        @property
        @operation
        def prop(self) -> int:
            return 5

    thing = Thing()
    assert thing.plain(1) == (thing, 1)
    assert Thing.plain(thing, 2) == (thing, 2)
    assert {thing.outer_class(), Thing.outer_class(), thing.inner_class()} == {Thing}
    assert (thing.outer_static(1), Thing.inner_static(2), thing.prop) == (1, 2, 5)
    assert recorded(profiler, "methods").count == 8


def test_the_same_name_and_labels_are_the_same_operation(profiler: Profiler) -> None:
    first = profiler.operation("same", {"b": "2", "a": "1"})
    assert profiler.operation("same", {"a": "1", "b": "2"}) is first
    assert first.labels == (("a", "1"), ("b", "2"))
    assert profiler.operation("same") is not first
    with first, Profiler().operation("same", {"a": "1", "b": "2"}):
        pass
    (row,) = [o for o in profiler.report().operations if o.name == "same"]
    assert row.count == 2


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 2000])
def test_a_name_that_can_not_be_stored_is_refused(profiler: Profiler, name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        profiler.operation(name)


def test_interleaved_coroutines_are_each_timed_to_their_own_end(profiler: Profiler) -> None:
    @profiler.operation("coroutine")
    async def wait_for(event: asyncio.Event, value: int) -> int:
        await event.wait()
        return value

    async def interleaved() -> list[int]:
        events = [asyncio.Event() for _ in range(3)]
        tasks = [asyncio.create_task(wait_for(event, i)) for i, event in enumerate(events)]
        await asyncio.sleep(0)
        for event in (events[1], events[0], events[2]):
            event.set()
            await asyncio.sleep(0)
        return [await task for task in tasks]

    assert inspect.iscoroutinefunction(wait_for)
    assert asyncio.run(interleaved()) == [0, 1, 2]
    found = recorded(profiler, "coroutine")
    assert (found.count, found.errors) == (3, 0)
    assert profiler.report().samples_lost == 0


def test_a_cancelled_coroutine_is_an_error_and_stays_cancelled(profiler: Profiler) -> None:
    @profiler.operation("cancelled")
    async def forever() -> None:
        await asyncio.Event().wait()

    async def cancel_it() -> bool:
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(cancel_it())
    found = recorded(profiler, "cancelled")
    assert (found.count, found.errors) == (1, 1)


class Generators:
    def method(self) -> Iterator[int]:
        yield 1


def test_a_generator_is_one_sample_of_the_time_in_its_body(profiler: Profiler) -> None:
    from cfctl import _native

    consumer = profiler.operation("consumer")

    @profiler.operation("generator")
    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    with consumer:
        for _ in numbers(3):
            until = _native.ticks() + 2_000_000
            while _native.ticks() < until:
                pass
    assert inspect.isgeneratorfunction(numbers)
    found = recorded(profiler, "generator")
    assert (found.count, found.errors) == (1, 0)
    # The consumer's millions of ticks between two values are not the generator's.
    assert found.ticks.sum < recorded(profiler, "consumer").ticks.sum - 6_000_000 + 100_000


def test_a_timed_generator_passes_on_values_exceptions_and_results(profiler: Profiler) -> None:
    log: list[Any] = []

    @profiler.operation("protocol")
    def protocol() -> Any:
        try:
            log.append((yield 1))
            try:
                yield 2
            except KeyError:
                log.append("thrown")
            yield 3
        finally:
            log.append("closed")
        return 4

    def outer() -> Any:
        log.append((yield from protocol()))

    running = outer()
    assert next(running) == 1
    assert running.send("sent") == 2
    assert running.throw(KeyError()) == 3
    with pytest.raises(StopIteration):
        next(running)
    assert log == ["sent", "thrown", "closed", 4]
    closed = protocol()
    next(closed)
    closed.close()
    failing = protocol()
    next(failing)
    with pytest.raises(ValueError, match="out"):
        failing.throw(ValueError("out"))
    protocol()  # never started: no call of its body, no sample
    found = recorded(profiler, "protocol")
    assert (found.count, found.errors) == (3, 1)


def test_a_generator_that_ignores_its_closing_is_told_as_ever(profiler: Profiler) -> None:
    @profiler.operation("stubborn")
    def stubborn() -> Iterator[int]:
        with contextlib.suppress(GeneratorExit):
            yield 1
        yield 2

    running: Any = stubborn()
    next(running)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        running.close()


def test_an_asynchronous_generator_is_one_sample(profiler: Profiler) -> None:
    @profiler.operation("async generator")
    async def numbers(count: int) -> AsyncIterator[int]:
        for number in range(count):
            await asyncio.sleep(0)
            if number == 5:
                raise ValueError("five")
            yield number

    async def consume() -> list[int]:
        seen = [number async for number in numbers(3)]
        with pytest.raises(ValueError, match="five"):
            seen += [number async for number in numbers(9)]
        early: Any = numbers(9)
        seen.append(await anext(early))
        await early.aclose()
        return seen

    assert inspect.isasyncgenfunction(numbers)
    assert asyncio.run(consume()) == [0, 1, 2, 0]
    found = recorded(profiler, "async generator")
    assert (found.count, found.errors) == (3, 1)


def test_a_generator_method_can_be_decorated(profiler: Profiler) -> None:
    method = profiler.operation("generator method")(Generators.method)
    assert list(method(Generators())) == [1]
    assert recorded(profiler, "generator method").count == 1


def test_spans_are_right_however_tasks_of_one_operation_interleave(profiler: Profiler) -> None:
    """A thousand tasks, finished in a shuffled order: each is timed from its own begin to its own end."""
    operation = profiler.operation("interleaved")
    order = Random(3).sample(range(1000), 1000)

    async def work(event: asyncio.Event, number: int) -> None:
        with operation.span():
            await event.wait()
            if number % 10 == 0:
                raise ValueError(number)

    async def main() -> int:
        events = [asyncio.Event() for _ in order]
        tasks = [asyncio.create_task(work(event, i)) for i, event in enumerate(events)]
        await asyncio.sleep(0)
        for number in order:
            events[number].set()
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(isinstance(result, ValueError) for result in results)

    assert asyncio.run(main()) == 100
    found = recorded(profiler, "interleaved")
    assert (found.count, found.errors) == (1000, 100)
    assert profiler.report().samples_lost == 0


def test_a_handle_ends_once_wherever_that_is(profiler: Profiler) -> None:
    operation = profiler.operation("handle")
    handle = operation.begin()
    thread = threading.Thread(target=handle.end, args=(True,))
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="not running"):
        handle.end()
    span = operation.span()
    with pytest.raises(RuntimeError, match="not running"):
        span.end()
    with span:
        pass
    with span, pytest.raises(RuntimeError, match="is running"), span:
        pass
    found = recorded(profiler, "handle")
    assert (found.count, found.errors) == (3, 1)


def test_values_in_ns_are_reported_as_they_were_given(profiler: Profiler) -> None:
    profiler.record("given", 1_000)
    profiler.record("given", 3_000, failed=True)
    profiler.record_many("given", array("q", [5_000, 7_000]))
    profiler.record_many("given", array("d", [9_000.7]))
    profiler.record_many("given", np.array([11_000], dtype=np.uint64))
    found = recorded(profiler, "given")
    assert (found.count, found.errors, found.ticks.unit) == (6, 1, "ns")
    assert (found.total.value, found.total.unit) == (36_000, "ns")
    assert (found.min.value, found.max.value) == (1_000, 11_000)
    assert found.first_unix_ns is not None


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (array("q", [5, -1]), ValueError),
        (array("d", [5, float("nan")]), ValueError),
        (array("d", [float("inf")]), ValueError),
        (array("d", [-0.5]), ValueError),
        (array("Q", [2**63]), ValueError),
        (array("i", [5]), TypeError),
        (array("f", [5]), TypeError),
        (b"12345678", TypeError),
        ([1, 2], TypeError),
        (np.arange(20)[::2], (BufferError, ValueError)),
    ],
)
def test_a_buffer_with_anything_else_is_refused_as_a_whole(
    profiler: Profiler, values: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        profiler.record_many("refused", values)
    assert not [o for o in profiler.report().operations if o.name == "refused" and o.count]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=300), st.sampled_from("qQd"))
def test_many_values_are_counted_as_one_by_one(values: list[int], code: str) -> None:
    profiler = Profiler()
    one, many = profiler.operation("one by one", {"c": code}), profiler.operation("all", {"c": code})
    before = [_counters(profiler, name, code) for name in ("one by one", "all")]
    for value in values:
        one.record(value)
    many.record_many(array(code, values))
    after = [_counters(profiler, name, code) for name in ("one by one", "all")]
    assert after[0] - before[0] == after[1] - before[1] == Counter(values=len(values), sum=sum(values))


def _counters(profiler: Profiler, name: str, code: str) -> Counter[str]:
    rows = [o for o in profiler.report().operations if o.name == name and o.labels == (("c", code),)]
    return Counter(values=sum(o.count for o in rows), sum=sum(o.ticks.sum for o in rows))


def test_label_sets_beyond_the_limit_share_a_row_and_are_counted(profiler: Profiler) -> None:
    from cfctl import _native
    from cfctl.segment.reader import parse_segment

    for number in range(LABEL_SETS + 7):
        profiler.record("many labels", 1, labels={"user": str(number)})
    profiler.record("many labels", 1, labels={"user": "5"})
    rows = {o.labels: o.count for o in profiler.report().operations if o.name == "many labels"}
    assert len(rows) == LABEL_SETS + 1
    assert rows[(("user", OTHER),)] == 7
    assert rows[(("user", "5"),)] == 2
    entries = parse_segment(_native.segment_bytes()).entries
    (folded,) = [entry for entry in entries if (entry.kind, entry.name) == ("folded_labels", "many labels")]
    assert folded.values["count"] == 7


def test_decorated_functions_and_blocks_make_a_tree_with_time_of_their_own(profiler: Profiler) -> None:
    from cfctl import _native
    from cfctl.segment.reader import parse_segment

    @profiler.operation("leaf")
    def leaf() -> None:
        pass

    @profiler.operation("branch", {"side": "left"})
    def branch(depth: int) -> None:
        leaf()
        if depth:
            branch(depth - 1)

    with profiler.operation("root"):
        branch(2)
        leaf()
    sums = {name: recorded(profiler, name).ticks for name in ("root", "branch", "leaf")}
    edges = {
        (dict(entry.labels)["parent"], entry.name): entry
        for entry in parse_segment(_native.segment_bytes()).entries
        if entry.kind == "edge" and entry.name in sums
    }
    assert {pair: entry.values["count"] for pair, entry in edges.items()} == {
        ("root", "branch"): 1, ("branch", "branch"): 2, ("branch", "leaf"): 3, ("root", "leaf"): 1,
    }  # fmt: skip
    assert dict(edges["branch", "leaf"].labels) == {"parent": "branch", "parent.side": "left"}
    for parent in ("root", "branch"):
        below = [entry.values["sum"] for (name, _), entry in edges.items() if name == parent]
        assert sums[parent].child_sum == sum(value for value in below if isinstance(value, int))
        assert sums[parent].child_sum < sums[parent].sum
    assert sums["leaf"].child_sum == 0


def test_recursion_deeper_than_the_span_stack_loses_no_decorated_call(profiler: Profiler) -> None:
    @profiler.operation("deep")
    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        deep(2_000)
    finally:
        sys.setrecursionlimit(limit)
    assert recorded(profiler, "deep").count == 2_001
    assert profiler.report().samples_lost == 0


def test_a_class_and_what_can_not_be_called_are_refused(profiler: Profiler) -> None:
    with pytest.raises(TypeError, match="decorate its methods"):
        profiler.operation("class")(Generators)
    wrong: Any = 7
    with pytest.raises(TypeError, match="callable"):
        profiler.operation("seven")(wrong)


@pytest.mark.parametrize("function", [len, functools.partial(len), [1].count, functools.cache(len)])
def test_other_callables_are_timed_as_they_are(profiler: Profiler, function: Callable[..., int]) -> None:
    timed = profiler.operation("builtin")(function)
    assert timed(()) == 0


def test_threads_share_an_operation_and_lose_no_sample(profiler: Profiler) -> None:
    operation = profiler.operation("eight threads")

    def work() -> None:
        for _ in range(1000):
            with operation:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = recorded(profiler, "eight threads")
    assert found.count == 8000
    assert found.threads is not None
    assert 1 <= found.threads <= 8


def test_the_profiler_is_found_on_the_package() -> None:
    assert cfctl.Profiler is Profiler
    missing = "Nothing"
    with pytest.raises(AttributeError, match="Nothing"):
        getattr(cfctl, missing)


def test_an_operation_object_is_the_c_cores_own_in_a_with_statement() -> None:
    from cfctl import _native

    assert Operation.__enter__ is _native.Operation.__enter__
    assert Operation.__exit__ is _native.Operation.__exit__
