"""Puts many users into the tables of a processor at once, without a broker: what a long-running one would hold.

Every user gets events through the same decoding and the same table as live ones, within the last day and a half, and
the segment that is nearest, as if long decided. What the changelog would have written of it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import orjson

from benchmarks.arena import PARTITIONS
from benchmarks.workload import SHARES, TYPES, details, user_name
from schemas.topics import EVENTS, SEGMENT_MODEL
from stream.config import load
from stream.features.events import IngestSettings, decode
from stream.segments.assign import NONE
from stream.segments.population import Population
from stream.segments.processor import Processor
from stream.transport.murmur2 import partitions_of
from stream.transport.records import ReadRecord

_CHUNK = 20_000
_SPAN_MS = 36 * 3_600_000


def fresh(model: bytes | None = None) -> Processor:
    """A processor with default settings that owns every partition and knows nobody; it scores with `model`, if any."""
    config = load(None)
    processor = Processor(config.layout(), settings=config.processor)
    for partition in range(PARTITIONS):
        processor.restore(partition, ())
    if model is not None:
        processor.update_table(SEGMENT_MODEL, [ReadRecord(SEGMENT_MODEL, 0, 0, 0, b"1", model, ())])
    return processor


def gather(processor: Processor, users: int, now_ms: int, each: int = 1, seed: int = 1) -> None:
    """Users 0 to `users` - 1 of the workload into the partitions that `processor` owns, `each` events for everyone."""
    count = len(processor.populations)
    for chunk in _chunks(users, now_ms, each, seed):
        partitions = partitions_of([record.key or b"" for record in chunk], count)
        for partition, population in processor.populations.items():
            records = [chunk[i] for i in np.flatnonzero(partitions == partition).tolist()]
            batch, rejected = decode(records, now_ms, IngestSettings())
            assert not rejected
            population.know(population.table.apply(batch).rows)
    for population in processor.populations.values():
        population.clock = population.swept_at = now_ms
        _settle(processor, population)


def _chunks(users: int, now_ms: int, each: int, seed: int) -> Iterator[list[ReadRecord]]:
    rng = np.random.default_rng(seed)
    step = _SPAN_MS / (users * each)
    number = 0
    for _ in range(each):
        for start in range(0, users, _CHUNK):
            size = min(_CHUNK, users - start)
            kinds = rng.choice(len(TYPES), size, p=SHARES).tolist()
            amounts = rng.lognormal(3.2, 0.8, size).tolist()
            chunk = []
            for user, kind, amount in zip(range(start, start + size), kinds, amounts, strict=True):
                time, name, named = now_ms - _SPAN_MS + int(number * step), user_name(user), TYPES[kind]
                event = {"event_id": f"crowd{number}", "user_id": name, "occurred_at": time, "type": named}
                event |= details(named, number, user, amount)
                chunk.append(ReadRecord(EVENTS, 0, number, time, name.encode(), orjson.dumps(event), ()))
                number += 1
            yield chunk


def _settle(processor: Processor, population: Population) -> None:
    """Everybody into the nearest segment."""
    model = processor.model
    if model is None:
        return
    scored = model.columns(processor.layout.names)
    segments = population.table.column("segment")
    for start in range(0, len(population), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(population)))
        features = population.table.features(rows, population.now())[:, scored]
        nearest = model.segment_ids[model.segment_distances(model.scale(features)).argmin(axis=1)]
        segments[rows] = nearest
        for segment in nearest.tolist():
            population.moved(NONE, segment)
    population.model_version = model.version
