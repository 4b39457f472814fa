# SPDX-License-Identifier: Apache-2.0
"""The two turn slots: what is written is found, in order; a write that is torn at any byte leaves
the turn before it, and never something else; slots alternate. Method: an array as the medium, every
length of a torn write, every flipped byte.

Cannot show: when a turn may go to a slot (test_streams.py), what it says (tests/crash)."""

from __future__ import annotations

import random

import pytest

from persist import layout
from persist.record import Kind
from persist.slots import SLOT_PAYLOAD_MAX, TurnSlots, read_slots
from tests.crash.world import ArrayMedium


def medium() -> ArrayMedium:
    """A region of zeros."""
    return ArrayMedium(layout.REGION_SIZE_MIN)


def found(of: ArrayMedium) -> list[tuple[int, int, bytes]]:
    """What a start reads: sequence, tail, payload."""
    return [(one.sequence, one.position, one.payload) for one in read_slots(of)]


def test_nothing_was_written() -> None:
    assert read_slots(medium()) == []
    assert read_slots(ArrayMedium(random.Random(1).randbytes(layout.REGION_SIZE_MIN))) == []


def test_the_newest_two_are_found_the_older_one_first() -> None:
    one = medium()
    slots = TurnSlots(one, 0)
    written: list[tuple[int, int, bytes]] = []
    for number in range(1, 8):
        slots.write(1000 * number, b"turn %d" % number)
        written.append((number, 1000 * number, b"turn %d" % number))
        assert slots.sequence == number
        assert found(one) == written[-2:]
        assert {slot.kind for slot in read_slots(one)} == {Kind.SLOT}


def test_slots_alternate_and_nothing_else_is_touched() -> None:
    """T1: while one is written, the other stays as it is."""
    one = medium()
    slots = TurnSlots(one, 6)
    places = [slice(offset, offset + layout.TURN_SLOT_SIZE) for offset in layout.TURN_SLOT_OFFSETS]
    for number in range(7, 12):
        before = bytes(one.bytes)
        slots.write(number, b"x" * SLOT_PAYLOAD_MAX)
        after = bytearray(one.bytes)
        place = places[number & 1]
        assert after[place] != before[place]
        after[place] = before[place]
        assert after == before


@pytest.mark.parametrize("old, new", [(b"", b"new payload"), (b"much longer than it", b"new"),
                                      (b"same size", b"same_size"), (b"x" * 400, b"x" * 401)])
def test_a_write_torn_at_any_byte_is_a_turn_that_never_was(old: bytes, new: bytes) -> None:
    """T3, over an older turn and over zeros: what is found is the turn before; whole: the new."""
    for history in (0, 2):
        before = medium()
        slots = TurnSlots(before, 0)
        for number in range(1, history + 2):
            slots.write(100 * number, old)
        last = found(before)[-1]
        whole = ArrayMedium(bytes(before.bytes))
        TurnSlots(whole, slots.sequence).write(999, new)
        offset = layout.TURN_SLOT_OFFSETS[(slots.sequence + 1) & 1]
        size = max(at for at in range(layout.TURN_SLOT_SIZE)
                   if whole.bytes[offset + at] != before.bytes[offset + at]) + 1
        for kept in range(size + 1):
            torn = ArrayMedium(bytes(before.bytes))
            torn.bytes[offset:offset + kept] = whole.bytes[offset:offset + kept]
            turns = found(torn)
            if kept == size:
                assert turns == [last, (slots.sequence + 1, 999, new)]
            else:
                assert turns[-1] == last and (history or len(turns) == 1), kept


def test_no_flipped_bit_is_believed() -> None:
    """R1: header, payload and padding."""
    one = medium()
    slots = TurnSlots(one, 0)
    slots.write(10, b"older")
    slots.write(20, b"newer!!")
    whole = found(one)
    offset = layout.TURN_SLOT_OFFSETS[0]
    for at in range(layout.RECORD_HEADER_SIZE + 8):
        for bit in range(8):
            one.bytes[offset + at] ^= 1 << bit
            assert found(one) == whole[:1], (at, bit)
            one.bytes[offset + at] ^= 1 << bit
    assert found(one) == whole


def test_a_slot_in_the_other_one_s_place_is_none() -> None:
    """Copied by a stray write: the sequence's parity says where it belongs."""
    one = medium()
    TurnSlots(one, 0).write(10, b"odd")
    size, (even, odd) = layout.TURN_SLOT_SIZE, layout.TURN_SLOT_OFFSETS
    one.bytes[even:even + size] = one.bytes[odd:odd + size]
    assert found(one) == [(1, 10, b"odd")]


def test_a_record_of_the_log_is_no_slot() -> None:
    from persist import record
    one = medium()
    one.write(layout.TURN_SLOT_OFFSETS[0],
              record.encode(Kind.TURN, 2, 50, record.GENESIS, b"a turn of the log"))
    assert read_slots(one) == []


def test_the_largest_payload_fits_and_one_more_byte_is_refused() -> None:
    one = medium()
    slots = TurnSlots(one, 0)
    for _ in range(2):
        slots.write(5, b"y" * SLOT_PAYLOAD_MAX)
    assert [len(payload) for _, _, payload in found(one)] == [SLOT_PAYLOAD_MAX] * 2
    assert not any(one.bytes[layout.LOG_OFFSET:])
    with pytest.raises(AssertionError):
        slots.write(5, b"y" * (SLOT_PAYLOAD_MAX + 1))


def test_a_new_life_goes_on_with_the_newest_number() -> None:
    one = medium()
    TurnSlots(one, 4).write(7, b"five")
    newest = read_slots(one)[-1].sequence
    TurnSlots(one, newest).write(8, b"six")
    assert found(one) == [(5, 7, b"five"), (6, 8, b"six")]
