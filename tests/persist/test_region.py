# SPDX-License-Identifier: Apache-2.0
"""G1-G3: one owner, all space reserved, and a clear line for every file that cannot be a region."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from persist.region import RegionError, open_region, open_region_for_reading


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    """The lock lasts as long as the first is open."""
    path = str(tmp_path / "region")
    first = open_region(path, 1 << 20)
    with pytest.raises(RegionError, match="another server"):
        open_region(path, None)
    first.close()
    open_region(path, None).close()


def test_space_is_reserved(tmp_path: Path) -> None:
    """All blocks are there before the first write."""
    path = tmp_path / "region"
    open_region(str(path), 4 << 20).close()
    status = os.stat(path)
    assert status.st_size == 4 << 20
    assert status.st_blocks * 512 >= 4 << 20
    assert status.st_mode & 0o777 == 0o600


def test_bytes_go_through_the_door(tmp_path: Path) -> None:
    """What is written is read, by another reader too; outside of the bounds is our mistake."""
    path = str(tmp_path / "region")
    region = open_region(path, 1 << 20)
    region.write(70_000, b"hello")
    assert open_region_for_reading(path).read(69_999, 7) == b"\0hello\0"
    with pytest.raises(AssertionError):
        region.write((1 << 20) - 2, b"hello")
    with pytest.raises(AssertionError):
        region.read(-1, 4)
    assert not any(path in line and "w" in line.split()[1]
                   for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 50])
def test_impossible_sizes(tmp_path: Path, size: int) -> None:
    """Too small or too large is refused before a file is made."""
    path = tmp_path / "region"
    with pytest.raises(RegionError, match="region size"):
        open_region(str(path), size)
    assert not path.exists()


def test_files_that_are_no_region(tmp_path: Path) -> None:
    """A small file, another size, a directory, a missing directory: refused and left alone."""
    small = tmp_path / "small"
    small.write_bytes(b"hello")
    with pytest.raises(RegionError, match="too few"):
        open_region(str(small), None)
    assert small.read_bytes() == b"hello"
    other = str(tmp_path / "region")
    open_region(other, 1 << 20).close()
    with pytest.raises(RegionError, match="asked for"):
        open_region(other, 2 << 20)
    for path in (str(tmp_path), str(tmp_path / "no" / "region")):
        with pytest.raises(RegionError, match="cannot open"):
            open_region(path, None)
