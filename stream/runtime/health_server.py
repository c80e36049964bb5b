"""The HTTP server for those who watch: /metrics, /healthz (liveness), /readyz (readiness).

Invariant: an answer is made from memory alone and never waits for a stage's loop, so a stuck loop is still reported.
It carries no personal data and needs no authentication; it listens on loopback unless configured otherwise.
"""

from __future__ import annotations

import errno
import gzip
import logging
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs

import orjson
from prometheus_client.exposition import choose_encoder, gzip_accepted
from pydantic import BaseModel, ConfigDict, Field

from stream.durations import Duration
from stream.runtime.health import Health, HealthReport
from stream.runtime.metrics import Metrics

log = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
"""A connection without a request is closed after that; longer than the usual scrape interval."""
_INDEX = b"resegment\n\n/metrics  Prometheus metrics\n/healthz  liveness\n/readyz   readiness\n"


class MetricsSettings(BaseModel):
    """Where operations listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Serve /metrics, /healthz and /readyz")
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 in a container")
    port: int = Field(default=9464, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    stuck_after: Duration = Field(
        default=90_000,
        gt=0,
        description="A loop that did not come round for so long fails liveness; longer than the transport's time-outs",
    )


class HealthServerError(Exception):
    """The server cannot listen: the message says where, why and what to do."""


class HealthServer:
    """Serves `metrics` and `health` on host:port from threads of its own, from `start` to `stop`."""

    def __init__(self, host: str, port: int, metrics: Metrics, health: Health) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._health = health
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on (the one asked for, or the one taken for 0 once started)."""
        return self._server.port if self._server else self._port

    @property
    def url(self) -> str:
        """Where a person on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> None:
        """Listen and serve in the background. Raises HealthServerError."""
        if self._server is not None:
            return
        try:
            self._server = _Server(self._host, self._port, self._metrics, self._health)
        except OSError as error:
            raise HealthServerError(_explain(self._host, self._port, error)) from error
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="health-server", daemon=True
        ).start()
        log.info("metrics and health on %s", self.url)

    def stop(self) -> None:
        """Close the port. Safe to call twice, and before `start`."""
        server, self._server = self._server, None
        if server is not None:
            self._port = self._port or server.port
            server.shutdown()
            server.server_close()

    def __enter__(self) -> HealthServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class _Server(ThreadingMixIn, TCPServer):
    """Not http.server's own class: that one looks the host's name up in DNS before it listens."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, metrics: Metrics, health: Health) -> None:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, address = found[0]
        self.metrics = metrics
        self.health = health
        super().__init__((str(address[0]), port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up in the middle of an answer is no event; anything else is ours.
        level = logging.DEBUG if isinstance(sys.exception(), OSError) else logging.ERROR
        log.log(level, "a request to the health server broke off", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "resegment"
    sys_version = ""
    timeout = _IDLE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        match path:
            case "/metrics":
                self._metrics(query)
            case "/healthz":
                report = self.server.health.report()
                self._report(report, "alive" if report.alive else "stuck", report.alive)
            case "/readyz":
                report = self.server.health.report()
                self._report(report, "ready" if report.ready else "not ready", report.ready)
            case "/":
                self._send(HTTPStatus.OK, "text/plain; charset=utf-8", _INDEX)
            case _:
                self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"not found\n\n" + _INDEX)

    do_HEAD = do_GET  # noqa: N815

    def _metrics(self, query: str) -> None:
        report = self.server.health.report()
        self.server.metrics.heartbeats(
            {name: stage.heartbeat_age for name, stage in report.stages.items()},
            {name: stage.ready for name, stage in report.stages.items()},
        )
        registry = self.server.metrics.registry
        wanted = parse_qs(query).get("name[]")
        try:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        except (TypeError, ValueError):
            # A version that is none: the client library compares it as it came.
            encode, content_type = choose_encoder("")
        body = encode(registry.restricted_registry(wanted) if wanted else registry)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        self._send(HTTPStatus.OK, content_type, body, headers)

    def _report(self, report: HealthReport, status: str, good: bool) -> None:
        body = orjson.dumps(
            {
                "status": status,
                "stages": {
                    name: {
                        "alive": stage.alive,
                        "ready": stage.ready,
                        "reason": stage.reason,
                        "heartbeat_age_seconds": round(stage.heartbeat_age, 3),
                    }
                    for name, stage in report.stages.items()
                },
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        code = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(code, "application/json", body, {"Cache-Control": "no-store"})

    def _send(self, code: HTTPStatus, content_type: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _explain(host: str, port: int, error: OSError) -> str:
    where = f"cannot serve metrics on {host}:{port}"
    keys = "metrics.port (RESEGMENT_METRICS__PORT)"
    if error.errno == errno.EADDRINUSE:
        return f"{where}: the port is in use; stop what listens there or set {keys} to another, 0 for any free one"
    if error.errno == errno.EACCES:
        return f"{where}: this user may not listen there; set {keys} to 1024 or above"
    return (
        f"{where}: {error.strerror or error}; set metrics.host (RESEGMENT_METRICS__HOST) to an address of this machine"
    )
