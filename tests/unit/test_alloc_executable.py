"""What is refused before it runs, from ELF files made by hand: a machine of any kind has them."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.alloc.executable import own_interpreter, require_countable
from cfctl.launch import LaunchError

X86_64, AARCH64 = 62, 183
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ = 0, 1, 5, 10
LOADER = own_interpreter() or "/lib64/ld-linux-x86-64.so.2"
BASE = 0x400000


def elf(
    interpreter: str | None = LOADER,
    needed: tuple[str, ...] = ("libc.so.6",),
    machine: int = X86_64,
    wide: bool = True,
) -> bytes:
    """Return a program: its header, three segments, the loader's name, the dynamic table and its names."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    offsets, at = [], 1
    for name in needed:
        offsets.append(at)
        at += len(name) + 1
    header_bytes, entry_bytes, word = (64, 56, "Q") if wide else (52, 32, "I")
    loader = interpreter.encode() + b"\0" if interpreter is not None else b""
    loader_at = header_bytes + 3 * entry_bytes
    names_at = loader_at + len(loader)
    dynamic_at = names_at + len(names)
    tags = [
        *((DT_NEEDED, offset) for offset in offsets),
        (DT_STRTAB, BASE + names_at), (DT_STRSZ, len(names)), (DT_NULL, 0),
    ]  # fmt: skip
    dynamic = b"".join(struct.pack(f"<2{word}", *pair) for pair in tags)

    def segment(kind: int, offset: int, size: int) -> bytes:
        if wide:
            return struct.pack("<2I6Q", kind, 4, offset, BASE + offset, 0, size, size, 8)
        return struct.pack("<8I", kind, offset, BASE + offset, 0, size, size, 4, 4)

    total = dynamic_at + len(dynamic)
    segments = [segment(PT_LOAD, 0, total), segment(PT_DYNAMIC, dynamic_at, len(dynamic))]
    segments.append(segment(PT_INTERP, loader_at, len(loader)) if loader else segment(0, 0, 0))
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    rest = struct.pack(
        f"<2HI3{word}I6H", 2, machine, 1, BASE, header_bytes, 0, 0, header_bytes, entry_bytes, 3, 0, 0, 0
    )
    return identity + rest + b"".join(segments) + loader + names + dynamic


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "library.so"
    path.write_bytes(elf(interpreter=None))
    return path


def program(tmp_path: Path, content: bytes, name: str = "program") -> str:
    path = tmp_path / name
    path.write_bytes(content)
    path.chmod(0o755)
    return str(path)


def test_a_dynamically_linked_program_is_accepted(tmp_path: Path, library: Path) -> None:
    require_countable([program(tmp_path, elf())], library)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (elf(interpreter=None), "statically linked"),
        (elf(interpreter="/lib/ld-musl-x86_64.so.1"), "Its loader is /lib/ld-musl-x86_64.so.1"),
        (elf(machine=AARCH64), "another CPU or word size"),
        (elf(wide=False), "another CPU or word size"),
        (elf(needed=("libc.so.6", "libasan.so.8")), "a sanitizer (libasan.so.8)"),
    ],
)
def test_what_the_library_can_not_be_loaded_into_is_refused(
    content: bytes, words: str, tmp_path: Path, library: Path
) -> None:
    path = program(tmp_path, content)
    with pytest.raises(LaunchError) as refused:
        require_countable([path, "argument"], library)
    assert words in refused.value.why
    assert path in refused.value.what
    assert refused.value.status == 125


def test_interpreters_of_scripts_are_followed_also_through_env(tmp_path: Path, library: Path) -> None:
    static = program(tmp_path, elf(interpreter=None), "static")
    env = program(tmp_path, elf(), "env")
    inner = program(tmp_path, f"#!{static} -x\n".encode(), "inner")
    for line in (f"#! {static}", f"#!{inner}", f"#!{env} -i A=1 {static}"):
        with pytest.raises(LaunchError, match="statically linked"):
            require_countable([program(tmp_path, f"{line}\nrest".encode(), "outer")], library)
    with pytest.raises(LaunchError, match="statically linked"):
        require_countable([env, "-i", "A=1", static], library)


def test_scripts_in_a_circle_and_ones_of_nothing_are_left_to_the_kernel(
    tmp_path: Path, library: Path
) -> None:
    circle = tmp_path / "circle"
    for content in (f"#!{circle}\n", "#!\n", "#!/not/there\n", "no program", ""):
        require_countable([program(tmp_path, content.encode(), "circle")], library)
    require_countable([str(tmp_path / "missing")], library)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_programs_with_anothers_rights_are_refused(tmp_path: Path, library: Path) -> None:
    path = program(tmp_path, elf())
    os.chown(path, 65534, 65534)
    for mode, word in ((0o4755, "setuid"), (0o2755, "setgid")):
        os.chmod(path, mode)  # noqa: PTH101 - a path in a string
        with pytest.raises(LaunchError, match=word):
            require_countable([path], library)
    os.chmod(path, 0o2745)  # noqa: PTH101 - without the group's x it is mandatory locking, not setgid
    require_countable([path], library)


def test_a_library_that_is_none_is_named(tmp_path: Path) -> None:
    path = program(tmp_path, elf())
    with pytest.raises(LaunchError, match="can not be read"):
        require_countable([path], tmp_path / "missing.so")
    with pytest.raises(LaunchError, match="no ELF"):
        require_countable([path], Path(program(tmp_path, b"text", "text.so")))


@given(position=st.integers(0, len(elf()) - 1), value=st.integers(0, 255), length=st.integers(0, len(elf())))
def test_a_damaged_program_is_refused_with_a_reason_or_left_to_the_kernel(
    position: int, value: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp()
    library = directory / "whole.so"
    library.write_bytes(elf(interpreter=None))
    content = bytearray(elf())
    content[position] = value
    # Nothing but a refusal leaves it.
    with suppress(LaunchError):
        require_countable([program(directory, bytes(content[:length]), "damaged")], library)
