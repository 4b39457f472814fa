# SPDX-License-Identifier: Apache-2.0
"""What the log holds of the rings' streams, and what of it must be carried forward.

A1. Of each ring two kinds of entries are live: the newest, and every one with bytes that are still
    owed. The journal counts them like nodes, so the cleaner finds them.
A2. A carried entry says all again: where the streams stand, and every byte that is owed.
A3. A ring that moves by slot turns alone is logged anew before its indices have gone half around.
Knows nothing of rings and of what the bytes mean. Change with: replay.FoundStream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from app.codec import Stream
from app.replay import FoundStream

STREAM_GAP_MAX = 1 << 30  # how far a ring may go by slot turns before it is logged anew
ENTRY_BYTES = 96  # what the entry of a ring that is owed nothing takes in the log, at most
BYTES_PER_RECORD = 8 << 10  # of carried entries


class StreamSource(Protocol):
    """A ring's connection, as far as the log is concerned."""

    conn_id: int

    def whole_stream(self) -> Stream:
        """Where its streams stand now, with all bytes that are owed."""


class _Note:
    """What the log holds of one ring: the position of the newest entry, and of each with bytes
    that may still be owed, with the stream position where they end."""

    __slots__ = ("after", "chunks", "end", "position", "source")

    def __init__(self, source: StreamSource) -> None:
        self.source = source
        self.position = -1
        self.after = 0
        self.end = 0
        self.chunks: deque[tuple[int, int]] = deque()

    def positions(self) -> list[int]:
        """Of all entries that are live."""
        found = [position for position, _ in self.chunks]
        return [*found, self.position] if self.position >= 0 else found

    def take(self, stream: Stream, tail: int) -> int:
        """`stream` is being recorded at `tail`; returns how many live entries that makes."""
        self.position, self.after = tail, stream.after
        self.end = stream.start + len(stream.data)
        if not stream.data:
            return 1
        self.chunks.append((tail, self.end))
        return 2


class StreamBook:
    """All rings' notes. `died` is told of every entry that is not live any more."""

    def __init__(self, died: Callable[[int], None]) -> None:
        self.owed_bytes: Callable[[], int] = int  # by all rings together; set by their owner
        self._notes: dict[int, _Note] = {}
        self._died = died
        self._carried: dict[int, _Note] = {}

    def begin(self, source: StreamSource, found: FoundStream | None = None) -> list[int]:
        """Record this connection's streams from now on; `found` is what recovery knows of them.
        Returns the positions of the entries that are live."""
        note = self._notes[source.conn_id] = _Note(source)
        if found is None:
            return []
        note.position, note.after, note.end = found.position, found.after, found.end
        note.chunks.extend((position, start + len(data)) for position, start, data in found.chunks
                           if position >= 0)
        return note.positions()

    def end(self, epochs: list[int]) -> None:
        """Nothing of these is needed any more; empties the list."""
        for epoch in epochs:
            note = self._notes.pop(epoch, None)
            for position in note.positions() if note is not None else ():
                self._died(position)
        epochs.clear()

    def may_stay_out(self, streams: Sequence[Stream]) -> bool:
        """Whether a turn that moved these, and nothing else, may go to a slot."""
        for stream in streams:
            note = self._notes[stream.epoch]
            if note.position < 0 or stream.input or (
                    stream.after - note.after > STREAM_GAP_MAX
                    or stream.start + len(stream.data) - note.end > STREAM_GAP_MAX):
                return False
        return True

    def take(self, stream: Stream, tail: int) -> int:
        """`stream` is being recorded at `tail`; returns how many live entries that makes."""
        note = self._notes[stream.epoch]
        self._prune(note, stream.sent)
        if note.position >= 0:
            self._died(note.position)
        return note.take(stream, tail)

    def live_bytes(self) -> int:
        """An upper bound of what carrying all streams takes in the log."""
        return self.owed_bytes() + ENTRY_BYTES * len(self._notes)

    # -- carrying

    def collect(self, streams: Sequence[Sequence[Any]], position: int) -> None:
        """Remember the rings of which the record at `position` has live entries."""
        for epoch, *_ in streams:
            note = self._notes.get(epoch)
            if note is not None:
                self._prune(note, note.source.whole_stream().sent)
                if position in note.positions():
                    self._carried[epoch] = note

    def collect_lost(self, begin: int, end: int) -> None:
        """The same for all records in [begin, end)."""
        for epoch, note in self._notes.items():
            if any(begin <= position < end for position in note.positions()):
                self._carried[epoch] = note

    def carry(self, tail: int) -> tuple[list[Stream], int]:
        """Some of what was collected, for one record at `tail`: the entries, and how many of them
        are live. ([], 0) when all is done."""
        streams: list[Stream] = []
        born = size = 0
        while self._carried and size < BYTES_PER_RECORD:
            _, note = self._carried.popitem()
            for position in note.positions():
                self._died(position)
            note.chunks.clear()
            whole = note.source.whole_stream()
            born += note.take(whole, tail)
            streams.append(whole)
            size += ENTRY_BYTES + len(whole.data) + len(whole.input)
        return streams, born

    def _prune(self, note: _Note, sent: int) -> None:
        """Bytes before `sent` are the guest's: they need not be kept."""
        chunks = note.chunks
        while chunks and chunks[0][1] <= sent:
            self._died(chunks.popleft()[0])
