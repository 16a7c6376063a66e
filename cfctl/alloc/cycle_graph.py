"""Reference cycles in a set of objects: which objects hold each other, and by what."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

_MAX_KEY: Final = 40
_PLUMBING: Final = (dict, list, tuple, set, frozenset, types.CellType, types.FunctionType, types.MethodType)
REFERENCE: Final = " (a reference)"


@dataclass(frozen=True, slots=True)
class Link:
    """One step of a cycle: an object's type, and by what it holds the next: ".parent", "[0]", ..."""

    holder: str
    via: str


@dataclass(frozen=True, slots=True)
class FoundCycle:
    """Objects that all hold each other, and a shortest way around through one of them."""

    links: tuple[Link, ...]
    objects: tuple[object, ...]


def find_cycles(objects: Sequence[object]) -> list[FoundCycle]:
    """Return the cycles among some objects; about 3 us an object, and no code of theirs is run."""
    by_id = {id(each): each for each in objects}
    # Read once and first: to look into an object may make a dict of its own that was not there.
    held = {
        key: [id(other) for other in gc.get_referents(each) if id(other) in by_id]
        for key, each in by_id.items()
    }
    return [
        FoundCycle(_way_around(part, held, by_id), tuple(by_id[key] for key in part))
        for part in _components(held)
        if len(part) > 1 or part[0] in held[part[0]]
    ]


def _components(held: dict[int, list[int]]) -> Iterator[list[int]]:
    """Yield the strongly connected components: Tarjan, SIAM J. Comput. 1 (1972), without recursion."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in held:
        if root in number:
            continue
        work = [(root, iter(held[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, others = work[-1]
            for other in others:
                if other not in number:
                    number[other] = low[other] = len(number)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(held[other])))
                    break
                if other in on_stack:
                    low[node] = min(low[node], number[other])
            else:
                work.pop()
                if work:
                    above = work[-1][0]
                    low[above] = min(low[above], low[node])
                if low[node] == number[node]:
                    yield _popped(stack, on_stack, node)


def _popped(stack: list[int], on_stack: set[int], last: int) -> list[int]:
    at = stack.index(last)
    part = stack[at:]
    del stack[at:]
    on_stack.difference_update(part)
    return part


def _way_around(part: list[int], held: dict[int, list[int]], by_id: dict[int, object]) -> tuple[Link, ...]:
    """Return a shortest cycle through an object of an application's own class, if there is one."""
    start = min(part, key=lambda key: _rank(by_id[key]))
    inside = set(part)
    came_from: dict[int, int] = {}
    front = [start]
    while start not in came_from:
        front = _next_front(front, held, inside, came_from)
    way = [start]
    while (node := came_from[way[-1]]) != start:
        way.append(node)
    return _links([by_id[key] for key in (start, *reversed(way[1:]))])


def _next_front(
    front: list[int], held: dict[int, list[int]], inside: set[int], came_from: dict[int, int]
) -> list[int]:
    found = []
    for node in front:
        for other in held[node]:
            if other in inside and other not in came_from:
                came_from[other] = node
                found.append(other)
    return found


def _rank(each: object) -> tuple[int, str]:
    """Return where an object stands among those a cycle may be told from: own classes first."""
    kind = type(each)
    rank = 2 if _is(each, _PLUMBING) else int(kind.__module__ == "builtins")
    return rank, type_name(each)


def _links(way: Sequence[object]) -> tuple[Link, ...]:
    """Return the steps from each object to the next and from the last to the first.

    An object's own attribute dict is no step: the attribute is.
    """
    steps = []
    ring = [*way, way[0]]
    index = 0
    while index < len(way):
        holder, target = ring[index], ring[index + 1]
        if index + 2 < len(ring) and type(target) is dict and _attributes(holder) is target:
            steps.append(Link(type_name(holder), _attribute_name(target, ring[index + 2])))
            index += 2
            continue
        steps.append(Link(type_name(holder), held_by(holder, target)))
        index += 1
    return tuple(steps)


def _is(each: object, kinds: Any) -> bool:
    """Return whether an object is of a type; isinstance() would ask the object for its class."""
    return issubclass(type(each), kinds)


