# SPDX-License-Identifier: Apache-2.0
"""The two turn slots: where a turn goes that changed nothing durable, but moved rings.

T1. The slots alternate: while one is written, the other holds the slot turn before it. So whatever
    is still owed after publishing must be in the log before the second next slot turn.
T2. A slot turn names the log's tail at its time: it is newer than every record before that place,
    and older than any record at it or behind it.
T3. A torn slot is a turn that never was: nothing of it was published.
Same unit as a record of the log (record.py), of kind SLOT. Change with: FORMAT.md section 9."""

from __future__ import annotations

from persist import layout, record
from persist.record import Kind, Record
from persist.region import Medium

SLOT_PAYLOAD_MAX = layout.TURN_SLOT_SIZE - layout.RECORD_HEADER_SIZE - layout.RECORD_ALIGNMENT


class TurnSlots:
    """Writes to the slots of `medium`; `sequence` is that of the newest slot turn found."""

    def __init__(self, medium: Medium, sequence: int) -> None:
        self._medium = medium
        self.sequence = sequence

    def write(self, tail: int, payload: bytes) -> None:
        """THE COMMIT POINT of a slot turn is the end of this write."""
        assert len(payload) <= SLOT_PAYLOAD_MAX
        self.sequence += 1
        self._medium.write(
            layout.TURN_SLOT_OFFSETS[self.sequence & 1],
            record.encode(Kind.SLOT, self.sequence, tail, record.GENESIS, payload))


def read_slots(medium: Medium) -> list[Record]:
    """The valid slot turns, the older one first. `position` is the log's tail at their time."""
    found = []
    for parity, offset in enumerate(layout.TURN_SLOT_OFFSETS):
        data = medium.read(offset, layout.TURN_SLOT_SIZE)
        one = record.decode(data, 0, record.HEADER.unpack_from(data)[3])
        if one is not None and one.kind == Kind.SLOT and one.sequence & 1 == parity:
            found.append(one)
    return sorted(found, key=lambda one: one.sequence)
