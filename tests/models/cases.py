"""Which model is checked with what planted in it, and whether a fault must be found."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
NATIVE: Final = HERE.parents[1] / "cfctl" / "native"
_RELACY: Final = Path("/usr/include/relacy/relacy.hpp")
_TIMEOUT_S: Final = 300


@dataclass(frozen=True, slots=True)
class Case:
    """A model with defines; `quick` ones take below 3 s."""

    model: str
    defines: tuple[str, ...]
    faulty: bool
    suite: str = ""
    quick: bool = True

    @property
    def name(self) -> str:
        """Return the case as one word."""
        return " ".join(filter(None, (self.model, self.suite, *self.defines)))


def _spin(model: str, *defines: str, faulty: bool = False, quick: bool = True) -> Case:
    return Case(model, defines, faulty, quick=quick)


def _relacy(suite: str, *defines: str, quick: bool = True) -> Case:
    return Case("relacy_ring.cpp", defines, bool(defines), suite, quick)


CASES: Final = (
    _spin("ring.pml", quick=False),
    _spin("ring.pml", "MESSAGES=2", "CAPACITY=1"),
    _spin("ring.pml", "MORTAL", quick=False),
    _spin("ring.pml", "MORTAL", "MESSAGES=2", "CAPACITY=1"),
    *(
        _spin("ring.pml", f"BUG_{bug}", faulty=True)
        for bug in (
            "FLAG",
            "NO_GATE",
            "WAKE_BEFORE_STORE",
            "PUBLISH_BEFORE_BODY",
            "POSITION_BEFORE_COPY",
            "POSITION_KEPT",
            "NO_RECHECK",
        )
    ),
    _spin("ring.pml", "MORTAL", "BUG_DEAD_STAYS", faulty=True),
    _spin("ring_overwrite.pml"),
    _spin("ring_overwrite.pml", "CAPACITY=4", "MESSAGES=10", quick=False),
    *(
        _spin("ring_overwrite.pml", f"BUG_{bug}", faulty=True)
        for bug in ("NO_INVALIDATION", "NO_RECHECK", "GAP")
    ),
    _spin("ring_overwrite.pml", "READERS=2", "MESSAGES=4", quick=False),
    _spin("ring_join.pml", quick=False),
    _spin("ring_join.pml", "ARENA=2", "CAPACITY=4", quick=False),
    _spin("ring_join.pml", "CAPACITY=1", "MESSAGES=3"),
    _spin("ring_join.pml", "CAPACITY=2", "MESSAGES=3", "ARENA=1"),
    _spin("ring_join.pml", "CAPACITY=1", "MESSAGES=3", "HISTORY"),
    _spin("ring_join.pml", "CAPACITY=2", "MESSAGES=3", "ARENA=1", "HISTORY"),
    _spin("ring_join.pml", "CAPACITY=1", "MESSAGES=3", "MORTAL", quick=False),
    _spin("ring_join.pml", "BUG_OLD_JOIN", faulty=True),
    _spin("ring_join.pml", "MESSAGES=3", "CAPACITY=1", "MORTAL", "BUG_BURY_ANY", faulty=True),
    _spin("ring_join.pml", "MESSAGES=3", "CAPACITY=2", "ARENA=1", "HISTORY", "BUG_NO_FLOOR", faulty=True),
    *(
        _spin("ring_join.pml", "MESSAGES=3", "CAPACITY=1", *defines, faulty=True)
        for defines in (
            ("BUG_TAIL_BEFORE_GATE",),
            ("BUG_TAIL_AFTER_SEQ",),
            ("BUG_NO_LOOK",),
            ("HISTORY", "BUG_NO_RECHECK"),
            ("HISTORY", "BUG_NO_INVALIDATION"),
        )
    ),
    _spin("ring_group.pml", quick=False),
    _spin("ring_group.pml", "COUNTED", quick=False),
    _spin("ring_group.pml", "MEMBERS=2"),
    _spin("ring_group.pml", "MEMBERS=2", "COUNTED"),
    _spin("ring_group.pml", "MEMBERS=2", "MESSAGES=3", "CAPACITY=2", "BATCH"),
    _spin("ring_group.pml", "BUG_COPY", faulty=True),
    *(
        _spin("ring_group.pml", "MEMBERS=2", f"BUG_{bug}", faulty=True)
        for bug in ("CLAIM_AFTER_SEATS", "CLAIM_FIRST", "NOT_CONFIRMED", "TRUST_THE_SEAT")
    ),
    _relacy("delivery", quick=False),
    _relacy("overwrite", quick=False),
    _relacy("sleep"),
    _relacy("join", quick=False),
    _relacy("arena", quick=False),
    _relacy("claim", quick=False),
    *(
        _relacy("delivery", f"SEED_{seed}", quick=False)
        for seed in ("SEQ_PUBLISH", "SEQ_READ", "POSITION_PUBLISH", "POSITION_READ")
    ),
    *(
        _relacy("overwrite", f"SEED_{seed}", quick=False)
        for seed in ("OVERWRITE_FENCE", "RECHECK_FENCE", "NO_RECHECK", "NO_INVALIDATION")
    ),
    _relacy("sleep", "SEED_WAKE_FENCE"),
    *(_relacy("join", f"SEED_{seed}", quick=False) for seed in ("JOIN_FENCE", "OLD_JOIN")),
    *(
        _relacy("arena", f"SEED_{seed}", quick=False)
        for seed in ("NO_FLOOR", "OVERWRITE_FENCE", "RECHECK_FENCE")
    ),
    *(
        _relacy("claim", f"SEED_{seed}", quick=False)
        for seed in ("CLAIM_TAKE", "CLAIM_READ", "NOT_CONFIRMED", "POSITION_PUBLISH", "POSITION_READ")
    ),
)


def missing_tool(case: Case) -> str | None:
    """Return why a case cannot be run here, None when it can."""
    if case.suite:
        if not _RELACY.exists():
            return "relacy is not installed (Debian: relacy-dev)"
        return None if shutil.which("g++") else "there is no g++"
    for tool in ("spin", "gcc"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    return None


def finds_a_fault(case: Case, directory: Path) -> tuple[bool, str]:
    """Check a case in an empty directory; return whether a fault was found, and the checker's own words.

    Raises RuntimeError when the checker did not do its work.
    """
    output = _relacy_output(case, directory) if case.suite else _spin_output(case, directory)
    found, words = output
    return found, words


def _run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )


def _built(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode != 0:
        raise RuntimeError(f"{result.args[0]} failed: {result.stdout}{result.stderr}")


def _spin_output(case: Case, directory: Path) -> tuple[bool, str]:
    defines = [f"-D{each}" for each in case.defines]
    _built(_run(directory, "spin", "-a", *defines, str(HERE / case.model)))
    _built(_run(directory, "gcc", "-O2", "-w", "-DSAFETY", "-DNOFAIR", "-o", "pan", "pan.c"))
    result = _run(directory, "./pan", "-m1000000")
    # A search that was cut short proves nothing.
    if "errors: " not in result.stdout or "max search depth too small" in result.stdout:
        raise RuntimeError(f"the search was not complete: {result.stdout}{result.stderr}")
    return "errors: 0" not in result.stdout, result.stdout


def _relacy_output(case: Case, directory: Path) -> tuple[bool, str]:
    defines = [f"-D{each}" for each in case.defines]
    source = str(HERE / case.model)
    _built(
        _run(directory, "g++", "-std=c++11", "-O1", "-w", *defines, f"-I{NATIVE}", source, "-o", "checker")
    )
    result = _run(directory, "./checker", case.suite)
    if result.returncode not in {0, 1} or "iteration" not in result.stdout + result.stderr:
        raise RuntimeError(f"the checker ended with {result.returncode}: {result.stdout}{result.stderr}")
    return result.returncode == 1, result.stdout + result.stderr
