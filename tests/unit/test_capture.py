"""A diagnosis of a capture is the diagnosis of the host, wherever it is made."""

from __future__ import annotations

import errno
import functools
import gzip
import io
import json
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl.diagnose.capture import Capture, CaptureRequest, capture
from cfctl.diagnose.measurements import Measurements
from cfctl.diagnose.offline import MOMENTS, open_captured
from cfctl.diagnose.record import Status
from cfctl.diagnose.requirements import hardware
from cfctl.diagnose.run import Request, diagnose
from cfctl.diagnose.stored import restored
from cfctl.errors import InputError
from cfctl.host.archive import MAX_FILES, pack, unpack
from cfctl.host.capture import Reads, discreet
from cfctl.host.syscalls import RealSyscalls, SyscallError
from cfctl.host.view import MAX_FILE_BYTES, HostView
from cfctl.records import to_json, to_plain
from tests.hosts.cases import GOOD
from tests.hosts.fake_host import HOSTS, FakeHost, MemoryView

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cfctl.diagnose.diagnosis import Diagnosis

NAMES = sorted(path.stem for path in HOSTS.glob("*.toml"))
REFUSALS = [errno.EPERM, errno.EINVAL, errno.EIO]
BOTH_MOMENTS = 2_000_000_000


def views(host: FakeHost, refuse: str | None = None, number: int = errno.EPERM) -> Callable[[str], HostView]:
    """Return an opener of a fake host's two moments, as of a live one."""
    moments = iter([MemoryView(files, answers, refuse, number) for files, answers in host.moments()])
    return lambda _: next(moments)


def captured(host: FakeHost, pid: int | None = None, **refusals: Any) -> Capture:
    return capture(
        CaptureRequest(pid=pid, interval_ns=BOTH_MOMENTS),
        open_view=views(host, **refusals),
        measure=lambda: GOOD,
        probe=lambda _plan, measured, _progress: measured,
        sleep=lambda _: None,
    )


def diagnosed_live(host: FakeHost, pid: int | None, profile: str = "timer", **refusals: Any) -> Diagnosis:
    request = Request(pid=pid, profile=profile, interval_ns=BOTH_MOMENTS)
    return diagnose(
        request,
        open_view=views(host, **refusals),
        measure=lambda: GOOD,
        probe=lambda _plan, measured, _progress: measured,
        sleep=lambda _: None,
    )


def diagnosed_offline(file: Path, pid: int | None, profile: str = "timer") -> Diagnosis:
    return replace(diagnose(Request(str(file), pid=pid, profile=profile)), sysroot="/")


def assert_same(one: Diagnosis, other: Diagnosis) -> None:
    assert [to_plain(check) for check in one.checks] == [to_plain(check) for check in other.checks]
    assert to_plain(one) == to_plain(other)


@pytest.mark.parametrize("profile", ["timer", "busy-poll", "ci"])
@pytest.mark.parametrize("name", NAMES)
def test_the_capture_of_a_host_gives_the_same_diagnosis(tmp_path: Path, name: str, profile: str) -> None:
    host = FakeHost.load(name)
    pid = 4242 if "proc/4242/stat" in host.files else None
    file = tmp_path / "host.tar.gz"
    file.write_bytes(captured(host, pid).archive)
    for target in dict.fromkeys((pid, None)):
        assert_same(diagnosed_offline(file, target, profile), diagnosed_live(host, target, profile))


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("pattern", ["sys/.*", "proc/.*", "proc/(stat|self/.*)", "sys/devices/system/cpu/.*"])
def test_what_was_refused_on_the_host_is_refused_offline_for_the_same_reason(
    tmp_path: Path, pattern: str, number: int
) -> None:
    host = FakeHost.load("kvm_guest")
    file = tmp_path / "host.tar.gz"
    file.write_bytes(captured(host, refuse=pattern, number=number).archive)
    offline = diagnosed_offline(file, None)
    assert_same(offline, diagnosed_live(host, None, refuse=pattern, number=number))
    assert offline.counts["unobservable"] > 10


