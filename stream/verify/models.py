"""The published models: versions ascend, lineage accounts for every segment, and no id returns after its death."""

from __future__ import annotations

from pydantic import ValidationError

from schemas import topics
from schemas.model import SegmentModel
from stream.segments.prototypes import segment_number
from stream.transport.base import Record, TopicPartition, Transport
from stream.verify.report import Report


def check_models(transport: Transport, report: Report) -> dict[int, frozenset[str]]:
    """The segment ids of each version that is kept, oldest first."""
    where = TopicPartition(topics.SEGMENT_MODEL, 0)
    versions: dict[int, frozenset[str]] = {}
    dead: set[str] = set()
    last: SegmentModel | None = None
    largest = 0
    pin: Record | None = None
    for record in transport.read(where, 0):
        if record.key == topics.MODEL_PIN_KEY:
            pin = record
            continue
        if record.value is None:
            versions.pop(int(record.key or b"0"), None)  # an old version that was deleted
            continue
        place = f"{topics.SEGMENT_MODEL}@{record.offset}"
        model = _read(record, place, report)
        if model is None:
            continue
        report.checked["models"] += 1
        ids = frozenset(profile.id for profile in model.profiles)
        if last is not None:
            if model.version != last.version + 1:
                report.add("models", place, f"version {model.version} comes after version {last.version}")
            _follow(model, ids, versions.get(last.version, frozenset()), largest, place, report)
        for identifier in sorted(ids & dead):
            report.add("models", place, f"{identifier} is used again after its death")
        dead |= versions.get(last.version, frozenset()) - ids if last is not None else frozenset()
        dead |= {one.segment for one in model.lineage if one.kind == "died"}
        largest = max([largest, *map(segment_number, ids), *map(segment_number, dead)])
        versions[model.version] = ids
        last = model
    if pin is not None and pin.value is not None:
        _check_pin(pin, versions, report)
    return versions


def _check_pin(pin: Record, versions: dict[int, frozenset[str]], report: Report) -> None:
    """What is pinned was published, and is kept."""
    place = f"{topics.SEGMENT_MODEL}@{pin.offset}"
    try:
        version = SegmentModel.model_validate_json(pin.value or b"").version
    except ValidationError:
        report.add("models", place, "pins what is no model")
        return
    if version not in versions:
        report.add("models", place, f"pins version {version}, which is not kept")


def _read(record: Record, place: str, report: Report) -> SegmentModel | None:
    try:
        model = SegmentModel.model_validate_json(record.value or b"")
    except ValidationError as error:
        report.add("models", place, f"is no model: {error.errors(include_url=False)[0]['msg']}")
        return None
    if record.key != f"{model.version:012d}".encode():
        report.add("models", place, f"is version {model.version}, but its key is {record.key!r}")
    return model


def _follow(
    model: SegmentModel, ids: frozenset[str], before: frozenset[str], largest: int, place: str, report: Report
) -> None:
    """Every segment has one lineage record that says where it comes from, and every one that ended has one too."""
    told = {one.segment: one.kind for one in model.lineage}
    for identifier in sorted(ids):
        kind = told.get(identifier)
        if kind in ("survived", "merged"):
            if identifier not in before:
                report.add("models", place, f"{identifier} {kind}, but version {model.version - 1} has no such segment")
        elif kind in ("born", "split"):
            if segment_number(identifier) <= largest:
                report.add("models", place, f"{identifier} is {kind}, but ids up to seg-{largest} were used before")
        else:
            report.add("models", place, f"{identifier} has no lineage ({kind})")
    for identifier in sorted(before - ids):
        if told.get(identifier) != "died":
            report.add("models", place, f"{identifier} is gone without a record of its death")
