from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cfctl
from cfctl.profile.profiler import Operation, Profiler

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


def generator() -> Iterator[int]:
    yield 1


async def asynchronous_generator() -> AsyncIterator[int]:
    yield 1


class Generators:
    def method(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    "function",
    [
        generator,
        asynchronous_generator,
        functools.partial(generator),
        Generators().method,
        staticmethod(generator),
    ],
)
def test_a_generator_is_refused_with_what_to_use_instead(profiler: Profiler, function: Any) -> None:
    with pytest.raises(TypeError, match="use `with operation:`"):
        profiler.operation("generator")(function)


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
