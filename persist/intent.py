# SPDX-License-Identifier: Apache-2.0
"""What is being done right now: one small cell, written over before each turn.

N1. After a death it names what was under way; a torn cell names nothing, since then the turn had
    not begun.
N2. It is only a hint for the next life: nothing durable depends on it.
Knows nothing of what its payload means. Change with: FORMAT.md section 10."""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from persist import layout
from persist.region import Medium

_HEAD = struct.Struct("<IHHQ")  # checksum over the rest, phase, size of the payload, sequence
_REST = struct.Struct("<HHQ")
_CHECK = struct.Struct("<I")
PAYLOAD_MAX = layout.INTENT_SIZE - _HEAD.size


class Intent(NamedTuple):
    """`sequence`: of the log's last record when this began."""

    phase: int
    sequence: int
    payload: bytes


def write_intent(medium: Medium, phase: int, sequence: int, payload: bytes) -> None:
    """Name what is about to be done."""
    data = _REST.pack(phase, len(payload), sequence) + payload
    medium.write(layout.INTENT_OFFSET, _CHECK.pack(crc32(data)) + data)


def read_intent(medium: Medium) -> Intent | None:
    """What was named last; None if nothing was, or the cell is torn."""
    data = medium.read(layout.INTENT_OFFSET, layout.INTENT_SIZE)
    check, phase, size, sequence = _HEAD.unpack_from(data)
    if size > PAYLOAD_MAX or crc32(data[4:_HEAD.size + size]) != check or phase == 0:
        return None
    return Intent(phase, sequence, data[_HEAD.size:_HEAD.size + size])
