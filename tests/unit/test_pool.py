"""Pools: every item accounted for, whatever factory, reset, destructors and threads do."""

from __future__ import annotations

import copy
import functools
import gc
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cfctl
from cfctl.errors import PoolError
from cfctl.pool.buffers import BufferPool
from cfctl.pool.objects import Pool
from cfctl.pool.statistics import NOT_WATCHABLE, NOT_WATCHED, own_report


class Item:
    """Something with state and a weak reference."""

    def __init__(self) -> None:
        self.content: list[object] = []


class Slotted:
    """Something no weak reference can be made to."""

    __slots__ = ("content",)


def clear(item: Item) -> None:
    item.content.clear()


def test_an_item_comes_back_to_who_asks_next_and_is_cleared() -> None:
    pool = Pool(Item, clear)
    first = pool.acquire()
    first.content.append("secret")
    pool.release(first)
    assert pool.acquire() is first
    assert first.content == []


def test_without_a_reset_the_next_user_sees_what_the_last_one_left() -> None:
    pool = Pool(Item)
    item = pool.acquire()
    item.content.append("left")
    pool.release(item)
    assert pool.acquire().content == ["left"]


def test_the_statistics_add_up() -> None:
    pool = Pool(Item, max_idle=2, name="adds up")
    items = [pool.acquire() for _ in range(5)]
    for item in items:
        pool.release(item)
    again = [pool.acquire() for _ in range(3)]
    found = pool.stats()
    assert (found.created, found.hits, found.misses) == (6, 2, 6)
    assert (found.released, found.discarded, found.in_use, found.idle) == (5, 3, 3, 0)
    assert (found.high_water, found.max_idle) == (5, 2)
    assert found.hit_ratio == 2 / 8
    assert len(again) == 3


@given(st.lists(st.integers(-6, 6), max_size=60), st.integers(0, 4))
def test_any_order_of_acquires_and_releases_keeps_the_books(steps: list[int], max_idle: int) -> None:
    pool = Pool(Item, max_idle=max_idle, name="any order", debug=True)
    out: list[Item] = []
    acquired = 0
    for step in steps:
        if step >= 0 or not out:
            out.append(pool.acquire())
            acquired += 1
        else:
            pool.release(out.pop(step % len(out)))
    found = pool.stats()
    assert len({id(item) for item in out}) == len(out) == found.in_use
    assert found.acquired == acquired
    assert found.released == acquired - len(out)
    assert found.idle == found.created - found.discarded - found.in_use <= max_idle
    assert found.lost == found.misuses == 0


def test_the_block_form_releases_when_an_exception_leaves_it() -> None:
    pool = Pool(Item)
    with pytest.raises(KeyError), pool.item() as item:
        raise KeyError(item)
    assert (pool.stats().in_use, pool.stats().idle) == (0, 1)


def test_a_block_is_entered_once() -> None:
    pool = Pool(Item)
    block = pool.item()
    with pytest.raises(RuntimeError, match="not begun"):
        block.__exit__(None, None, None)
    with block, pytest.raises(RuntimeError, match="has begun"):
        block.__enter__()
    assert pool.stats().in_use == 0


@pytest.mark.parametrize("reset", [None, clear])
def test_a_second_release_is_refused_and_counted(reset: Callable[[Item], object] | None) -> None:
    pool = Pool(Item, reset)
    item = pool.acquire()
    pool.release(item)
    with pytest.raises(PoolError, match="released already"):
        pool.release(item)
    found = pool.stats()
    assert (found.misuses, found.idle, found.released) == (1, 1, 1)
    assert pool.acquire() is item
    assert pool.acquire() is not item


@pytest.mark.parametrize("stranger", [Item(), None, 7, [], Pool(Item)])
def test_what_the_pool_did_not_hand_out_is_refused(stranger: Any) -> None:
    pool = Pool(Item)
    held = pool.acquire()
    with pytest.raises(PoolError, match="did not hand it out"):
        pool.release(stranger)
    with pytest.raises(PoolError):
        Pool(Item).release(held)
    assert pool.stats().in_use == 1


def test_an_item_that_was_dropped_for_want_of_room_is_a_stranger_afterwards() -> None:
    pool = Pool(Item, max_idle=0)
    item = pool.acquire()
    pool.release(item)
    with pytest.raises(PoolError):
        pool.release(item)


def test_a_factory_that_fails_is_counted_and_its_exception_goes_on() -> None:
    def factory() -> Item:
        raise OSError("no more")

    pool = Pool(factory)
    for _ in range(3):
        with pytest.raises(OSError, match="no more"):
            pool.acquire()
    found = pool.stats()
    assert (found.factory_errors, found.created, found.in_use, found.misses) == (3, 0, 0, 3)


