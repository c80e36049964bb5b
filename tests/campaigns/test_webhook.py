from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream.campaigns.rules import WebhookSink
from stream.campaigns.webhook import Answer, Call, Webhook, body_of, client, decode_secrets, judge, sign
from tests.campaigns.support import ENVIRON, SECRET, receiver, verify

BODY = b'{"data":{"user_id":"u1","sequence":1}}'


def webhook(url: str, environ: Mapping[str, str] = ENVIRON, **sink: Any) -> Webhook:
    return Webhook(WebhookSink.model_validate({"url": url, **sink}), environ, client(4))


@pytest.mark.parametrize(
    ("secret", "message", "timestamp", "body", "signature"),
    [
        # Both from the tests of the Standard Webhooks reference libraries.
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1649367553,
            b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
    ],
)
def test_the_signature_is_that_of_the_reference_libraries(
    secret: str, message: str, timestamp: int, body: bytes, signature: str
) -> None:
    assert sign(decode_secrets(secret), message, timestamp, body) == signature


def test_two_secrets_give_two_signatures_while_one_replaces_the_other() -> None:
    new = "whsec_" + base64.b64encode(b"n" * 32).decode()
    both = sign(decode_secrets(f"{new} {SECRET}"), "a", 1, b"b").split(" ")
    assert both == [sign(decode_secrets(new), "a", 1, b"b"), sign(decode_secrets(SECRET), "a", 1, b"b")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("whsec_", "holds 0 bytes"),
        ("whsec_short", "is no base64 text|holds"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "holds 23 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "holds 65 bytes"),
        ("correct horse battery staple!", "is no base64 text|holds"),
        (SECRET[:20] + "!" + SECRET[20:], "is no base64 text"),
        (SECRET[:20] + "é" + SECRET[20:], "is no base64 text"),
    ],
)
def test_a_bad_secret_is_refused_without_being_shown(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        webhook("https://example.com", {"SHOP_SECRET": text}, secret_env="SHOP_SECRET")
    assert "SHOP_SECRET" in str(error.value)
    assert len(text) < 10 or text not in str(error.value)


def test_base64_without_its_padding_is_understood() -> None:
    assert decode_secrets("whsec_" + base64.b64encode(b"x" * 25).decode().rstrip("=")) == (b"x" * 25,)


@pytest.mark.parametrize("sink", [{"secret_env": "NOT_SET"}, {"headers": {"X-Token": "a ${NOT_SET}"}}])
def test_a_missing_variable_is_named(sink: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="environment variable NOT_SET is not set"):
        webhook("https://example.com", **sink)


def test_a_variable_cannot_add_a_header() -> None:
    with pytest.raises(ValueError, match="control character"):
        webhook("https://example.com", {"T": "x\r\nEvil: 1"}, headers={"X-Token": "${T}"})


def test_a_call_is_signed_for_the_receiver_to_verify() -> None:
    with receiver() as shop:
        made = webhook(shop.url, secret_env="SHOP_SECRET", headers={"Authorization": "Bearer ${SHOP_TOKEN}"})
        assert made.send("act_1", BODY, Call()) == Answer("delivered", 200)
        assert made.send("act_1", BODY, Call()).verdict == "delivered"
    first, second = shop.calls
    assert first.body == second.body == BODY
    assert verify(SECRET, first.headers, first.body)
    assert not verify(SECRET, first.headers, first.body + b" ")
    assert not verify(SECRET, {**first.headers, "webhook-id": "act_2"}, first.body)
    assert not verify("whsec_" + base64.b64encode(b"o" * 32).decode(), first.headers, first.body)
    assert first.id == second.id == "act_1"
    assert first.headers["authorization"] == "Bearer t0ken"
    assert first.headers["content-type"] == "application/json"


def test_without_a_secret_nothing_pretends_to_be_signed() -> None:
    with receiver() as shop:
        made = webhook(shop.url)
        assert not made.signed
        made.send("act_1", BODY, Call())
    assert "webhook-signature" not in shop.calls[0].headers
    assert shop.calls[0].headers["webhook-id"] == "act_1"


def test_the_body_names_type_and_time_and_holds_the_action_as_it_is() -> None:
    body = orjson.loads(body_of('{"id":"act_1","x":1.50}', "enter", 1_700_000_000_123))
    assert body == {
        "type": "campaign.enter",
        "timestamp": "2023-11-14T22:13:20.123Z",
        "data": {"id": "act_1", "x": 1.5},
    }


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(status: int) -> None:
    assert judge(status, {}) == Answer("delivered", status)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_retried(status: int) -> None:
    assert judge(status, {}).verdict == "retry"


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 409, 410, 422])
def test_what_will_not_pass_is_not(status: int) -> None:
    answer = judge(status, {"retry-after": "5"})
    assert (answer.verdict, answer.http_status, answer.retry_after_ms) == ("refused", status, None)
    assert answer.detail.startswith(f"HTTP {status}: ")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7_000),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "99999999"}, 86_400_000),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": formatdate(1_000_090, usegmt=True), "date": formatdate(1_000_000, usegmt=True)}, 90_000),
        ({"retry-after": formatdate(999_000, usegmt=True), "date": formatdate(1_000_000, usegmt=True)}, 0),
        ({"retry-after": "Mon, 99 Foo 2020 00:00:00 GMT"}, None),
    ],
)
def test_retry_after_is_understood_in_both_forms(headers: dict[str, str], expected: int | None) -> None:
    assert judge(503, headers).retry_after_ms == expected


