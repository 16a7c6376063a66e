"""Each name of cfctl's in docs/guide.md exists."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"`(cfctl(?:\.\w+)+)`")


def resolves(name: str) -> bool:
    """Return whether a dotted name can be imported, or is a field of a class that can."""
    owner, _, field = name.rpartition(".")
    try:
        pkgutil.resolve_name(name)
    except AttributeError:
        return field in getattr(pkgutil.resolve_name(owner), "__annotations__", {})
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(set(_NAME.findall((ROOT / "docs" / "guide.md").read_text()))))
def test_a_name_of_the_table_exists(name: str) -> None:
    assert resolves(name)


def test_a_name_that_does_not_exist_is_found() -> None:
    assert resolves("cfctl.bus.BusConfig.channel_buffer_size")
    assert not resolves("cfctl.bus.Bus.get_stats")
