# SPDX-License-Identifier: Apache-2.0
"""A region inside of something larger: the memory of a machine, in a file as it is, or in a core
dump.

W1. Believed are superblocks that verify, stand at the beginning of a page, and name a size that
    fits in. Of several regions the one with the highest epoch counts.
W2. Never writes. What stands at the file's beginning is a region file, and not looked into.
Knows nothing of what made the file."""

from __future__ import annotations

from collections.abc import Iterator

from persist import layout
from persist.core import CoreMemory, is_core
from persist.record import decode_superblock
from persist.region import RegionError, RegionFile, open_region_for_reading

CHUNK_SIZE = 4 << 20  # a multiple of the page size

Source = RegionFile | CoreMemory


def open_source(path: str) -> Source:
    """The region in `path`, which is a region file, a device, or a machine's memory that holds
    one. Without any superblock it is taken for a damaged region file, but a core dump is not.
    Raises RegionError."""
    file = open_region_for_reading(path)
    if any(file.read(offset, len(layout.MAGIC)) == layout.MAGIC
           for offset in layout.SUPERBLOCK_OFFSETS):
        return file
    whole = CoreMemory(file) if is_core(file) else file
    found = max(_regions(whole), default=None)
    if found is None:
        if whole is not file:
            raise RegionError(f"{path}: there is no region in this core dump")
        return file
    _, base, size = found
    return whole.part(base, size)


def _regions(whole: Source) -> Iterator[tuple[int, int, int]]:
    """Epoch, place and size of each region (W1), by each of its superblocks."""
    for place in _magics(whole):
        block = decode_superblock(whole.read(place, layout.SUPERBLOCK_SIZE))
        if block is None:
            continue
        base = place - layout.SUPERBLOCK_OFFSETS[block.epoch & 1]
        if base >= 0 and base + block.region_size <= whole.size:
            yield block.epoch, base, block.region_size


def _magics(whole: Source) -> Iterator[int]:
    """Places of pages that begin with the magic and have room for a superblock."""
    for first, end in whole.stretches():
        for start in range(first, end, CHUNK_SIZE):
            chunk = whole.read(start, min(CHUNK_SIZE, end - start))
            at = chunk.find(layout.MAGIC)
            while at >= 0:
                place = start + at
                if place % layout.PAGE_SIZE == 0 and place + layout.SUPERBLOCK_SIZE <= whole.size:
                    yield place
                at = chunk.find(layout.MAGIC, at + 1)
