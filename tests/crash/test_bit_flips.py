# SPDX-License-Identifier: Apache-2.0
"""P5: no single damaged byte of the region goes unnoticed where it matters.

Method: a small region is filled with a life of turns, carrying and seals. Then one bit of every
byte is flipped in turn, and a new life recovers. The outcome is one of
  detected   called corrupt, with an offset; the life serves what is provably good
  harmless   not called corrupt, and the state is what it was
  silent     not called corrupt, and the state is another: there must be none
After a detected flip the server must have kept the image, and its next start must not meet the
same damage as news. The table is printed.
Cannot show: two damages at once (test_garbage below only shows that they crash nothing)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from persist import layout, record
from persist.log import Log
from persist.recover import Outcome
from persist.region import RegionError
from tests.crash.counts import tell
from tests.crash.test_every_store import play, workload
from tests.crash.world import ArrayMedium, Life

SMALL_LOG = 24 << 10
REPORTED_ONCE_EVERY = 97


def filled(log_size: int, turns: int) -> tuple[bytes, dict[object, object], Log]:
    """A region's image after some turns, its state, and its log."""
    life = Life(ArrayMedium(layout.LOG_OFFSET + log_size))
    play(life, [((kind, tx, payload[:120]),) for ((kind, tx, payload), *_) in workload(turns)
                if tx == 0 and kind != 6])
    return bytes(life.medium.bytes), life.state(), life.journal.log


def flip(image: bytes, offset: int, state: dict[object, object]) -> str:
    """Recover with bit (offset mod 8) of byte `offset` flipped; returns the class."""
    damaged = bytearray(image)
    damaged[offset] ^= 1 << (offset % 8)
    life = Life(ArrayMedium(bytes(damaged)))
    if life.start.outcome is not Outcome.CORRUPT:
        assert life.kept_damaged == 0
        return "harmless" if life.state() == state else "silent"
    assert life.kept_damaged == 1, "the damaged image was not kept"
    assert life.start.damages and all(one.reason for one in life.start.damages)
    if offset % REPORTED_ONCE_EVERY == 0:
        again = Life(life.medium)
        assert again.start.outcome is Outcome.CLEAN, again.start
        assert again.state() == life.state()
        assert again.kept_damaged == 0
    return "detected"


def run_flips(offsets: range, image: bytes, state: dict[object, object]) -> Counter[str]:
    """Flip each offset; tell and return the table."""
    table = Counter(flip(image, offset, state) for offset in offsets)
    tell(f"{len(offsets)} bytes from {offsets.start:#x} flipped: " + ", ".join(
        f"{table[name]} {name}" for name in ("detected", "harmless", "silent")))
    return table


def test_every_byte_that_is_read() -> None:
    """Superblocks, tail cells, and the whole log in use."""
    image, state, log = filled(SMALL_LOG, 60)
    total: Counter[str] = Counter()
    for start in (*layout.SUPERBLOCK_OFFSETS, *layout.TAIL_CELL_OFFSETS):
        total += run_flips(range(start, start + layout.SUPERBLOCK_SIZE), image, state)
    used = log.tail - log.superblock.start
    assert used > 4096
    begin = layout.LOG_OFFSET + log.superblock.start % log.size
    total += run_flips(range(begin, min(begin + used, len(image)), 3), image, state)
    assert total["silent"] == 0
    assert total["detected"] > used / 3 * 0.9, "most of a log in use is live in the chain"


@pytest.mark.slow
def test_every_byte_of_a_small_region() -> None:
    """All of it, reserved places and the unused end of the log included, after several laps."""
    image, state, log = filled(SMALL_LOG, 400)
    assert log.tail > 2 * log.size, "the log has not wrapped"
    table = run_flips(range(len(image)), image, state)
    assert table["silent"] == 0
    assert table["detected"] > 1000


