# SPDX-License-Identifier: Apache-2.0
"""The carry pass: live state moves from the oldest end of the log to its tail, a little per turn.

C1. The *window* is what replay needs: from `needed` to the tail. All live state lies in it.
C2. Records leave the window oldest first, and only after what is still live in them has been
    appended again: so a deletion never has to be carried, it leaves behind all it deletes.
C3. The window stays below WINDOW_FACTOR times the live data, plus what is appended while one
    window's worth of live data is carried (1/CARRY_RATE of it), whatever the order of writes.
C4. Work per turn is in proportion to what the turn appended; the debt of a large turn is spread.
    If the debt is ever too late, append space is made at once: slower, never refused.
C5. A segment in which nothing is live any more is skipped unread.
C6. Runs only while memory and log agree: never between a change and its record, or the old value
    would be left behind while the new one is not yet safe.
Rejected: re-appending the whole state as a pass in any order. It needs two copies of the live data
in the log at once, so at half a log of live data it cannot finish.
Knows bytes and positions; what is live, the Carrier says. Change with: FORMAT.md section 8."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from persist import layout
from persist.log import Log
from persist.reader import LogReader
from persist.record import Record
from persist.recover import SEGMENT_SHIFT, Damage

WINDOW_MIN = 512 << 10
WINDOW_FACTOR = 3
CARRY_RATE = 4  # bytes of window looked at per byte appended while the window is too large
STEP_BYTES = 64 << 10
QUANTUM_BYTES = 16 << 10  # debt below this waits: tiny carry records are mostly header
_START_STEP = 16 << 10
_READ_SIZE = 2 << SEGMENT_SHIFT  # what lies behind may be dead, and is not read then


class Place(NamedTuple):
    """A record boundary: the position of a record, and the least sequence it may have."""

    position: int
    sequence: int


class Carrier(Protocol):
    """What the cleaner must know of the state."""

    def live_bytes(self) -> int:
        """An upper bound of what appending all live state would take in the log."""

    def collect(self, one: Record) -> None:
        """Remember what of this record is still live, to be appended by flush()."""

    def collect_lost(self, begin: int, end: int) -> None:
        """The same for all records with begin <= position < end, which cannot be read."""

    def flush(self) -> None:
        """Append what was collected."""


class Cleaner:
    """Moves `needed` forward through `log`. `damages` are holes that recovery has reported,
    `segments` the first record of each segment, as it found them."""

    def __init__(self, log: Log, carrier: Carrier, damages: list[Damage],
                 segments: dict[int, tuple[int, int]]) -> None:
        self.lost: list[Damage] = []  # met while running; the owner reports and clears them
        self.live: dict[int, int] = {}  # segment -> how many live entries lie in it
        self._needed = Place(log.superblock.start, log.superblock.start_sequence)
        self._log = log
        self._carrier = carrier
        self._reader = LogReader(log.medium, _READ_SIZE)
        self._holes = {damage.position for damage in damages}
        self._segments = segments
        self._debt = 0
        self._step = min(STEP_BYTES, log.record_size_max // 2)

    @property
    def window(self) -> int:
        """Bytes that replay would read."""
        return self._log.tail - self._needed.position

    def appended(self, position: int, entries: int) -> None:
        """A record was appended at `position`, with so many entries that are live."""
        segment = position >> SEGMENT_SHIFT
        if segment in self._segments:
            self.live[segment] += entries
        else:
            self._segments[segment] = (position, self._log.sequence)
            self.live[segment] = self.live.get(segment, 0) + entries

    def born(self, position: int) -> None:
        """One more entry of the record at `position` is live, as recovery has found."""
        self.live[position >> SEGMENT_SHIFT] += 1

    def died(self, position: int) -> None:
        """One entry of the record at `position` is no longer live."""
        segment = position >> SEGMENT_SHIFT
        left = self.live[segment] = self.live[segment] - 1
        assert left >= 0, hex(position)

    def died_in(self, segments: dict[int, int]) -> None:
        """As died(), for many: segment -> how many."""
        for segment, count in segments.items():
            self.live[segment] -= count
            assert self.live[segment] >= 0, segment

    def pay(self, appended: int) -> bool:
        """Do a turn's share after it appended `appended` bytes; True while there is more to do."""
        self._debt += CARRY_RATE * appended
        if self._debt < QUANTUM_BYTES:
            return False
        target = self._target()
        if self.window <= target:
            self._debt = 0
            return False
        self._debt = min(self._debt, self.window)
        done = self._clean(min(self._debt, max(self._step, appended)), target)
        self._debt = self._debt - done if self.window > target else 0
        return self._debt >= QUANTUM_BYTES

    def make_room(self, size: int) -> None:
        """Clean until `size` bytes may be appended, with room to clean on. The owner keeps live
        data below half the log, so one lap over the window is always enough."""
        lap_end = self._log.tail
        while self._log.free < size + 2 * self._step:
            assert self._needed.position < lap_end, "live data outgrew the log: admission is wrong"
            self._clean(self._step, 0)
            self._name_start()

    def _target(self) -> int:
        wanted = max(WINDOW_MIN, WINDOW_FACTOR * self._carrier.live_bytes())
        return min(wanted, self._log.size * 5 // 8)

    def _clean(self, budget: int, target: int) -> int:
        """Carry from the oldest end: about `budget` bytes, or until the window is down to
        `target`. Returns the bytes that had to be read."""
        place, done, last = self._needed, 0, self._log.tail
        while done < budget and place.position < last and self._log.tail - place.position > target:
            if not self.live.get(place.position >> SEGMENT_SHIFT):
                skipped = self._skip_dead(place)
                if skipped is not None:
                    place = skipped
                    continue
            one = self._reader.record_at(place.position)
            if one is None or one.sequence < place.sequence:
                place = self._skip_damage(place)
                continue
            self._carrier.collect(one)
            done += one.size
            place = Place(one.position + one.size, one.sequence + 1)
        self._carrier.flush()
        for segment in range(self._needed.position >> SEGMENT_SHIFT,
                             place.position >> SEGMENT_SHIFT):
            self._segments.pop(segment, None)
            left = self.live.pop(segment, 0)
            assert left == 0, (segment, left)
        self._needed = place
        step = max(_START_STEP, min(self._log.size // 64, self.window // 8))
        if place.position - self._log.superblock.start >= step:
            self._name_start()
        return done

    def _skip_dead(self, place: Place) -> Place | None:
        """The first record of the next segment; None if this is the last. For a segment in which
        nothing is live (any more, behind `place`)."""
        segment = place.position >> SEGMENT_SHIFT
        for following in range(segment + 1, (self._log.tail >> SEGMENT_SHIFT) + 1):
            first = self._segments.get(following)
            if first is not None:
                return Place(*first)
        return None

    def _skip_damage(self, place: Place) -> Place:
        """Behind the damage at `place`; what memory still has of it is carried from there."""
        found = self._reader.find(place.position + layout.RECORD_ALIGNMENT, self._log.tail)
        if found is not None:
            behind = Place(found.position, found.sequence)
        else:
            behind = Place(self._log.tail, self._log.sequence + 1)
        if place.position not in self._holes:
            self.lost.append(Damage(place.position, behind.position - place.position,
                                    f"records {place.sequence} to {behind.sequence - 1} were "
                                    "damaged while the server ran; carried from memory"))
        self._carrier.collect_lost(place.position, behind.position)
        return behind

    def _name_start(self) -> None:
        self._log.move_start(*self._needed)