def test_a_refused_syscall_keeps_its_name_and_reason(tmp_path: Path) -> None:
    refusal = {"error": "EPERM, Operation not permitted", "source": "prctl"}
    host = FakeHost.load("bare_tuned").with_syscalls({"timer_slack_ns": refusal, "adjtimex": refusal})
    file = tmp_path / "host.tar.gz"
    file.write_bytes(captured(host).archive)
    found = {check.id: check for check in diagnosed_offline(file, None).checks}
    assert found["TIMER_SLACK"].status is Status.UNOBSERVABLE
    assert found["TIMER_SLACK"].reason == "prctl: EPERM, Operation not permitted"


@settings(max_examples=15)
@given(st.data(), st.sampled_from(["bare_tuned", "kvm_guest", "docker_quota"]))
def test_a_host_of_garbage_gives_the_same_diagnosis_from_its_capture(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    host = FakeHost.load(name)
    paths = data.draw(st.lists(st.sampled_from(sorted(host.files)), max_size=20, unique=True))
    host = replace(host, files={**host.files, **{path: data.draw(st.text(max_size=40)) for path in paths}})
    file = tmp_path_factory.mktemp("captures") / "host.tar.gz"
    file.write_bytes(captured(host).archive)
    assert_same(diagnosed_offline(file, None), diagnosed_live(host, None))


def test_an_unpacked_archive_and_a_capture_of_the_capture_say_the_same(tmp_path: Path) -> None:
    first = captured(FakeHost.load("docker_quota")).archive
    file = tmp_path / "host.tar.gz"
    file.write_bytes(first)
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path / "host", filter="data")
    assert_same(diagnosed_offline(tmp_path / "host", None), diagnosed_offline(file, None))
    # As a truth, not compared by pytest, whose account of two archives' difference takes minutes.
    is_same = capture(CaptureRequest(str(file))).archive == first
    assert is_same


@pytest.mark.parametrize("name", NAMES)
def test_the_hardware_of_a_captured_host_is_judged_as_on_the_host(tmp_path: Path, name: str) -> None:
    host = FakeHost.load(name)
    file = tmp_path / "host.tar.gz"
    file.write_bytes(captured(host).archive)
    open_view = views(host)
    open_view("the start of the interval")
    live = hardware(open_view("its end"))
    assert hardware(open_captured(str(file)).now).requirements == live.requirements


def test_equal_hosts_give_equal_bytes() -> None:
    host = FakeHost.load("bare_default")
    assert captured(host).archive == captured(host).archive


def test_one_view_without_measurements_is_a_capture_too(tmp_path: Path) -> None:
    host = FakeHost.load("bare_tuned")
    file = tmp_path / "host.tar.gz"
    request = CaptureRequest(interval_ns=0, measure=False)
    file.write_bytes(capture(request, open_view=views(host)).archive)
    found = diagnose(Request(str(file)))
    assert found.interval_s is None
    assert found.measurements is None
    assert found.measurements_reason == "the capture was made without measurements"


def test_no_environment_and_no_private_mount_is_captured() -> None:
    environ = "PASSWORD=secret\0container=podman\0USER=alice\0"
    mounts = (
        "20 1 0:1 / / rw - ext4 /dev/root rw\n25 20 0:4 / /proc rw - proc proc rw\n"
        "31 20 8:2 / /home/alice rw - ext4 /dev/sdb rw\n33 20 0:9 / /sys/fs/cgroup rw - cgroup2 none rw\n"
    )
    files = {"proc/1/environ": environ, "proc/self/mountinfo": mounts}
    archive = captured(FakeHost.load("bare_tuned").with_files(files)).archive
    content = gzip.decompress(archive)
    assert b"container=podman" in content
    assert b"/sys/fs/cgroup" in content
    assert b"secret" not in content
    assert b"alice" not in content
    assert discreet("proc/42/cmdline", b"/bin/python3\0--password=secret\0") == b"/bin/python3"
    assert discreet("proc/cmdline", b"quiet splash") == b"quiet splash"
    assert discreet("proc/stat", b"cpu 1") == b"cpu 1"


