# SPDX-License-Identifier: Apache-2.0
"""The interpreter's snapshot, taken out of a domain that runs, and put into its successor, whose
first start is then as fast as a restart.

S1. The kernel never changes the pages of a snapshot that it has published. It gives one up only
    for a cold start: what was taken out meanwhile is then no snapshot, which S2 finds.
S2. What is put in is verified by the kernel, with all that it rests on. Nothing here has to be
    right for more than speed, so nothing is an error: there is a snapshot, or there is none.
Change with: image/kernel/snapshot.h, carried.c."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tools.boot import frames
from tools.boot.failure import BootError
from tools.boot.foreign import PAGE_SIZE, ForeignMemory
from tools.boot.libxen import Domain
from tools.boot.place import Place

NOTE_ADDRESS = 0x1000  # image/kernel/layout.h, NOTE_PA
NOTE = struct.Struct("=8s5Q")  # magic, first index, pages, three sums
MAGIC = b"TARDSNAP"
INDEX = struct.Struct("=QQ16x508Q")  # next index; entries: address and flags, page
SHARED = 16  # MAP_SHARED: not a page of the snapshot's own
PAGES_MAX = 1 << 14

assert INDEX.size == PAGE_SIZE


def take(domain: Domain, known: bytes | None = None) -> bytes | None:
    """The note, on a page, and the pages in its order. None: there is no snapshot to be had.
    `known`: what was taken before, which is given back if it is the same one's."""
    try:
        note = _pages(domain, [NOTE_ADDRESS])
        if known is not None and known.startswith(note):
            return known
        magic, first, count, *_ = NOTE.unpack_from(note)
        if magic != MAGIC or not 0 < count < PAGES_MAX:
            return None
        addresses = _addresses(domain, first, count)
        return note + _pages(domain, addresses) if len(addresses) == count else None
    except BootError:
        return None


def place_of(snapshot: bytes, region: Place) -> Place:
    """Where it belongs: behind the region."""
    return Place(len(snapshot), region.address + region.size)


def _addresses(domain: Domain, index: int, most: int) -> list[int]:
    """Of all pages: each index, and behind it the copies that it lists."""
    found: list[int] = []
    while index and len(found) < most:
        found.append(index)
        index, count, *entries = INDEX.unpack(_pages(domain, [index]))
        pairs = list(zip(entries[::2], entries[1::2], strict=True))[:count]
        found += [page for flags, page in pairs if page and not flags & SHARED]
    return found


def _pages(domain: Domain, addresses: Sequence[int]) -> bytes:
    """Pages, wherever they are. Raises BootError."""
    with ForeignMemory(domain.domid, Place(len(addresses) * PAGE_SIZE, 0),
                       frames=frames.of_pages(domain, addresses)) as memory:
        return memory.read(0, memory.size)