def test_an_item_whose_reset_fails_is_dropped_and_the_releaser_is_told() -> None:
    def reset(item: Item) -> None:
        raise ValueError("dirty")

    pool = Pool(Item, reset)
    with pytest.raises(ValueError, match="dirty"), pool.item():
        pass
    found = pool.stats()
    assert (found.reset_errors, found.discarded, found.idle, found.in_use) == (1, 1, 0, 0)


def test_a_reset_may_not_release_what_it_is_given_but_may_use_the_pool() -> None:
    refused: list[PoolError] = []

    def reset(item: Item) -> None:
        try:
            pool.release(item)
        except PoolError as error:
            refused.append(error)
        if len(refused) == 1:
            other = pool.acquire()
            assert other is not item
            pool.release(other)

    pool = Pool(Item, reset)
    pool.release(pool.acquire())
    assert len(refused) == 2
    assert (pool.stats().idle, pool.stats().in_use) == (2, 0)


def test_a_factory_may_use_its_own_pool() -> None:
    depth = 0

    def factory() -> Item:
        nonlocal depth
        depth += 1
        if depth < 20:
            pool.release(pool.acquire())
        return Item()

    pool: Pool[Item] = Pool(factory)
    pool.acquire()
    found = pool.stats()
    assert (found.created, found.in_use, found.idle) == (20, 1, 19)


def test_a_factory_that_returns_an_idle_item_is_found_out() -> None:
    single = Item()
    calls = 0

    def factory() -> Item:
        nonlocal calls
        calls += 1
        if calls == 2:
            pool.release(single)
        return single

    pool: Pool[Item] = Pool(factory)
    pool.acquire()
    with pytest.raises(PoolError, match="already holds"):
        pool.acquire()
    assert pool.acquire() is single


def test_collections_during_an_acquire_change_nothing() -> None:
    class Cyclic(Item):
        def __init__(self) -> None:
            super().__init__()
            self.content.append(self)

        def __del__(self) -> None:
            if armed:
                destroyed.append(pool.acquire())
                pool.release(destroyed[-1])

    def factory() -> Item:
        if armed and len(destroyed) < 5:
            Cyclic()
            gc.collect()
        return Item()

    destroyed: list[Item] = []
    armed = True
    pool: Pool[Item] = Pool(factory, debug=True)
    items = [pool.acquire() for _ in range(10)]
    armed = False
    for item in items:
        pool.release(item)
    assert len(destroyed) >= 5
    assert pool.stats().in_use == 0
    assert pool.stats().misuses == 0


def test_a_destructor_that_uses_the_pool_may_run_when_its_items_are_dropped() -> None:
    class Calls(Item):
        def __del__(self) -> None:
            pool.stats()
            pool.clear()

    pool: Pool[Item] = Pool(Calls, max_idle=3)
    items = [pool.acquire() for _ in range(5)]
    while items:
        pool.release(items.pop())
    pool.clear()
    assert (pool.stats().idle, pool.stats().discarded) == (0, 5)


def test_lost_items_are_found_by_weak_reference_in_debug_mode() -> None:
    pool = Pool(Item, debug=True)
    kept = pool.acquire()
    for _ in range(100):
        pool.acquire()
    found = pool.stats()
    assert (found.lost, found.lost_reason, found.in_use) == (100, None, 1)
    pool.release(kept)
    assert pool.stats().in_use == 0


def test_what_can_not_be_seen_of_lost_items_is_said() -> None:
    unwatched: Pool[Item] = Pool(Item)
    unwatchable = Pool(Slotted, debug=True)
    unwatched.acquire(), unwatchable.acquire()
    assert (unwatched.stats().lost, unwatched.stats().lost_reason) == (None, NOT_WATCHED)
    assert (unwatchable.stats().lost, unwatchable.stats().lost_reason) == (None, NOT_WATCHABLE)
    assert unwatchable.stats().in_use == 1


def test_an_item_at_the_address_of_a_lost_one_is_a_new_item() -> None:
    pool = Pool(Item)
    for _ in range(200):
        pool.acquire()
    item = pool.acquire()
    pool.release(item)
    assert pool.acquire() is item


def test_many_threads_lose_and_share_nothing() -> None:
    pool = Pool(Item, clear, max_idle=4, name="threads")
    rounds = 3000
    shared = []

    def work(number: int) -> None:
        for turn in range(rounds):
            with pool.item() as item:
                item.content.append(number)
                if turn % 50 == 0:
                    threading.Event().wait(0)
                if item.content != [number]:
                    shared.append(item)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = pool.stats()
    assert shared == []
    assert found.acquired == found.released == 8 * rounds
    assert found.in_use == 0
    assert found.idle == found.created - found.discarded


