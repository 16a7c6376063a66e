"""The bus beside files that are not its own, on a file system that fills up, and after the clock was used first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cfctl.bus import Bus, BusConfig
from cfctl.errors import CfctlError, SegmentError, StateError


def run(program: str, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "first_tick",
    ["temporal.global_hlc().tick()", "temporal.initialize_global_hlc(3).tick()", "temporal.Hlc(7).tick()"],
)
def test_a_clock_that_ticks_before_the_first_bus_leaves_the_process_visible(
    tmp_path: Path, first_tick: str
) -> None:
    program = f"""
import os, sys
from cfctl import temporal
{first_tick}
from cfctl.bus import Bus
with Bus() as bus:
    bus.publisher("t").publish(b"x")
    print(*(name for name in os.listdir(os.environ["CFCTL_SEGMENT_DIR"]) if str(os.getpid()) in name))
"""
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "not there yet")}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip()


def test_of_more_publishers_than_were_ever_remembered_no_message_comes_twice(tmp_path: Path) -> None:
    config = BusConfig(directory=tmp_path / "rings", channel_buffer_size=2, arena_bytes=4096)
    received = []
    with Bus(config) as writer, Bus(config) as reader:
        fast, slow = reader.subscribe("t"), reader.subscribe("t")
        for number in range(1100):
            publisher = writer.publisher("t")
            publisher.publish(b"%d" % number)
            publisher.close()
            received += fast.recv_many(10)
            if number % 50 == 49:
                # Their files stayed until now, beside the fast one that has done with them.
                assert len(slow.recv_many(1000)) == 50
        received += fast.recv_many(10)
    assert received == [b"%d" % number for number in range(1100)]


FULL = """
import os, sys
from pathlib import Path
from cfctl.bus import Bus, BusConfig, ResourceExhausted
from cfctl.errors import StateError
directory = Path(sys.argv[1])
# The table of patterns is made once, and stays.
def rings_and_topics(): return sorted(set(os.listdir(directory / "rings")) - {"bus.patterns"})
config = BusConfig(directory=directory / "rings", channel_buffer_size=64, arena_bytes=1 << 20)
with Bus(config) as bus:
    subscription, publisher = bus.subscribe("t"), bus.publisher("t")
    publisher.publish(bytes(10_000))
    unused, small = bus.publisher("small"), bus.subscribe("small")
    descriptor = os.open(directory / "filler", os.O_CREAT | os.O_WRONLY)
    try:
        while os.write(descriptor, bytes(4096)): pass
    except OSError: pass
    sent = [b"%d" % number * 10_000 for number in range(10, 42)]
    for payload in sent: publisher.publish(payload, 0.0)
    print(subscription.recv_many(1000) == [bytes(10_000), *sent], subscription.counts()["dropped"])
    unused.publish(b"needs no space"); print(small.recv(5.0))
    try: unused.publish(bytes(10_000)); print("published")
    except StateError as error: print("no space" in str(error).lower(), unused.counts()["published"])
    before = rings_and_topics()
    for open_ in (lambda: bus.publisher("u"), lambda: bus.subscribe("v"), lambda: bus.subscribe(pattern="w*")):
        try: open_(); print("opened")
        except StateError as error: print("no space" in str(error).lower())
    print(rings_and_topics() == before)
    os.close(descriptor); os.unlink(directory / "filler")
    late = bus.subscribe("u"); bus.publisher("u").publish(b"again")
    print(late.recv(5.0))
    publisher.publish(b"last"); print(subscription.recv(5.0))
