# SPDX-License-Identifier: Apache-2.0
"""One record, one superblock, one tail cell <-> bytes. Pure.

R1. A checksum covers all of its unit's other bytes, padding included: no bit is unguarded.
R2. A record names its own position and its predecessor's checksum, so neither a stale record
    behind the tail nor one of an abandoned continuation can pass for the next.
R3. Nothing is believed before its checksum is.
Knows nothing of order or space (log.py, recover.py). Change with: FORMAT.md sections 2 to 4."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from mmh3 import mmh3_x64_128_digest

from persist.layout import (
    MAGIC,
    RECORD_ALIGNMENT,
    RECORD_HEADER_SIZE,
    SUPERBLOCK_SIZE,
    TAIL_CELL_SIZE,
    VERSION,
)

CHECK_SIZE = 8
GENESIS = bytes(CHECK_SIZE)  # the predecessor's checksum of the first record of a region
HEADER = struct.Struct("<8s8sQQII")  # check, previous, sequence, position, length, kind
_GUARDED = struct.Struct("<8sQQII")
_SUPERBLOCK = struct.Struct("<8sIIQQQQ8s")
_TAIL_CELL = struct.Struct("<QQ8s")

_new = tuple.__new__  # half the cost of a NamedTuple's own
_PADDINGS = [bytes(size) for size in range(RECORD_ALIGNMENT)]

assert HEADER.size == RECORD_HEADER_SIZE
assert CHECK_SIZE + _GUARDED.size == RECORD_HEADER_SIZE
assert _SUPERBLOCK.size + CHECK_SIZE == SUPERBLOCK_SIZE
assert _TAIL_CELL.size + CHECK_SIZE == TAIL_CELL_SIZE


class Kind(enum.IntEnum):
    """Kinds of record. These numbers have reached regions: do not change them."""

    LIFE = 1
    TURN = 2
    CARRY = 3
    SEAL = 4
    END = 5
    SLOT = 6  # in a turn slot, never in the log


class Record(NamedTuple):
    """One verified record. `position` is free-running; `size` counts header and padding."""

    kind: int
    sequence: int
    position: int
    size: int
    check: bytes
    previous: bytes
    payload: bytes


class Superblock(NamedTuple):
    """Where replay starts. `start` is a position, `start_sequence` that record's sequence."""

    region_size: int
    epoch: int
    start: int
    start_sequence: int


class TailCell(NamedTuple):
    """The record that was appended last: all up to it were complete."""

    sequence: int
    position: int
    check: bytes


def checksum(data: bytes) -> bytes:
    """The first 8 bytes of MurmurHash3 x64 128 with seed 0."""
    return mmh3_x64_128_digest(data)[:CHECK_SIZE]


def record_size(payload_size: int) -> int:
    """Bytes in the log of a record with `payload_size` bytes of payload."""
    padded = (payload_size + RECORD_ALIGNMENT - 1) // RECORD_ALIGNMENT * RECORD_ALIGNMENT
    return RECORD_HEADER_SIZE + padded


def encode(kind: int, sequence: int, position: int, previous: bytes, payload: bytes) -> bytes:
    """The record's bytes; the first CHECK_SIZE of them are its checksum."""
    length = len(payload)
    guarded = (_GUARDED.pack(previous, sequence, position, length, kind) + payload
               + _PADDINGS[-length % RECORD_ALIGNMENT])
    return mmh3_x64_128_digest(guarded)[:CHECK_SIZE] + guarded


def decode(data: bytes, offset: int, position: int) -> Record | None:
    """The record at `offset` of `data`, which must reach to its end; None unless it is one.

    `position` is where the caller found it: a record that names another place is none."""
    body = offset + RECORD_HEADER_SIZE
    if body > len(data):
        return None
    check, previous, sequence, named_position, length, kind = HEADER.unpack_from(data, offset)
    end = body + length + -length % RECORD_ALIGNMENT
    if named_position != position or end > len(data):
        return None
    if mmh3_x64_128_digest(data[offset + CHECK_SIZE:end])[:CHECK_SIZE] != check:
        return None
    return _new(Record, (kind, sequence, position, end - offset, check, previous,
                         data[body:body + length]))


def encode_superblock(block: Superblock) -> bytes:
    """SUPERBLOCK_SIZE bytes."""
    data = _SUPERBLOCK.pack(MAGIC, VERSION, SUPERBLOCK_SIZE, block.region_size, block.epoch,
                            block.start, block.start_sequence, bytes(8))
    return data + checksum(data)


def decode_superblock(data: bytes) -> Superblock | None:
    """The superblock, or None if its checksum, magic or version is not ours."""
    guarded, check = data[:_SUPERBLOCK.size], data[_SUPERBLOCK.size:SUPERBLOCK_SIZE]
    if checksum(guarded) != check:
        return None
    magic, version, size, region_size, epoch, start, sequence, _ = _SUPERBLOCK.unpack(guarded)
    if (magic, version, size) != (MAGIC, VERSION, SUPERBLOCK_SIZE):
        return None
    return Superblock(region_size, epoch, start, sequence)


def superblock_version(data: bytes) -> int | None:
    """The format version that a superblock claims, None if it does not carry our magic."""
    if data[:len(MAGIC)] != MAGIC:
        return None
    return int.from_bytes(data[len(MAGIC):len(MAGIC) + 4], "little")


def encode_tail_cell(sequence: int, position: int, check: bytes) -> bytes:
    """TAIL_CELL_SIZE bytes that name a record."""
    data = _TAIL_CELL.pack(sequence, position, check)
    return data + mmh3_x64_128_digest(data)[:CHECK_SIZE]


def decode_tail_cell(data: bytes) -> TailCell | None:
    """The tail cell, or None if it is torn, damaged or was never written."""
    guarded, check = data[:_TAIL_CELL.size], data[_TAIL_CELL.size:TAIL_CELL_SIZE]
    if checksum(guarded) != check:
        return None
    return TailCell(*_TAIL_CELL.unpack(guarded))
