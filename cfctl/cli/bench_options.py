"""What the commands share that run cfctl's own workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.progress import step_line

if TYPE_CHECKING:
    from cfctl.monitor.bench import BenchDocument, Plan

RepeatOption = Annotated[
    int, typer.Option("--repeat", min=1, max=50, metavar="N", help="Measure N times and take the medians.")
]
SettleOption = Annotated[
    bool,
    typer.Option("--settle", help="Wait until a calibration is 60 s old; make one if none is saved."),
]


def run_bench(plans: Sequence[Plan], repeat: int, settle: bool) -> BenchDocument:
    """Return what the sections measured in so many runs, as one; what is being done is shown on a terminal."""
    from cfctl.monitor.bench import Bench, merged

    runs: list[BenchDocument] = []
    with step_line() as show:

        def began(plan: Plan) -> None:
            show(f"bench {len(runs) + 1}/{repeat}: {plan.name}")

        while len(runs) < repeat:
            runs.append(Bench(plans, settle, began).run())
    return merged(runs)
