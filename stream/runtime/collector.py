"""Python's collector of reference cycles, for a process that runs for long.

Left as it is it looks again and again at every object that the imports left, a quarter of a million of them: 0.1 s in
which nothing else happens, and a twentieth of what a drain costs. Batches leave no cycles.
"""

from __future__ import annotations

import gc

_YOUNG = 50_000
"""So many new containers between two looks at the young ones: a large batch makes that many."""


def settle() -> None:
    """To be called once everything is imported and set up: what is there by then is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 20, 20)
