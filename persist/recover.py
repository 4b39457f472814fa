# SPDX-License-Identifier: Apache-2.0
"""Bytes -> records in order, and a verdict: Clean, TornTail or Corrupt. Never writes.

V1. Ends before the record that the tail cell names: damage. Ends behind it: a torn tail, normal.
V2. Records behind damage are applied only if their own checksums hold, and the gap is reported
    with its position, size and reason.
V3. The start is where the newer valid superblock says; with both lost, every record that can
    still be found is replayed, and the caller's state digest tells whether that was all.
Knows nothing of payloads: `apply` does. Change with: log.py, FORMAT.md section 8."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from persist import layout, record
from persist.log import LogState, first_superblock
from persist.reader import LogReader
from persist.record import Record, Superblock, TailCell
from persist.region import Medium, RegionError

SEGMENT_SHIFT = 11  # the cleaner counts live entries per 2 KiB of log


class Outcome(enum.Enum):
    """What recovery found."""

    FRESH = "new"
    CLEAN = "clean"
    TORN_TAIL = "torn tail"
    CORRUPT = "corrupt"


class Damage(NamedTuple):
    """Bytes that could not be believed: free-running position in the log, size, why."""

    position: int
    size: int
    reason: str


class Recovery(NamedTuple):
    """`state` is None for a FRESH region, which is still to be formatted."""

    outcome: Outcome
    damages: list[Damage]
    notes: list[str]  # harmless findings, such as a torn superblock
    state: LogState | None
    records: int
    segments: dict[int, tuple[int, int]]  # segment -> position and sequence of its first record


class Tail(NamedTuple):
    """Where a replay ended."""

    position: int
    sequence: int
    check: bytes
    damages: list[Damage]
    records: int
    segments: dict[int, tuple[int, int]]


def recover(medium: Medium, apply: Callable[[Record], None]) -> Recovery:
    """Call `apply` for each record from the replay start on, in order; say how it went.

    Raises RegionError for what is no region of ours, or of another version or size."""
    heads = [medium.read(offset, layout.SUPERBLOCK_SIZE) for offset in layout.SUPERBLOCK_OFFSETS]
    blocks = [record.decode_superblock(head) for head in heads]
    valid = sorted((block for block in blocks if block is not None), key=lambda one: one.epoch)
    if not valid:
        if _is_unformatted(medium.read(0, layout.LOG_OFFSET), medium.size):
            return Recovery(Outcome.FRESH, [], [], None, 0, {})
        _refuse_foreign(heads)
    notes = [f"superblock {index} does not verify" for index, block in enumerate(blocks)
             if block is None]
    reader = LogReader(medium)
    cell = newest_tail_cell(medium)
    if valid:
        newest = valid[-1]
        if newest.region_size != medium.size:
            raise RegionError(f"the region was made with {newest.region_size} bytes and has "
                              f"{medium.size}: truncated, or copied in part")
        floor = valid[0].start
        tail = replay(reader, newest.start, newest.start_sequence, cell, apply)
    else:
        newest, tail = _scavenge(reader, medium.size, cell, apply)
        floor = newest.start
    state = LogState(tail.position, tail.sequence, tail.check, newest, floor)
    if tail.damages:
        outcome = Outcome.CORRUPT
    elif _looks_torn(reader, tail.position):
        outcome = Outcome.TORN_TAIL
    else:
        outcome = Outcome.CLEAN
    return Recovery(outcome, tail.damages, notes, state, tail.records, tail.segments)


def newest_tail_cell(medium: Medium) -> TailCell | None:
    """The valid tail cell with the highest sequence; None if both are damaged or unwritten."""
    cells = [record.decode_tail_cell(medium.read(offset, layout.TAIL_CELL_SIZE))
             for offset in layout.TAIL_CELL_OFFSETS]
    return max((cell for cell in cells if cell is not None), default=None)


def replay(reader: LogReader, start: int, start_sequence: int, cell: TailCell | None,
           apply: Callable[[Record], None]) -> Tail:
    """Apply the records from position `start` to the tail; damage between them is reported."""
    position, sequence = start, start_sequence - 1
    check: bytes | None = None
    damages: list[Damage] = []
    records = 0
    segments: dict[int, tuple[int, int]] = {}
    last_segment = -1
    record_at = reader.record_at
    while True:
        one = record_at(position)
        if one is None or one.sequence <= sequence or (
                check is not None and one.previous != check):
            if cell is None or cell.sequence <= sequence:
                break
            found = reader.find(position + layout.RECORD_ALIGNMENT, cell.position + 1)
            if found is not None and not sequence < found.sequence <= cell.sequence:
                found = None  # whole, but of another past: not to be believed
            if found is None:
                damages.append(Damage(position, max(cell.position - position, 0)
                                      or layout.RECORD_HEADER_SIZE,
                                      f"records {sequence + 1} to {cell.sequence} do not verify"))
                # The tail cell is the only witness left: never use its sequence again.
                sequence = cell.sequence
                break
            damages.append(Damage(position, found.position - position,
                                  f"records {sequence + 1} to {found.sequence - 1} "
                                  "do not verify"))
            one, check = found, None
        apply(one)
        records += 1
        segment = one.position >> SEGMENT_SHIFT
        if segment != last_segment:
            segments[segment] = (one.position, one.sequence)
            last_segment = segment
        position, sequence, check = one.position + one.size, one.sequence, one.check
    return Tail(position, sequence, check or record.GENESIS, damages, records, segments)


def _is_unformatted(head: bytes, region_size: int) -> bool:
    """Whether format_region() has not begun, or died in the first superblock. The crash slot is
    not ours: a kernel may have written it before."""
    head = (head[:layout.CRASH_SLOT_OFFSET]
            + head[layout.CRASH_SLOT_OFFSET + layout.CRASH_SLOT_SIZE:])
    written = record.encode_superblock(first_superblock(region_size))
    kept = len(head[:layout.SUPERBLOCK_SIZE].rstrip(b"\0"))
    return head[:kept] == written[:kept] and not any(head[kept:])


def _refuse_foreign(heads: list[bytes]) -> None:
    versions = {record.superblock_version(head) for head in heads} - {None}
    others = versions - {layout.VERSION}
    if not versions:
        raise RegionError("this is no tardigrade region (no magic); it was not touched")
    if others and layout.VERSION not in versions:
        raise RegionError(f"the region has format version {others.pop()}, this server knows "
                          f"version {layout.VERSION}; it was not touched")


def _scavenge(reader: LogReader, region_size: int, cell: TailCell | None,
              apply: Callable[[Record], None]) -> tuple[Superblock, Tail]:
    """Replay without superblocks: from the oldest record of the last lap that still verifies."""
    found = reader.find_any_lap()
    if not found:
        raise RegionError("both superblocks are damaged and no record can be found")
    end = found[-1].position + found[-1].size
    first = next(one for one in found if one.position >= end - reader.log_size)
    tail = replay(reader, first.position, first.sequence, cell, apply)
    tail.damages.insert(0, Damage(0, 0, "both superblocks are damaged"))
    return Superblock(region_size, 1, first.position, first.sequence), tail


def _looks_torn(reader: LogReader, position: int) -> bool:
    """Whether a record was being written at `position`: its header names the place."""
    head = reader.read(position, layout.RECORD_HEADER_SIZE)
    return bool(record.HEADER.unpack(head)[3] == position and any(head))