def test_retry_after_as_a_date_goes_by_our_clock_where_the_receiver_shows_none() -> None:
    wait = judge(429, {"retry-after": formatdate(time.time() + 60, usegmt=True)}).retry_after_ms
    assert wait is not None
    assert 58_000 <= wait <= 60_000


def test_a_redirect_is_not_followed() -> None:
    with receiver() as other, receiver(lambda call: (302, {"location": other.url})) as shop:
        answer = webhook(shop.url).send("act_1", BODY, Call())
    assert (answer.verdict, len(shop.calls), len(other.calls)) == ("refused", 1, 0)
    assert "write the new URL" in answer.detail


def read_request(sock: socket.socket) -> bytes:
    """All of it: to close on what is unread would reset the connection."""
    data = b""
    while not data.endswith(BODY):
        more = sock.recv(100_000)
        if not more:
            raise ConnectionError("hung up in the middle of a request")
        data += more
    return data


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with each connection what it likes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    open_.append(sock)
                    threading.Thread(target=quietly, args=(sock,), daemon=True).start()

        def quietly(sock: socket.socket) -> None:
            with contextlib.suppress(OSError):
                talk(sock)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            for sock in open_:
                sock.close()


def test_nobody_there_is_worth_a_retry() -> None:
    answer = webhook(f"http://127.0.0.1:{free_port()}/").send("act_1", BODY, Call())
    assert answer == Answer("retry", None, "no connection: refused, or no route")


def test_a_name_that_cannot_be_resolved_is_worth_a_retry() -> None:
    answer = webhook("http://no-such-host.invalid/").send("act_1", BODY, Call())
    assert (answer.verdict, answer.detail) == ("retry", "the receiver's name cannot be resolved")


def test_silence_ends_with_the_time_out() -> None:
    with raw_server(lambda sock: time.sleep(5)) as url:
        began = time.monotonic()
        answer = webhook(url, timeout="200ms").send("act_1", BODY, Call())
    assert time.monotonic() - began < 1
    assert answer == Answer("retry", None, "no answer within 0.2 s", failure="timeout")
    assert 0.2 <= answer.seconds < 1


def test_an_answer_that_breaks_off_is_worth_a_retry() -> None:
    def talk(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 20")
        sock.close()

    with raw_server(talk) as url:
        assert webhook(url).send("act_1", BODY, Call()).verdict == "retry"


def test_nonsense_is_worth_a_retry() -> None:
    def talk(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"\x00\x01\x02\x03\r\n\r\n")
        sock.close()

    with raw_server(talk) as url:
        assert webhook(url).send("act_1", BODY, Call()).verdict == "retry"


@pytest.mark.parametrize(
    ("opening", "verdict"),
    [
        (b"HTTP/1.1 2", "retry"),
        # A status that was read counts, whatever becomes of the rest.
        (b"HTTP/1.1 200 OK\r\nx: ", "delivered"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n", "delivered"),
    ],
)
def test_an_answer_that_drips_can_be_cut_off(opening: bytes, verdict: str) -> None:
    """Each byte comes within the time-out, the whole never does."""

    def talk(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(opening)
        while True:
            sock.sendall(b"x")
            time.sleep(0.05)

    with raw_server(talk) as url:
        call, answers = Call(), list[Answer]()
        made = webhook(url, timeout="1s")
        thread = threading.Thread(target=lambda: answers.append(made.send("act_1", BODY, call)), daemon=True)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        call.cancel()
        thread.join(2)
        assert not thread.is_alive()
    assert answers[0].verdict == verdict
    call.cancel()  # too late, and harmless


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    def talk(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sock.sendall(b"x" * 65_536)

    with raw_server(talk) as url:
        assert webhook(url).send("act_1", BODY, Call()) == Answer("delivered", 200)


def test_connections_are_used_again() -> None:
    with receiver() as shop:
        made = webhook(shop.url)
        for _ in range(20):
            made.send("act_1", BODY, Call())
        pool = made._client.connection_from_url(shop.url)
        assert pool.num_requests == 20
        assert pool.num_connections == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl, which is not here")
def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, "-keyout", key, "-out", cert, "-days", "2", *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    said: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            said.append(read_request(tls))
            tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with raw_server(talk) as url:
        url = url.replace("http://127.0.0.1", "https://localhost")
        answer = webhook(url).send("act_1", BODY, Call())
        assert answer.verdict == "retry"
        assert answer.detail.startswith("TLS: ")
        assert said == []
        # Vouched for in the usual way, it is accepted, but not under another name.
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert webhook(url).send("act_1", BODY, Call()) == Answer("delivered", 200)
        assert webhook(url.replace("localhost", "127.0.0.1")).send("act_1", BODY, Call()).verdict == "retry"
    assert len(said) == 1
