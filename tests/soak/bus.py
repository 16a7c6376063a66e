"""`python -m tests.soak.bus [sustained|content|joins|kills|busy ...]`: what the bus promises, at full length.

sustained: a million messages a second in an open loop for a minute, loss 0. content: a billion messages between
two processes, checked for content, order and number, on rings that refuse and on rings that overwrite. joins: a
hundred thousand subscriptions of all kinds come and go at random under full rings; what each received and lost is
what was published after it joined. kills: publishers, subscribers and members of groups are ended by SIGKILL at
random moments ten thousand times; the survivors receive everything whole, in order and once. busy: subscriptions,
publishers and buses are closed at random moments while other threads use them.

Each part can be run by itself, prints how far it is, and ends with one line of its figures. All take about twenty
minutes on two idle CPUs. CFCTL_TEST_SCALE=0.01 is a rehearsal; CFCTL_TEST_SEED repeats a run's choices.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The installed package is tested: the source tree, which -m puts first, has no compiled core.
if not list((ROOT / "cfctl").glob("_native*.so")) and "cfctl" not in sys.modules:
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    import cfctl  # noqa: F401

    sys.path.append(str(ROOT))

from cfctl.bench.bus import bench  # noqa: E402
from tests.soak import bus_busy, bus_content, bus_joins, bus_kills  # noqa: E402
from tests.soak.bus_payloads import WrongError  # noqa: E402

SCALE = float(os.environ.get("CFCTL_TEST_SCALE", "1"))
SEED = int(os.environ.get("CFCTL_TEST_SEED", str(int.from_bytes(os.urandom(4)))))
SUSTAINED_HZ, SUSTAINED_NS = 1_000_000, 60_000_000_000
MESSAGES, JOINS, KILLS, ROUNDS = 1_000_000_000, 100_000, 10_000, 20_000


def report(text: str) -> None:
    """Print how far a part is."""
    print(f"  {text}", flush=True)


def scaled(count: int) -> int:
    """Return a count at the scale of this run."""
    return max(1, int(count * SCALE))


def sustained() -> str:
    """Run a million messages a second for a minute; raises WrongError."""
    result = bench(size=32, rate_hz=SUSTAINED_HZ, duration_ns=int(SUSTAINED_NS * SCALE))
    rate, loss = result.achieved_rate.value or 0.0, result.loss.value
    if loss != 0 or rate < 0.99 * SUSTAINED_HZ:
        raise WrongError(f"loss {loss} at {rate:.0f} a second")
    return (f"offered {result.offered} at {rate:.0f} a second; full {result.refused} times; "
            f"dropped {result.dropped}; stalls {result.stalls}")  # fmt: skip


def content() -> str:
    """Pass a billion messages between two processes."""
    account = bus_content.content(scaled(MESSAGES), report, SEED)
    return (f"{account.received} messages received, 0 torn, 0 repeated; "
            f"{account.dropped} overwritten, all of them counted")  # fmt: skip


def joins() -> str:
    """Let a hundred thousand subscriptions join and leave."""
    account = bus_joins.joins(scaled(JOINS), report, SEED)
    return (f"{account.joins} joins {account.kinds}; {account.messages} messages, 0 torn, 0 repeated; "
            f"{account.dropped} lost, all of them counted")  # fmt: skip


def kills() -> str:
    """Kill either side ten thousand times."""
    account = bus_kills.kills(scaled(KILLS), report, SEED)
    return (f"{account.kills} kills {account.kinds}; {account.messages} messages, 0 torn, 0 repeated; "
            f"{account.dropped} lost, all of them counted; longest stall {account.stall_s:.2f} s")  # fmt: skip


def busy() -> str:
    """Close what other threads use, twenty thousand times."""
    rounds = bus_busy.busy(scaled(ROUNDS), report, SEED)
    return f"{sum(rounds.values())} times closed while in use {rounds}; no crash, no hang, nothing left"


PROGRAMMES: dict[str, Callable[[], str]] = {
    "sustained": sustained,
    "content": content,
    "joins": joins,
    "kills": kills,
    "busy": busy,
}


def main(names: list[str]) -> int:
    """Run the named parts, all without a name; return 1 when one of them failed."""
    unknown = set(names) - set(PROGRAMMES)
    if unknown:
        print(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMMES)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or PROGRAMMES:
        place, started = Path("/dev/shm"), time.monotonic()
        print(f"{name}: scale {SCALE:g}, seed {SEED}", flush=True)
        with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None) as directory:
            os.environ["CFCTL_SEGMENT_DIR"] = directory
            try:
                result = f"ok: {PROGRAMMES[name]()}"
            except WrongError as error:
                result, failed = f"FAILED: {error}", failed + 1
        print(f"{name}: {result}; {time.monotonic() - started:.0f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
