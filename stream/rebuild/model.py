"""The modeller's state: the newest published version, and the first segment number that was never used.

What it had learned since is lost, and it warms up again; the next version is matched with the published one by the
people who are in both, so that segments keep their ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from schemas import topics
from schemas.model import SegmentModel
from stream.config import Config
from stream.runtime.stage import StateDelta
from stream.segments.prototypes import Model, segment_number
from stream.transport.base import TopicPartition, Transport


def rebuild_modeller(
    transport: Transport, config: Config, partition: int, stands: Mapping[str, int]
) -> Iterator[StateDelta]:
    """One delta: the modeller's are whole."""
    from stream.segments.modeller import Modeller  # River costs seconds

    newest: Model | None = None
    used = 0
    for record in transport.read(TopicPartition(topics.SEGMENT_MODEL, 0), 0):
        if record.value is None or record.key == topics.MODEL_PIN_KEY:
            continue
        model = SegmentModel.model_validate_json(record.value)
        ids = {*(profile.id for profile in model.profiles), *(one.segment for one in model.lineage)}
        used = max([used, *map(segment_number, ids)])
        newest = Model.from_record(model)
    modeller = Modeller([feature for feature in config.features if feature.learn], config.modeller)
    yield modeller.take_over(newest, used + 1)
