"""The option that names CPUs."""

from __future__ import annotations

from cfctl.errors import InputError


def cpu_list_option(text: str | None) -> tuple[int, ...] | None:
    """Return the CPUs in the text of an option, None without one; raises InputError."""
    if text is None:
        return None
    from cfctl.host.cpus import parse_cpu_list

    try:
        return parse_cpu_list(text)
    except ValueError as error:
        raise InputError(
            f"The CPU list '{text}' can not be read.", f"{error}.", "Write it like 0,2-3."
        ) from error
