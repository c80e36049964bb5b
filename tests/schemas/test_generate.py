from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError as SchemaError
from jsonschema.validators import extend
from pydantic import TypeAdapter, ValidationError

from schemas import examples
from schemas.campaign import CampaignAction
from schemas.change import FeatureReason, SegmentChange, SegmentRef, SourcePosition
from schemas.events import EVENT, EVENT_TYPES, Event
from schemas.generate import MESSAGES, Message, json_schema, main, stale, write
from schemas.types import CAUSES


def test_the_committed_files_are_up_to_date() -> None:
    assert stale() == [], "run python -m schemas.generate"
    assert main(["--check"]) == 0


def test_stale_missing_and_stray_files_are_named_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = write(tmp_path)
    assert len(written) == len(MESSAGES) + 1
    assert write(tmp_path) == []
    (tmp_path / "anomaly.schema.json").write_text("{}")
    (tmp_path / "event.schema.json").unlink()
    (tmp_path / "stray.schema.json").write_text("{}")
    assert stale(tmp_path) == ["anomaly.schema.json", "event.schema.json", "stray.schema.json"]
    write(tmp_path)
    assert stale(tmp_path) == []


def test_the_check_fails_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    (tmp_path / "asyncapi.yaml").write_text("")
    monkeypatch.setattr("schemas.generate.stale", lambda: stale(tmp_path))
    assert main(["--check"]) == 1
    assert capsys.readouterr().err == "schemas/generated/asyncapi.yaml is stale: run python -m schemas.generate\n"


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    """As ECMA 262 reads it, which JSON Schema asks for: $ is the very end, where Python lets a line end follow."""
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance, re.ASCII):
        yield SchemaError(f"{instance!r} does not match {pattern!r}")


Validator: type[Draft202012Validator] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"pattern": _pattern}
)
VALIDATORS = {m.name: Validator(json_schema(m), format_checker=FormatChecker()) for m in MESSAGES}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_every_schema_is_one_and_its_example_is_valid_and_comes_back_whole(message: Message) -> None:
    schema = json_schema(message)
    Draft202012Validator.check_schema(schema)
    adapter: TypeAdapter[Any] = TypeAdapter(message.type)
    for example in message.examples:
        VALIDATORS[message.name].validate(example)
        value = adapter.validate_json(json.dumps(example))
        assert json.loads(adapter.dump_json(value)) == example


def test_there_is_an_example_of_every_type_of_event() -> None:
    assert tuple(examples.EVENTS) == EVENT_TYPES
    assert all(example["type"] == kind for kind, example in examples.EVENTS.items())


def test_every_schema_stands_on_its_own_and_every_member_of_an_example_is_described() -> None:
    for message in MESSAGES:
        schema = json_schema(message)
        text = json.dumps(schema)
        assert set(re.findall(r'"\$ref": "([^"]*)"', text)) <= {f"#/$defs/{name}" for name in schema.get("$defs", {})}
        if message.name != "event":
            assert set(message.examples[0]) <= set(schema["properties"])
            assert set(schema["required"]) <= set(message.examples[0])


# What the schema takes, pydantic takes, and the other way round.

EDGES: tuple[Any, ...] = (
    *(0, -1, 1, 5, 6, 0.5, 5.5, 1e9, -1e9, 1e9 + 1, 1e6, 1e6 + 1, 86_400_000, 86_400_001),
    *(253_402_300_799_999, 253_402_300_800_000),
    *("EUR", "eur", "EURO", "EUR\n", "", "12.5", "1772357405000", "browse", "purchase", "refund", "Browse"),
    *("x" * 128, "x" * 129, "x" * 256, "x" * 257, "x" * 10_000, "x" * 10_001, "😀" * 128),
    *("2026-03-01T09:30:00Z", "2026-03-01 09:30:00.123456789+01:00", "2026-03-01", "2026-03-01T09:30:00"),
    *("2026-03-01T09:30:00Z\n", "２026-03-01T09:30:00Z", "2026-03-01t09:30:00z", "2026-03-01T09:30:00.+01:00"),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(EDGES),
)
values = st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(st.text(max_size=3), scalars, max_size=2))
FIELDS = sorted({field for example in examples.EVENTS.values() for field in example} | {"unknown"})
edits = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(FIELDS), values),
        st.tuples(st.just("drop"), st.sampled_from(FIELDS), st.none()),
    ),
    max_size=3,
)


