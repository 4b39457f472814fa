# SPDX-License-Identifier: Apache-2.0
"""P1, P3, P5: a crash at every store of a workload, and again at every store of its recovery.

Method: the workload is run once, turn by turn, noting the state after each. Then it dies at each
cut point of each store (tests/crash/world.py), and a new life recovers the image: its state must
be the one after the last published turn, or after the turn that was dying; never another, never
half a turn, never called corrupt. Each distinct image is tried once. Every 11th image's recovery
is killed at each of its own stores, and the life after that must find the same.
Crosses the end of the circular log, carrying, moves of the start, and seals; the test says so.
Cannot show: what a client saw (tests/crash/test_kill9.py), damage (test_bit_flips.py)."""

from __future__ import annotations

import pytest

from app import wire
from persist import layout
from persist.reader import LogReader
from persist.record import Kind
from persist.recover import Outcome
from tests.crash.counts import tell
from tests.crash.world import ArrayMedium, Died, DyingMedium, Life

SECOND_CRASH_EVERY = 11
NORMAL = (Outcome.CLEAN, Outcome.TORN_TAIL)
Turn = tuple[tuple[int, int, bytes], ...]


def write(path: bytes, value: bytes) -> tuple[int, int, bytes]:
    """A WRITE outside of transactions."""
    return wire.XS_WRITE, 0, path + b"\0" + value


def workload(count: int) -> list[Turn]:
    """Turns of every kind that changes something, with values of up to 3 KiB."""
    turns: list[Turn] = []
    for number in range(count):
        value = b"%d:" % number + b"x" * (number * 977 % 3000)
        path = b"/w/%d/%d" % (number % 7, number % 13)
        kind = number % 8
        if kind < 3:
            turns.append((write(path, value),))
        elif kind == 3:
            turns.append((write(path, value), write(path + b"/deep/er", b"y"),
                          (wire.XS_MKDIR, 0, b"/m/%d\0" % (number % 5))))
        elif kind == 4:
            turns.append(((wire.XS_RM, 0, b"/w/%d\0" % (number % 7)),))
        elif kind == 5:
            turns.append(((wire.XS_SET_PERMS, 0, b"/w\0n0\0r%d\0" % (number % 50)),))
        elif kind == 6:
            turns.append(((wire.XS_TRANSACTION_START, 0, b"\0"),))
            turns.append(((wire.XS_WRITE, -1, b"/t/a\0" + value), (wire.XS_RM, -1, b"/m\0"),
                          (wire.XS_WRITE, -1, b"/t/b/c\0" + value),
                          (wire.XS_TRANSACTION_END, -1, b"T\0")))
        else:
            turns.append(((wire.XS_SET_QUOTA, 0, b"nodes\0%d\0" % (1000 + number)),))
    return turns


def play(life: Life, turns: list[Turn]) -> None:
    """Run turns; life.published counts those that went out."""
    tx_id = 0
    for number, turn in enumerate(turns):
        requests = [(kind, tx_id if tx < 0 else tx, payload) for kind, tx, payload in turn]
        packets = life.turn(*requests)
        if turn[0][0] == wire.XS_TRANSACTION_START:
            tx_id = int(packets[0][wire.HEADER_SIZE:].rstrip(b"\0"))
        assert all(wire.HEADER.unpack_from(packet)[0] != wire.XS_ERROR
                   for packet in packets), packets
        life.published = number + 1
        life.tidy(idle=number % 10 == 9)


def states_of(image: bytes, turns: list[Turn]) -> list[dict[object, object]]:
    """The state before any turn and after each."""
    life = Life(ArrayMedium(image))
    states = [life.state()]
    for number in range(len(turns)):
        life = Life(ArrayMedium(image))
        play(life, turns[:number + 1])
        states.append(life.state())
    return states


def enumerate_crashes(image: bytes, turns: list[Turn], every: int) -> tuple[int, int, int]:
    """Die at every cut point; returns how many points, distinct images, and second crashes."""
    states = states_of(image, turns)
    counter = DyingMedium(image)
    play(Life(counter), turns)
    seen: set[bytes] = set()
    images = second = 0
    for point in range(0, counter.points, every):
        medium = DyingMedium(image, point)
        life = None
        try:
            life = Life(medium)
            play(life, turns)
            raise AssertionError(f"point {point} was not reached")
        except Died:
            published = life.published if life is not None else 0
        left = bytes(medium.bytes)
        if left in seen:
            continue
        seen.add(left)
        images += 1
        after = Life(ArrayMedium(left))
        assert after.start.outcome in NORMAL or life is None, (point, after.start)
        assert after.start.outcome is not Outcome.CORRUPT, (point, after.start)
        found = after.state()
        allowed = [states[published], states[min(published + 1, len(turns))]]
        assert found in allowed, f"crash point {point}: neither turn {published} nor the next"
        if images % SECOND_CRASH_EVERY == 0:
            second += second_crash(left, found)
    return counter.points, images, second


def second_crash(image: bytes, expected: dict[object, object]) -> int:
    """Die at every cut point of the recovery of `image`; the next must find `expected`."""
    counter = DyingMedium(image)
    Life(counter)
    for point in range(counter.points):
        medium = DyingMedium(image, point)
        with pytest.raises(Died):
            Life(medium)
        after = Life(ArrayMedium(bytes(medium.bytes)))
        assert after.start.outcome in NORMAL, after.start
        assert after.state() == expected, f"second crash at point {point}"
    return counter.points


def tried(what: str, result: tuple[int, int, int]) -> None:
    """Tell the counts at the end of the run."""
    tell(f"{what}: {result[0]} crash points, {result[1]} distinct images, "
         f"{result[2]} crashes during recovery")


def test_first_turns_of_a_new_region() -> None:
    """From the very first store of all: formatting, the first life, the first turns."""
    image = bytes(layout.REGION_SIZE_MIN)
    medium = DyingMedium(image)
    Life(medium)
    for point in range(medium.points):
        dying = DyingMedium(image, point)
        with pytest.raises(Died):
            Life(dying)
        after = Life(ArrayMedium(bytes(dying.bytes)))
        assert sorted(path for path in after.state() if isinstance(path, bytes)) == [
            b"/", b"/tool", b"/tool/xenstored"], point
    result = enumerate_crashes(image, workload(60), every=1)
    tried("new region", result)
    assert result[0] > 500


@pytest.mark.slow
def test_across_the_end_of_the_log() -> None:
    """Where the log wraps, old records are carried, and superblocks move."""
    medium = ArrayMedium(layout.REGION_SIZE_MIN)
    life = Life(medium)
    log = life.journal.log
    quiet = 0
    while log.tail < log.size - 20_000:
        play(life, workload(8))
        for _ in range(6):  # what lies everywhere in the log and must be carried
            life.turn(write(b"/quiet/%d" % quiet, b"kept %d" % quiet))
            quiet += 1
    image = bytes(medium.bytes)
    turns = workload(130)
    lap, epoch, position = log.tail // log.size, log.superblock.epoch, log.tail
    play(life, turns)
    kinds = []
    while position < log.tail:
        one = LogReader(medium).record_at(position)
        assert one is not None
        kinds.append(one.kind)
        position += one.size
    assert {Kind.TURN, Kind.CARRY, Kind.SEAL} <= set(kinds), "the workload lacks a kind of record"
    assert log.tail // log.size > lap, "the workload does not cross the end of the log"
    assert log.superblock.epoch > epoch, "the workload does not move the start"
    result = enumerate_crashes(image, turns, every=1)
    tried("end of the log", result)
    assert result[1] > 1000
