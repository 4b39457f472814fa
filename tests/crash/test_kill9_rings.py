# SPDX-License-Identifier: Apache-2.0
"""P2, P3, P4: the real process is killed under guests on rings, who notice nothing but delay.

Method: tests/crash/kill9_rings.py: guests and toolstacks in processes of their own, with a
prediction for every byte. 1,000 kills: `.venv/bin/python -m tests.crash.kill9_rings`.
Cannot show: every moment of a kill (the tests that die at every store do); indices that cross
2^32, which takes 4 GiB; a guest that is killed, too."""

from __future__ import annotations

import pytest

from tests.crash.counts import tell
from tests.crash.kill9_rings import run


def kill(kills: int, guests: int, seed: int, region_size: str) -> tuple[int, int]:
    """Run, and tell what was counted."""
    answered, under_way, counts = run(kills, guests, seed, region_size, progress=False)
    tell(f"{kills} kills under {guests} guests on rings, {region_size} region: {answered} "
         f"requests answered once, as predicted, {under_way} clients in the middle of some, "
         f"{counts['events of domains']} events of domains, {counts['transactions']} transactions")
    return answered, under_way


def test_kill9_under_guests() -> None:
    """A few kills, for every run."""
    answered, under_way = kill(5, 3, 1, "1M")
    assert answered > 100 and under_way > 0, "the kills met no load"


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "guests", "seed", "region_size"), [
    (40, 3, 2, "1M"), (15, 6, 3, "64M")])
def test_many_kills_under_guests(kills: int, guests: int, seed: int, region_size: str) -> None:
    """A share of the thousand."""
    answered, under_way = kill(kills, guests, seed, region_size)
    assert answered > 1000 and under_way > kills