@settings(max_examples=400)
@given(st.sampled_from(EVENT_TYPES), edits)
def test_an_event_is_accepted_exactly_when_the_json_schema_accepts_it(
    kind: str, changes: list[tuple[str, str, Any]]
) -> None:
    event = dict(examples.EVENTS[kind])
    for what, field, value in changes:
        if what == "set":
            event[field] = value
        else:
            event.pop(field, None)
    text = json.dumps(event)
    if isinstance(event.get("occurred_at"), float) and event["occurred_at"].is_integer():
        return  # to JSON Schema 1.0 is an integer; we want epoch milliseconds written as one
    expected = VALIDATORS["event"].is_valid(json.loads(text))
    try:
        EVENT.validate_json(text)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted == expected
    # The schema of the type alone says the same, where it is that type.
    if event.get("type") in EVENT_TYPES:
        name = "event-" + str(event["type"]).replace("_", "-")
        assert VALIDATORS[name].is_valid(json.loads(text)) == expected


def test_the_property_above_sees_both_answers() -> None:
    good = examples.EVENTS["purchase"]
    assert VALIDATORS["event"].is_valid(good)
    for field, value in [
        ("amount", "12.50"),
        ("amount", True),
        ("quantity", 0),
        ("occurred_at", "yesterday"),
        ("type", "x"),
    ]:
        assert not VALIDATORS["event"].is_valid({**good, field: value})
        with pytest.raises(ValidationError):
            EVENT.validate_python({**good, field: value})


texts = st.text(max_size=8)
users = st.text(min_size=1, max_size=128)
times = st.integers(0, 253_402_300_799_999)
floats = st.floats(allow_nan=False, allow_infinity=False)
refs = st.none() | st.builds(SegmentRef, id=texts, name=st.none() | texts)
reasons = st.builds(
    FeatureReason, feature=texts, value=st.none() | floats, segment_mean=st.none() | floats, z=st.none() | floats
)
positions = st.none() | st.builds(
    SourcePosition, topic=texts, partition=st.integers(0, 10), offset=st.integers(0, 2**62)
)
changes_ = st.builds(
    SegmentChange,
    id=texts,
    user_id=users,
    sequence=st.integers(1, 2**40),
    from_=refs,
    to=refs,
    cause=st.sampled_from(CAUSES),
    occurred_at=times,
    detected_at=times,
    model_version=st.integers(0, 10_000),
    confidence=st.floats(0, 1),
    why=st.lists(reasons, max_size=3).map(tuple),
    source=positions,
    event_id=st.none() | texts,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
actions = st.builds(
    CampaignAction,
    id=texts,
    campaign=texts,
    user_id=users,
    trigger=st.sampled_from(["enter", "exit", "transition"]),
    change_id=texts,
    sequence=st.integers(1, 2**40),
    from_=refs,
    to=refs,
    cause=st.sampled_from(CAUSES),
    action=st.sampled_from(["log", "webhook"]),
    target=texts,
    parameters=st.dictionaries(texts, json_values, max_size=3),
    occurred_at=times,
    decided_at=times,
)


@given(changes_)
def test_every_change_that_can_be_written_is_valid_and_comes_back(change: SegmentChange) -> None:
    text = change.model_dump_json()
    VALIDATORS["segment-change"].validate(json.loads(text))
    assert SegmentChange.model_validate_json(text) == change


@given(actions)
def test_every_action_that_can_be_written_is_valid_and_comes_back(action: CampaignAction) -> None:
    text = action.model_dump_json()
    VALIDATORS["campaign-action"].validate(json.loads(text))
    assert CampaignAction.model_validate_json(text) == action


def test_the_generated_event_schema_describes_what_the_adapter_takes() -> None:
    assert next(message.type for message in MESSAGES if message.name == "event") is Event