def test_damage_in_the_middle_keeps_what_lies_behind() -> None:
    """Records behind a damaged one are applied; only what the lost one said is missing."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    for number in range(50):
        life.turn((11, 0, b"/k%d\0value" % number))
    before = life.state()
    lost = life.store.tree.nodes[b"/k20"].position  # type: ignore[index]
    image = life.medium.bytes
    image[layout.LOG_OFFSET + lost + layout.RECORD_HEADER_SIZE] ^= 1
    after = Life(ArrayMedium(bytes(image)))
    assert after.start.outcome is Outcome.CORRUPT
    assert after.start.damages[0].position == lost
    assert "do not verify" in after.start.damages[0].reason
    missing = before.keys() - after.state().keys()
    assert missing == {b"/k20"}


def test_lost_parents_are_made_anew() -> None:
    """A node whose parent was in the damaged bytes is still there, for domain 0 only."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    life.turn((11, 0, b"/a/b\0x"))
    lost = life.store.tree.nodes[b"/a"].position  # type: ignore[index]
    life.turn((11, 0, b"/a/b/c/d\0y"))
    life.medium.bytes[layout.LOG_OFFSET + lost + layout.RECORD_HEADER_SIZE + 5] ^= 1
    after = Life(ArrayMedium(bytes(life.medium.bytes)))
    assert after.start.outcome is Outcome.CORRUPT
    state = after.state()
    assert state[b"/a/b/c/d"][0] == b"y"  # type: ignore[index]
    assert state[b"/a"][:2] == (b"", b"n0\0")  # type: ignore[index]
    assert Life(after.medium).start.outcome is Outcome.CLEAN


def test_both_superblocks_lost() -> None:
    """Every record is searched for, and the state digest proves that all was found."""
    image, state, _ = filled(SMALL_LOG, 150)
    damaged = bytearray(image)
    for offset in layout.SUPERBLOCK_OFFSETS:
        damaged[offset + 20] ^= 0xFF
    life = Life(ArrayMedium(bytes(damaged)))
    assert life.start.outcome is Outcome.CORRUPT
    assert "both superblocks" in life.start.damages[0].reason
    assert any("digest agrees" in note for note in life.start.notes), life.start.notes
    assert life.state() == state
    assert Life(life.medium).start.outcome is Outcome.CLEAN


def test_other_version_is_refused() -> None:
    """Another format version is named, and nothing is written."""
    image, _, _ = filled(SMALL_LOG, 10)
    other = bytearray(image)
    for offset in layout.SUPERBLOCK_OFFSETS:
        other[offset + len(layout.MAGIC)] = layout.VERSION + 1
        guarded = bytes(other[offset:offset + layout.SUPERBLOCK_SIZE - record.CHECK_SIZE])
        other[offset + len(guarded):offset + layout.SUPERBLOCK_SIZE] = record.checksum(guarded)
    medium = ArrayMedium(bytes(other))
    with pytest.raises(RegionError, match=f"format version {layout.VERSION + 1}"):
        Life(medium)
    assert medium.bytes == other


def test_foreign_and_truncated_regions_are_refused() -> None:
    """What is not ours is not touched."""
    medium = ArrayMedium(random.Random(1).randbytes(layout.REGION_SIZE_MIN))
    kept = bytes(medium.bytes)
    with pytest.raises(RegionError, match="no magic"):
        Life(medium)
    assert medium.bytes == kept
    image, _, _ = filled(SMALL_LOG, 10)
    with pytest.raises(RegionError, match="truncated"):
        Life(ArrayMedium(image[:-8192]))


def test_garbage() -> None:
    """Heavy damage anywhere behind the superblocks: recovery says corrupt, and lives."""
    image, state, _ = filled(SMALL_LOG, 150)
    chance = random.Random(7)
    for _ in range(60):
        damaged = bytearray(image)
        for _ in range(chance.randrange(1, 12)):
            size = chance.randrange(1, 2000)
            offset = chance.randrange(layout.TAIL_CELL_OFFSETS[0], len(damaged) - size)
            damaged[offset:offset + size] = chance.randbytes(size)
        life = Life(ArrayMedium(bytes(damaged)))
        assert life.start.outcome is Outcome.CORRUPT or life.state().items() <= state.items()
        life.turn((11, 0, b"/still/alive\0yes"))
        assert Life(life.medium).state() == life.state()
