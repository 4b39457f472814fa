# SPDX-License-Identifier: Apache-2.0
"""Every offset, size, magic and version of the region.

L1. Nothing overlaps, and the log begins on a page: the asserts below hold it.
L2. Whatever lies in front of the log has a fixed place that does not depend on the region's size.
Knows nothing of how these places are read or written. Change with: FORMAT.md, and VERSION."""

MAGIC = b"TARDIGRD"
VERSION = 2

PAGE_SIZE = 4096
SUPERBLOCK_OFFSETS = (0x0000, 0x1000)
SUPERBLOCK_SIZE = 64
TAIL_CELL_OFFSETS = (0x2000, 0x2040)
TAIL_CELL_SIZE = 32
INTENT_OFFSET = 0x2080  # what is being done right now
INTENT_SIZE = 0xF80
CRASH_SLOT_OFFSET = 0x3000  # written by a kernel only: crash.py
CRASH_SLOT_SIZE = 0x1000
TURN_SLOT_OFFSETS = (0x4000, 0xA000)
TURN_SLOT_SIZE = 0x6000
LOG_OFFSET = 0x10000

REGION_SIZE_MIN = 1 << 20
REGION_SIZE_MAX = 1 << 40
REGION_SIZE_DEFAULT = 64 << 20

RECORD_ALIGNMENT = 8
RECORD_HEADER_SIZE = 40

assert SUPERBLOCK_OFFSETS[0] + SUPERBLOCK_SIZE <= SUPERBLOCK_OFFSETS[1]
assert SUPERBLOCK_OFFSETS[1] + SUPERBLOCK_SIZE <= TAIL_CELL_OFFSETS[0]
assert TAIL_CELL_OFFSETS[0] + TAIL_CELL_SIZE <= TAIL_CELL_OFFSETS[1]
assert TAIL_CELL_OFFSETS[1] + TAIL_CELL_SIZE <= INTENT_OFFSET
assert INTENT_OFFSET + INTENT_SIZE <= CRASH_SLOT_OFFSET
assert TURN_SLOT_OFFSETS[0] >= CRASH_SLOT_OFFSET + CRASH_SLOT_SIZE
assert TURN_SLOT_OFFSETS[0] + TURN_SLOT_SIZE <= TURN_SLOT_OFFSETS[1]
assert TURN_SLOT_OFFSETS[1] + TURN_SLOT_SIZE <= LOG_OFFSET
assert LOG_OFFSET % PAGE_SIZE == 0
assert RECORD_HEADER_SIZE % RECORD_ALIGNMENT == 0
assert REGION_SIZE_MIN > 2 * LOG_OFFSET


def log_size(region_size: int) -> int:
    """Bytes of the circular log in a region of `region_size` bytes."""
    return (region_size - LOG_OFFSET) // RECORD_ALIGNMENT * RECORD_ALIGNMENT


def record_size_max(log_bytes: int) -> int:
    """The stated maximum of one record, header included: an eighth of the log."""
    return log_bytes // 8 // RECORD_ALIGNMENT * RECORD_ALIGNMENT