def test_a_subclass_with_state_of_its_own_is_a_pool() -> None:
    class Connections(Pool[Item]):
        def __init__(self, address: str) -> None:
            self.address = address

        def __new__(cls, address: str) -> Connections:
            return super().__new__(cls, Item, clear, 3, name=address)  # type: ignore[return-value]

    pool = Connections("db")
    assert (pool.address, pool.name) == ("db", "db")
    with pool.item() as item:
        assert isinstance(item, Item)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy, lambda p: pickle.dumps(p, 0)])
def test_a_pool_can_not_be_copied_or_pickled(copied: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="copied or pickled"):
        copied(Pool(Item))


def test_a_pool_in_a_cycle_is_collected_with_its_items() -> None:
    import weakref

    class Holder(Item):
        pass

    holder = Holder()
    pool: Pool[Item] = Pool(Item, debug=True)
    item = pool.acquire()
    item.content += [pool, holder]
    pool.release(item)
    seen = weakref.ref(holder)
    del holder, pool, item
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None,), TypeError), ((Item, 7), TypeError), ((Item, None, -1), ValueError),
        ((Item, None, 2**40), ValueError), ((Item, None, "x"), TypeError),
    ],
)  # fmt: skip
def test_what_makes_no_pool_is_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        Pool(*arguments)


@pytest.mark.parametrize("name", ["x" * 1025, "a\0b", "\ud800"])
def test_a_name_that_fits_no_segment_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Pool(Item, name=name)


def test_a_pool_is_named_after_its_factory() -> None:
    assert Pool(Item).name.endswith("Item")
    assert Pool(functools.partial(bytearray, 10)).name == "builtins.bytearray"


def test_pools_of_one_name_share_a_row() -> None:
    first, second = (Pool(Item, name="shared row") for _ in range(2))
    held = [first.acquire(), second.acquire(), second.acquire()]
    (row,) = [pool for pool in own_report().pools if pool.name == "shared row"]
    assert (row.created, row.in_use, row.high_water, row.pools) == (3, 3, 2, 2)
    del second, held
    (row,) = [pool for pool in own_report().pools if pool.name == "shared row"]
    assert (row.in_use, row.abandoned) == (1, 2)
    third = Pool(Item, name="shared row")
    third.acquire()
    (row,) = [pool for pool in own_report().pools if pool.name == "shared row"]
    assert (row.created, row.pools) == (4, 2)


def test_a_forked_child_has_the_idle_items_and_counts_its_own() -> None:
    pool = Pool(Item, name="forked")
    held = pool.acquire()
    pool.release(pool.acquire())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before = pool.stats()
            pool.acquire()
            pool.release(held)
            after = pool.stats()
            seen = (before.created, before.in_use, before.idle, after.hits, after.in_use, after.idle)
            os.write(writing, repr(seen).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    assert os.read(reading, 100) == b"(0, 1, 1, 1, 1, 1)"
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0
    assert (pool.stats().created, pool.stats().in_use) == (2, 1)


def test_a_buffer_is_zero_at_first_and_then_as_it_was_left() -> None:
    pool = BufferPool(1 << 16)
    buffer = pool.acquire()
    assert not any(buffer)
    buffer[100] = 7
    pool.release(buffer)
    assert pool.acquire()[100] == 7


def test_a_buffer_is_cleared_where_that_was_asked_for() -> None:
    pool = BufferPool(100_000, zero=True, first_touch=True)
    buffer = pool.acquire()
    buffer[:] = b"x" * 100_000
    pool.release(buffer)
    again = pool.acquire()
    assert again is buffer
    assert again == bytearray(100_000)


def test_a_buffer_that_is_still_viewed_is_refused_and_left_as_it_is() -> None:
    pool = BufferPool(1 << 16)
    buffer = pool.acquire()
    buffer[-1] = 9
    view = memoryview(buffer)
    with pytest.raises(PoolError, match="still in use"):
        pool.release(buffer)
    assert (buffer[-1], len(buffer)) == (9, 1 << 16)
    view.release()
    pool.release(buffer)
    assert pool.acquire()[-1] == 9


@pytest.mark.parametrize("change", [lambda b: b.append(1), lambda b: b.pop(), lambda b: b.clear()])
def test_a_buffer_of_another_size_is_dropped(change: Callable[[bytearray], object]) -> None:
    pool = BufferPool(1 << 16)
    buffer = pool.acquire()
    change(buffer)
    pool.release(buffer)
    assert (pool.stats().discarded, pool.stats().idle) == (1, 0)
    assert len(pool.acquire()) == 1 << 16


@pytest.mark.parametrize("size", [0, -1, 65535, 1 << 41])
def test_a_buffer_too_small_to_pay_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="64 KiB"):
        BufferPool(size)


def test_pools_are_offered_by_the_package() -> None:
    assert cfctl.Pool is Pool
    assert cfctl.BufferPool is BufferPool
