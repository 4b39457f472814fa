# SPDX-License-Identifier: Apache-2.0
"""The crash slot: why the last life ended, as a kernel has written it into the region.

H1. Read only here: the kernel writes it, at a death and for the server's file /dev/crash. Neither
    recovery nor the state rests on it.
H2. It is believed only if its checksum covers its own size; else it is torn, which is said.
Knows nothing of what its text means. Change with: FORMAT.md section 11, image/kernel."""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from persist import layout
from persist.region import Medium

MAGIC = b"TARDCRSH"
HEADER = struct.Struct("<8sIIQQ")  # magic, CRC-32 of what follows it, size of the text, restart, us
CHECKED_FROM = 12  # what the checksum covers begins here, and ends with the text
TEXT_SIZE_MAX = layout.CRASH_SLOT_SIZE - HEADER.size

assert HEADER.size == 32 and TEXT_SIZE_MAX == 4064


class CrashSlot(NamedTuple):
    """`restart`: how many lives there were since power-on. A torn slot has no other fields."""

    is_torn: bool
    restart: int
    time_us: int
    text: str


def read_crash_slot(medium: Medium) -> CrashSlot | None:
    """What the slot says; None if no kernel has ever written it."""
    data = medium.read(layout.CRASH_SLOT_OFFSET, layout.CRASH_SLOT_SIZE)
    if not any(data):
        return None
    magic, check, size, restart, time_us = HEADER.unpack_from(data)
    end = HEADER.size + size
    if magic != MAGIC or size > TEXT_SIZE_MAX or crc32(data[CHECKED_FROM:end]) != check:
        return CrashSlot(True, 0, 0, "")
    return CrashSlot(False, restart, time_us, data[HEADER.size:end].decode("utf-8", "replace"))
