# SPDX-License-Identifier: Apache-2.0
"""A machine's memory in a core dump: where each of its pages is in the file.

Two kinds of ELF files. Xen's (xl dump-core, xsboot core): the pages stand in section .xen_pages in
any order, and .xen_pfn names the place of each in the domain's memory, for a PV domain .xen_p2m
(Xen's docs/misc/dump-core-format.txt). QEMU's (dump-guest-memory): a segment PT_LOAD for each
stretch of memory.

C1. Addresses are those of the machine, not the file's. What the dump has not is read as zeros.
C2. Nothing in the file is believed: tables that reach beyond its end are an error.
Knows nothing of what is in the memory. Change with: find.py."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from persist.layout import PAGE_SIZE
from persist.region import RegionError

MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
TYPE_CORE = 4
# e_type, e_phoff, e_shoff, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
HEADER = struct.Struct("<16xH2x4x8xQQ4x2xHHHHH")
SEGMENT = struct.Struct("<I4xQ8xQQ16x")  # p_type, p_offset, p_paddr, p_filesz
SECTION = struct.Struct("<I4x8x8xQQ24x")  # sh_name, sh_offset, sh_size
PT_LOAD = 1
NAME_MAX = 32
PAGES, PFNS, P2M = b".xen_pages", b".xen_pfn", b".xen_p2m"
NO_PAGE = (1 << 64) - 1

assert (HEADER.size, SEGMENT.size, SECTION.size) == (64, 56, 64)


class File(Protocol):
    """What the dump is in."""

    path: str
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes."""

    def close(self) -> None:
        """Give it back."""


class Extent(NamedTuple):
    """A stretch of memory, and where it is in the file."""

    address: int
    offset: int
    size: int


class CoreMemory:
    """The memory in a core dump; a part of it, if that is asked for. Implements
    persist.region.Medium, for reading. Raises RegionError."""

    def __init__(self, file: File) -> None:
        self.path = file.path
        self.base = 0
        self._file = file
        self.extents = list(_joined(sorted(_extents(file))))
        for one in self.extents:
            _check(file, one.offset, one.size)
        self._ends = [one.address + one.size for one in self.extents]
        self.size = max(self._ends, default=0)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at an address."""
        assert offset >= 0 and offset + size <= self.size, (hex(offset), size)
        place, end = self.base + offset, self.base + offset + size
        parts: list[bytes] = []
        index = bisect.bisect_right(self._ends, place)
        while place < end:
            if index == len(self.extents) or self.extents[index].address >= end:
                parts.append(bytes(end - place))
                break
            one = self.extents[index]
            parts.append(bytes(max(0, one.address - place)))
            place = max(place, one.address)
            count = min(end, one.address + one.size) - place
            parts.append(self._file.read(one.offset + place - one.address, count))
            place += count
            index += 1
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Never."""
        raise AssertionError("a core dump is not written to")

    def stretches(self) -> list[tuple[int, int]]:
        """Beginning and end of what is there, neighbours together."""
        found: list[tuple[int, int]] = []
        for one in self.extents:
            end = one.address + one.size
            if found and found[-1][1] == one.address:
                found[-1] = (found[-1][0], end)
            else:
                found.append((one.address, end))
        return found

    def part(self, base: int, size: int) -> CoreMemory:
        """What is at `base`, in its place: this one is not to be used any more."""
        assert self.base == 0 <= base <= self.size - size
        self.base, self.size = base, size
        return self

    def close(self) -> None:
        """Give up the file."""
        self._file.close()


def is_core(file: File) -> bool:
    """Whether it is one of ours to read, by its first bytes."""
    start = file.read(0, HEADER.size)
    return start.startswith(MAGIC) and HEADER.unpack(start)[0] == TYPE_CORE


def _extents(file: File) -> Iterator[Extent]:
    """All that is there, in the file's order."""
    _, segments_at, sections_at, segment_size, segments, section_size, sections, names_index = (
        HEADER.unpack(file.read(0, HEADER.size)))
    if segments and segment_size == SEGMENT.size:
        table = _table(file, segments_at, segments * SEGMENT.size, SEGMENT)
        for kind, offset, address, size in table:
            if kind == PT_LOAD and size:
                yield Extent(address, offset, size)
    if sections > names_index and section_size == SECTION.size:
        table = _table(file, sections_at, sections * SECTION.size, SECTION)
        names = _checked_read(file, *table[names_index][1:])
        yield from _pages(file, {names[name:name + NAME_MAX].partition(b"\0")[0]: (offset, size)
                                 for name, offset, size in table})


def _pages(file: File, sections: dict[bytes, tuple[int, int]]) -> Iterator[Extent]:
    """The pages of a dump of Xen's."""
    start, size = sections.get(PAGES, (0, 0))
    if PFNS in sections:
        numbers = _table(file, *sections[PFNS], struct.Struct("<Q"))
    else:
        numbers = _table(file, *sections.get(P2M, (0, 0)), struct.Struct("<Q8x"))
    for index, (number,) in enumerate(numbers[:size // PAGE_SIZE]):
        if number != NO_PAGE:
            yield Extent(number * PAGE_SIZE, start + index * PAGE_SIZE, PAGE_SIZE)


def _joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Neighbours in memory and in the file as one; of what is there twice, the first."""
    last: Extent | None = None
    for one in extents:
        if last is not None and one.address < last.address + last.size:
            continue
        if last is not None and one.address - last.address == one.offset - last.offset == last.size:
            last = last._replace(size=last.size + one.size)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last


def _table(file: File, offset: int, size: int, entry: struct.Struct) -> list[tuple[int, ...]]:
    return list(entry.iter_unpack(_checked_read(file, offset, size // entry.size * entry.size)))


def _checked_read(file: File, offset: int, size: int) -> bytes:
    _check(file, offset, size)
    return file.read(offset, size)


def _check(file: File, offset: int, size: int) -> None:
    """C2."""
    if offset + size > file.size:
        raise RegionError(f"{file.path}: this core dump is not complete: {size} bytes at "
                          f"{offset:#x} are not there")
