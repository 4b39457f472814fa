# SPDX-License-Identifier: Apache-2.0
"""A core dump's memory is read by address, and a region in it is found (persist/core.py, find.py).
Method: dumps of the three kinds, made here after Xen's docs/misc/dump-core-format.txt and the ELF
specification, their pages in any order. Real ones: tests/xen/ (scenario core), tests/qemu/.

Cannot show: what a real dumper does otherwise than the specification says."""

from __future__ import annotations

import contextlib
import os
import random
import struct
from pathlib import Path

import pytest

from persist import layout
from persist.core import CoreMemory, is_core
from persist.find import open_source
from persist.region import RegionError, open_region_for_reading
from tests.persist.test_find import MIB, region

PAGE = layout.PAGE_SIZE
KINDS = ["pfn", "p2m", "load"]
NO_PAGE = (1 << 64) - 1


def header(segments: int, sections: int, sections_at: int) -> bytes:
    """An ELF header; segments follow it."""
    return struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, sections_at, 0,
                       64, 56, segments, 64, sections, 0)


def xen_core(pages: dict[int, bytes], kind: str) -> bytes:
    """As Xen makes it: pages in the order of the dict."""
    if kind == "pfn":
        name, numbers = b".xen_pfn", b"".join(struct.pack("<Q", pfn) for pfn in pages)
    else:
        name, numbers = b".xen_p2m", b"".join(struct.pack("<QQ", pfn, 7) for pfn in pages)
    names = b"\0.shstrtab\0" + name + b"\0.xen_pages\0"
    parts = [(b".shstrtab", names), (name, numbers), (b".xen_pages", b"".join(pages.values()))]
    at = PAGE
    table = b""
    for part, data in parts:
        table += struct.pack("<IIQQQQIIQQ", names.index(part + b"\0"), 1, 0, 0, at, len(data), 0, 0,
                             8, 0)
        at += len(data)
    start = header(0, len(parts), 64) + table
    return start.ljust(PAGE, b"\0") + b"".join(data for _, data in parts)


def qemu_core(pages: dict[int, bytes]) -> bytes:
    """As QEMU makes it: a segment for each page here, and a note."""
    at = 64 + 56 * (len(pages) + 1)
    table = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, 0, 0, 0)
    for pfn, data in pages.items():
        table += struct.pack("<IIQQQQQQ", 1, 0, at, 0, pfn * PAGE, len(data), len(data), 0)
        at += len(data)
    return header(len(pages) + 1, 0, 0) + table + b"".join(pages.values())


def core(pages: dict[int, bytes], kind: str) -> bytes:
    """A dump of a kind."""
    return qemu_core(pages) if kind == "load" else xen_core(pages, kind)


def pages_of(first: int, data: bytes) -> dict[int, bytes]:
    """Memory from a page on."""
    return {first + at // PAGE: data[at:at + PAGE] for at in range(0, len(data), PAGE)}


def shuffled(pages: dict[int, bytes]) -> dict[int, bytes]:
    """The same in another order."""
    keys = list(pages)
    random.Random(len(keys)).shuffle(keys)
    return {key: pages[key] for key in keys}


@pytest.mark.parametrize("kind", KINDS)
def test_memory_by_address(tmp_path: Path, kind: str) -> None:
    """In whatever order the pages are; holes are zeros; pages that are none are passed over."""
    noise = random.Random(1).randbytes(24 * PAGE)
    pages = pages_of(3, noise) | {1000: noise[:PAGE]}
    if kind != "load":
        pages[NO_PAGE] = bytes(PAGE)
    (tmp_path / "core").write_bytes(core(shuffled(pages), kind).ljust(2 * MIB, b"\0"))
    file = open_region_for_reading(str(tmp_path / "core"))
    assert is_core(file)
    memory = CoreMemory(file)
    whole = (bytes(3 * PAGE) + noise).ljust(1000 * PAGE, b"\0") + noise[:PAGE]
    assert memory.size == len(whole) and memory.read(0, memory.size) == whole
    for seed in range(200):
        draw = random.Random(seed)
        at = draw.randrange(len(whole))
        size = draw.randrange(1, min(len(whole) - at, 40 * PAGE) + 1)
        assert memory.read(at, size) == whole[at:at + size], (at, size)
    assert memory.stretches() == [(3 * PAGE, 27 * PAGE), (1000 * PAGE, 1001 * PAGE)]
    memory.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_a_region_in_it(tmp_path: Path, kind: str, is_shuffled: bool) -> None:
    """It is found where it is, and read from there, whatever lies around it and in the file."""
    image = bytearray(region(2 * MIB, 5))
    image[MIB:] = random.Random(2).randbytes(MIB)
    pages = pages_of(77, bytes(image)) | {0: b"\1" * PAGE, 0xFEFFC: b"\2" * PAGE}
    (tmp_path / "core").write_bytes(core(shuffled(pages) if is_shuffled else pages, kind))
    found = open_source(str(tmp_path / "core"))
    assert isinstance(found, CoreMemory)
    assert (found.base, found.size) == (77 * PAGE, len(image))
    assert found.read(0, found.size) == image
    assert found.read(MIB - 5, 10) == image[MIB - 5:MIB + 5]
    found.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_good(tmp_path: Path, kind: str) -> None:
    """A dump without a region, and one that was cut short, are errors; neither is taken for a
    damaged region file."""
    (tmp_path / "core").write_bytes(core(pages_of(5, bytes(2 * MIB)), kind))
    with pytest.raises(RegionError, match="no region in this core dump"):
        open_source(str(tmp_path / "core"))
    whole = core(pages_of(5, region(2 * MIB, 4)), kind)
    (tmp_path / "core").write_bytes(whole[:-PAGE])
    with pytest.raises(RegionError, match="not complete"):
        open_source(str(tmp_path / "core"))


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_not_believed(tmp_path: Path, kind: str) -> None:
    """Each word of the header and of the first table entries, made anything: an error, or something
    is read; never an exception of another kind."""
    whole = core(pages_of(5, region(MIB, 4)), kind)
    file = tmp_path / "core"
    file.write_bytes(whole)
    with open(file, "r+b", buffering=0) as changed:
        for at in range(16, 400, 2):
            for value in (0, 0xFFFF, 0x1234):
                os.pwrite(changed.fileno(), struct.pack("<H", value), at)
                with contextlib.suppress(RegionError):
                    open_source(str(file)).close()
            os.pwrite(changed.fileno(), whole[at:at + 2], at)
