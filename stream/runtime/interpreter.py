"""Python's interpreter in a process that runs for long: its collector of reference cycles, and how threads take turns.

Left as it is the collector looks again and again at every object that the imports left, a quarter of a million: 0.1 s
in which nothing else happens, and a twentieth of what a drain costs. Batches leave no cycles.
"""

from __future__ import annotations

import gc
import sys

_YOUNG = 50_000
"""So many new containers between two looks at the young ones: a large batch makes that many."""
_SWITCH_S = 0.000_5
"""A thread that works lets others in so often that want to. With Python's 5 ms each of a transaction's answers would
wait that long, for the batch that is worked on meanwhile."""


def settle() -> None:
    """To be called once everything is imported and set up: what is there by then is never looked at again."""
    sys.setswitchinterval(_SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
