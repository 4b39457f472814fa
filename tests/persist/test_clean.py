# SPDX-License-Identifier: Apache-2.0
"""P7: the log never outgrows its region, never stops the world, and never forgets.

Method: lives on the smallest region under workloads that are hard for a cleaner (half full of live
data, always the same key, only removals, large transactions), with the window, the free space and
the work per turn measured; after each, a new life must find the same state."""

from __future__ import annotations

import random

import pytest

from app import wire
from persist import clean, layout
from persist.recover import Outcome
from tests.crash.world import ArrayMedium, Life

SIZE = layout.REGION_SIZE_MIN


def is_error(packet: bytes, name: bytes) -> bool:
    """Whether a packet is this ERROR reply."""
    return (wire.HEADER.unpack_from(packet)[0] == wire.XS_ERROR
            and packet[wire.HEADER_SIZE:] == name + b"\0")


def write(life: Life, path: bytes, value: bytes) -> bytes:
    """One WRITE in a turn of its own; returns the reply packet."""
    (packet,) = life.turn((wire.XS_WRITE, 0, path + b"\0" + value))
    life.tidy()
    return packet


def reopened(life: Life) -> Life:
    """The next life; it must find the same state."""
    after = Life(ArrayMedium(bytes(life.medium.bytes)))
    assert after.start.outcome is Outcome.CLEAN, after.start
    assert after.state() == life.state()
    return after


def fill(life: Life, size: int) -> int:
    """Create nodes until ENOSPC; returns how many."""
    for number in range(100_000):
        packet = write(life, b"/fill/%d/%d" % (number % 50, number), b"v" * size)
        if is_error(packet, b"ENOSPC"):
            return number
    raise AssertionError("never full")


@pytest.mark.parametrize("size", [0, 40, 700, 3000])
def test_full_region(size: int) -> None:
    """ENOSPC at half the log; reads, rewrites, removals and restarts go on; nothing is stuck."""
    life = Life(ArrayMedium(SIZE))
    count = fill(life, size)
    log = life.journal.log
    assert life.journal.live_bytes() > log.size * 0.4, "refused far too early"
    assert life.journal.live_bytes() <= log.size // 2
    chance = random.Random(size)
    for _ in range(3000):
        number = chance.randrange(count)
        path = b"/fill/%d/%d" % (number % 50, number)
        assert not is_error(write(life, path, b"w" * size), b"ENOSPC")
    (packet,) = life.turn((wire.XS_READ, 0, b"/fill/0/0\0"))
    assert wire.HEADER.unpack_from(packet)[0] == wire.XS_READ
    life = reopened(life)
    assert is_error(write(life, b"/one/more", b"x" * 3000), b"ENOSPC")
    for number in range(50):
        (packet,) = life.turn((wire.XS_RM, 0, b"/fill/%d\0" % number))
        assert wire.HEADER.unpack_from(packet)[0] == wire.XS_RM
        life.tidy()
    assert not is_error(write(life, b"/one/more", b"x" * 3000), b"ENOSPC")
    reopened(life)


def test_window_stays_bounded() -> None:
    """C3: whatever is written, replay never has to read more than the bound."""
    life = Life(ArrayMedium(SIZE))
    chance = random.Random(3)
    log = life.journal.log
    largest = 0
    for _ in range(9000):
        write(life, b"/k/%d" % chance.randrange(300), b"v" * chance.randrange(400))
        largest = max(largest, life.journal._cleaner.window)
        assert log.free > 0
    live = life.journal.live_bytes()
    bound = max(clean.WINDOW_MIN, clean.WINDOW_FACTOR * live) + live // clean.CARRY_RATE
    assert log.tail > 2 * log.size, "the log has not wrapped"
    assert largest <= bound + clean.QUANTUM_BYTES + 8192, (largest, bound)
    reopened(life)


def test_idle_keys_are_carried() -> None:
    """What is never written again survives any number of laps of another key's writes."""
    life = Life(ArrayMedium(SIZE))
    for number in range(200):
        write(life, b"/quiet/%d" % number, b"kept %d" % number)
    life.turn((wire.XS_SET_QUOTA, 0, b"nodes\x001234\0"))
    life.tidy(idle=True)
    log = life.journal.log
    while log.tail < 4 * log.size:
        write(life, b"/loud", b"x" * 2000)
    state = reopened(life).state()
    assert state[b"/quiet/150"][0] == b"kept 150"  # type: ignore[index]
    assert state["quota.nodes"] == 1234