def test_of_the_kernels_log_only_lines_about_latency_are_captured() -> None:
    log = "usb 1-1: user alice plugged in\nclocksource: Marking clocksource 'tsc' as unstable\n"
    content = gzip.decompress(
        captured(FakeHost.load("bare_tuned").with_syscalls({"kernel_log": log})).archive
    )
    assert b"Marking clocksource" in content
    assert b"alice" not in content


def test_measurements_come_back_as_they_were() -> None:
    assert restored(Measurements, json.loads(to_json(GOOD))) == GOOD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fit": 3}, "measurements.fit is not an object"),
        ({"fit": {**to_plain(GOOD.fit), "estimate_hz": "fast"}}, "estimate_hz is not a number"),
        ({"fit": {"source": "tsc"}}, "not complete"),
        ({"offsets": {**to_plain(GOOD.offsets), "pair": [1]}}, "a list of 2"),
        ({"costs": {"tick": {"value": 1e40, "unit": "ns"}}}, "is not a number"),
        ({"costs": {"tick": {"value": None, "unit": "ns"}}}, "a value, or None and a reason"),
        ({"reasons": []}, "is not an object"),
    ],
)
def test_measurements_that_are_none_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        restored(Measurements, {**to_plain(GOOD), **change}, "measurements")


# Hostile archives.


def archived(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return memory.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def refused(tmp_path: Path, data: bytes) -> str:
    """Return the message with which an archive is refused."""
    file = tmp_path / "hostile.tar.gz"
    file.write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_captured(str(file))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.tar.gz"]
    return str(caught.value)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (member("../escaped"), "no plain relative name"),
        (member("/etc/passwd"), "no plain relative name"),
        (member("t1/../../x"), "no plain relative name"),
        (member("t1//x"), "no plain relative name"),
        (member("t1/link", tarfile.SYMTYPE, "/etc/passwd"), "no regular file"),
        (member("t1/link", tarfile.LNKTYPE, "../x"), "no regular file"),
        (member("t1/device", tarfile.CHRTYPE), "no regular file"),
        (member("t1/fifo", tarfile.FIFOTYPE), "no regular file"),
    ],
)
def test_a_member_that_is_no_plain_file_is_refused(
    tmp_path: Path, found: tarfile.TarInfo, words: str
) -> None:
    assert words in refused(tmp_path, archived((found, b"x" if found.isreg() else b"")))


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    assert "twice" in refused(tmp_path, archived((member("a"), b"1"), (member("a"), b"2")))


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    large = archived((member("a"), bytes(MAX_FILE_BYTES + 1)))
    assert "larger than 8 MiB" in refused(tmp_path, large)
    bomb = archived(*((member(f"a{i}"), bytes(MAX_FILE_BYTES)) for i in range(4)))
    assert "would fill more than 16 MiB" in refused(tmp_path, bomb)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_FILES >= 2 * 60 * 1024
    monkeypatch.setattr("cfctl.host.archive.MAX_FILES", 3)
    assert "more than 3 files" in refused(tmp_path, archived(*((member(f"a{i}"), b"") for i in range(4))))


