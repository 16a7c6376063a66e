"""The metrics over HTTP: loopback, or TLS and a password; bounded in connections, time and size."""

from __future__ import annotations

import base64
import hmac
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client.exposition import ThreadingWSGIServer

from cfctl.errors import InputError, os_error_reason

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
MetricsText = Callable[[bool, frozenset[str]], bytes]

# A scrape takes milliseconds; who has not sent a request and read its answer by then is in the way.
CONNECTION_S: Final = 10.0
# Each connection is a thread; beyond this the oldest one makes room.
MAX_CONNECTIONS: Final = 256
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_MAX_SECRET_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Access:
    """Where the metrics are served and to whom; `password` and the certificate are for other machines."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    password: str | None = None
    insecure: bool = False


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of "127.0.0.1:9464", "[::1]:9464" or ":9464"; raises InputError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise InputError(f"'{text}' is no address.", "It has no port.", "Write it like '127.0.0.1:9464'.")
    return host, int(port)


def check_access(access: Access) -> None:
    """Raise InputError for an address that others can reach without both a certificate and a password.

    Also for a key without its certificate: whoever names one wants TLS.
    """
    if access.key and not access.certificate:
        raise InputError(
            f"The key {access.key} is of no use.",
            "There is no certificate to it.",
            "Give --tls-certificate too.",
        )
    if _is_loopback(access.host) or access.insecure or (access.certificate and access.password):
        return
    raise InputError(
        f"The metrics are not served on {access.host}.",
        "Other machines could read them: the address is not the loopback's.",
        "Give a certificate and a password file, or --insecure.",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_password(path: Path) -> str:
    """Return the password in a file's first line; raises InputError for an unusable or empty file."""
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_SECRET_BYTES).decode("utf-8", "strict").rstrip("\r\n")
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else "It is no UTF-8 text."
        raise InputError(f"{path} holds no password.", why, "Name another file.") from error
    if not line:
        raise InputError(f"{path} holds no password.", "Its first line is empty.", "Name another file.")
    return line


def _app(text: MetricsText) -> WsgiApp:
    """Return the app that answers GET, on any path; `name[]` in a query chooses families."""

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET"), ("Content-Type", "text/plain")])
            return [b"There is only GET.\n"]
        openmetrics = "application/openmetrics-text" in environ.get("HTTP_ACCEPT", "")
        names = frozenset(parse_qs(environ.get("QUERY_STRING", "")).get("name[]", ()))
        body = text(openmetrics, names)
        start_response("200 OK", [("Content-Type", OPENMETRICS if openmetrics else TEXT)])
        return [body]

    return serve


class _Handler(WSGIRequestHandler):
    """Logs nothing and sends no name of a server; a stalled peer is left after CONNECTION_S."""

    timeout = CONNECTION_S
    server_version = "cfctl"
    sys_version = ""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape each second is no news."""

    def get_stderr(self) -> Any:
        """Return where wsgiref tells of errors, such as a peer that stopped reading: nowhere."""
        return io.StringIO()

    def handle(self) -> None:
        """Handle one request; a peer that is gone, or speaks no TLS, is no error of ours."""
        with suppress(OSError, ValueError):
            super().handle()


class _Server(ThreadingWSGIServer):
    """Knows its connections and how old they are, and closes those that take too long."""

    request_queue_size = 128

    def __init__(self, address: Any, handler: type[WSGIRequestHandler], family: int) -> None:
        self.address_family = family
        self._open: dict[Any, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking the resolver for this machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection and hand it to its thread; the oldest one makes room."""
        with self._lock:
            oldest = next(iter(self._open)) if len(self._open) >= MAX_CONNECTIONS else None
            self._open[request] = time.monotonic()
        if oldest is not None:
            self._cut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget and close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut the connections that are too old; called twice a second."""
        limit = time.monotonic() - CONNECTION_S
        with self._lock:
            late = [request for request, since in self._open.items() if since < limit]
        for request in late:
            self._cut(request)

    def _cut(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        # Its thread wakes with an end of file and closes it.
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: what a peer does wrong must not fill a log."""


class Exporter:
    """Serves metrics over HTTP from a thread of its own until it is closed.

    `text` gives the metrics, as OpenMetrics or in the text format, all or the named ones; it is called
    in the threads of requests. Raises InputError for an address that is refused or can not be had.
    """

    def __init__(self, access: Access, text: MetricsText) -> None:
        check_access(access)
        app = _app(text)
        if access.password is not None:
            app = _with_password(app, access.password)
        tls = None if access.certificate is None else _tls(access.certificate, access.key)
        family = socket.AF_INET6 if ":" in access.host else socket.AF_INET
        try:
            self._server = _Server((access.host, access.port), _Handler, family)
        except OSError as error:
            raise InputError(
                f"The metrics can not be served on {access.host}:{access.port}.", os_error_reason(error),
                "Name another address.",
            ) from error  # fmt: skip
        self._server.set_app(app)
        if tls is not None:
            # The handshake is the handler's: in accept() one silent peer would stop all others.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, name="cfctl-exporter", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port, which the system chose when 0 was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The certificate {certificate} can not be used.", f"{error}.", "Name a PEM file."
        ) from error
    return context


def _with_password(app: WsgiApp, password: str) -> WsgiApp:
    """Return the app behind basic authentication (RFC 7617); any user name goes."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        kind, _, data = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        given = b""
        if kind.lower() == "basic":
            with suppress(ValueError):
                given = base64.b64decode(data, validate=True).partition(b":")[2]
        if hmac.compare_digest(given, password.encode()):
            return app(environ, start_response)
        headers = [
            ("WWW-Authenticate", 'Basic realm="cfctl", charset="UTF-8"'),
            ("Content-Type", "text/plain"),
        ]
        start_response("401 Unauthorized", headers)
        return [b"A password is needed.\n"]

    return guarded