def type_name(each: object) -> str:
    """Return the name of an object's type, with its module unless it is a builtin one."""
    kind = type(each)
    if _is(each, types.FunctionType):
        return f"function {getattr(each, '__qualname__', '?')}"
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def held_by(holder: object, target: object) -> str:
    """Return by what an object holds another."""
    for kinds, look in _LOOKS:
        if _is(holder, kinds):
            found = look(holder, target)
            if found is not None:
                return found
    return _attribute(holder, target) or REFERENCE


def _attributes(holder: object) -> object:
    """Return an object's attribute dict, None when it has none; no code of its class is run."""
    if _is(holder, type):
        return None
    try:
        return object.__getattribute__(holder, "__dict__")
    except Exception:  # noqa: BLE001 - a class may hide it by whatever it likes
        return None


def _attribute_name(attributes: dict[Any, Any], target: object) -> str:
    for name, value in list(attributes.items()):
        if value is target:
            return f".{str(name)[:_MAX_KEY]}"
    return ".__dict__"


def _attribute(holder: object, target: object) -> str | None:
    attributes = _attributes(holder)
    if attributes is target:
        return ".__dict__"
    if isinstance(attributes, dict) and any(value is target for value in list(attributes.values())):
        return _attribute_name(attributes, target)
    if type(holder) is target:
        return ".__class__"
    for kind in type(holder).__mro__:
        for name, member in list(vars(kind).items()):
            if isinstance(member, types.MemberDescriptorType) and _slot(member, holder) is target:
                return f".{name}"
    return None


def _slot(member: types.MemberDescriptorType, holder: object) -> object:
    try:
        return member.__get__(holder)
    except AttributeError:
        return None


def _of_dict(holder: Any, target: object) -> str | None:
    for key, value in list(holder.items()):
        if value is target:
            return (
                f"[{repr(key)[:_MAX_KEY]}]"
                if type(key) in {str, int, bytes}
                else f"[{type(key).__name__} key]"
            )
        if key is target:
            return " as a key"
    return None


def _of_sequence(holder: Any, target: object) -> str | None:
    return next((f"[{index}]" for index, each in enumerate(holder) if each is target), None)


def _of_cell(holder: Any, target: object) -> str | None:
    return " (closure variable)" if holder.cell_contents is target else None


def _of_function(holder: Any, target: object) -> str | None:
    if holder.__closure__ is target:
        return " (closure)"
    for index, cell in enumerate(holder.__closure__ or ()):
        if cell is target:
            return f" (closure variable {holder.__code__.co_freevars[index]})"
    return _named(holder, target, ("__globals__", "__defaults__", "__kwdefaults__", "__annotations__"))


def _of_exception(holder: Any, target: object) -> str | None:
    return _named(holder, target, ("__traceback__", "__context__", "__cause__", "args"))


def _of_frame(holder: Any, target: object) -> str | None:
    found = next((f" (local {name})" for name, value in holder.f_locals.items() if value is target), None)
    return found or _named(holder, target, ("f_back", "f_locals"))


def _named(holder: object, target: object, names: Sequence[str]) -> str | None:
    return next((f".{name}" for name in names if getattr(holder, name, None) is target), None)


_LOOKS: Final[tuple[tuple[Any, Callable[[Any, object], str | None]], ...]] = (
    (dict, _of_dict),
    ((list, tuple), _of_sequence),
    ((set, frozenset), lambda _holder, _target: " (a member)"),
    (types.CellType, _of_cell),
    (types.FunctionType, _of_function),
    (types.MethodType, lambda holder, target: _named(holder, target, ("__self__", "__func__"))),
    (BaseException, _of_exception),
    (types.TracebackType, lambda holder, target: _named(holder, target, ("tb_frame", "tb_next"))),
    (types.FrameType, _of_frame),
    (types.GeneratorType, lambda holder, target: _named(holder, target, ("gi_frame", "gi_yieldfrom"))),
    (types.CoroutineType, lambda holder, target: _named(holder, target, ("cr_frame", "cr_await"))),
)
