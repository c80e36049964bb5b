"""Duplicates: the ids of a user's last K accepted events, as a queue of hashes; 0 is an empty place.

An event is a duplicate if its id is in its user's queue. A duplicate does not enter the queue again. The answer is
the same however the stream is cut into batches: only users with a candidate are walked one event at a time.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from stream.features.batch import Hashes, Ints, Mask

_MIX = np.uint64(0x9E3779B97F4A7C15)


def queue_hashes(hashes: Hashes) -> Hashes:
    """Hashes as the queue holds them: 0 means empty there, so that one id shares a hash with another."""
    return np.maximum(hashes, np.uint64(1))


def find_duplicates(queues: Hashes, rows: Ints, groups: Ints, users: int, hashes: Hashes) -> Mask:
    """Which events repeat one of their user's last K accepted events.

    `queues` (table rows, K) oldest first; `rows` and `groups` give each event's row and its index among the
    `users` of the batch, in batch order; `hashes` come from `queue_hashes`.
    """
    candidate = (queues[rows] == hashes[:, None]).any(axis=1)
    order = np.argsort(key := hashes + rows.astype(np.uint64) * _MIX)
    ordered = key[order]
    candidate[order[1:][ordered[1:] == ordered[:-1]]] = True
    duplicate = np.zeros(len(rows), bool)
    if not candidate.any():
        return duplicate
    suspects = np.zeros(users, bool)
    suspects[groups[candidate]] = True
    walked = np.flatnonzero(suspects[groups])
    depth = queues.shape[1]
    recent: dict[int, deque[int]] = {}
    for event, row, value in zip(walked.tolist(), rows[walked].tolist(), hashes[walked].tolist(), strict=True):
        queue = recent.get(row)
        if queue is None:
            queue = recent[row] = deque(queues[row].tolist(), maxlen=depth)
        if value in queue:
            duplicate[event] = True
        else:
            queue.append(value)
    return duplicate


def push(queues: Hashes, starts: Ints, counts: Ints, hashes: Hashes) -> Hashes:
    """The queues (m, K) after each user's accepted events: `hashes` grouped by user, `counts` from `starts`."""
    depth = queues.shape[1]
    # Position j of the new queue is position count + j of the old one with the new hashes behind it.
    source = counts[:, None] + np.arange(depth)
    fresh = source >= depth
    old = queues.take(np.minimum(source, depth - 1) + (np.arange(len(queues)) * depth)[:, None])
    new = hashes[np.where(fresh, starts[:, None] + source - depth, 0)]
    return np.where(fresh, new, old)
