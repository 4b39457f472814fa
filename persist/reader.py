# SPDX-License-Identifier: Apache-2.0
"""Positions of the log -> verified records: in order, or found again behind damage.

D1. Reads in chunks: a log larger than memory can be walked.
D2. A record is returned only when its checksum holds and it names the position it was found at.
Knows nothing of which records belong to the state (recover.py) nor of their payloads."""

from __future__ import annotations

from struct import Struct

from persist import layout, record
from persist.record import Record
from persist.region import Medium

_CHUNK_SIZE = 1 << 18
_WORD = Struct("<Q")
_POSITION_OFFSET = 24  # of the position word in a record's header


class LogReader:
    """Sequential reads of the circular log of `medium`; positions are free-running bytes."""

    def __init__(self, medium: Medium, chunk_size: int = _CHUNK_SIZE) -> None:
        self._chunk_size = chunk_size
        self.log_size = layout.log_size(medium.size)
        self._medium = medium
        self._chunk = b""
        self._chunk_position = 0

    def read(self, position: int, size: int) -> bytes:
        """`size` bytes of the log from `position` on, across the wrap."""
        assert size <= self.log_size
        offset = position % self.log_size
        head = min(size, self.log_size - offset)
        data = self._medium.read(layout.LOG_OFFSET + offset, head)
        if head < size:
            data += self._medium.read(layout.LOG_OFFSET, size - head)
        return data

    def record_at(self, position: int) -> Record | None:
        """The record that starts at `position`, or None if no whole one does."""
        offset = position - self._chunk_position
        if 0 <= offset < len(self._chunk):
            found = record.decode(self._chunk, offset, position)
            if found is not None:
                return found
        # Not in the chunk, only in part, or the chunk is older than the record.
        self._fill(position, self._chunk_size)
        size = record.record_size(record.HEADER.unpack_from(self._chunk)[4])
        if len(self._chunk) < size <= layout.record_size_max(self.log_size):
            self._fill(position, size)
        return record.decode(self._chunk, 0, position)

    def find(self, position: int, limit: int) -> Record | None:
        """The first record that starts in [position, limit), whatever lies in front of it."""
        while position < limit:
            data = self.read(position, min(_CHUNK_SIZE, self.log_size))
            last = min(len(data) - layout.RECORD_HEADER_SIZE, limit - 1 - position)
            for offset in range(0, last + 1, layout.RECORD_ALIGNMENT):
                (named,) = _WORD.unpack_from(data, offset + _POSITION_OFFSET)
                if named == position + offset:
                    found = self.record_at(position + offset)
                    if found is not None:
                        return found
            position += last - last % layout.RECORD_ALIGNMENT + layout.RECORD_ALIGNMENT
        return None

    def find_any_lap(self) -> list[Record]:
        """Every verified record in the log, whichever lap it names, in order of position.

        For a region whose superblocks are lost. Payloads are left out to save memory."""
        found = []
        step = _CHUNK_SIZE
        for base in range(0, self.log_size, step):
            data = self.read(base, min(step + layout.RECORD_HEADER_SIZE, self.log_size))
            for offset in range(0, min(step, self.log_size - base), layout.RECORD_ALIGNMENT):
                if offset + layout.RECORD_HEADER_SIZE > len(data):
                    break
                (named,) = _WORD.unpack_from(data, offset + _POSITION_OFFSET)
                if named % self.log_size == base + offset:
                    whole = self.record_at(named)
                    if whole is not None:
                        found.append(whole._replace(payload=b""))
        return sorted(found, key=lambda one: one.position)

    def _fill(self, position: int, size: int) -> None:
        self._chunk = self.read(position, min(size, self.log_size))
        self._chunk_position = position
