# SPDX-License-Identifier: Apache-2.0
"""R1-R3: records, superblocks and tail cells read back as written, and no flipped bit passes.

Method: round trips, then every bit of the encoded bytes is flipped."""

from __future__ import annotations

import pytest

from persist import layout, record
from persist.record import Kind, Superblock, TailCell

PAYLOADS = [b"", b"x", b"seven77", b"eight888", b"n" * 1000]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_record_round_trip(payload: bytes) -> None:
    """What was encoded is decoded, at its own place only."""
    data = record.encode(Kind.TURN, 7, 4096, b"previous", payload)
    assert len(data) == record.record_size(len(payload)) and len(data) % 8 == 0
    one = record.decode(b"front" + data + b"tail", 5, 4096)
    assert one is not None
    assert (one.kind, one.sequence, one.position, one.payload) == (Kind.TURN, 7, 4096, payload)
    assert (one.previous, one.check, one.size) == (b"previous", data[:8], len(data))
    assert record.decode(data, 0, 4104) is None, "a record passed for one at another place"
    assert record.decode(data[:-1], 0, 4096) is None, "a cut record passed"


def test_no_flipped_bit_passes() -> None:
    """R1, for all three units."""
    data = record.encode(Kind.TURN, 7, 4096, b"previous", b"payload that is not padded")
    block = record.encode_superblock(Superblock(1 << 20, 3, 99, 5))
    cell = record.encode_tail_cell(5, 99, b"checksum")
    assert record.decode_superblock(block) == Superblock(1 << 20, 3, 99, 5)
    assert record.decode_tail_cell(cell) == TailCell(5, 99, b"checksum")
    for bit in range(len(data) * 8):
        assert record.decode(flipped(data, bit), 0, 4096) is None, bit
    for bit in range(len(block) * 8):
        assert record.decode_superblock(flipped(block, bit)) is None, bit
    for bit in range(len(cell) * 8):
        assert record.decode_tail_cell(flipped(cell, bit)) is None, bit


def test_zeros_are_nothing() -> None:
    """A region that was never written holds no valid unit."""
    assert record.decode(bytes(4096), 0, 0) is None
    assert record.decode_superblock(bytes(layout.SUPERBLOCK_SIZE)) is None
    assert record.decode_tail_cell(bytes(layout.TAIL_CELL_SIZE)) is None


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)
