# SPDX-License-Identifier: Apache-2.0
"""Append and commit point: the only writer of the log, the tail cells and the superblocks.

A1. THE COMMIT POINT of a record is the end of its own write. The tail cell follows at once, and
    nothing may be published before append() returns: so a scan that ends before the record that
    the tail cell names has met damage, not a torn tail.
A2. Space is reused only up to the start that the *older* superblock names (`floor`).
A3. Superblocks and tail cells alternate: while one is being written, the other is valid.
Knows nothing of payloads. Change with: recover.py, which reads back all that is written here."""

from __future__ import annotations

from typing import NamedTuple

from persist import layout, record
from persist.record import Superblock
from persist.region import Medium


class LogState(NamedTuple):
    """Where a log stands: made by recover(), or by format_region() for a new region."""

    tail: int  # position of the next record
    sequence: int  # of the last record, 0 if there was none
    check: bytes  # the last record's checksum
    superblock: Superblock
    floor: int  # position from which on nothing may be overwritten


class Log:
    """The circular log of `medium`, standing where `state` says. One writer at a time."""

    def __init__(self, medium: Medium, state: LogState) -> None:
        self.size = layout.log_size(medium.size)
        self.record_size_max = layout.record_size_max(self.size)
        self.tail = state.tail
        self.floor = state.floor
        self.sequence = state.sequence
        self.superblock = state.superblock
        self.medium = medium
        self._check = state.check
        assert 0 <= self.tail - self.floor <= self.size, (self.floor, self.tail)

    @property
    def free(self) -> int:
        """Bytes that may be appended before something needed would be overwritten."""
        return self.size - (self.tail - self.floor)

    def append(self, kind: int, payload: bytes) -> int:
        """Append one record and name it in a tail cell; returns the bytes it takes in the log.

        Its sequence is the old `sequence` + 1. Dying before the commit point: the record never
        was. Dying after: it is replayed. The caller has made sure that it fits (clean.py)."""
        position, sequence, write = self.tail, self.sequence + 1, self.medium.write
        data = record.encode(kind, sequence, position, self._check, payload)
        size, check = len(data), data[:record.CHECK_SIZE]
        assert size <= self.record_size_max, (size, self.record_size_max)
        assert size <= self.size - position + self.floor, (size, self.free)
        offset = position % self.size
        head = self.size - offset
        if size <= head:
            write(layout.LOG_OFFSET + offset, data)
        else:
            write(layout.LOG_OFFSET + offset, data[:head])
            write(layout.LOG_OFFSET, data[head:])
        self._check, self.tail, self.sequence = check, position + size, sequence
        write(layout.TAIL_CELL_OFFSETS[sequence & 1],
              record.encode_tail_cell(sequence, position, check))
        return size

    def move_start(self, start: int, start_sequence: int) -> None:
        """Let replay start at the record at `start`. What lies before is free one move later."""
        old = self.superblock
        assert old.start <= start <= self.tail, (old.start, start, self.tail)
        block = Superblock(old.region_size, old.epoch + 1, start, start_sequence)
        self.medium.write(layout.SUPERBLOCK_OFFSETS[block.epoch & 1],
                          record.encode_superblock(block))
        self.superblock = block
        self.floor = old.start


def first_superblock(region_size: int) -> Superblock:
    """What a region begins with: an empty log."""
    return Superblock(region_size, 0, 0, 1)


def format_region(medium: Medium) -> LogState:
    """Make an empty region. Dying halfway leaves a part of the first superblock, which recovery
    knows for unformatted, or one that is whole, which is enough."""
    block = first_superblock(medium.size)
    for epoch in (0, 1):
        block = block._replace(epoch=epoch)
        medium.write(layout.SUPERBLOCK_OFFSETS[epoch], record.encode_superblock(block))
    return LogState(0, 0, record.GENESIS, block, 0)
