"""Operations: how often, how long, how many failed. Standard library only.

In a program:

    from cfctl.profile import operation

    @operation("parse")
    def parse(line): ...

    with operation("commit", labels={"table": "orders"}):
        ...

and from outside, while it runs or after: `cfctl profile report`.
"""

from __future__ import annotations

from cfctl.profile.profiler import Operation, Profiler, operation, record_operation

__all__ = ["Operation", "Profiler", "operation", "record_operation"]
