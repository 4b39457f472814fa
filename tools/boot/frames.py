# SPDX-License-Identifier: Apache-2.0
"""A domain's memory by its own addresses, PVH or PV.

A PVH domain's pages are mapped by its own numbers. A PV domain's are mapped by the machine's, which
it tells in a tree that begins in shared_info (image/kernel/pvdump.c): a page of the frames of pages
of the frames of the table in which each page's frame is.
Knows nothing of what the bytes mean. Change with: foreign.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tools.boot.failure import BootError
from tools.boot.foreign import PAGE_SIZE, ForeignMemory
from tools.boot.libxen import Domain, Xen
from tools.boot.place import Place

FRAME_LIST_LIST = struct.Struct("<3096xQ")  # struct shared_info: arch.pfn_to_mfn_frame_list_list
PER_PAGE = PAGE_SIZE // 8


def memory_of(domid: int, place: Place, may_write: bool = False) -> ForeignMemory:
    """A range of a domain's memory. Raises BootError."""
    domain = Xen().domain(domid)
    if domain is None:
        raise BootError(f"there is no domain {domid}")
    return ForeignMemory(domid, place, may_write,
                         None if domain.is_pvh else frames_of(domain, place))


def frames_of(domain: Domain, place: Place) -> list[int]:
    """Where a PV domain's pages are in the machine. Raises BootError."""
    first, end = place.address // PAGE_SIZE, (place.address + place.size) // PAGE_SIZE
    shared_info = _read(domain.domid, [domain.shared_info_frame])
    (top,) = FRAME_LIST_LIST.unpack_from(shared_info)
    if not top:
        raise BootError(f"domain {domain.domid}: this PV domain does not tell where its memory is")
    lists = _words(_read(domain.domid, [top]))[:-(-end // (PER_PAGE * PER_PAGE))]
    tables = _words(_read(domain.domid, lists))[first // PER_PAGE:-(-end // PER_PAGE)]
    skipped = first // PER_PAGE * PER_PAGE
    return list(_words(_read(domain.domid, tables))[first - skipped:end - skipped])


def _read(domid: int, frames: Sequence[int]) -> bytes:
    """Pages of a domain, by their frames."""
    with ForeignMemory(domid, Place(len(frames) * PAGE_SIZE, 0), frames=frames) as memory:
        return memory.read(0, memory.size)


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}Q", data)