@functools.cache
def _whole_archive() -> bytes:
    return captured(FakeHost.load("docker_quota")).archive


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_archive_gives_one_message_or_the_whole_diagnosis(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = _whole_archive()
    file = tmp_path_factory.mktemp("damaged") / "host.tar.gz"
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    file.write_bytes(damaged)
    message = found = None
    try:
        found = diagnose(Request(str(file)))
    except InputError as error:
        message = error
    assert (found is None) != (message is None)
    assert message is None or (message.what.startswith(str(file)) and message.why)
    assert found is None or found.counts["error"] == 0


def test_an_archive_without_its_last_files_is_refused(tmp_path: Path) -> None:
    whole = gzip.decompress(captured(FakeHost.load("bare_tuned")).archive)
    # The end of a member is a legal end of a tar file: only the count tells.
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        end = archive.getmembers()[-20].offset
    assert "files are missing" in refused(tmp_path, gzip.compress(whole[:end]))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"x": b""}, "it holds no capture.json"),
        ({"capture.json": b"[]"}, "capture.json holds no object"),
        ({"capture.json": b"{}"}, "not of schema cfctl.capture"),
        ({"capture.json": b'{"schema": "cfctl.capture", "version": 1, "files": 1}'}, "it holds no moment"),
        ({"capture.json": b"[" * 100_000}, "nested too deeply"),
    ],
)
def test_an_archive_of_something_else_is_refused(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    assert words in refused(tmp_path, pack(files))


@pytest.mark.parametrize("data", [b"", b"not an archive", gzip.compress(b"not a tar" * 100, mtime=0)])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"refused": {"a": 1}, "exists": {}, "names": {}, "matching": {}},
        {"refused": {"a": ["odd", ""]}, "exists": {}, "names": {}, "matching": {}},
        {"refused": {"a": ["missing"]}, "exists": {}, "names": {}, "matching": {}},
        {"refused": {}, "exists": {}, "names": {"a": [1]}, "matching": {}},
        {"refused": {}, "exists": {}, "names": {}, "matching": {"a": "b"}},
    ],
)
def test_reads_that_are_none_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Reads.from_plain(value)


def test_what_a_capture_never_asked_is_not_known(tmp_path: Path) -> None:
    file = tmp_path / "host.tar.gz"
    file.write_bytes(captured(FakeHost.load("bare_tuned")).archive)
    now = open_captured(str(file)).now
    assert not now.is_live
    assert not now.exists("proc/never/asked")
    assert now.names("proc/never") == []
    with pytest.raises(Exception, match="not in the capture"):
        now.content("proc/never/asked")


class OneReading(HostView):
    """This machine at one moment: whatever is asked again gets the first answer."""

    def __init__(self) -> None:
        super().__init__("/", cast("Any", OneAnswer()))
        self.exists = functools.cache(super().exists)  # type: ignore[method-assign]
        self.names = functools.cache(super().names)  # type: ignore[method-assign]
        self.matching = functools.cache(super().matching)  # type: ignore[method-assign]


class OneAnswer:
    """The syscalls of this machine, each asked once."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ask = getattr(RealSyscalls(), name)

        @functools.cache
        def first(*arguments: Any) -> tuple[Any, SyscallError | None]:
            try:
                return ask(*arguments), None
            except SyscallError as error:
                return None, error

        def again(*arguments: Any) -> Any:
            answer, error = first(*arguments)
            if error is not None:
                raise error
            return answer

        setattr(self, name, again)
        return again


@pytest.mark.host
def test_this_machine_and_its_capture_have_the_same_diagnosis(tmp_path: Path) -> None:
    """Both from one reading: what changes from one second to the next is no difference of theirs."""
    moments = [OneReading(), OneReading()]
    file = tmp_path / "host.tar.gz"
    opened, opened_again = iter(moments), iter(moments)
    plain: dict[str, Any] = {"measure": lambda: GOOD, "probe": lambda _plan, measured, _progress: measured}
    request = CaptureRequest(interval_ns=BOTH_MOMENTS)
    found = capture(request, open_view=lambda _: next(opened), sleep=lambda _: None, **plain)
    file.write_bytes(found.archive)
    live = diagnose(
        Request(interval_ns=BOTH_MOMENTS),
        open_view=lambda _: next(opened_again), sleep=lambda _: None, **plain,
    )  # fmt: skip
    assert_same(diagnosed_offline(file, None), live)
    assert {name for name in unpack(str(file)) if name.startswith(MOMENTS)}
