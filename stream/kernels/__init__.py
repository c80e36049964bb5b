"""Compiled kernels of the hot path: record batches and plain events to columns, these to the user table. Optional.

They are Cython, built where the package is installed and a C compiler is at hand; without them the same work is done by
numpy, msgspec and Python, with the same results, at twice the cost (docs/decisions/). `RESEGMENT_KERNELS=off` leaves
them out. `on()` says whether they are used.
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
        log.warning("%s=off: events are read without the compiled kernels, at twice the cost", SWITCH)
    else:
        log.warning(
            "the compiled kernels are not there: events are read at twice the cost; install again with a C compiler"
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
