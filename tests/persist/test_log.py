# SPDX-License-Identifier: Apache-2.0
"""A1-A3: the commit point, the floor, and the two slots that take turns.

Method: a log is driven by hand to its limits; crashes at each of its stores: tests/crash."""

from __future__ import annotations

from itertools import pairwise

import pytest

from persist import layout
from persist.log import Log, format_region
from persist.record import Kind, Record, record_size
from persist.recover import Outcome, recover
from tests.crash.world import ArrayMedium

SIZE = layout.LOG_OFFSET + (16 << 10)
PAYLOAD = b"p" * 500
RECORD_SIZE = record_size(len(PAYLOAD))


def new_log() -> Log:
    """An empty log."""
    medium = ArrayMedium(SIZE)
    return Log(medium, format_region(medium))


def fill(log: Log) -> None:
    """Append until not another record is free."""
    while log.free >= RECORD_SIZE:
        log.append(Kind.TURN, PAYLOAD)


def test_space_is_free_only_up_to_the_older_start() -> None:
    """A2: with the newer superblock lost, replay from the older finds every record whole."""
    log = new_log()
    fill(log)
    middle, sequence = log.tail, log.sequence + 1
    log.move_start(RECORD_SIZE * 8, 9)
    assert log.free < RECORD_SIZE, "the start of the older superblock was given away"
    log.move_start(RECORD_SIZE * 16, 17)
    fill(log)
    assert log.tail > middle
    image = bytearray(log.medium.bytes)  # type: ignore[attr-defined]
    image[layout.SUPERBLOCK_OFFSETS[log.superblock.epoch & 1]] ^= 1
    applied: list[Record] = []
    found = recover(ArrayMedium(bytes(image)), applied.append)
    assert found.outcome is Outcome.CLEAN and found.notes
    assert [one.sequence for one in applied] == list(range(9, log.sequence + 1))
    assert sequence < log.sequence


def test_what_does_not_fit_is_our_mistake() -> None:
    """A full log and an oversized record stop the server before anything is written."""
    log = new_log()
    fill(log)
    before = bytes(log.medium.bytes)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        log.append(Kind.TURN, PAYLOAD)
    with pytest.raises(AssertionError):
        new_log().append(Kind.TURN, bytes(log.record_size_max))
    with pytest.raises(AssertionError):
        log.move_start(log.tail + 8, log.sequence + 1)
    assert bytes(log.medium.bytes) == before  # type: ignore[attr-defined]


def test_slots_alternate() -> None:
    """A3: no store touches the superblock or tail cell that is valid and newest."""
    log = new_log()
    touched: list[int] = []
    write = log.medium.write

    def note(offset: int, data: bytes) -> None:
        touched.append(offset)
        write(offset, data)

    log.medium.write = note  # type: ignore[method-assign]
    for _ in range(4):
        log.append(Kind.TURN, PAYLOAD)
        log.move_start(log.tail, log.sequence + 1)
    cells = [offset for offset in touched if offset in layout.TAIL_CELL_OFFSETS]
    blocks = [offset for offset in touched if offset in layout.SUPERBLOCK_OFFSETS]
    assert all(one != other for one, other in pairwise(cells))
    assert all(one != other for one, other in pairwise(blocks))
    assert len(cells) == len(blocks) == 4
