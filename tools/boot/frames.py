# SPDX-License-Identifier: Apache-2.0
"""Where the pages of a domain are in the machine, by which dom0 maps them.

F1. A PVH domain's own frame numbers do: Xen translates them.
F2. A PV domain's are found as Xen's tools for core dumps find them: its shared_info names a page of
    the frames of pages of the frames of the table in which each page's frame is
    (image/kernel/pvdump.c). They can be read when the domain is dead, too.
F3. Before it has run its shared_info says nothing; but its builder has put that table where its
    first registers and page tables say.
Knows nothing of what the bytes mean. Change with: foreign.py."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

from tools.boot.failure import BootError
from tools.boot.foreign import PAGE_SIZE, ForeignMemory
from tools.boot.libxen import Domain, Xen
from tools.boot.place import Place

FRAME_LIST_LIST = struct.Struct("<3096xQ")  # struct shared_info: arch.pfn_to_mfn_frame_list_list
PER_PAGE = PAGE_SIZE // 8
# What a PV domain starts with: struct vcpu_guest_context and struct start_info
CONTEXT_MAX = 8192
START_INFO_VA = struct.Struct("<624xQ")  # user_regs.rsi
PAGE_TABLES = struct.Struct("<5008xQ")  # ctrlreg[3]
START_INFO = struct.Struct("<32sQ64xQ")  # magic, nr_pages; mfn_list
START_MAGIC = b"xen-3."
ENTRY_PRESENT, ENTRY_FRAME = 1, 0xFFFFFFFFFF000
LEVEL_SHIFTS = (39, 30, 21, 12)


def memory_of(domid: int, place: Place, may_write: bool = False) -> ForeignMemory:
    """A range of a domain's memory. Raises BootError."""
    return ForeignMemory(domid, place, may_write, of_domid(domid, place))


def of_domid(domid: int, place: Place) -> list[int] | None:
    """As of_domain(). Without the library, which a PVH domain does not need, it is taken for one.
    Raises BootError."""
    try:
        xen = Xen()
    except BootError:
        return None
    domain = xen.domain(domid)
    return None if domain is None else of_domain(domain, place)


def of_domain(domain: Domain, place: Place) -> list[int] | None:
    """Of a range; None: the domain's own numbers do (F1). Raises BootError."""
    first = place.address // PAGE_SIZE
    return None if domain.is_pvh else _of_pv(domain, range(first, first + place.size // PAGE_SIZE))


def of_pages(domain: Domain, addresses: Sequence[int]) -> list[int]:
    """Of single pages. Raises BootError."""
    pages = [address // PAGE_SIZE for address in addresses]
    return pages if domain.is_pvh else _of_pv(domain, pages)


def of_new(xen: Xen, domid: int) -> list[int] | None:
    """Of the whole memory of a domain that has not run (F3); None: the domain's own numbers do.
    Raises BootError."""
    domain = xen.domain(domid)
    if domain is None:
        raise BootError(f"there is no domain {domid}")
    if domain.is_pvh:
        return None
    context = ctypes.create_string_buffer(CONTEXT_MAX)
    xen.call("xc_vcpu_getcontext", domid, 0, context, who=f"domain {domid}: ")
    (start_va,), (root,) = (START_INFO_VA.unpack_from(context.raw),
                            PAGE_TABLES.unpack_from(context.raw))
    tables = _Tables(domid, root // PAGE_SIZE)
    start = _read(domid, [tables.frame(start_va)])
    magic, count, list_va = START_INFO.unpack_from(start, start_va % PAGE_SIZE)
    if not magic.startswith(START_MAGIC) or list_va % PAGE_SIZE or not 0 < count <= domain.pages:
        raise BootError(f"domain {domid}: it is not as a PV domain starts")
    pages = range(list_va, list_va + 8 * count, PAGE_SIZE)
    return list(_words(_read(domid, [tables.frame(va) for va in pages]))[:count])


class _Tables:
    """The page tables of a PV domain. Each is read once."""

    def __init__(self, domid: int, root: int) -> None:
        self._domid, self._root = domid, root
        self._read: dict[int, tuple[int, ...]] = {}

    def frame(self, va: int) -> int:
        """Where a page is. Raises BootError."""
        frame = self._root
        for shift in LEVEL_SHIFTS:
            if frame not in self._read:
                self._read[frame] = _words(_read(self._domid, [frame]))
            entry = self._read[frame][va >> shift & PER_PAGE - 1]
            if not entry & ENTRY_PRESENT:
                raise BootError(f"domain {self._domid}: there is nothing at {va:#x}")
            frame = (entry & ENTRY_FRAME) // PAGE_SIZE
        return frame


def _of_pv(domain: Domain, pages: Sequence[int]) -> list[int]:
    domid = domain.domid
    (top,) = FRAME_LIST_LIST.unpack_from(_read(domid, [domain.shared_info_frame]))
    if not top:
        raise BootError(f"domain {domid}: this PV domain does not tell where its memory is: it is "
                        "none of ours, or has not run")
    lists = _words(_read(domid, [top]))[:max(pages) // (PER_PAGE * PER_PAGE) + 1]
    tables = _words(_read(domid, lists))
    needed = sorted({page // PER_PAGE for page in pages})
    entries = _words(_read(domid, [tables[one] for one in needed]))
    start = {one: number * PER_PAGE for number, one in enumerate(needed)}
    return [entries[start[page // PER_PAGE] + page % PER_PAGE] for page in pages]


def _read(domid: int, frames: Sequence[int]) -> bytes:
    """Pages of a domain, by their frames."""
    with ForeignMemory(domid, Place(len(frames) * PAGE_SIZE, 0), frames=frames) as memory:
        return memory.read(0, memory.size)


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}Q", data)
