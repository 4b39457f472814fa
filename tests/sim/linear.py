# SPDX-License-Identifier: Apache-2.0
"""Whether a history of a register is linearizable: every operation seems to happen at one moment
between its beginning and its end.

Method: values are unique, so each value with its readers is a zone, from its first end to its last
beginning, and the test of Gibbons and Korach (Testing Shared Memories, 1997) is exact: no read
ends before its write begins, no two forward zones overlap, no backward zone lies within a forward
one. tests/sim/test_linear.py compares it with a search over all orders.
A write without an end may have happened or not."""

from __future__ import annotations

from itertools import pairwise
from math import inf


class Operation:
    """A read or write of `value`, between the moments `began` and `ended`."""

    __slots__ = ("began", "ended", "is_write", "value")

    def __init__(self, is_write: bool, value: bytes, began: float) -> None:
        self.is_write = is_write
        self.value = value
        self.began = began
        self.ended: float = inf

    def __repr__(self) -> str:
        return (f"{'write' if self.is_write else 'read'} {self.value[:12]!r} "
                f"[{self.began}, {self.ended}]")


def register_problem(first: bytes, history: list[Operation]) -> str | None:
    """What is wrong with a history that begins with the value `first`; None if nothing is."""
    start = Operation(True, first, -1)
    start.ended = -1
    zones: dict[bytes, list[Operation]] = {first: [start]}
    for one in history:
        if one.is_write:
            assert one.value not in zones, "values are unique"
            zones[one.value] = [one]
    for one in history:
        if not one.is_write:
            if one.value not in zones:
                return f"{one}: a value that nobody wrote"
            zones[one.value].append(one)
    forward: list[tuple[float, float, list[Operation]]] = []
    backward: list[tuple[float, float, list[Operation]]] = []
    for zone in zones.values():
        write = zone[0]
        for one in zone[1:]:
            if one.ended < write.began:
                return f"{one} ended before {write} began"
        if len(zone) == 1 and write.ended == inf:
            continue  # may never have happened
        low, high = min(one.ended for one in zone), max(one.began for one in zone)
        if low < high:
            forward.append((low, high, zone))
        else:
            backward.append((high, low, zone))
    forward.sort(key=lambda pair: pair[:2])
    for (_, end, zone), (begin, _, other) in pairwise(forward):
        if begin < end:
            return f"{zone} and {other} overlap"
    for begin, end, zone in backward:
        for low, high, other in forward:
            if low < begin and end < high:
                return f"{zone} lies within {other}"
    return None
