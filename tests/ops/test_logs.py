from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.events import EVENT
from stream.runtime import logs
from stream.runtime.logs import LogSettings, configure, user_tag

USER = "alice@example.com"
NOBODY: dict[str, int] = {}
log = logging.getLogger("stream.test")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], (sys.excepthook, threading.excepthook) = handlers, hooks
    root.setLevel(level)
    logging.captureWarnings(False)
    for name in ("kafka", "urllib3"):
        logging.getLogger(name).setLevel(logging.NOTSET)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def to_json(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure(LogSettings(format="json", **settings), stream)
    return stream


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [strict_json(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object() -> None:
    stream = to_json()
    before = datetime.now(UTC)
    log.info("moved %d users\nof %s", 3, "seg-1", extra={"stage": "processor", "seconds": 0.25})
    assert stream.getvalue().count("\n") == 1
    (line,) = lines(stream)
    written = datetime.fromisoformat(line.pop("time"))
    assert abs((written - before).total_seconds()) < 5
    assert written.tzinfo is not None
    assert line == {
        "level": "info",
        "logger": "stream.test",
        "message": "moved 3 users\nof seg-1",
        "stage": "processor",
        "seconds": 0.25,
    }


def test_time_is_rfc_3339_utc() -> None:
    record = logging.makeLogRecord({"name": "x", "created": 1_700_000_000.1234})
    assert json.loads(logs.JsonFormatter().format(record))["time"] == "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize("form", ["json", "plain"])
def test_a_user_id_never_comes_through(form: str) -> None:
    stream = io.StringIO()
    configure(LogSettings.model_validate({"format": form}), stream)
    deep: Any = {"user_id": USER}
    for _ in range(20):
        deep = [{"inner": deep}]
    cyclic: dict[str, Any] = {"user_id": USER}
    cyclic["self"] = cyclic
    log.info("a", extra={"user_id": USER})
    log.info("b", extra={"user_id": USER.encode()})
    log.info("c", extra={"rows": [{"user_id": USER}, ({"user_id": USER},)], "user_ids": {USER}})
    log.info("d %(user_id)s", {"user_id": USER})
    log.info("e", extra={"deep": deep, "cyclic": cyclic})
    log.info("f", extra={"event": EVENT.validate_python(event()), "raw": USER.encode()})
    log.info("g", extra={"user_id": 12345678})
    text = stream.getvalue()
    assert "alice" not in text
    assert "12345678" not in text
    assert text.count(user_tag(USER)) >= 6
    assert text.count("\n") == 7


def event() -> dict[str, Any]:
    return {"type": "click", "event_id": "1", "user_id": USER, "occurred_at": 1_700_000_000_000}


def test_a_tag_is_stable_for_a_key_and_says_nothing_without_it() -> None:
    tags = []
    for key in ("secret", "secret", "other", "x" * 300, None, None):
        to_json(user_tag_key=key)
        assert user_tag(USER) == user_tag(USER.encode())
        tags.append(user_tag(USER))
    assert tags[0] == tags[1]
    assert len(set(tags)) == 5, "another key, and each process without one, gives another tag"
    assert all(tag.startswith("user-") and len(tag) == 17 and "alice" not in tag for tag in tags)


def test_two_handlers_show_the_same_tag() -> None:
    stream, second = to_json(), io.StringIO()
    handler = logging.StreamHandler(second)
    handler.addFilter(logs.RedactUsers())
    handler.setFormatter(logs.JsonFormatter())
    logging.getLogger().addHandler(handler)
    log.info("a", extra={"user_id": USER})
    assert lines(stream)[0]["user_id"] == lines(second)[0]["user_id"] == user_tag(USER)


def test_an_exception_is_a_field_with_its_cause_and_without_its_input() -> None:
    stream = to_json()
    try:
        try:
            NOBODY[USER]
        except KeyError as error:
            raise ValueError(f"no row for '{USER}' in \"{USER}\"") from error
    except ValueError:
        log.exception("failed")
    (line,) = lines(stream)
    told = line["exception"]
    assert (told["type"], told["message"]) == ("ValueError", "no row for '…' in '…'")
    assert (told["cause"]["type"], told["cause"]["message"]) == ("KeyError", "(the key is not shown)")
    assert told["frames"][-1].startswith(f"{__file__}:")
    assert "alice" not in stream.getvalue()


def test_pydantic_says_where_and_what_and_not_the_input() -> None:
    stream = to_json()
    try:
        EVENT.validate_python({**event(), "type": "review", "rating": USER})
    except ValidationError:
        log.exception("failed")
    assert lines(stream)[0]["exception"]["message"].startswith("review.rating: float_")
    assert "alice" not in stream.getvalue()


def test_debug_masks_no_exception() -> None:
    stream = to_json(level="debug")
    try:
        NOBODY["the key"]
    except KeyError:
        log.exception("failed")
    assert lines(stream)[0]["exception"]["message"] == "'the key'"


def client_error() -> BaseException:
    """An exception whose innermost frame lies in a file of the Kafka client."""
    code = compile("def poll():\n    raise OSError('broker gone')\n", "/venv/site-packages/kafka/client.py", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    try:
        names["poll"]()
    except OSError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(("level", "hidden"), [("info", True), ("debug", False)])
def test_the_clients_internals_show_in_debug_only(level: str, hidden: bool) -> None:
    stream = to_json(level=level)
    client = logging.getLogger("kafka.client")
    client.info("connecting")
    client.warning("lost the connection", exc_info=client_error())
    log.error("gave up", exc_info=client_error())
    told = {line["message"]: line for line in lines(stream)}
    assert ("connecting" in told) != hidden
    own = told["gave up"]["exception"]
    assert own["message"] == "broker gone"
    assert ("(1 more inside the client; level debug shows them)" in own["frames"]) == hidden
    assert any("site-packages/kafka" in frame for frame in own["frames"]) != hidden
    assert ("frames" in told["lost the connection"]["exception"]) != hidden


def test_a_field_with_a_taken_name_is_kept_aside() -> None:
    stream = to_json()
    log.info("a", extra={"level": "gold", "time": 1})
    (line,) = lines(stream)
    assert (line["level"], line["level_"], line["time_"]) == ("info", "gold", 1)


def test_numbers_that_json_has_not() -> None:
    stream = to_json()
    log.info("a", extra={"nan": float("nan"), "inf": float("-inf"), "big": 2**70, "array": np.float32(0.5)})
    (line,) = lines(stream)
    assert (line["nan"], line["inf"], line["big"], line["array"]) == (None, None, 2**70, 0.5)


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.builds(object)
    | st.builds(Path, st.just("/tmp")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=10,
)


@given(
    st.text(st.characters()),
    JSON_LIKE,
    st.sampled_from(["json", "plain"]),
)
def test_whatever_is_logged_is_one_line(message: str, field: Any, form: str) -> None:
    stream = io.StringIO()
    configure(LogSettings.model_validate({"format": form}), stream)
    log.info("%s", message, extra={"field": field})
    log.info(message, "too", "many", "arguments")
    written = stream.getvalue()
    if form == "json":
        assert written.count("\n") == 2
        told = strict_json(written.split("\n")[0])
        assert told["message"] == message
        assert "field" in told
    else:
        assert len(written.split("\n")) == 3
        assert all(character == "\n" or character == "\t" or character >= " " for character in written)


def test_plain_is_for_people() -> None:
    stream = io.StringIO()
    configure(LogSettings(format="plain"), stream)
    try:
        try:
            raise OSError("disk full")
        except OSError as error:
            raise RuntimeError("cannot commit") from error
    except RuntimeError:
        log.exception("stopping", extra={"stage": "processor"})
    first, *rest = stream.getvalue().splitlines()
    assert first[12:] == ' error   stopping stage="processor"'
    assert rest[0] == "    RuntimeError: cannot commit"
    assert "    caused by OSError: disk full" in rest


def test_auto_is_plain_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    configure(LogSettings(), terminal)
    log.warning("careful")
    configure(LogSettings(), pipe)
    log.warning("careful")
    assert "\x1b[33mwarning\x1b[0m careful" in terminal.getvalue()
    assert lines(pipe)[0]["message"] == "careful"
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    configure(LogSettings(), terminal)
    log.warning("careful")
    assert "\x1b" not in terminal.getvalue()


def test_what_nobody_caught_is_a_line_too() -> None:
    script = """
import threading, warnings
from stream.runtime.logs import LogSettings, configure
configure(LogSettings(format="json"))
warnings.warn("old")
thread = threading.Thread(target=lambda: {}["alice"], name="sweeper")
thread.start(); thread.join()
raise RuntimeError("the end")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert [line["level"] for line in told] == ["warning", "critical", "critical"]
    assert told[1]["message"] == "uncaught exception in thread sweeper"
    assert told[2]["exception"]["message"] == "the end"
    assert "alice" not in done.stderr


def test_the_key_does_not_show_in_the_settings() -> None:
    settings = LogSettings.model_validate({"user_tag_key": "hunter2"})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
