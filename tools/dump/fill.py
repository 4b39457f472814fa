# SPDX-License-Identifier: Apache-2.0
"""How full the log was at each record, and what lies where in it: the picture of fill and cleaning.

F1. A node or an item is alive where its newest copy lies, in a record of its own or a carried one.
    From the oldest of these places on everything is needed: the replay start was never behind it.
F2. The circle is cut into CELLS cells. Of each there is what it holds now, in per cent by kind, and
    how much of it was alive at each sequence, in LEVELS steps: noted only where a step changes.
F3. What the history does not show is not guessed: a place that a later lap has written over is
    known only since then; as long as something is alive that lies before the history, nobody can
    say from where on all is needed.
Told of events in the order in which Past.walk() gives them. Knows nothing of who reads it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from app import codec
from app.path import Path
from app.tree import Node
from persist.history import Gap
from persist.record import Kind, Record
from tools.dump.past import Carried, Change

CELLS = 720
LEVELS = 9
ENTRY_BYTES = 12  # of an effect beyond path, value and permissions, or key and value

TURN, CARRY, OTHER, DAMAGED = range(4)  # kinds of bytes in a cell
_KINDS = {Kind.TURN: TURN, Kind.CARRY: CARRY}


class Copy(NamedTuple):
    """Where the newest copy of a node or item lies. `record`: the position of its record."""

    record: int
    position: int
    size: int


class Fill:
    """The log's fill, after what it was told so far."""

    def __init__(self, entries: Iterable[Record | Gap], log_size: int) -> None:
        self.log_size = log_size
        self.kinds: list[Counter[int]] = [Counter() for _ in range(CELLS)]
        self.levels: list[list[tuple[int, int]]] = [[] for _ in range(CELLS)]
        self.live = 0  # bytes
        self.tail = 0
        self._records: dict[int, Record] = {}
        self._copies: dict[Path | str, Copy] = {}
        self._unplaced: set[Path | str] = set()
        self._living: Counter[int] = Counter()  # position of a record -> copies alive in it
        self._order: deque[int] = deque()  # positions of records, the oldest with life in front
        self._cells = [0] * CELLS  # live bytes
        for one in entries:
            if isinstance(one, Record):
                self._records[one.sequence] = one
            kind = _KINDS.get(Kind(one.kind), OTHER) if isinstance(one, Record) else DAMAGED
            for cell, size in self._spread(one.position, one.size):
                self.kinds[cell][kind] += size

    def begin(self, base: Iterable[tuple[Path | str, Any]]) -> None:
        """What is known to be there before the first record."""
        for key, value in base:
            self._unplaced.add(key)
            self._copies[key] = Copy(-1, -1, _size(key, value))
            self.live += _size(key, value)

    def reached(self, sequence: int) -> None:
        """Everything up to record `sequence` has been told of."""
        one = self._records[sequence]
        self.tail = max(self.tail, one.position + one.size)

    def change(self, event: Change) -> None:
        """A step of a TURN record."""
        self._write(event.sequence, [(key, after) for key, _, after in event.differences],
                    event.step, event.steps)

    def carry(self, event: Carried) -> None:
        """A CARRY record: what it holds is alive here from now on."""
        one = self._records[event.sequence]
        said = codec.decode_carry(one.payload, one.position)
        self._write(event.sequence, [*said.nodes, *said.items])

    @property
    def oldest(self) -> int:
        """The position from which on all is needed (F1); -1 if that is not known (F3)."""
        if self._unplaced:
            return -1
        while self._order and not self._living[self._order[0]]:
            del self._living[self._order.popleft()]
        return self._order[0] if self._order else self.tail

    def shares(self) -> list[list[int]]:
        """Of each cell, per cent by kind of bytes."""
        size = self.log_size / CELLS
        return [[min(round(100 * kinds[kind] / size), 100) for kind in range(4)]
                for kinds in self.kinds]

    # -- copies

    def _write(self, sequence: int, news: list[tuple[Any, Any]], step: int = 0,
               steps: int = 1) -> None:
        """New copies in the share of the record that belongs to its step. None: it is gone."""
        one = self._records[sequence]
        touched: set[int] = set()
        for key, _ in news:
            self._drop(key, touched)
        alive = {key: value for key, value in news if value is not None}
        share = one.size // steps
        place = one.position + step * share
        total = sum(_size(key, value) for key, value in alive.items())
        if alive and (not self._order or self._order[-1] != one.position):
            self._order.append(one.position)
        for key, value in alive.items():
            size = _size(key, value) * share // max(total, share)
            self._copies[key] = Copy(one.position, place, size)
            self._living[one.position] += 1
            self._add(place, size, 1, touched)
            place += size
        self._note(sequence, touched)

    def _drop(self, key: Path | str, touched: set[int]) -> None:
        copy = self._copies.pop(key, None)
        if copy is None:
            return
        if copy.record < 0:
            self._unplaced.discard(key)
            self.live -= copy.size
        else:
            self._living[copy.record] -= 1
            self._add(copy.position, copy.size, -1, touched)

    def _add(self, position: int, size: int, sign: int, touched: set[int]) -> None:
        self.live += sign * size
        for cell, part in self._spread(position, size):
            self._cells[cell] += sign * part
            touched.add(cell)

    def _note(self, sequence: int, touched: set[int]) -> None:
        for cell in touched:
            share = self._cells[cell] * CELLS / self.log_size
            level = min(round(share * LEVELS), LEVELS) or (1 if share > 0 else 0)
            noted = self.levels[cell]
            if noted and noted[-1][0] == sequence:
                noted.pop()
            if level != (noted[-1][1] if noted else 0):
                noted.append((sequence, level))

    def _spread(self, position: int, size: int) -> Iterable[tuple[int, int]]:
        """The cells under [position, position + size), and the bytes in each."""
        offset, left = position % self.log_size, size
        while left > 0:
            cell = offset * CELLS // self.log_size
            end = -(-(cell + 1) * self.log_size // CELLS)
            part = min(left, end - offset)
            yield cell, part
            left -= part
            offset = end % self.log_size


def _size(key: Path | str, value: Any) -> int:
    """About what a copy takes in a record."""
    if isinstance(value, Node):
        return len(key) + len(value.value) + len(value.perms.wire) + ENTRY_BYTES
    return len(key) + len(repr(value)) + ENTRY_BYTES
