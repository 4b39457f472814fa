# SPDX-License-Identifier: Apache-2.0
"""The log's fill through time: what is alive where, from where on all is needed, what lies in which
part of the circle.

Method: a host with removals and several lives, in a log that goes round; the model keeps the newest
position of every key in a dict, from the records alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from app import codec
from persist import layout
from persist.record import Kind, Record
from tests.tools.synthetic import busy_host, damaged
from tools.dump.fill import CELLS, DAMAGED, LEVELS, Fill
from tools.dump.past import Carried, Change, Lost, Past, read_past


def newest_positions(past: Past, known: dict[Any, int]) -> list[int]:
    """After each record, the least position that something alive has; `known`: before the first."""
    found, position_of = [], dict(known)
    for one in past.entries:
        assert isinstance(one, Record)
        news: list[Any] = []
        if one.kind == Kind.TURN:
            for step in codec.decode_turn(one.payload, one.position).steps:
                news += step.effects
        elif one.kind == Kind.CARRY:
            carry = codec.decode_carry(one.payload, one.position)
            news = [*carry.nodes, *carry.items]
        for key, value in news:
            if value is None and isinstance(key, bytes):
                for gone in [path for path in position_of if isinstance(path, bytes)
                             and (path + b"/").startswith(key + b"/")]:
                    del position_of[gone]
            position_of.pop(key, None)
            if value is not None:
                position_of[key] = one.position
        found.append(min(position_of.values(), default=one.position + one.size))
    return found


@pytest.mark.parametrize(("changes", "size"), [(900, 1 << 21), (9000, 1 << 20)])
def test_what_is_needed(changes: int, size: int) -> None:
    """At every record, whether the log has gone round or not; at the end, not before the place
    where the replay starts."""
    host = busy_host(changes, region_size=size)
    past = read_past(host.medium)
    expected = newest_positions(past, {key: -1 for key, _ in past.base()})
    fill = Fill(past.entries, layout.log_size(size))
    fill.begin(past.base())
    sequences = [one.sequence for one in past.entries if isinstance(one, Record)]
    at = 0
    for event in past.walk():
        assert not isinstance(event, Lost)
        while sequences[at] < event.sequence:
            assert fill.oldest == expected[at], sequences[at]
            at += 1
        if isinstance(event, Change):
            fill.change(event)
        elif isinstance(event, Carried):
            fill.carry(event)
        fill.reached(event.sequence)
    assert fill.oldest >= host.journal.log.superblock.start
    assert fill.tail == host.journal.log.tail
    assert 0 < fill.live < 2 * host.journal.live_bytes()


def test_the_circle() -> None:
    """Kinds of bytes add up, damage is where it is, and levels are steps in order."""
    host = busy_host(4000, region_size=1 << 20)
    host.medium.bytes[:] = damaged(host)
    past = read_past(host.medium)
    log_size = layout.log_size(1 << 20)
    fill = Fill(past.entries, log_size)
    fill.begin(past.base())
    for event in past.walk():
        if isinstance(event, Change):
            fill.change(event)
        elif isinstance(event, Carried):
            fill.carry(event)
    assert sum(sum(kinds.values()) for kinds in fill.kinds) == sum(
        one.size for one in past.entries)
    lost = next(one for one in past.entries if not isinstance(one, Record))
    cells = {offset % log_size * CELLS // log_size
             for offset in range(lost.position, lost.position + lost.size)}
    assert {cell for cell, kinds in enumerate(fill.kinds) if kinds[DAMAGED]} == cells
    assert max(max(shares) for shares in fill.shares()) <= 100
    assert any(fill.levels)
    for noted in fill.levels:
        numbers = [sequence for sequence, _ in noted]
        assert numbers == sorted(set(numbers))
        assert all(0 <= level <= LEVELS for _, level in noted)
        assert all(one[1] != other[1] for one, other in pairwise(noted))
