"""Operations: how often, how long, how many failed. Standard library only.

In a program:

    from cfctl.profile import operation

    @operation("parse")
    def parse(line): ...

    with operation("commit", labels={"table": "orders"}):
        ...

    async def fetch():
        with operation("fetch").span():  # right across await
            await ...

    record("gpu step", 1_500)  # measured elsewhere, in nanoseconds

and from outside, while it runs or after: `cfctl profile report`.
"""

from __future__ import annotations

from cfctl.profile.profiler import Operation, Profiler, operation, record, record_many, record_operation

__all__ = ["Operation", "Profiler", "operation", "record", "record_many", "record_operation"]
