"""The remedies of a diagnosis as a shell script to review: apply, persist, undo. Nothing is run here."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.record import Actor, CheckResult, Status
from cfctl.host.cpus import format_cpu_list
from cfctl.host.processes import process_counters
from cfctl.host.syscalls import SyscallError
from cfctl.host.view import HostView, UnreadableError
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.diagnose.diagnosis import Diagnosis

_WIDTH: Final = 100
_HEAD: Final = """\
#!/bin/sh
# {title}
# Read it before you run it; nothing is changed until you choose:
#
#   sh FILE now       change the running system
#   sh FILE persist   make the changes survive a reboot
#   sh FILE undo      put back the values read when this file was made, and take out what persist added
"""
# The functions of the script, written only when something calls them.
_FUNCTIONS: Final = {
    "run": """\
run() {
    echo "+ $*"
    "$@" || failed=1
}
""",
    "put": """\
# put VALUE FILE...: write a value to files of the kernel.
put() {
    value=$1
    shift
    for file in "$@"; do
        echo "+ $value > $file"
        echo "$value" > "$file" || failed=1
    done
}
""",
    "append": """\
# append LINE FILE: add a line that is not there yet.
append() {
    echo "+ $1 >> $2"
    grep -Fqx -- "$1" "$2" 2> /dev/null || echo "$1" >> "$2" || failed=1
}
""",
    "remove": """\
# remove LINE FILE: take a line out that append added.
remove() {
    [ -f "$2" ] || return 0
    echo "- $1 in $2"
    { grep -Fvx -- "$1" "$2" > "$2.cfctl" || [ $? -eq 1 ]; } && cat "$2.cfctl" > "$2" || failed=1
    rm -f "$2.cfctl"
}
""",
}
_TAIL: Final = """\
case "${{1:-}}" in
    now | persist | undo) ;;
    *)
        echo "usage: sh $0 now|persist|undo" >&2
        exit 2
        ;;