"""


def test_on_a_full_file_system_open_rings_go_on_and_new_ones_are_refused_until_there_is_space(
    tmp_path: Path,
) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to mount a file system of its own")
    shell = 'mount -t tmpfs -o size=6m,mode=700 tmpfs "$0" && exec "$@"'
    before = ("unshare", "-rm", "sh", "-c", shell, str(tmp_path))
    result = run(FULL, str(tmp_path), before=before)
    if "unshare" in result.stderr or "mount" in result.stderr:
        pytest.skip(f"no mount of its own can be had: {result.stderr.strip()}")
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "True 0", "b'needs no space'", "True 1", "True", "True", "True", "True", "b'again'", "b'last'",
    ]  # fmt: skip


def torn(file: Path) -> None:
    os.truncate(file, 100)


def foreign(file: Path) -> None:
    file.write_bytes(b"no file of the bus" * 1000)


def of_another_version(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(8)
        stream.write(bytes([255, 0, 0, 0]))


DAMAGES = [torn, foreign, of_another_version]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_topic_whose_page_cannot_be_used_is_one_error_and_the_others_go_on(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    config = BusConfig(directory=tmp_path / "rings")
    # Killed, so that its files stay as they are.
    program = """
import os, signal, sys
from pathlib import Path
from cfctl.bus import Bus, BusConfig
bus = Bus(BusConfig(directory=Path(sys.argv[1])))
kept = bus.subscribe("t"), bus.publisher("t")
os.kill(os.getpid(), signal.SIGKILL)
"""
    run(program, str(config.directory))
    (file,) = config.directory.glob("*.topic")
    damage(file)
    content = file.read_bytes()
    with Bus(config) as bus:
        for open_ in (bus.publisher, bus.subscribe):
            with pytest.raises(SegmentError, match="torn, or of another version"):
                open_("t")
        assert file.read_bytes().startswith(content)
        subscription = bus.subscribe("other")
        bus.publisher("other").publish(b"x")
        assert subscription.try_recv() == b"x"


@pytest.mark.parametrize("damage", [torn, foreign])
def test_a_table_of_patterns_of_garbage_is_written_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    config = BusConfig(directory=tmp_path / "rings")
    with Bus(config) as bus:
        bus.subscribe(pattern="p*")
    damage(config.directory / "bus.patterns")
    with Bus(config) as bus:
        subscription = bus.subscribe(pattern="p*")
        bus.publisher("p1").publish(b"x")
        assert subscription.try_recv() == b"x"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_ring_that_cannot_be_used_is_one_error_and_takes_nothing_from_who_reads_others(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    config = BusConfig(directory=tmp_path / "rings")
    with Bus(config) as bus, Bus(config) as other:
        early = bus.subscribe("t")
        (heard, unusable) = bus.publisher("t"), other.publisher("t")
        heard.publish(b"accepted")
        file = max(config.directory.glob("*.ring"), key=lambda ring: ring.stat().st_ino)
        copy = tmp_path / "copy"
        copy.write_bytes(file.read_bytes()[:65536])
        damage(copy)
        copy.chmod(0o600)
        # Replaced: nobody can answer for a mapped file that is cut short.
        copy.replace(file)
        with pytest.raises(SegmentError, match="torn, or of another version"):
            bus.subscribe("t")
        later = bus.publisher("t")
        later.publish(b"later")
        assert early.recv_many(10) == [b"accepted", b"later"]
        assert unusable.counts()["published"] == 0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/hostname")])
def test_a_file_of_leases_that_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    directory = tmp_path / "rings"
    directory.mkdir(mode=0o700)
    make(directory / "bus.leases")
    with pytest.raises(StateError):
        Bus(BusConfig(directory=directory))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_another_users_files_in_an_own_directory_are_refused(tmp_path: Path) -> None:
    config = BusConfig(directory=tmp_path / "rings")
    with Bus(config) as bus:
        bus.subscribe("t")
    with Bus(config) as bus:
        kept = bus.publisher("t")
        (page,) = config.directory.glob("*.topic")
        os.chown(page, 65534, 65534)
        with Bus(config) as other, pytest.raises(CfctlError, match="not private to this user"):
            other.subscribe("t")
        os.chown(page, 0, 0)
        subscription = bus.subscribe("t")
        kept.publish(b"x")
        assert subscription.try_recv() == b"x"
