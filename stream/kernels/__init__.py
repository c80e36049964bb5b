"""Compiled kernels of the hot path, from the bytes of a fetched batch to those of the next one. Optional.

They are Cython, built where the package is installed and a C compiler is at hand; without them the same work is done by
numpy, msgspec and Python, with the same results, at four times the cost (docs/decisions/). `RESEGMENT_KERNELS=off`
leaves them out. `on()` says whether they are used.

- records: a batch of Kafka to the places of its fields; encode: records to a batch
- events: plain events to columns; index: ids to rows
- plan, table: columns to the user table; users: its rows to the bytes of the changelog
- forest: rows to anomaly scores; templates: columns to the texts of changes
"""

from __future__ import annotations

import logging
import os
import sys

log = logging.getLogger(__name__)

SWITCH = "RESEGMENT_KERNELS"

try:
    from stream.kernels import encode, events, forest, index, plan, records, table, templates, users
except ImportError:
    _built = False
else:
    _built = sys.byteorder == "little"  # the kernels read words as they lie in memory

_on = _built and os.environ.get(SWITCH, "on") != "off"


def built() -> bool:
    """Whether the kernels were compiled for this Python and machine."""
    return _built


def on() -> bool:
    """Whether they are used."""
    return _on


def tell() -> None:
    """Say in the log what events are read with."""
    if _on:
        log.info("events are read with the compiled kernels")
    elif _built:
        log.warning("%s=off: events are read without the compiled kernels, at four times the cost", SWITCH)
    else:
        log.warning(
            "the compiled kernels are not there: an event costs four times as much; install again with a C compiler"
        )


__all__ = [
    "built",
    "encode",
    "events",
    "forest",
    "index",
    "on",
    "plan",
    "records",
    "table",
    "tell",
    "templates",
    "users",
]
