from __future__ import annotations

import gzip
import http.client
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from stream.runtime.health import Health
from stream.runtime.health_server import HealthServer, HealthServerError, MetricsSettings
from stream.runtime.metrics import Metrics
from tests.ops.exposition import parse_openmetrics, parse_text


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(stuck_after=30.0, clock=clock)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    with HealthServer("127.0.0.1", 0, Metrics(), health) as server:
        yield server


def ask(
    server: HealthServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask_json(server: HealthServer, path: str) -> tuple[int, Any]:
    status, headers, body = ask(server, path)
    assert headers["Content-Type"] == "application/json"
    return status, orjson.loads(body)


def test_before_any_stage_it_is_alive_and_not_ready(server: HealthServer) -> None:
    assert ask_json(server, "/healthz") == (200, {"status": "alive", "stages": {}})
    assert ask_json(server, "/readyz") == (503, {"status": "not ready", "stages": {}})


def test_ready_only_when_every_stage_is(server: HealthServer, health: Health) -> None:
    health.register("processor")
    health.ready("modeller")
    status, body = ask_json(server, "/readyz")
    assert status == 503
    assert body["stages"]["processor"]["reason"] == "starting: nothing polled yet"
    assert body["stages"]["modeller"] == {"alive": True, "ready": True, "reason": "", "heartbeat_age_seconds": 0.0}
    health.ready("processor")
    assert ask_json(server, "/readyz")[0] == 200
    health.not_ready("processor", "restoring partition 3")
    status, body = ask_json(server, "/readyz")
    assert (status, body["status"]) == (503, "not ready")
    assert body["stages"]["processor"]["reason"] == "restoring partition 3"
    assert ask_json(server, "/healthz")[0] == 200, "restoring is alive"
    health.leave("processor")
    assert ask_json(server, "/readyz")[0] == 200


def test_a_stuck_loop_is_neither_alive_nor_ready(server: HealthServer, health: Health, clock: Clock) -> None:
    health.beat("processor")
    health.ready("processor")
    health.ready("modeller")
    clock.now += 29.5
    health.beat("modeller")
    assert ask_json(server, "/healthz")[0] == 200
    clock.now += 1.0
    status, body = ask_json(server, "/healthz")
    assert (status, body["status"]) == (503, "stuck")
    assert body["stages"]["processor"] == {
        "alive": False,
        "ready": False,
        "reason": "the loop has been stuck for 30 s (limit 30 s)",
        "heartbeat_age_seconds": 30.5,
    }
    assert body["stages"]["modeller"]["alive"]
    assert ask_json(server, "/readyz")[0] == 503
    health.beat("processor")
    assert ask_json(server, "/healthz")[0] == 200
    assert ask_json(server, "/readyz")[0] == 200


def test_a_stage_that_never_beats_is_stuck(health: Health, clock: Clock) -> None:
    health.register("processor")
    clock.now += 31
    assert not health.report().alive


def test_a_real_loop_that_hangs_is_seen() -> None:
    """Wall clock and threads: the server answers while the loop does not come round."""
    health, hang = Health(stuck_after=0.2), threading.Event()

    def loop() -> None:
        for _ in range(5):
            health.beat("processor")
            health.ready("processor")
            time.sleep(0.02)
        hang.wait()

    thread = threading.Thread(target=loop)
    with HealthServer("127.0.0.1", 0, Metrics(), health) as server:
        thread.start()
        try:
            deadline = time.monotonic() + 5
            seen = set()
            while time.monotonic() < deadline and 503 not in seen:
                seen.add(ask_json(server, "/healthz")[0])
                time.sleep(0.02)
        finally:
            hang.set()
            thread.join()
    assert seen == {200, 503}


def test_metrics_carry_the_health_of_that_moment(server: HealthServer, health: Health, clock: Clock) -> None:
    health.ready("processor")
    health.not_ready("modeller", "joining the group")
    clock.now += 12.5
    status, headers, body = ask(server, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {f.name: f for f in parse_text(body.decode())}
    ready = {s.labels["stage"]: s.value for s in families["resegment_stage_ready"].samples}
    ages = {s.labels["stage"]: s.value for s in families["resegment_loop_heartbeat_age_seconds"].samples}
    assert ready == {"processor": 1, "modeller": 0}
    assert ages == {"processor": 12.5, "modeller": 12.5}


def test_openmetrics_and_gzip_are_negotiated(server: HealthServer) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5"
    status, headers, body = ask(server, "/metrics", Accept=accept, Accept_Encoding="gzip")
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert headers["Content-Encoding"] == "gzip"
    text = gzip.decompress(body).decode()
    assert text.endswith("# EOF\n")
    names = [family.name for family in parse_openmetrics(text)]
    assert "resegment_build_info" in names


def test_one_metric_can_be_asked_for(server: HealthServer) -> None:
    _, _, body = ask(server, "/metrics?name[]=resegment_build_info")
    assert [line.split(b"{")[0] for line in body.splitlines() if not line.startswith(b"#")] == [b"resegment_build_info"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/metrics", 200),
        ("HEAD", "/readyz", 503),
        ("GET", "/readyz?verbose=1", 503),
        ("GET", "/nothing", 404),
        ("GET", "//[", 404),
        ("POST", "/metrics", 501),
    ],
)
def test_other_requests(server: HealthServer, method: str, path: str, status: int) -> None:
    got, headers, body = ask(server, path, method)
    assert got == status
    if method == "HEAD":
        assert body == b""
        assert int(headers["Content-Length"]) > 0


def test_one_connection_carries_many_requests(server: HealthServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        for method, path, status in (("HEAD", "/metrics", 200), ("GET", "/healthz", 200), ("GET", "/nothing", 404)) * 2:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == status
            assert len(body) == (0 if method == "HEAD" else int(response.headers["Content-Length"]))
    finally:
        connection.close()


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=a.b", ";;;,=", "text/html", "\xff"])
def test_a_nonsense_accept_header_gets_the_plain_format(server: HealthServer, accept: str) -> None:
    status, headers, _ = ask(server, "/metrics", Accept=accept)
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")


def test_a_client_that_hangs_up_or_talks_nonsense_does_no_harm(
    server: HealthServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for request in (
        b"",
        b"GET /metrics HTTP/1.1\r\n",
        b"\x16\x03\x01 not http\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(request)
    assert ask(server, "/healthz")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_slow_client_does_not_hold_up_the_others(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert ask(server, "/healthz")[0] == 200


def test_a_port_in_use_is_a_clear_error(server: HealthServer) -> None:
    second = HealthServer("127.0.0.1", server.port, Metrics(), Health())
    with pytest.raises(HealthServerError) as caught:
        second.start()
    message = str(caught.value)
    assert f"127.0.0.1:{server.port}: the port is in use" in message
    assert "RESEGMENT_METRICS__PORT" in message
    second.stop()


def test_an_address_of_another_machine_is_a_clear_error() -> None:
    with pytest.raises(HealthServerError, match="RESEGMENT_METRICS__HOST"):
        HealthServer("192.0.2.1", 0, Metrics(), Health()).start()


def test_stop_frees_the_port_and_start_takes_it_again() -> None:
    server = HealthServer("127.0.0.1", 0, Metrics(), Health())
    server.stop()
    server.start()
    server.start()
    port = server.port
    assert ask(server, "/healthz")[0] == 200
    assert server.url == f"http://127.0.0.1:{port}"
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/healthz")
    server.start()
    assert server.port == port
    server.stop()


def test_ipv6_where_the_machine_has_it() -> None:
    server = HealthServer("::1", 0, Metrics(), Health())
    try:
        server.start()
    except HealthServerError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with server:
        assert server.url == f"http://[::1]:{server.port}"
        with socket.create_connection(("::1", server.port), timeout=5) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_readiness_is_logged_when_it_turns_and_only_then(health: Health, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stream.runtime.health"):
        health.not_ready("processor", "joining the group")
        for _ in range(3):
            health.ready("processor")
        health.not_ready("processor", "no broker")
        health.not_ready("processor", "still no broker")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "stage processor is ready"),
        ("WARNING", "stage processor is not ready: no broker"),
    ]


def test_the_probe_of_the_container(server: HealthServer, health: Health, clock: Clock) -> None:
    def probe(*arguments: str, port: int = server.port) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "stream.runtime.probe", *arguments],
            env={**os.environ, "RESEGMENT_METRICS__PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    health.beat("processor")
    assert probe() == (0, ask(server, "/healthz")[2].decode())
    code, text = probe("/readyz")
    assert code == 1
    assert "not ready" in text
    clock.now += 60
    assert probe()[0] == 1
    code, text = probe(port=1)
    assert code == 1
    assert "no answer from 127.0.0.1:1" in text


def test_settings_are_validated() -> None:
    assert MetricsSettings.model_validate({"stuck_after": "45s"}).stuck_after == 45_000
    for wrong in ({"port": 70_000}, {"port": -1}, {"stuck_after": 0}, {"hots": "x"}):
        with pytest.raises(ValidationError):
            MetricsSettings.model_validate(wrong)