def test_large_steps_do_not_outrun_the_cleaner() -> None:
    """Transactions as large as they may be, one after the other."""
    life = Life(ArrayMedium(SIZE))
    for round_ in range(70):
        (packet,) = life.turn((wire.XS_TRANSACTION_START, 0, b"\0"))
        tx_id = int(packet[wire.HEADER_SIZE:].rstrip(b"\0"))
        packets = life.turn(*[(wire.XS_WRITE, tx_id, b"/t/%d\0" % number + b"%d" % round_ * 1000)
                              for number in range(12)], (wire.XS_TRANSACTION_END, tx_id, b"T\0"))
        assert packets[-1].endswith(b"OK\0"), packets[-1]
        life.tidy()
    assert life.journal.log.tail > life.journal.log.size, "the log has not wrapped"
    reopened(life)


def test_a_step_larger_than_a_record_is_refused_whole() -> None:
    """A transaction that no record can hold: ENOSPC to what is too much, ENOMEM at the end as for
    any failed create, and nothing of it is there."""
    life = Life(ArrayMedium(SIZE))
    before = life.state()
    (packet,) = life.turn((wire.XS_TRANSACTION_START, 0, b"\0"))
    tx_id = int(packet[wire.HEADER_SIZE:].rstrip(b"\0"))
    packets = [life.turn((wire.XS_WRITE, tx_id, b"/t/%d\0" % number + b"x" * 3000))[0]
               for number in range(40)]
    assert not is_error(packets[0], b"ENOSPC") and is_error(packets[-1], b"ENOSPC")
    (packet,) = life.turn((wire.XS_TRANSACTION_END, tx_id, b"T\0"))
    assert is_error(packet, b"ENOMEM")
    assert life.state() == before
    reopened(life)


def test_damage_while_running_is_carried_from_memory() -> None:
    """A record damaged under a running server is reported, and what it held is saved."""
    life = Life(ArrayMedium(SIZE))
    for number in range(100):
        write(life, b"/quiet/%d" % number, b"kept")
    position = life.store.tree.nodes[b"/quiet/50"].position  # type: ignore[index]
    life.medium.bytes[layout.LOG_OFFSET + position + layout.RECORD_HEADER_SIZE] ^= 1
    log = life.journal.log
    lost = []
    while log.superblock.start <= position:
        write(life, b"/loud", b"x" * 2000)
        lost += life.journal.take_lost()
    assert [damage.position for damage in lost] == [position]
    reopened(life)


def test_work_per_turn_is_in_proportion() -> None:
    """C4: no turn writes more than its own record, and a bounded share of carrying."""
    life = Life(ArrayMedium(layout.REGION_SIZE_DEFAULT))
    for number in range(0, 40_000, 20):
        life.turn(*[(wire.XS_WRITE, 0, b"/n/%d/%d\0v" % (one % 200, one))
                    for one in range(number, number + 20)])
        life.tidy()
    log = life.journal.log
    largest = 0
    for number in range(20_000):
        before = log.tail
        life.turn((wire.XS_WRITE, 0, b"/n/%d/%d\0w" % (number * 7 % 200, number * 7)))
        appended = log.tail - before
        life.journal.after_turn(appended)
        largest = max(largest, log.tail - before)
    assert largest <= clean.STEP_BYTES + clean.QUANTUM_BYTES + 4096, largest


def test_room_is_made_before_a_turn_where_no_share_was_paid() -> None:
    """U4: with nothing carried between turns, prepare() alone keeps every turn possible."""
    life = Life(ArrayMedium(SIZE))
    for number in range(150):
        life.turn((wire.XS_WRITE, 0, b"/quiet/%d\0kept" % number))
    log = life.journal.log
    while log.tail < 3 * log.size:
        life.turn((wire.XS_WRITE, 0, b"/loud\0" + b"x" * 3000))
        assert log.free > 0
    reopened(life)


def test_the_older_superblock_is_enough() -> None:
    """A2: at any time the newer superblock may be lost; what the older names is still whole."""
    life = Life(ArrayMedium(layout.LOG_OFFSET + (48 << 10)))
    log = life.journal.log
    number = 0
    while log.tail < 4 * log.size:
        # Without tidy(): the log is always as full as it may be.
        life.turn((wire.XS_WRITE, 0, b"/k/%d\0" % (number % 40) + b"v" * (number * 7 % 300)))
        number += 1
        if number % 3 == 0:
            image = bytearray(life.medium.bytes)
            image[layout.SUPERBLOCK_OFFSETS[log.superblock.epoch & 1] + 30] ^= 1
            after = Life(ArrayMedium(bytes(image)))
            assert after.start.outcome is Outcome.CLEAN, after.start
            assert after.state() == life.state()
    assert log.superblock.epoch > 10, "the start has not moved"