esac
failed=0
{calls}
exit "$failed"
"""
# Programs that only show something: running them changes nothing, so that a script needs them not.
_SHOWING: Final = frozenset(
    {"cfctl", "chronyc", "dmesg", "ethtool", "nstat", "pidstat", "ps", "ras-mc-ctl", "ss"}
)
# What of them changes something: ethtool(8).
_SETTING: Final = (["ethtool", "-C"], ["ethtool", "-G"])
# Source: kernel, Documentation/admin-guide/sysctl/vm.rst, dirty_bytes.
_RATIO_BESIDE: Final = {
    "vm.dirty_bytes": "vm.dirty_ratio", "vm.dirty_background_bytes": "vm.dirty_background_ratio",
}  # fmt: skip
_GLOB: Final = re.compile(r"/[A-Za-z0-9_./*-]+")


@dataclass(frozen=True, slots=True)
class _Steps:
    """The lines of one check: for each action the commands, and remarks on what is not one."""

    now: tuple[str, ...]
    persist: tuple[str, ...]
    undo: tuple[str, ...]
    remarks: tuple[str, ...]


def fix_script(diagnosis: Diagnosis, view: HostView, version: str) -> str:
    """Return a POSIX shell script with the remedies of a diagnosis's issues, and how to undo each.

    Values to put back are read from `view`. Each command is taken apart and quoted anew, so that no name
    of a captured host is read as shell. What is no command, is for someone else or only shows
    something stands in a comment.
    """
    issues = [result for result in diagnosis.checks if result.status is Status.ISSUE]
    steps = {result.id: _steps(result, view) for result in issues}
    sections = [_section(result, steps[result.id]) for result in issues]
    active = [result.id.lower() for result in issues if _is_active(steps[result.id])]
    title = f"Made by cfctl {version} for {len(issues)} issues (profile {diagnosis.profile})."
    parts = [_HEAD.format(title=title)]
    if active:
        parts.append("set -u\n")
    body = "\n".join(sections)
    parts += [text for name, text in _FUNCTIONS.items() if re.search(rf"^ +{name} ", body, re.MULTILINE)]
    parts.append(body or "# There is no issue to fix.\n")
    if active:
        parts.append(_TAIL.format(calls="\n".join(f'{name} "$1"' for name in active)))
    else:
        parts.append('echo "There is nothing here that a script can change."\n')
    return "\n".join(part for part in parts if part)


def _is_active(steps: _Steps) -> bool:
    return bool(steps.now or steps.persist or steps.undo)


def _section(result: CheckResult, steps: _Steps) -> str:
    lines = [f"# {result.id}  {result.severity}: {result.title}"]
    for label, text in (
        ("found", result.description), ("why", result.why), ("do", result.solution), ("warning", result.warning),
    ):  # fmt: skip
        lines += _comment(label, text)
    for remark in steps.remarks:
        lines += _comment("note", remark)
    if _is_active(steps):
        lines.append(f"{result.id.lower()}() {{")
        lines.append('    case "$1" in')
        for action, commands in (("now", steps.now), ("persist", steps.persist), ("undo", steps.undo)):
            body = [f"            {command}" for command in commands or (":",)]
            lines += [f"        {action})", *body, "            ;;"]
        lines += ["    esac", "}"]
    return "\n".join(lines) + "\n"


def _comment(label: str, text: str | None) -> list[str]:
    if not text:
        return []
    return textwrap.wrap(
        f"{label}: {safe_text(text, 1000)}", _WIDTH, initial_indent="#   ", subsequent_indent="#     ",
        break_on_hyphens=False,
    )  # fmt: skip


def _steps(result: CheckResult, view: HostView) -> _Steps:
    remarks: list[str] = []
    if result.actor is Actor.HOST_OPERATOR:
        remarks.append("this is for the host operator; nothing here can change it")
    undo: list[str] = []
    actions = []
    for commands in (result.commands.now, result.commands.persist):
        lines: list[str] = []
        for command in commands:
            _add(command, view, lines, undo, remarks)
        actions.append(lines)
    if not any(actions) and not remarks:
        remarks.append("there is no command for this")
    return _Steps(tuple(actions[0]), tuple(actions[1]), tuple(undo), tuple(remarks))


def _add(command: str, view: HostView, lines: list[str], undo: list[str], remarks: list[str]) -> None:
    """Add a command to `lines` and what undoes it to `undo`; what is none of either is a remark."""
    words = _words(command)
    match words:
        case ["echo", value, ">", path] if path.startswith("/"):
            lines.append(f"put {shlex.quote(value)} {shlex.quote(path)}")
            _undo_writes(view, [path[1:]], undo, remarks)
        case ["echo", value, "|", "tee", pattern] if _GLOB.fullmatch(pattern):
            lines.append(f"put {shlex.quote(value)} {pattern}")
            _undo_writes(view, view.matching(pattern[1:]), undo, remarks)
        case ["echo", line, ">>" | ">", path]:
            lines.append(f"append {shlex.quote(line)} {shlex.quote(path)}")
            undo.append(f"remove {shlex.quote(line)} {shlex.quote(path)}")
        case ["sysctl", "-w", setting] if "=" in setting:
            name = setting.partition("=")[0]
            lines.append(shlex.join(["run", *words]))
            _undo_by(_undo_of_sysctl(name, view), command, undo, remarks)
        case [program, *_] if program in _SHOWING and words[:2] not in _SETTING:
            remarks.append(f"to look: {command}")
        case [program, *_] if (
            _is_program(program) and "PID" not in words and not {"|", ">", ">>"} & set(words)
        ):
            lines.append(shlex.join(["run", *words]))
            _undo_by(_undo_of_program(words, view), command, undo, remarks)
        case _:
            remarks.append(f"by hand: {command}")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _is_program(word: str) -> bool:
    """Return whether a first word is a program: what is to be written elsewhere begins otherwise."""
    return bool(re.fullmatch(r"[a-z][a-z0-9-]*", word)) and word != "kernel"


def _undo_writes(view: HostView, paths: Iterable[str], undo: list[str], remarks: list[str]) -> None:
    for path in paths:
        old = _old_value(view, path)
        _undo_by(
            None if old is None else f"put {shlex.quote(old)} {shlex.quote('/' + path)}",
            f"/{path}",
            undo,
            remarks,
        )


def _undo_by(line: str | None, what: str, undo: list[str], remarks: list[str]) -> None:
    if line is not None:
        undo.append(line)
    else:
        remarks.append(f"the value before is not known, so that nothing undoes: {what}")


def _old_value(view: HostView, path: str) -> str | None:
    """Return what stands in a file: of a choice the word in brackets; None when it can not be read."""
    try:
        return view.choice(path)
    except UnreadableError:
        pass
    try:
        text = view.text(path)
    except UnreadableError:
        return None
    return text if text.isprintable() else None


def _undo_of_sysctl(name: str, view: HostView) -> str | None:
    old = _old_value(view, f"proc/sys/{name.replace('.', '/')}")
    if old == "0" and name in _RATIO_BESIDE:
        # 0 says that the ratio beside it counts, and is no value that can be written.
        name = _RATIO_BESIDE[name]
        old = _old_value(view, f"proc/sys/{name.replace('.', '/')}")
    return None if old is None else f"run sysctl -w {shlex.quote(f'{name}={old}')}"


def _undo_of_program(words: list[str], view: HostView) -> str | None:
    """Return the command that takes a program's effect back, None when there is none."""
    match words:
        case ["swapoff", "-a"]:
            return "run swapon -a"
        case ["systemctl", "disable", "--now", unit]:
            return f"run systemctl enable --now {shlex.quote(unit)}"
        case ["renice", "-n", _, "-p", pid] if pid.isdecimal():
            return _of_process(view, int(pid), "nice")
        case ["taskset", "-cp" | "-acp", _, pid] if pid.isdecimal():
            return _of_process(view, int(pid), "affinity")
        case ["chrt", _, "-p", _, pid] if pid.isdecimal():
            return _of_process(view, int(pid), "policy")
        case ["ethtool", "-C" | "-G" as option, link, *_]:
            return _of_link(view, option, link)
    return None


def _of_link(view: HostView, option: str, link: str) -> str | None:
    try:
        if option == "-G":
            return f"run ethtool -G {shlex.quote(link)} rx {view.syscalls.ring(link).rx}"
        old = view.syscalls.coalescing(link)
    except SyscallError:
        return None
    adaptive = "on" if old.adaptive_rx else "off"
    return f"run ethtool -C {shlex.quote(link)} adaptive-rx {adaptive} rx-usecs {old.rx_us}"


def _of_process(view: HostView, pid: int, what: str) -> str | None:
    try:
        if what == "nice":
            return f"run renice -n {process_counters(view, pid).nice} -p {pid}"
        if what == "affinity":
            return f"run taskset -cp {format_cpu_list(view.syscalls.affinity(pid))} {pid}"
        # A realtime policy has a priority, which is not among what a view answers.
        return f"run chrt -o -p 0 {pid}" if view.syscalls.policy(pid) == "OTHER" else None
    except (UnreadableError, SyscallError):
        return None
