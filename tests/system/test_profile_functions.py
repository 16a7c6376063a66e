"""Functions of programs that nobody here wrote, timed by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.profile_programs import counts, profile_run, pythons, run_cfctl

pytestmark = pytest.mark.system

SCRIPT = """
import asyncio, sys, threading
sys.setrecursionlimit(5000)

def plain(value):
    return value

def fails(value):
    raise ValueError(value)

def catches(value):
    try:
        fails(value)
    except ValueError:
        return plain(value)

def recursive(depth):
    return depth and recursive(depth - 1)

def generator():
    yield from range(3)

def thrown_into():
    try:
        yield 1
    except KeyError:
        yield 2

def abandoned():
    yield 1
    yield 2

async def coroutine():
    await asyncio.sleep(0)
    return 1

async def cancelled():
    await asyncio.Event().wait()

async def async_generator(count):
    for value in range(count):
        await asyncio.sleep(0)
        yield value

async def main():
    await asyncio.gather(*[coroutine() for _ in range(30)])
    task = asyncio.ensure_future(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    for count in range(4):
        [value async for value in async_generator(count)]
    early = async_generator(5)
    await early.__anext__()
    await early.aclose()

class Worker(threading.Thread):
    def run(self):
        for value in range(50):
            plain(value)

def later():
    class Late:
        def method(self):
            return [plain(value) for value in range(2)]
    return Late().method()

for value in range(100):
    plain(value)
for value in range(20):
    catches(value)
recursive(100)
list(generator())
thrown = thrown_into()
next(thrown), thrown.throw(KeyError), list(thrown)
for _ in range(20):
    next(abandoned())
    for value in abandoned():
        break
never_started = abandoned()
workers = [Worker() for _ in range(4)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
later()
asyncio.run(main())
print("output of the program")
print("message of the program", file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture(autouse=True)
def segment_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))
    if "python" in request.fixturenames and request.getfixturevalue("python") != sys.executable:
        # Another Python has its own cfctl; a source tree with our compiled core is of no use to it.
        monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path / "segments"


@pytest.mark.parametrize("python", pythons())
def test_every_sort_of_function_of_a_script_is_counted_exactly(python: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    names = ["plain", "fails", "catches", "recursive", "Worker.run", "later.<locals>.Late.method", "generator",
             "thrown_into", "abandoned", "coroutine", "cancelled", "async_generator", "plane"]  # fmt: skip
    ended, report = profile_run(
        [python, str(tmp_path / "script.py")],
        *[f"__main__:{name}" for name in names],
        report=tmp_path / "r.json",
    )
    assert ended.returncode == 7
    assert ended.stdout == "output of the program\n"
    assert "message of the program" in ended.stderr
    assert counts(report) == {
        "__main__:plain": 100 + 20 + 4 * 50 + 2,
        "__main__:fails": 20,
        "__main__:catches": 20,
        "__main__:recursive": 101,
        "__main__:Worker.run": 4,
        "__main__:later.<locals>.Late.method": 1,
        "__main__:generator": 1,
        "__main__:thrown_into": 1,
        "__main__:abandoned": 40,
        "__main__:coroutine": 30,
        "__main__:cancelled": 1,
        "__main__:async_generator": 5,
    }
    errors = {operation["name"]: operation["errors"] for operation in report["operations"]}
    assert errors["__main__:fails"] == 20
    assert errors["__main__:cancelled"] == 1
    assert sum(errors.values()) == 21
    assert report["samples_lost"] == 0
    assert report["problems"] == []
    assert "Never called: __main__:plane." in ended.stderr
    assert "Nearest to __main__:plane among the functions that ran: __main__:plain" in ended.stderr


@pytest.mark.parametrize("python", pythons())
def test_json_tool_of_the_standard_library_is_profiled(python: str, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([{"key": value} for value in range(500)]))
    ended, report = profile_run(
        [python, "-m", "json.tool", str(tmp_path / "in.json"), str(tmp_path / "out.json")],
        "json.decoder:JSONDecoder.decode",
        "json:dump*",
        report=tmp_path / "r.json",
    )
    assert ended.returncode == 0, ended.stderr
    assert counts(report)["json.decoder:JSONDecoder.decode"] == 1
    assert (tmp_path / "out.json").stat().st_size > 0


@pytest.mark.parametrize("python", pythons())
def test_compileall_of_the_standard_library_is_profiled(python: str, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for number in range(30):
        (package / f"m{number}.py").write_text(f"VALUE = {number}\n")
    ended, report = profile_run(
        [python, "-m", "compileall", "-q", str(package)],
        "py_compile:compile",
        "__main__:compile_file",
        report=tmp_path / "r.json",
    )
    assert ended.returncode == 0, ended.stderr
    assert counts(report) == {"py_compile:compile": 30, "__main__:compile_file": 30}


def test_pip_is_profiled(tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="pip is not installed here")
    ended, report = profile_run(
        [sys.executable, "-m", "pip", "--version"],
        "pip._internal.cli.main_parser:create_main_parser",
        "pip._internal.cli.main_parser:parse_command",
        report=tmp_path / "r.json",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("pip ")
    found = counts(report)
    assert found["pip._internal.cli.main_parser:create_main_parser"] == 1
    assert found["pip._internal.cli.main_parser:parse_command"] == 1


@pytest.mark.parametrize("python", pythons())
def test_the_program_sees_its_own_path_and_sitecustomize(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("LOADED = 'by the application'\n")
    (tmp_path / "script.py").write_text(
        "import json, os, subprocess, sys\n"
        "def seen(): return [sys.path[1], os.environ.get('PYTHONPATH'),"
        " sys.modules['sitecustomize'].LOADED, [n for n in os.environ if 'PROFILE_REQUEST' in n]]\n"
        "print(json.dumps(seen()))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    ended, report = profile_run(
        [python, str(tmp_path / "script.py")], "__main__:seen", report=tmp_path / "r.json"
    )
    own = str(tmp_path / "own")
    assert json.loads(ended.stdout) == [own, own, "by the application", []]
    assert counts(report) == {"__main__:seen": 1}


@pytest.mark.parametrize("python", pythons())
def test_without_one_of_its_own_the_program_sees_what_it_would_without_us(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, sys\ndef f(): pass\nf()\n"
        "print('sitecustomize' in sys.modules, os.environ.get('PYTHONPATH'), any('inject' in p for p in sys.path))"
    )
    (tmp_path / "script.py").write_text(code)
    path = str(tmp_path / "empty")
    monkeypatch.setenv("PYTHONPATH", path)
    # Some distributions have one of the interpreter's.
    plain = subprocess.run([python, str(tmp_path / "script.py")], capture_output=True, text=True).stdout
    ended, report = profile_run(
        [python, str(tmp_path / "script.py")], "__main__:f", report=tmp_path / "r.json"
    )
    assert plain.endswith(f" {path} False\n")
    assert ended.stdout == plain, ended.stderr
    assert counts(report) == {"__main__:f": 1}
    assert "Error in sitecustomize" not in ended.stderr


def test_children_are_followed_on_demand_only(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text("def f(): pass\nf()\n")
    (tmp_path / "parent.py").write_text(
        f"import subprocess, sys\ndef f(): pass\nf()\nsubprocess.run([sys.executable, {str(tmp_path / 'child.py')!r}])\n"
    )
    command = [sys.executable, str(tmp_path / "parent.py")]
    _, alone = profile_run(command, "__main__:f", report=tmp_path / "alone.json")
    assert counts(alone) == {"__main__:f": 1}
    followed_file = tmp_path / "followed.json"
    run_cfctl(
        "profile", "run", "--follow-children", "--function", "__main__:f", "--json", "-o", str(followed_file),
        "--", *command,
    )  # fmt: skip
    followed = json.loads(followed_file.read_text())
    assert counts(followed) == {"__main__:f": 2}
    assert len(followed["processes"]) == 2


@pytest.mark.parametrize("python", pythons())
def test_a_program_with_its_own_profiler_keeps_it(python: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import cProfile\ndef f(): pass\nprofile = cProfile.Profile()\nf()\nprofile.enable()\nf()\n"
        "profile.disable()\nprint(len(profile.getstats()) > 0)\n"
    )
    ended, report = profile_run(
        [python, str(tmp_path / "script.py")], "__main__:f", report=tmp_path / "r.json"
    )
    assert ended.stdout == "True\n", ended.stderr
    assert counts(report)["__main__:f"] >= 1


BALANCE = """
import random, sys
chance = random.Random(int(sys.argv[1]))
started = failed = leaves = 0

def leaf():
    global leaves
    leaves += 1

def body(depth):
    global started, failed
    started += 1
    while True:
        leaf()
        try:
            word = yield depth
        except KeyError:
            continue
        if word == "fail":
            failed += 1
            raise ValueError
        if word == "return":
            return
        if word == "deeper" and depth < 4:
            try:
                yield from body(depth + 1)
            except ValueError:
                leaf()

async def step(word):
    global started, failed
    started += 1
    if word == "fail":
        failed += 1
        raise ValueError
    return leaf()

async def chain(words):
    for word in words:
        try:
            await step(word)
        except ValueError:
            leaf()

alive = []
for _ in range(3000):
    word = chance.choice(["new", "go", "go", "deeper", "fail", "return", "throw", "close", "drop", "await"])
    if word == "new" or not alive:
        alive.append(body(0))
        next(alive[-1])
        continue
    generator = chance.choice(alive)
    try:
        if word == "throw":
            generator.throw(KeyError)
        elif word == "close":
            generator.close()
        elif word == "await":
            chain(chance.choices(["go", "fail"], k=3)).send(None)
        elif word != "drop":
            generator.send(word)
    except (ValueError, StopIteration):
        pass
    if word in {"close", "drop"} or generator.gi_frame is None:
        alive.remove(generator)
    del generator
del alive
leaf()
print(started, failed, leaves)
"""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("python", pythons())
def test_generators_balance_however_they_are_driven(python: str, seed: int, tmp_path: Path) -> None:
    """Random sends, throws, closes and drops of interleaved, nested generators: exact counts, no span left."""
    (tmp_path / "script.py").write_text(BALANCE)
    command = [python, str(tmp_path / "script.py"), str(seed)]
    ended, report = profile_run(
        command, "__main__:body", "__main__:step", "__main__:leaf", report=tmp_path / "r.json"
    )
    assert ended.returncode == 0, ended.stderr
    started, failed, leaves = map(int, ended.stdout.split())
    found = counts(report)
    assert found["__main__:leaf"] == leaves
    assert found["__main__:body"] + found["__main__:step"] == started
    assert sum(operation["errors"] for operation in report["operations"]) >= failed
    assert (report["samples_lost"], report["problems"]) == (0, [])


STRESS = """
import asyncio, os, sys, threading
sys.setswitchinterval(1e-5)

def leaf():
    pass

def fails():
    leaf()
    raise KeyError

async def task(depth):
    leaf()
    await asyncio.sleep(0)
    return depth and await task(depth - 1)

def steps(count):
    for value in range(count):
        leaf()
        yield value

def work():
    for _ in range(2000):
        leaf()
        try:
            fails()
        except KeyError:
            pass
    async def tasks():
        await asyncio.gather(*[task(3) for _ in range(100)])
    asyncio.run(tasks())
    for pair in zip(steps(50), steps(50)):
        leaf()

threads = [threading.Thread(target=work) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]

def forks():
    leaf()
    child = os.fork()
    if child == 0:
        leaf()
        return
    os.waitpid(child, 0)

forks()
"""


@pytest.mark.parametrize("python", pythons())
def test_threads_tasks_and_a_fork_under_stress_are_counted_exactly(python: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(STRESS)
    names = ["leaf", "fails", "task", "steps", "work", "forks"]
    command = [python, "-W", "ignore", str(tmp_path / "script.py")]
    ended, report = profile_run(command, *[f"__main__:{n}" for n in names], report=tmp_path / "r.json")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert counts(report) == {
        # Of the second generator of a pair, the last step is not taken.
        "__main__:leaf": 6 * (2000 + 2000 + 400 + 150) + 2,
        "__main__:fails": 6 * 2000,
        "__main__:task": 6 * 400,
        "__main__:steps": 6 * 2,
        "__main__:work": 6,
        # Begun before the fork, and ended on both sides.
        "__main__:forks": 2,
    }
    errors = {operation["name"]: operation["errors"] for operation in report["operations"]}
    assert sum(errors.values()) == errors["__main__:fails"] == 6 * 2000
    assert (report["samples_lost"], report["problems"], len(report["processes"])) == (0, [], 2)


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize(("status", "errors"), [("0", 0), ("", 0), ("4", 1)])
def test_a_program_that_ends_well_by_sys_exit_has_no_error(
    python: str, status: str, errors: int, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(f"import sys\ndef main(): sys.exit({status})\nmain()\n")
    ended, report = profile_run(
        [python, str(tmp_path / "script.py")], "__main__:main", report=tmp_path / "r.json"
    )
    assert ended.returncode == int(status or 0)
    # The profile function of 3.11 is not told which exception leaves a call.
    has_monitoring = subprocess.run([python, "-c", "import sys; sys.monitoring"], capture_output=True)
    assert report["operations"][0]["errors"] == (errors if has_monitoring.returncode == 0 else 1)
