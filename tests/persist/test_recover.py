# SPDX-License-Identifier: Apache-2.0
"""V1-V3: clean, torn tail, corrupt: told apart by the tail cell, and nothing foreign is applied.

Method: logs written by hand, record by record, then cut, overwritten or continued falsely."""

from __future__ import annotations

import pytest

from persist import layout, record
from persist.log import Log, format_region
from persist.record import Kind, Record
from persist.recover import Outcome, Recovery, recover
from tests.crash.world import ArrayMedium

SIZE = layout.LOG_OFFSET + (16 << 10)


class Written:
    """A log with some records."""

    def __init__(self, count: int) -> None:
        self.medium = ArrayMedium(SIZE)
        self.log = Log(self.medium, format_region(self.medium))
        self.positions = []
        for number in range(count):
            self.positions.append(self.log.tail)
            self.log.append(Kind.TURN, b"payload %d" % number)

    def damage(self, position: int, size: int = 1) -> None:
        """Change bytes of the log."""
        for offset in range(layout.LOG_OFFSET + position, layout.LOG_OFFSET + position + size):
            self.medium.bytes[offset] ^= 0xA5

    def recover(self) -> tuple[Recovery, list[Record]]:
        """What recovery finds, and applies."""
        applied: list[Record] = []
        return recover(self.medium, applied.append), applied


def test_whole_log_is_clean() -> None:
    """All records, in order, and where to go on."""
    written = Written(20)
    found, applied = written.recover()
    assert found.outcome is Outcome.CLEAN and not found.damages and not found.notes
    assert [one.payload for one in applied] == [b"payload %d" % number for number in range(20)]
    assert found.state is not None
    assert (found.state.tail, found.state.sequence) == (written.log.tail, 20)


def test_empty_regions() -> None:
    """Never formatted is FRESH; formatted and empty is CLEAN."""
    assert recover(ArrayMedium(SIZE), lambda one: None).outcome is Outcome.FRESH
    assert Written(0).recover()[0].outcome is Outcome.CLEAN


@pytest.mark.parametrize("kept", range(33, 47))
def test_a_torn_record_is_a_torn_tail(kept: int) -> None:
    """A record that was being written when we died, unnamed by any tail cell, is normal."""
    written = Written(5)
    data = record.encode(Kind.TURN, 6, written.log.tail, written.log._check, b"never finished")
    written.medium.write(layout.LOG_OFFSET + written.log.tail, data[:kept])
    found, applied = written.recover()
    assert found.outcome is Outcome.TORN_TAIL and len(applied) == 5 and not found.damages


def test_a_damaged_last_record_is_no_torn_tail() -> None:
    """V1: the tail cell has named it, so it was whole."""
    written = Written(5)
    written.damage(written.positions[-1] + 45)
    found, applied = written.recover()
    assert found.outcome is Outcome.CORRUPT and len(applied) == 4
    (damage,) = found.damages
    assert damage.position == written.positions[-1] and "records 5 to 5" in damage.reason
    assert found.state is not None and found.state.sequence == 5, "a sequence would come again"


def test_damage_in_the_middle() -> None:
    """V2: the gap is named, what lies behind it is applied."""
    written = Written(20)
    written.damage(written.positions[7], written.positions[10] - written.positions[7])
    found, applied = written.recover()
    (damage,) = found.damages
    assert damage.position == written.positions[7]
    assert damage.size == written.positions[10] - written.positions[7]
    assert damage.reason == "records 8 to 10 do not verify"
    assert [one.sequence for one in applied] == [*range(1, 8), *range(11, 21)]
    assert found.state is not None and found.state.tail == written.log.tail


def test_a_damaged_length_cannot_lead_astray() -> None:
    """A length is not believed before its record's checksum is."""
    for value in (0, 1, 2**31, 2**32 - 1):
        written = Written(20)
        offset = layout.LOG_OFFSET + written.positions[7] + 32
        written.medium.bytes[offset:offset + 4] = value.to_bytes(4, "little")
        found, applied = written.recover()
        assert len(found.damages) == 1 and len(applied) == 19


def test_records_of_another_continuation_are_not_applied() -> None:
    """R2: a whole record at the right place with a higher sequence, but of another past."""
    written = Written(5)
    stray = record.encode(Kind.TURN, 6, written.log.tail, b"not that", b"of another past")
    written.medium.write(layout.LOG_OFFSET + written.log.tail, stray)
    found, applied = written.recover()
    assert len(applied) == 5 and found.state is not None
    assert found.state.tail == written.log.tail


def test_records_of_an_earlier_lap_are_not_applied() -> None:
    """R2: behind the tail lie whole records of the lap before."""
    written = Written(0)
    log = written.log
    while log.tail < 2 * log.size:
        log.append(Kind.TURN, b"x" * 600)
        if log.tail - log.superblock.start > log.size // 2:
            log.move_start(log.tail, log.sequence + 1)
            log.move_start(log.tail, log.sequence + 1)
            log.append(Kind.TURN, b"y" * 600)
    found, applied = written.recover()
    assert found.outcome is Outcome.CLEAN and found.state is not None
    assert found.state.tail == log.tail
    assert applied[-1].sequence == log.sequence


def test_one_tail_cell_is_enough() -> None:
    """The older cell and the log itself say the same when the newer cell is lost."""
    written = Written(6)
    offset = layout.TAIL_CELL_OFFSETS[written.log.sequence & 1]
    written.medium.bytes[offset] ^= 1
    found, applied = written.recover()
    assert found.outcome is Outcome.CLEAN and len(applied) == 6
