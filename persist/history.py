# SPDX-License-Identifier: Apache-2.0
"""All that a region still holds: records in order, and the gaps between them. Never writes.

H1. A server that runs may overtake the reader: what it has reused since is gone, not damaged. So a
    reading that met damage is repeated when the superblocks have moved meanwhile.
H2. Where the history begins is no gap: before it is what was reused, and parts of it.
Knows nothing of payloads. Change with: recover.py, which reads the part that the state rests on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from persist import layout
from persist.reader import LogReader
from persist.record import Record
from persist.recover import Recovery, newest_tail_cell, recover
from persist.region import Medium, RegionError

READ_TRIES = 20
FOLLOW_S = 0.2


class Gap(NamedTuple):
    """Bytes between two records of the history that cannot be believed."""

    position: int
    size: int


def recover_beside(medium: Medium, begin: Callable[[], Callable[[Record], None]]) -> Recovery:
    """recover(), beside a running server (H1). `begin` is called for each try, and gives what takes
    the records. Raises RegionError."""
    for _ in range(READ_TRIES):
        before = _superblocks(medium)
        found = recover(medium, begin())
        if not found.damages or _superblocks(medium) == before:
            return found
    raise overtaken()


def overtaken() -> RegionError:
    """The error of a reader that a running server has overtaken, again and again (H1)."""
    return RegionError("the server moves on faster than it can be read; try again")


def history(medium: Medium, tail: int) -> Iterator[Record | Gap]:
    """All records before position `tail` that are still whole, oldest first, those before the
    replay start included, and the gaps between them."""
    reader = LogReader(medium)
    position = max(tail - reader.log_size, 0)
    has_begun = position == 0
    while position < tail:
        one = reader.record_at(position)
        if one is None:
            one = reader.find(position, tail)
            cell = newest_tail_cell(medium)
            is_reused = cell is not None and (
                cell.position + layout.record_size_max(reader.log_size) - position
                > reader.log_size)
            if has_begun and not is_reused:
                yield Gap(position, (one.position if one is not None else tail) - position)
            if one is None:
                return
        has_begun = True
        yield one
        position = one.position + one.size


def follow(medium: Medium, position: int) -> Iterator[Record | Gap | None]:
    """What is appended from `position` on, without an end. None: all that there is was given; the
    next look is FOLLOW_S later."""
    while True:
        reader = LogReader(medium)  # a new one: nothing old in its chunk
        cell = newest_tail_cell(medium)
        while cell is not None and position <= cell.position:
            one = reader.record_at(position)
            if one is None:
                oldest = max(position, cell.position - reader.log_size // 2)
                one = reader.find(oldest, cell.position + 1)
                if one is None:
                    break
                yield Gap(position, one.position - position)
            yield one
            position = one.position + one.size
        yield None
        time.sleep(FOLLOW_S)


def _superblocks(medium: Medium) -> list[bytes]:
    return [medium.read(offset, layout.SUPERBLOCK_SIZE) for offset in layout.SUPERBLOCK_OFFSETS]
