# SPDX-License-Identifier: Apache-2.0
"""A region is found in the memory of a machine (persist/find.py W1). Method: files made of regions
and of noise. That a real machine's memory is read so: tests/qemu/test_power.py."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from persist import layout, record
from persist.find import open_source
from persist.record import Superblock
from persist.region import RegionError

MIB = 1 << 20


def superblock(size: int, epoch: int) -> bytes:
    """A page that begins with a superblock."""
    return record.encode_superblock(Superblock(size, epoch, 0, 1)).ljust(layout.PAGE_SIZE, b"\0")


def region(size: int, epoch: int) -> bytes:
    """A region with its newer superblock only."""
    image = bytearray(size)
    at = layout.SUPERBLOCK_OFFSETS[epoch & 1]
    image[at:at + layout.PAGE_SIZE] = superblock(size, epoch)
    return bytes(image)


def found(path: Path, image: bytes) -> tuple[int, int]:
    """Where, and how large."""
    path.write_bytes(image)
    source = open_source(str(path))
    try:
        assert source.read(0, 16) == image[source.base:source.base + 16]
        return source.base, source.size
    finally:
        source.close()


@pytest.mark.parametrize("epoch", [4, 5])
@pytest.mark.parametrize("pages", [2, 1023, 1024, 1025])
def test_at_any_page(tmp_path: Path, epoch: int, pages: int) -> None:
    """Also across the chunks in which the file is read, and by either superblock."""
    noise = random.Random(pages).randbytes(pages * layout.PAGE_SIZE)
    base = len(noise)
    assert found(tmp_path / "m", noise + region(MIB, epoch) + noise[:8192]) == (base, MIB)


def test_a_region_file_is_what_it_is(tmp_path: Path) -> None:
    """It is not looked into: another region in its values is a value."""
    image = bytearray(region(4 * MIB, 2))
    image[2 * MIB:3 * MIB] = region(MIB, 9)
    assert found(tmp_path / "m", bytes(image)) == (0, 4 * MIB)


def test_what_is_not_believed(tmp_path: Path) -> None:
    """A superblock that does not verify, is not at a page, or does not fit; then the whole file
    is a damaged region. The highest epoch counts."""
    space = bytes(2 * MIB)
    flipped = bytearray(region(MIB, 7))
    flipped[layout.SUPERBLOCK_OFFSETS[1] + 30] ^= 1
    assert found(tmp_path / "m", space + bytes(flipped)) == (0, 3 * MIB)
    assert found(tmp_path / "m", space + b"\0" * 8 + region(MIB, 7)) == (0, 3 * MIB + 8)
    assert found(tmp_path / "m", space + region(MIB, 7)[:-4096]) == (0, 3 * MIB - 4096)
    both = space + region(MIB, 7) + region(MIB, 8) + region(MIB, 6)
    assert found(tmp_path / "m", both) == (3 * MIB, MIB)


def test_nothing_there(tmp_path: Path) -> None:
    """No such file is an error that names it."""
    with pytest.raises(RegionError, match="No such file"):
        open_source(str(tmp_path / "nothing"))
