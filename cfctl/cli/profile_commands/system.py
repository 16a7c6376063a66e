"""Whether the system is fit for benchmarks: what pyperf says beside what cfctl finds."""

from __future__ import annotations

from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption


def system(
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show pyperf's view of the system for benchmarks, and the issues cfctl finds beside it.

    pyperf's lines that are meant for another CPU vendor, or that the host of this guest or
    container decides, are left out of the table; with --json they stand with the reason.
    """
    from cfctl.diagnose.pyperf_state import pyperf_lines, system_state
    from cfctl.diagnose.run import Request, diagnose
    from cfctl.render.system_state import render

    where = Output.resolve(format, json, output, unit)
    diagnosis = diagnose(Request(interval_ns=0, measure=False))
    where.emit(system_state(pyperf_lines(), diagnosis), render)
