from __future__ import annotations

import pytest

from cfctl.errors import InputError
from cfctl.profile.patterns import parse_pattern, unmatched


@pytest.mark.parametrize(
    ("pattern", "module", "qualname", "expected"),
    [
        ("json.decoder:JSONDecoder.decode", "json.decoder", "JSONDecoder.decode", True),
        ("json.decoder:JSONDecoder.decode", "json", "JSONDecoder.decode", False),
        ("json.decoder:JSONDecoder.decode", "json.decoder", "JSONDecoder.decode2", False),
        ("__main__:f", "__main__", "f", True),
        ("__main__:f", "__main__", "g.<locals>.f", False),
        ("__main__:g.<locals>.f", "__main__", "g.<locals>.f", True),
        ("pkg.*:Class.*", "pkg.mod", "Class.method", True),
        ("pkg.*:Class.*", "pkg", "Class.method", False),
        ("pkg:get_?", "pkg", "get_x", True),
        ("größe:maß", "größe", "maß", True),
        ("pkg.*", "pkg.mod.inner", "Class.method", True),
        ("pkg.*", "pkg", "f", True),
        ("pkg.*", "pkgs", "f", False),
        ("pkg.*", "pkg.mod", "<module>", False),
        ("pkg:*", "pkg", "<module>", False),
        ("pkg:*", "pkg", "<lambda>", True),
        ("pkg:<module>", "pkg", "<module>", True),
    ],
)
def test_a_pattern_matches_module_and_qualified_name(
    pattern: str, module: str, qualname: str, expected: bool
) -> None:
    assert parse_pattern(pattern).matches(module, qualname) is expected
    assert str(parse_pattern(pattern)) == pattern


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "f",
        "mod:",
        ":f",
        "mod.f",
        "mod f:g",
        "mod:f()",
        "a:b:c",
        "mod:[x]",
        "a..b:c",
        "\x1b:f",
        ".*",
        "a..*",
    ],
)
def test_anything_else_is_an_error_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="Write it like"):
        parse_pattern(text)


def test_the_patterns_that_match_no_operation_are_found() -> None:
    patterns = [parse_pattern("a:f"), parse_pattern("a:*"), parse_pattern("b:g")]
    assert [str(p) for p in unmatched(patterns, ["a:h", "other"])] == ["a:f", "b:g"]
