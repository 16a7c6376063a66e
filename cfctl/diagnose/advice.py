"""Remedies: exact commands, who can apply them, and only such as this kernel knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.record import Actor, Commands, Scope
from cfctl.host.view import HostView, UnreadableError

if TYPE_CHECKING:
    from cfctl.host.environment import Environment

SYSTEMD: Final = "run/systemd/system"
SYSCTL_FILE: Final = "/etc/sysctl.d/90-cfctl.conf"


@dataclass(frozen=True, slots=True)
class Command:
    """A command for a shell; `requires` is the file without which it can not work."""

    text: str
    requires: str | None = None


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do about an issue: commands for now and for good, a warning if it trades safety.

    `solution` is the sentence where it differs from the check's own on this host.
    """

    now: tuple[Command, ...] = ()
    persist: tuple[Command, ...] = ()
    warning: str | None = None
    privilege: str | None = "root"
    solution: str | None = None

    def and_also(self, other: Fix) -> Fix:
        """Return this fix with the other's commands after its own."""
        return replace(
            self,
            now=self.now + other.now,
            persist=self.persist + other.persist,
            warning=self.warning or other.warning,
            privilege=self.privilege or other.privilege,
        )


def sysctl(name: str, value: int | str, warning: str | None = None) -> Fix:
    """Return the fix that sets a sysctl now and in sysctl.d."""
    path = f"proc/sys/{name.replace('.', '/')}"
    return Fix(
        (Command(f"sysctl -w {name}={value}", path),),
        (Command(f"echo '{name} = {value}' >> {SYSCTL_FILE}", path),),
        warning,
    )


def write(path: str, value: int | str, persist: str | None = None) -> Fix:
    """Return the fix that writes a value to a file of /sys or /proc; `persist` is a kernel parameter."""
    return Fix((Command(f"echo {value} > /{path}", path),), (kernel_parameter(persist),) if persist else ())


def boot(parameters: str, warning: str | None = None, solution: str | None = None) -> Fix:
    """Return the fix that adds parameters to the kernel command line."""
    return Fix((), (kernel_parameter(parameters),), warning, solution=solution)


def in_unit(setting: str) -> Command:
    """Return the instruction to add a setting to the program's unit, where systemd runs."""
    return Command(f"{setting} in the [Service] section of the program's systemd unit", SYSTEMD)


def run(
    *now: str | Command,
    persist: tuple[str | Command, ...] = (),
    privilege: str | None = "root",
    solution: str | None = None,
) -> Fix:
    """Return the fix that runs programs."""
    return Fix(
        tuple(Command(each) if isinstance(each, str) else each for each in now),
        tuple(Command(each) if isinstance(each, str) else each for each in persist),
        privilege=privilege,
        solution=solution,
    )


def kernel_parameter(parameters: str) -> Command:
    """Return the instruction to add parameters to the kernel command line.

    Each boot loader has its own way to do it, so that there is no one command.
    """
    return Command(f"kernel command line: {parameters}")


def actor_for(scope: Scope, environment: Environment, kernel_is_writable: bool) -> Actor:
    """Return who can apply a remedy of a scope on this host."""
    if scope is Scope.PROCESS:
        return Actor.YOU
    if scope is Scope.MACHINE and environment.is_guest:
        return Actor.HOST_OPERATOR
    if environment.is_container and not kernel_is_writable:
        return Actor.HOST_OPERATOR
    return Actor.YOU


def kernel_is_writable(view: HostView) -> bool:
    """Return whether /sys and /proc/sys are mounted for writing, as they are not in most containers."""
    try:
        mounts = view.lines("proc/self/mountinfo")
    except UnreadableError:
        return False
    # The last mount on a path hides the earlier ones: proc(5), mountinfo.
    writable: dict[str, bool] = {}
    for line in mounts:
        fields = line.split()
        if len(fields) > 5:
            writable[fields[4]] = "rw" in fields[5].split(",")
    return writable.get("/sys", False) and writable.get("/proc/sys", writable.get("/proc", False))


def addressed(fix: Fix, solution: str, actor: Actor, view: HostView) -> tuple[str, Commands]:
    """Return a solution as a sentence for its actor, and the commands that exist on this kernel.

    What the host operator has to do is no command for this system's shell: it becomes a request.
    """
    now = tuple(c.text for c in fix.now if c.requires is None or view.exists(c.requires))
    persist = tuple(c.text for c in fix.persist if c.requires is None or view.exists(c.requires))
    if actor is not Actor.HOST_OPERATOR:
        return solution, Commands(now, persist)
    request = f"ask the host operator: {solution[:1].lower()}{solution[1:].rstrip('.')}"
    wish = (now or persist)[:1]
    return (f"{request} ({wish[0]})." if wish else f"{request}."), Commands()
