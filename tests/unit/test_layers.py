"""Imports point downwards only, and each layer keeps to what it may use."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import cfctl

PACKAGE = Path(__file__).resolve().parents[2] / "cfctl"

# Low to high. A package may import its own layer's line only where it is itself.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "units", "text", "records", "paths", "launch", "_native"}),
    frozenset({"segment"}),
    frozenset({"host"}),
    frozenset({"clock"}),
    frozenset({"temporal"}),
    frozenset({"probe", "profile", "alloc", "pool", "bus"}),
    frozenset({"diagnose", "compare", "bench"}),
    frozenset({"monitor"}),
    frozenset({"config", "export", "render"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# The ground is one layer whose modules use each other.
GROUND = 0
DOMAIN = frozenset().union(*LAYERS[:8])
# The injected sitecustomize runs in another program and is told by the environment what to do there.
ENVIRONMENT_READERS = frozenset({"paths.py", "config.py", "sitecustomize.py"})
TERMINAL_LIBRARIES = frozenset({"typer", "rich", "click"})
# What an instrumented application imports: the standard library and the compiled core are enough.
APPLICATION_PACKAGES = ("clock", "profile", "segment", "pool", "bus", "temporal", "alloc")
MAX_MODULE_LINES = 420
MAX_FUNCTION_LINES = 45


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "native" not in path.relative_to(PACKAGE).parts)


def imported_names(source: str, module: str) -> Iterator[str]:
    """Yield every dotted name a module imports, wherever the import stands, also by import_module("...")."""
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (
                a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )


def layer_of(name: str) -> str | None:
    """Return the layer's name in a dotted one: "clock" of "cfctl.clock.history"."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "cfctl" and parts[1] in RANK else None


def upward_imports(source: str, module: str) -> list[str]:
    """Return the imports of a module that do not point downwards."""
    own = layer_of(module)
    if own is None:
        # cfctl/__init__.py offers what applications import.
        return [
            name
            for name in imported_names(source, module)
            if RANK.get(layer_of(name) or "errors", 0) > RANK["profile"]
        ]
    wrong = []
    for name in imported_names(source, module):
        other = layer_of(name)
        if other is None or other == own:
            continue
        if RANK[other] > RANK[own] or (RANK[other] == RANK[own] != GROUND):
            wrong.append(name)
    return wrong


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_imports_point_downwards_only(path: Path) -> None:
    assert upward_imports(path.read_text(), module_name(path)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cfctl.clock.fit", "from cfctl.diagnose import engine"),
        ("cfctl.clock.fit", "from cfctl import config"),
        ("cfctl.clock.fit", "def f():\n    import cfctl.cli.output"),
        (
            "cfctl.clock.fit",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cfctl.render import table",
        ),
        ("cfctl.clock.fit", "from ..monitor import check"),
        ("cfctl.clock.fit", "import importlib\nimportlib.import_module('cfctl.cli')"),
        ("cfctl.errors", "import cfctl.segment"),
        ("cfctl.render.table", "from cfctl.export import json"),
        ("cfctl.profile.report", "from cfctl.probe import jitter"),
        ("cfctl.temporal.deadlines", "from cfctl.bus import packet"),
        ("cfctl.__init__", "from cfctl.cli.app import app"),
    ],
)
def test_the_layer_test_finds_a_seeded_upward_import(module: str, source: str) -> None:
    assert upward_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cfctl.diagnose.engine", "from cfctl.clock import history"),
        ("cfctl.units", "from cfctl.errors import InputError"),
        ("cfctl.clock.fit", "from . import history\nfrom .history import save\nimport numpy"),
        ("cfctl.cli.app", "from cfctl import config, paths"),
    ],
)
def test_the_layer_test_lets_downward_imports_pass(module: str, source: str) -> None:
    assert upward_imports(source, module) == []


@pytest.mark.parametrize(
    "path", [p for p in modules() if layer_of(module_name(p)) in DOMAIN], ids=module_name
)
def test_domain_code_neither_prints_nor_exits_nor_knows_a_terminal(path: Path) -> None:
    tree = ast.parse(path.read_text())
    used = {name.partition(".")[0] for name in imported_names(path.read_text(), module_name(path))}
    assert not used & TERMINAL_LIBRARIES
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"print", "exit", "quit", "sys.exit", "os._exit"}


@pytest.mark.parametrize("path", [p for p in modules() if layer_of(module_name(p)) != "cli"], ids=module_name)
def test_only_paths_and_config_read_the_environment(path: Path) -> None:
    names = {
        ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    }
    reads = names & {"os.environ", "os.getenv", "os.environb"}
    assert not reads or path.name in ENVIRONMENT_READERS


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_modules_and_functions_stay_readable(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert body_lines(node) <= MAX_FUNCTION_LINES, node.name


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's statements: a command's options and help text are its manual."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


BLOCKER = """
    import sys
    sys.path[:] = {path!r} + sys.path

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            top = name.partition(".")[0]
            if top != "cfctl" and top not in sys.stdlib_module_names:
                raise ImportError("blocked: " + name)

    sys.meta_path.insert(0, Blocker())
    import importlib, pkgutil
    for name in {names!r}:
        module = importlib.import_module(name)
        if name == "cfctl":
            continue
        for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
            importlib.import_module(found.name)
    import cfctl
    for name in getattr(cfctl, "__all__", []):
        getattr(cfctl, name)
    print("imported")
"""


def run_blocked(names: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in an interpreter that finds nothing but the standard library and cfctl."""
    installed = str(Path(cfctl.__file__).parent.parent)
    script = textwrap.dedent(BLOCKER).format(path=[installed], names=names)
    return subprocess.run(
        [sys.executable, "-S", "-I", "-c", script], capture_output=True, text=True, timeout=60
    )


def test_what_an_application_imports_needs_only_the_standard_library() -> None:
    present = [name for name in APPLICATION_PACKAGES if (PACKAGE / name / "__init__.py").exists()]
    result = run_blocked(["cfctl", *(f"cfctl.{name}" for name in present)])
    assert result.stdout == "imported\n", result.stderr


def test_the_import_test_finds_a_seeded_dependency() -> None:
    result = run_blocked(["cfctl.cli.typer_app"])
    assert result.returncode != 0
    assert "blocked: typer" in result.stderr
