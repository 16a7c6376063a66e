"""`cfctl monitor`: the machine and its programs against targets, live, recorded or scraped."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl import config
from cfctl.cli.live import AllUsersOption, IntervalOption, interval_s, show_live
from cfctl.cli.monitor_commands import session
from cfctl.cli.monitor_commands.rules import rules
from cfctl.cli.output import (
    TEXT,
    FormatOption,
    JsonOption,
    Output,
    OutputOption,
    UnitOption,
    check_writable,
    message,
    stdout_is_terminal,
)
from cfctl.cli.target_options import TargetOption, TargetsOption, load_targets
from cfctl.cli.typer_app import command_app
from cfctl.errors import InputError, os_error_reason
from cfctl.units import parse_bytes, parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cfctl.monitor.publishing import Published
    from cfctl.monitor.targets import Target
    from cfctl.monitor.watch import Monitor, Observation
    from cfctl.monitor.web import Exporter, MetricsText

app = command_app("The machine and its programs against targets, live, recorded or scraped.")
app.command()(rules)


@app.callback(invoke_without_command=True)
def monitor(
    context: typer.Context,
    pid: Annotated[
        list[int] | None,
        typer.Option("--pid", min=1, metavar="PID", help="This process only; repeatable."),
    ] = None,
    all_users: AllUsersOption = False,
    interval: IntervalOption = "1s",
    duration: Annotated[
        str | None, typer.Option("--duration", metavar="TIME", help="End after this time.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End after one interval.")] = False,
    targets: TargetsOption = None,
    target: TargetOption = None,
    record: Annotated[
        str | None, typer.Option("--record", metavar="FILE", help="Append each observation to FILE.")
    ] = None,
    record_limit: Annotated[
        str, typer.Option("--record-limit", metavar="SIZE", help="How much FILE and FILE.1 may hold.")
    ] = "256MiB",
    replay: Annotated[
        str | None, typer.Option("--replay", metavar="FILE", help="Show a recording instead of the machine.")
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", min=0.0, metavar="N", help="Replay N times as fast; 0 does not wait.")
    ] = 1.0,
    on_alert: Annotated[
        str | None,
        typer.Option("--on-alert", metavar="COMMAND", help="Run COMMAND, without a shell, for each alert."),
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option("--prometheus", metavar="ADDRESS:PORT", help="Serve the metrics over HTTP.")
    ] = None,
    tls_certificate: Annotated[
        str | None, typer.Option("--tls-certificate", metavar="FILE", help="Serve them over TLS; PEM.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option("--tls-key", metavar="FILE", help="Key of the certificate; PEM.")
    ] = None,
    password_file: Annotated[
        str | None,
        typer.Option("--password-file", metavar="FILE", help="Ask for the password in FILE's first line."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without TLS and password.")
    ] = False,
    textfile: Annotated[
        str | None, typer.Option("--textfile", metavar="FILE", help="Write the metrics to FILE.prom as well.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Keep the clock calibrated meanwhile.")
    ] = True,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Watch the machine and its instrumented programs, and alert on targets that are missed.

    On a terminal a dashboard, else one line each interval, or one JSON object with --json. Without
    --pid it looks at every program of this user that records into a segment.

    A target alerts when its whole uncertainty interval has missed the threshold for the target's
    `for`, and ends when it has been on the good side of the recovery threshold for
    `keep-firing-for`. Each change is told once: on stderr, and to the command of --on-alert, which
    gets it as JSON on its standard input. With an alert comes what a quick diagnosis says of its cause.

    SIGHUP reads the targets anew, and keeps the old ones when the file can not be used; SIGTERM ends
    it. The metrics are served on the loopback address only, unless there are a certificate and a
    password, or --insecure:

      cfctl monitor --prometheus 127.0.0.1:9464

    With --record a recording is kept that survives a kill, and that --replay shows again.
    """
    if context.invoked_subcommand is not None:
        return
    where = Output.resolve(format, json, output, unit)
    with contextlib.ExitStack() as stack:
        stack.enter_context(session.ended_by_sigterm())
        reloading = session.Reloading(lambda: _read_anew(targets, target or ()))
        made = _monitor(reloading, pid, all_users, interval)
        if replay is not None:
            observations = _replayed(made, replay, speed)
        else:
            _attach_outputs(
                made, stack, where, record, record_limit, on_alert,
                (prometheus, tls_certificate, tls_key, password_file, insecure), textfile,
            )  # fmt: skip
            if calibrate:
                _keep_calibrated(stack)
            reloading.listen()
            observations = made.observations()
        _show(made, where, session.limited(observations, _seconds(duration)), once)


