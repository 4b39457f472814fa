# SPDX-License-Identifier: Apache-2.0
"""tests/sim/linear.py judges small histories exactly as a search over all orders does (Wing and
Gong). Method: random histories of up to six operations, right ones and wrong ones.

Cannot show: that long histories are judged right; the proof of the method does."""

from __future__ import annotations

import random
from math import inf

from tests.sim.linear import Operation, register_problem


def is_linearizable(value: bytes, left: list[Operation]) -> bool:
    """By trying: any operation that no other one precedes may be the next."""
    if all(one.is_write and one.ended == inf for one in left):
        return True
    for one in left:
        if any(other.ended < one.began for other in left):
            continue
        if one.is_write or one.value == value:
            rest = [other for other in left if other is not one]
            if is_linearizable(one.value, rest):
                return True
    # A write without an end may never happen.
    return any(is_linearizable(value, [other for other in left if other is not one])
               for one in left if one.is_write and one.ended == inf)


def draw_history(rng: random.Random) -> list[Operation]:
    """Operations with random intervals; reads of values that may be there."""
    history = []
    count = rng.randint(1, 6)
    for number in range(count):
        one = Operation(rng.random() < 0.5, b"%d" % number, rng.randint(0, 12))
        one.ended = one.began + rng.randint(0, 8) if rng.random() < 0.85 else inf
        history.append(one)
    written = [b"first", *(one.value for one in history if one.is_write)]
    for one in history:
        if not one.is_write:
            one.value = rng.choice(written)
            one.ended = min(one.ended, 30)
    return history


def test_it_agrees_with_a_search() -> None:
    rng = random.Random(7)
    counts = {True: 0, False: 0}
    for _ in range(4000):
        history = draw_history(rng)
        right = is_linearizable(b"first", history)
        counts[right] += 1
        assert (register_problem(b"first", history) is None) is right, history
    assert min(counts.values()) > 500, counts


def test_a_value_that_nobody_wrote() -> None:
    assert register_problem(b"first", [Operation(False, b"x", 1)]) is not None
