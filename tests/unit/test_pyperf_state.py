from __future__ import annotations

import pytest

from cfctl.diagnose.pyperf_state import state_lines
from cfctl.host.fingerprint import Fingerprint

SHOWN = """Show the system configuration

System state
============

CPU: use 2 logical CPUs: 0-1
ASLR: Full randomization

Advices
=======

Linux scheduler: Use isolcpus=<cpu list> kernel parameter to isolate CPUs
CPU Frequency: Use a fixed frequency

Warnings
========

Turbo Boost (MSR): Failed to read MSR 0x1a0 from /dev/cpu/0/msr
CPU scaling governor of CPU 0: powersave

Run "python -m pyperf system tune" to tune the system configuration to run benchmarks
"""


def host(brand: str = "Intel Xeon", virtualisation: str = "none", container: str = "none") -> Fingerprint:
    return Fingerprint(brand, 2, "6.1", "x86_64", "tsc", virtualisation, container, None)


def test_each_line_stands_in_its_section() -> None:
    found = state_lines(SHOWN, host())
    assert [line.section for line in found] == ["state", "state", "advice", "advice", "warnings", "warnings"]
    assert {line.reason for line in found} == {None}


@pytest.mark.parametrize(
    ("there", "left_out"),
    [
        (host("AMD EPYC"), ["Turbo Boost"]),
        (host("Intel Xeon", "kvm"), ["CPU Frequency", "Turbo Boost", "CPU scaling governor"]),
        (host(""), []),
    ],
)
def test_advice_for_another_machine_is_left_out_with_the_reason(
    there: Fingerprint, left_out: list[str]
) -> None:
    reasons = [line for line in state_lines(SHOWN, there) if line.reason]
    assert len(reasons) == len(left_out)
    assert all(line.text.startswith(start) for line, start in zip(reasons, left_out, strict=True))


def test_no_output_is_no_line() -> None:
    assert state_lines("", host()) == ()