def _read_anew(file: str | None, names: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets as the files hold them now, not as they were when the command began."""
    from cfctl.monitor.targets import without_load

    config.load.cache_clear()
    return without_load(load_targets(file, names), names)


def _seconds(duration: str | None) -> float | None:
    return None if duration is None else parse_time_ns(duration) / 1e9


def _monitor(reloading: session.Reloading, pids: list[int] | None, all_users: bool, interval: str) -> Monitor:
    from cfctl.monitor.alerts import AlertBook
    from cfctl.monitor.explain import explain
    from cfctl.monitor.metric import Subject
    from cfctl.monitor.segments import LiveSegments
    from cfctl.monitor.snapshot import Collector
    from cfctl.monitor.watch import Monitor

    collector = Collector(Subject(tuple(pids) if pids else None, all_users), LiveSegments())
    book = AlertBook(reloading.load(), explain)
    return Monitor(
        collector, book, interval_s(interval), reload=reloading, targets_current=lambda: reloading.current
    )


def _show(made: Monitor, where: Output, observations: Iterator[Observation], once: bool) -> None:
    from cfctl.render.monitor import Dashboard, summary_line

    dashboard = Dashboard(made.book, made.history)
    if once:
        where.emit(next(observations), dashboard.render)
        return
    show_live(observations, where, dashboard.render, summary_line)


def _replayed(made: Monitor, file: str, speed: float) -> Iterator[Observation]:
    import time

    from cfctl.monitor.recording import replay

    last_ns = None
    for observation in replay(Path(file)):
        if last_ns is not None and speed > 0:
            time.sleep(max(0, observation.snapshot.unix_ns - last_ns) / 1e9 / speed)
        last_ns = observation.snapshot.unix_ns
        made.history.add(observation.snapshot)
        yield observation


def _keep_calibrated(stack: contextlib.ExitStack) -> None:
    from cfctl.clock.history import saved_calibration
    from cfctl.clock.keeper import start_auto_recalibration

    keeper = start_auto_recalibration(calibration=saved_calibration())
    stack.callback(keeper.stop)


def _attach_outputs(
    made: Monitor,
    stack: contextlib.ExitStack,
    where: Output,
    record: str | None,
    record_limit: str,
    on_alert: str | None,
    web: tuple[str | None, str | None, str | None, str | None, bool],
    textfile: str | None,
) -> None:
    """Add the listeners that were asked for; what they hold is closed with the stack."""
    made.listeners.append(session.alert_log(where.format == TEXT and stdout_is_terminal()))
    if record is not None:
        from cfctl.monitor.recording import Recorder

        recorder = stack.enter_context(Recorder(Path(record), parse_bytes(record_limit)))
        made.listeners.append(recorder.append)
    if on_alert is not None:
        made.listeners.append(_hook_listener(on_alert, stack))
    if web[0] is None and any(web):
        raise InputError(
            "A certificate, a password and --insecure are about serving the metrics.", "They are not served.",
            "Give --prometheus too.",
        )  # fmt: skip
    if web[0] is not None or textfile is not None:
        from cfctl.monitor.publishing import Published

        published = Published()
        made.listeners.append(published.update)
        if web[0] is not None:
            stack.callback(_exporter(web, published.text).close)
        if textfile is not None:
            check_writable(textfile)
            made.listeners.append(lambda _: _write_textfile(published, textfile))


def _exporter(
    web: tuple[str | None, str | None, str | None, str | None, bool],
    text: MetricsText,
) -> Exporter:
    from cfctl.monitor.web import Access, Exporter, parse_address, read_password

    address, certificate, key, password_file, insecure = web
    host, port = parse_address(address or "")
    access = Access(
        host, port, Path(certificate) if certificate else None, Path(key) if key else None,
        read_password(Path(password_file)) if password_file else None, insecure,
    )  # fmt: skip
    exporter = Exporter(access, text)
    scheme = "https" if certificate else "http"
    message(f"cfctl: metrics at {scheme}://{f'[{host}]' if ':' in host else host}:{exporter.port}/metrics")
    return exporter


def _write_textfile(published: Published, path: str) -> None:
    """Write the metrics; a full disk now is no reason to stop watching."""
    try:
        published.write(Path(path))
    except OSError as error:
        message(f"cfctl: {path} could not be written. {os_error_reason(error)}")


def _hook_listener(command: str, stack: contextlib.ExitStack) -> Callable[[Observation], None]:
    from cfctl.monitor.hook import CommandHook

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--on-alert '{command}' can not be read.", f"{error}.") from error
    hook = CommandHook(words, lambda sentence: message(f"cfctl: {sentence}"))
    stack.callback(hook.close)

    def run(observation: Observation) -> None:
        hook.poll()
        for transition in observation.transitions:
            hook(transition)

    return run
