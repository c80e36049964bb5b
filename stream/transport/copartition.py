"""Which member of a group has which partitions. Partition p of every topic goes to the same member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def assign(partitions: int, members: Sequence[str], before: Mapping[int, str | None]) -> dict[int, str | None]:
    """Who shall have each of n partitions: even shares, and as few moves as that allows.

    `before` says who has them now. The same input gives the same answer in every process; members who hold equally
    many are preferred in the order in which they are listed.
    """
    if not members:
        return dict.fromkeys(range(partitions))
    held: dict[str, list[int]] = {member: [] for member in members}
    for partition in range(partitions):
        if (owner := before.get(partition)) in held:
            held[owner].append(partition)
    share, extra = divmod(partitions, len(members))
    # Those who hold most keep the extra ones. Sorting is stable, so the order of `members` breaks ties.
    by_holding = sorted(members, key=lambda member: -len(held[member]))
    quota = {member: share + (place < extra) for place, member in enumerate(by_holding)}
    kept = {partition: member for member in members for partition in held[member][: quota[member]]}
    free = iter([member for member in members for _ in range(quota[member] - len(held[member]))])
    return {partition: kept[partition] if partition in kept else next(free) for partition in range(partitions)}


def unequal_partitions(counts: Mapping[str, int]) -> str | None:
    """What is wrong and the way out, where topics that are read together have unequal partition counts; else None."""
    most = max(counts.values())
    fewer = sorted(name for name, count in counts.items() if count < most)
    if not fewer:
        return None
    listed = ", ".join(f"{name} has {count}" for name, count in sorted(counts.items()))
    return (
        f"topics that are read together must have equal partition counts, but {listed}: give {' and '.join(fewer)} "
        f"{most} partitions, or read the topics in groups of their own"
    )
