"""The exporter's server: who may read, what a slow, large or wrong request does."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.errors import CfctlError, InputError
from cfctl.monitor import web
from cfctl.monitor.web import Access, Exporter, check_access, parse_address, read_password


def text(openmetrics: bool, names: frozenset[str]) -> bytes:
    families = {"cfctl_test": b"cfctl_test 7.0\n", "cfctl_other": b"cfctl_other 8.0\n"}
    lines = [line for name, line in families.items() if not names or name in names]
    return b"".join(lines) + (b"# EOF\n" if openmetrics else b"")


@contextlib.contextmanager
def serving(**access: object) -> Iterator[Exporter]:
    exporter = Exporter(Access("127.0.0.1", 0, **access), text)  # type: ignore[arg-type]
    try:
        yield exporter
    finally:
        exporter.close()


def get(exporter: Exporter, path: str = "/metrics", headers: dict[str, str] | None = None) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{exporter.port}{path}", headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_served_as_text_and_as_openmetrics() -> None:
    with serving() as exporter:
        status, answer = get(exporter)
        assert (status, "cfctl_test 7.0" in answer) == (200, True)
        status, answer = get(exporter, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.endswith("# EOF\n")


def test_a_query_chooses_families_by_name() -> None:
    with serving() as exporter:
        _, answer = get(exporter, "/metrics?name[]=cfctl_other")
    assert "cfctl_other" in answer
    assert "cfctl_test" not in answer


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x", "text/plain; version=a.b", "*/*;q=\xff", "," * 9999]
)
def test_whatever_a_peer_accepts_it_gets_metrics_and_nothing_is_told_on_stderr(
    accept: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving() as exporter:
        assert get(exporter, headers={"Accept": accept})[0] == 200
    assert capfd.readouterr().err == ""


def test_a_peer_that_stops_reading_is_left_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web._Handler, "timeout", 0.2)
    monkeypatch.setitem(globals(), "text", lambda _openmetrics, _names: b"x" * (64 << 20))
    with serving() as exporter, socket.create_connection(("127.0.0.1", exporter.port), timeout=20) as peer:
        peer.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        while exporter._server._open:
            time.sleep(0.01)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), (":9464", ("127.0.0.1", 9464)), ("[::1]:80", ("::1", 80))],
)
def test_an_address_has_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["9464", "", "host:", "host:x", "host:70000", "host:-1", "host:1.5"])
def test_an_address_without_a_usable_port_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="Write it like"):
        parse_address(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.evil.org"])
def test_only_the_loopback_needs_neither_certificate_nor_password(host: str) -> None:
    certificate = Path("c.pem")
    for refused in (Access(host, 1), Access(host, 1, certificate), Access(host, 1, password="p")):
        with pytest.raises(InputError, match="Other machines"):
            check_access(refused)
    check_access(Access(host, 1, certificate, password="p"))
    check_access(Access(host, 1, insecure=True))
    for loopback in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        check_access(Access(loopback, 1))


def test_a_password_is_asked_for_and_a_wrong_one_refused() -> None:
    def basic(secret: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"any:{secret}".encode()).decode()}

    with serving(password="geheim:ß") as exporter:
        assert get(exporter)[0] == 401
        for wrong in (
            basic("x"),
            basic(""),
            {"Authorization": "Basic %%%"},
            {"Authorization": "Bearer geheim:ß".encode().decode("latin-1")},
        ):
            assert get(exporter, headers=wrong)[0] == 401
        assert get(exporter, headers=basic("geheim:ß"))[0] == 200


def test_a_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_text("secret \nmore\n")
    assert read_password(file) == "secret "
    for content in (b"", b"\n", b"\xff\n"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="no password"):
            read_password(file)
    with pytest.raises(InputError, match="no password"):
        read_password(tmp_path / "missing")


def test_an_address_in_use_is_one_sentence() -> None:
    with serving() as exporter, pytest.raises(InputError, match="can not be served"):
        Exporter(Access("127.0.0.1", exporter.port), text)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a self-signed certificate with its key in one file."""
    pem = tmp_path / "c.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-keyout", tmp_path / "k", "-out", tmp_path / "c"],
        capture_output=True,
    ) if _has_openssl() else None  # fmt: skip
    if made is None or made.returncode:
        pytest.skip("openssl(1) can not make a certificate here")
    pem.write_bytes((tmp_path / "c").read_bytes() + (tmp_path / "k").read_bytes())
    return pem


def _has_openssl() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(["openssl", "version"], capture_output=True).returncode == 0
    return False


def test_metrics_are_served_over_tls_while_a_silent_peer_waits(certificate: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with serving(certificate=certificate) as exporter, socket.create_connection(("127.0.0.1", exporter.port)):
        connection = http.client.HTTPSConnection("127.0.0.1", exporter.port, context=context, timeout=20)
        connection.request("GET", "/metrics")
        assert b"cfctl_test" in connection.getresponse().read()
        connection.close()


def test_an_unusable_certificate_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("no certificate")
    with pytest.raises(CfctlError, match="can not be used"), serving(certificate=tmp_path / "c"):
        pass


@pytest.mark.parametrize(
    "request_bytes",
    [b"\r\n\r\n", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"x" * 500,
     b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"h: v\r\n" * 200 + b"\r\n",
     b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"DELETE / HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_a_wrong_or_oversized_request_gets_no_metrics_and_leaves_the_server_well(
    request_bytes: bytes,
) -> None:
    with serving() as exporter:
        with socket.create_connection(("127.0.0.1", exporter.port), timeout=20) as peer:
            with contextlib.suppress(OSError):
                peer.sendall(request_bytes)
                peer.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                assert b"cfctl_test" not in peer.recv(1 << 20)
        assert get(exporter)[0] == 200


def test_beyond_the_most_connections_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 4)
    with serving() as exporter, contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", exporter.port))) for _ in range(10)
        ]
        assert get(exporter)[0] == 200
        slow[0].settimeout(20)
        assert slow[0].recv(1) == b""


def test_a_connection_that_takes_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "CONNECTION_S", 0.0)
    with serving() as exporter, socket.create_connection(("127.0.0.1", exporter.port), timeout=20) as slow:
        slow.sendall(b"GET / HT")
        assert slow.recv(1) == b""


def test_a_scrape_answers_under_200_slow_connections() -> None:
    with serving() as exporter, contextlib.ExitStack() as stack:
        for _ in range(200):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", exporter.port)))
            peer.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        assert get(exporter)[0] == 200
        assert threading.active_count() < web.MAX_CONNECTIONS + 50


def test_closing_ends_the_server() -> None:
    with serving() as exporter:
        port = exporter.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
