# SPDX-License-Identifier: Apache-2.0
"""P1, P3: the real process is killed under load; what was acknowledged is there, exactly.

Method: tests/crash/kill9.py with a small region (so that the log wraps and is carried) and the
default one; and over a channel, where the multiplexer is killed, too.
1,000 kills: `.venv/bin/python -m tests.crash.kill9`.
Cannot show: every moment of a kill; tests/crash/test_every_store.py enumerates those."""

from __future__ import annotations

import pytest

from tests.crash.counts import tell
from tests.crash.kill9 import run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("kills", "region_size", "seed"), [(12, "1M", 1), (8, "64M", 2)])
def test_kill9_under_load(kills: int, region_size: str, seed: int) -> None:
    """A few kills, for every run."""
    operations, under_way = run(kills, 4, seed, region_size, progress=False)
    tell(f"{kills} kills of a {region_size} region: {operations} operations acknowledged, "
         f"{under_way} under way: nothing lost")
    assert operations > 100 and under_way > 0, "the kills met no load"


def test_kill9_over_a_channel() -> None:
    """The server, or the multiplexer, or both; no reply is cut, or another client's."""
    operations, under_way = run(16, 4, 4, "1M", progress=False, has_channel=True)
    tell(f"16 kills on a channel: {operations} operations acknowledged, {under_way} under way: "
         "nothing lost")
    assert operations > 100 and under_way > 0, "the kills met no load"


@pytest.mark.slow
@pytest.mark.parametrize("has_channel", [False, True])
def test_many_kills(has_channel: bool) -> None:
    """A share of the thousand."""
    operations, under_way = run(100, 4, 3, "1M", progress=False, has_channel=has_channel)
    tell(f"100 kills of a 1M region{' on a channel' * has_channel}: {operations} operations "
         f"acknowledged, {under_way} under way: nothing lost")
    assert operations > 1000 and under_way > 50
