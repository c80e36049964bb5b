"""The collector after `settle`: in a process of its own, for it cannot be undone."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
from stream.runtime import interpreter
held = [[] for _ in range(100)]
interpreter.settle()
assert gc.get_freeze_count() > 100
class Node: pass
import weakref
node = Node(); node.itself = node
gone = weakref.ref(node)
del node
for _ in range(3 * gc.get_threshold()[0]):
    held.append([])
assert gone() is None, "a cycle stays for ever"
"""


def test_what_was_there_is_left_alone_and_new_cycles_are_still_found() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
