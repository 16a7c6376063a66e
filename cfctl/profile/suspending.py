"""Timed coroutines, generators and asynchronous generators: one sample per call, also when suspended.

A coroutine's sample lasts from its first step to its end, what it waits for included: that is its
latency. A generator's is the time inside its body, summed over its resumptions: what the consumer
does between two values is not the generator's. Of an asynchronous generator the waiting inside its
body counts and the consumer does not. A generator that its consumer closes early is no error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from cfctl import _native

if TYPE_CHECKING:
    from cfctl.profile.profiler import Operation


def timed_coroutine(
    function: Callable[..., Awaitable[Any]], operation: Operation
) -> Callable[..., Awaitable[Any]]:
    """Return an `async def` that runs `function` and records each call until it is done."""
    record_since, ticks = operation.record_since, _native.ticks

    async def timed(*args: Any, **kwargs: Any) -> Any:
        start = ticks()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            # A cancelled call has not done its work either.
            record_since(start, _native.is_error(error))
            raise
        record_since(start)
        return result

    return timed


def timed_generator(
    function: Callable[..., Generator[Any, Any, Any]], operation: Operation
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return a generator function that runs `function`'s generators and records each one's own time."""

    def timed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        step: Callable[[Any], Any] = generator.send
        argument: Any = None
        inside, failed, ticks = 0, True, _native.ticks
        try:
            while True:
                start = ticks()
                try:
                    value = step(argument)
                finally:
                    inside += ticks() - start
                # As `yield from` does (PEP 380), with the clock stopped meanwhile.
                try:
                    step, argument = generator.send, (yield value)
                except BaseException as error:  # noqa: BLE001 - it goes on into the generator
                    step, argument = generator.throw, error
        except StopIteration as stop:
            failed = False
            return stop.value
        except GeneratorExit:
            failed = False
            raise
        except BaseException as error:
            failed = _native.is_error(error)
            raise
        finally:
            operation.record_ticks(max(inside, 0), failed)

    return timed


def timed_async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], operation: Operation
) -> Callable[..., AsyncIterator[Any]]:
    """Return an asynchronous generator function, recorded as `timed_generator` does."""

    async def timed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        step: Callable[[Any], Awaitable[Any]] = generator.asend
        argument: Any = None
        inside, failed, ticks = 0, True, _native.ticks
        try:
            while True:
                start = ticks()
                try:
                    value = await step(argument)
                finally:
                    inside += ticks() - start
                try:
                    step, argument = generator.asend, (yield value)
                except BaseException as error:  # noqa: BLE001 - it goes on into the generator
                    step, argument = generator.athrow, error
        except StopAsyncIteration:
            failed = False
        except GeneratorExit:
            failed = False
            raise
        except BaseException as error:
            failed = _native.is_error(error)
            raise
        finally:
            operation.record_ticks(max(inside, 0), failed)

    return timed
