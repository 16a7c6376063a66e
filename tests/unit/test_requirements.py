"""Hardware requirements: what is met, what is not, and that nothing is met for want of a file."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.cli.app import main
from cfctl.diagnose.requirements import HardwareReport, Level, Standing, hardware
from cfctl.diagnose.storage_probe import StorageRate, measure_storage
from cfctl.errors import UnobservableError
from cfctl.records import Measurement, Verdict
from tests.hosts.fake_host import HOSTS, FakeHost, MemoryView

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CPU = "sys/devices/system/cpu"
NET = "sys/class/net/eth0"
ECC = "sys/devices/system/edac/mc/mc0/dimm0/dimm_edac_mode"
# A server of 16 cores that meets everything.
SERVER = FakeHost(
    {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold\ncpu MHz\t\t: 1200.0\nflags\t\t: fpu tsc\n",
        f"{CPU}/online": "0-15\n",
        **{f"{CPU}/cpu{n}/topology/thread_siblings_list": f"{n}\n" for n in range(16)},
        **{f"{CPU}/cpu{n}/cpufreq/cpuinfo_max_freq": "3600000\n" for n in range(16)},
        "proc/meminfo": "MemTotal:       65800000 kB\n",
        ECC: "SECDED\n",
        "sys/block/nvme0n1/queue/rotational": "0\n",
        f"{NET}/speed": "25000\n",
        f"{NET}/device/sriov_totalvfs": "64\n",
    },
    {},
    {"uname": {"release": "6.1", "version": "#1", "machine": "x86_64"}},
)
GUEST = {"proc/cpuinfo": SERVER.files["proc/cpuinfo"].replace("tsc", "tsc hypervisor")}
FAST = StorageRate("/data", Measurement(50_000.0, "1/s", 200.0, 50_000, "random reads"))


def view(host: FakeHost, **refusals: Any) -> MemoryView:
    return MemoryView(host.files, host.syscalls, **refusals)


def standings(report: HardwareReport) -> dict[tuple[str, str], Standing]:
    return {(str(each.level), each.subject): each.standing for each in report.requirements}


def test_a_server_meets_everything() -> None:
    report = hardware(view(SERVER), FAST)
    assert set(standings(report).values()) == {Standing.MET}
    assert (report.verdict, report.verdict_reason) == (Verdict.PASS, "the minimum is met")
    assert all(each.evidence and each.found and each.reason is None for each in report.requirements)


@pytest.mark.parametrize(
    ("subject", "changes", "minimum", "optimal"),
    [
        ("cores", {f"{CPU}/online": "0-5\n"}, "met", "not met"),
        ("cores", {f"{CPU}/online": "0-1\n"}, "not met", "not met"),
        ("RAM", {"proc/meminfo": "MemTotal: 16000000 kB\n"}, "met", "not met"),
        ("RAM", {"proc/meminfo": "MemTotal: 4000000 kB\n"}, "not met", "not met"),
        ("RAM", {"proc/meminfo": "MemTotal: lots\n"}, "unobservable", "unobservable"),
        ("network", {f"{NET}/speed": "1000\n"}, "met", "not met"),
        ("network", {f"{NET}/speed": "100\n"}, "not met", "not met"),
        ("network", {f"{NET}/speed": "-1\n"}, "unobservable", "unobservable"),
        ("storage", {"sys/block/nvme0n1/queue/rotational": "fast\n"}, "unobservable", "met"),
        ("clock", {f"{CPU}/cpu3/cpufreq/cpuinfo_max_freq": "2900000\n"}, None, "not met"),
        ("ECC", {ECC: "None\n"}, None, "not met"),
        ("ECC", {ECC: "Unknown\n"}, None, "unobservable"),
        ("SR-IOV", {f"{NET}/device/sriov_totalvfs": "0\n"}, None, "not met"),
        (
            "CPU",
            {"proc/cpuinfo": "processor : 0\nmodel name : Some Core\nflags : fpu\n"},
            "not met",
            "not met",
        ),
        ("CPU", {"proc/cpuinfo": "processor : 0\n"}, "unobservable", "unobservable"),
    ],
)
def test_a_value_decides(subject: str, changes: Mapping[str, str], minimum: str | None, optimal: str) -> None:
    found = standings(hardware(view(SERVER.with_files(changes)), FAST))
    assert found.get(("minimum", subject)) == minimum
    assert found["optimal", subject] == optimal


def test_a_turning_disk_is_no_ssd_and_no_nvme() -> None:
    host = SERVER.without("sys/block/.*").with_files({"sys/block/sda/queue/rotational": "1\n"})
    found = standings(hardware(view(host), FAST))
    assert found["minimum", "storage"] is found["optimal", "storage"] is Standing.NOT_MET


def test_a_guest_does_not_believe_its_virtual_devices() -> None:
    host = SERVER.without("sys/block/.*", ".*/sriov_totalvfs", ECC).with_files(
        {"sys/block/vda/queue/rotational": "0\n", f"{NET}/device/vendor": "0x1af4\n", **GUEST}
    )
    found = standings(hardware(view(host), FAST))
    for key in (("minimum", "storage"), ("optimal", "storage"), ("optimal", "ECC"), ("optimal", "SR-IOV")):
        assert found[key] is Standing.UNOBSERVABLE
    function = hardware(view(host.with_files({f"{NET}/device/physfn": ""})), FAST)
    assert standings(function)["optimal", "SR-IOV"] is Standing.MET


def test_the_clock_of_this_moment_only_proves_that_it_is_high_enough() -> None:
    host = SERVER.without(f"{CPU}/cpu.*/cpufreq/.*")
    assert standings(hardware(view(host)))["optimal", "clock"] is Standing.UNOBSERVABLE
    fast = host.with_files({"proc/cpuinfo": SERVER.files["proc/cpuinfo"].replace("1200.0", "3500.0")})
    assert standings(hardware(view(fast)))["optimal", "clock"] is Standing.MET


@pytest.mark.parametrize(
    ("rate", "error", "expected"),
    [(5000.0, 10.0, "met"), (900.0, 10.0, "not met"), (1010.0, 10.0, "unobservable")],
)
def test_the_rate_of_the_storage_is_judged_with_its_error(rate: float, error: float, expected: str) -> None:
    storage = StorageRate("/data", Measurement(rate, "1/s", error, 1000, "random reads"))
    assert standings(hardware(view(SERVER), storage))["minimum", "storage IOPS"] == expected
    assert standings(hardware(view(SERVER)))["minimum", "storage IOPS"] is Standing.UNOBSERVABLE


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.EIO])
def test_nothing_is_met_or_missed_on_a_host_that_refuses(number: int) -> None:
    refusing = MemoryView(SERVER.files, {}, ".*", number)
    report = hardware(refusing)
    # That /sys/block lists an NVMe disk is seen without opening a file.
    seen = {key for key, standing in standings(report).items() if standing is not Standing.UNOBSERVABLE}
    assert seen <= {("optimal", "storage")}
    assert report.verdict is Verdict.INCONCLUSIVE


def test_nothing_is_met_or_missed_on_an_empty_host() -> None:
    report = hardware(MemoryView({}, {}))
    assert set(standings(report).values()) == {Standing.UNOBSERVABLE}
    assert all(each.reason for each in report.requirements)
    assert len(report.requirements) == 15


def test_a_missing_file_never_meets_a_requirement() -> None:
    whole = standings(hardware(view(SERVER)))
    for path in SERVER.files:
        fewer = standings(hardware(view(SERVER.without(path))))
        gained = [key for key in fewer if fewer[key] is Standing.MET and whole[key] is not Standing.MET]
        assert gained == [], path


@given(st.data())
def test_garbage_is_no_error(data: st.DataObject) -> None:
    paths = data.draw(st.lists(st.sampled_from(sorted(SERVER.files)), unique=True))
    host = SERVER.with_files(
        {path: data.draw(st.text(max_size=30).filter(lambda t: "{" not in t)) for path in paths}
    )
    assert len(hardware(view(host)).requirements) == 15


@pytest.mark.parametrize("name", sorted(path.stem for path in HOSTS.glob("*.toml")))
def test_the_command_says_the_same_as_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    root = FakeHost.load(name).build(tmp_path / "host") / "t1"
    with pytest.raises(SystemExit) as caught:
        main(["diagnose", "host", "--sysroot", str(root), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "cfctl.hardware"
    assert (caught.value.code == 1) == (document["verdict"] == "fail")
    assert {each["level"] for each in document["requirements"]} == {str(level) for level in Level}


def test_a_captured_host_has_no_storage_to_measure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["diagnose", "host", "--sysroot", str(tmp_path), "--storage", str(tmp_path)])
    assert caught.value.code == 2
    assert "--storage measures this host" in capsys.readouterr().err


def test_a_directory_that_can_not_be_measured_is_unobservable_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnobservableError, match="No such file"):
        measure_storage(str(tmp_path / "none"))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UnobservableError, match="can not be measured"):
        measure_storage(str(file))


@pytest.mark.host
def test_a_file_system_in_memory_is_refused() -> None:
    with pytest.raises(UnobservableError, match="in memory"):
        measure_storage("/dev/shm")


@pytest.mark.host
def test_the_storage_of_this_machine_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    try:
        found = measure_storage(str(tmp_path), duration_s=0.05)
    except UnobservableError as error:
        pytest.skip(str(error))
    assert found.reads_per_s.value is not None
    assert found.reads_per_s.value > 0
    assert found.reads_per_s.sample_count
    assert list(tmp_path.iterdir()) == []
