"""What the kernel says about the clocks, from files that a test writes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cfctl.clock import environment
from cfctl.clock.environment import Discipline

SYNCHRONIZED = Discipline(True, 0.0, 1000, "synchronized")
FREE = Discipline(False, 0.0, 16_000_000_000, "nothing disciplines the clock")


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_nothing_readable_gives_none_and_no_error(tmp_path: Path) -> None:
    seen = environment.observe(tmp_path)
    assert (seen.clocksource, seen.boot_id, seen.time_namespace_offset_ns, seen.disruption_marker) == (
        None,
        None,
        0,
        None,
    )
    assert environment.available_clocksources(tmp_path) == ()
    lines, reason = environment.kernel_log_clock_lines(tmp_path)
    assert lines == []
    assert "No such file" in reason


def test_a_time_namespace_moves_the_zero_of_monotonic(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/timens_offsets", "monotonic     100000   7\nboottime   -5 0\n")
    assert environment.time_namespace_offsets(tmp_path) == (100_000_000_000_007, -5_000_000_000)


@pytest.mark.parametrize("text", ["", "monotonic\n", "monotonic x y\n", "\0\n", "boottime 1 2 3\n"])
def test_unreadable_offsets_count_as_none(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/self/timens_offsets", text)
    assert environment.time_namespace_offsets(tmp_path) == (0, 0)


def test_disruption_marker_is_read_from_a_vmclock_page(tmp_path: Path) -> None:
    page = struct.pack("<IIHBBIQ", 0x4B4C4356, 4096, 1, 0, 0, 8, 42).ljust(4096, b"\0")
    file = tmp_path / "dev" / "vmclock0"
    file.parent.mkdir()
    file.write_bytes(page)
    assert environment.disruption_marker(tmp_path) == 42
    file.write_bytes(b"\0" * 4096)
    assert environment.disruption_marker(tmp_path) is None
    file.write_bytes(b"")
    assert environment.disruption_marker(tmp_path) is None


def test_raw_is_never_independent() -> None:
    assert environment.independence("raw", SYNCHRONIZED)[0] == "none"


def test_a_disciplined_clock_is_external_and_host_with_a_hypervisor_s_clock(tmp_path: Path) -> None:
    assert environment.independence("realtime", FREE, tmp_path)[0] == "none"
    assert environment.independence("realtime", SYNCHRONIZED, tmp_path)[0] == "external"
    write(tmp_path, "sys/class/ptp/ptp0/clock_name", "ixgbe-hw\n")
    assert environment.independence("monotonic", SYNCHRONIZED, tmp_path)[0] == "external"
    write(tmp_path, "sys/class/ptp/ptp1/clock_name", "KVM virtual PTP\n")
    assert environment.independence("monotonic", SYNCHRONIZED, tmp_path)[0] == "host"


def test_the_refined_rate_of_the_log_goes_before_the_detected_one(tmp_path: Path) -> None:
    write(
        tmp_path,
        "dev/kmsg",
        "6,1,1,-;tsc: Detected 2596.100 MHz processor",
    )
    assert environment.stated_rate("tsc", tmp_path).stated_hz == 2_596_100_000
    write(tmp_path, "dev/kmsg", "6,9,9,-;tsc: Refined TSC clocksource calibration: 2596.144 MHz")
    assert environment.stated_rate("tsc", tmp_path).stated_hz == 2_596_144_000
    write(tmp_path, "sys/devices/system/cpu/cpu0/tsc_freq_khz", "2596145\n")
    stated = environment.stated_rate("tsc", tmp_path)
    assert (stated.stated_hz, stated.source) == (2_596_145_000, "sysfs tsc_freq_khz")


def test_the_os_clock_states_no_rate() -> None:
    assert environment.stated_rate("os").stated_hz is None


def test_deviation_from_a_stated_rate_is_beyond_the_kernel_s_rounding() -> None:
    exact_hz = 2_596_143_823.6186
    assert environment.stated_deviation_ppb(exact_hz, 2_596_144_000, "tsc") == pytest.approx(0, abs=0.01)
    assert environment.stated_deviation_ppb(exact_hz, 0, "tsc") is None


def test_kernel_log_keeps_the_lines_about_clocks_only(tmp_path: Path) -> None:
    write(tmp_path, "dev/kmsg", "4,1,1,-;clocksource: Marking clocksource 'tsc' as unstable\x1b[31m")
    lines, reason = environment.kernel_log_clock_lines(tmp_path)
    assert reason == ""
    assert lines == ["clocksource: Marking clocksource 'tsc' as unstable\N{REPLACEMENT CHARACTER}[31m"]
    write(tmp_path, "dev/kmsg", "4,1,1,-;usb 1-1: new device")
    assert environment.kernel_log_clock_lines(tmp_path) == ([], "")
