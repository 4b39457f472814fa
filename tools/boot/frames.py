# SPDX-License-Identifier: Apache-2.0
"""Xen's numbers of the frames that hold a PV domain's region. A PVH domain's are its own
guest-physical ones; a PV domain's memory is scattered, and only its page tables say where.

F1. The page tables are read from the top table that Xen has: Xen has checked each entry when it
    was written, so they hold whatever the domain has died of.
F2. What they name is not believed to be a region before region.check_is_region() says so.
The kernel maps all of its memory at DIRECT_BASE. Change with: image/kernel/layout.h, pvboot.c."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

from tools.boot.failure import BootError
from tools.boot.foreign import PAGE_SIZE, ForeignMemory
from tools.boot.libxen import Domain, Xen
from tools.boot.place import Place

DIRECT_BASE = 0xFFFF880000000000
ENTRIES = struct.Struct("=512Q")
UPPER_SHIFTS = (39, 30, 21)
SPAN = 1 << 21  # of a table of the last level
PRESENT = 1
FRAME_BITS = ((1 << 52) - 1) & -PAGE_SIZE
CONTEXT_SIZE = 5168  # struct vcpu_guest_context of x86-64
CONTEXT_CR3 = 5008   # its ctrlreg[3]

assert ENTRIES.size == PAGE_SIZE


def of_domain(xen: Xen, domain: Domain, place: Place) -> Sequence[int] | None:
    """None: the domain's own numbers do. Raises BootError."""
    return None if domain.is_pvh else _Walk(xen, domain.domid).frames(place)


def of_pages(xen: Xen, domain: Domain, addresses: Sequence[int]) -> list[int]:
    """Of single pages. Raises BootError."""
    if domain.is_pvh:
        return [address // PAGE_SIZE for address in addresses]
    walk = _Walk(xen, domain.domid)
    return [walk.frames(Place(PAGE_SIZE, address))[0] for address in addresses]


def of_domid(domid: int, place: Place) -> Sequence[int] | None:
    """As of_domain(). Without the library, which a PVH domain does not need, it is taken for one.
    Raises BootError."""
    try:
        xen = Xen()
    except BootError:
        return None
    domain = xen.domain(domid)
    return None if domain is None else of_domain(xen, domain, place)


class _Walk:
    """One walk over a domain's page tables, each of which is read once."""

    def __init__(self, xen: Xen, domid: int) -> None:
        self._domid = domid
        self._tables: dict[int, tuple[int, ...]] = {}
        context = ctypes.create_string_buffer(CONTEXT_SIZE)
        xen.call("xc_vcpu_getcontext", domid, 0, context, who=f"domain {domid}: ")
        self._cr3: int = struct.unpack_from("=Q", context, CONTEXT_CR3)[0]

    def frames(self, place: Place) -> list[int]:
        """Of the direct map, where the region is."""
        found: list[int] = []
        address, end = DIRECT_BASE + place.address, DIRECT_BASE + place.address + place.size
        while address < end:
            stop = min((address | SPAN - 1) + 1, end)
            entries = self._last_table(address)[address >> 12 & 511:][:(stop - address) >> 12]
            for entry in entries:
                self._check(entry, address)
            found += [(entry & FRAME_BITS) // PAGE_SIZE for entry in entries]
            address = stop
        return found

    def _last_table(self, address: int) -> tuple[int, ...]:
        table = self._table(self._cr3)
        for shift in UPPER_SHIFTS:
            entry = table[address >> shift & 511]
            self._check(entry, address)
            table = self._table(entry)
        return table

    def _check(self, entry: int, address: int) -> None:
        if not entry & PRESENT:
            raise BootError(f"domain {self._domid}: a PV domain with nothing mapped at or behind "
                            f"{address:#x}: it is none of ours, or has not run")

    def _table(self, entry: int) -> tuple[int, ...]:
        machine = entry & FRAME_BITS
        if machine not in self._tables:
            with ForeignMemory(self._domid, Place(PAGE_SIZE, machine)) as memory:
                self._tables[machine] = ENTRIES.unpack(memory.read(0, PAGE_SIZE))
        return self._tables[machine]
