"""`python -m tests.benchmarks NAME ...`: run benchmark modules of this package and print their figures."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

INFRASTRUCTURE = {"__main__", "figure", "peers", "transports"}
ROOT = Path(__file__).resolve().parents[2]

# The installed package is measured: the source tree, which -m puts first, has no compiled core, unless
# a developer copied one there.
if not list((ROOT / "cfctl").glob("_native*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


def main(names: list[str]) -> int:
    """Run the named benchmarks (all without a name); return 1 when a goal is missed."""
    available = sorted(
        m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in INFRASTRUCTURE
    )
    unknown = set(names) - set(available)
    if unknown:
        print(
            f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(available)}", file=sys.stderr
        )
        return 2
    missed = 0
    for name in names or available:
        print(f"== {name}")
        for figure in import_module(f"tests.benchmarks.{name}").run():
            print(figure.line(), flush=True)
            missed += figure.value > figure.goal
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
