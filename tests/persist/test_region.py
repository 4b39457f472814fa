# SPDX-License-Identifier: Apache-2.0
"""G1-G4: one owner, all space reserved, and a clear line for every file that cannot be a region.

Method: files of every kind; a device is a file that says so of itself, as the image's does."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.parametrize("name, reason", [
    (".", "irectory"), ("fifo", "this is a fifo"), ("socket", "No such device"),
    ("/dev/null", "this is a device without a size"),
    ("/dev/zero", "this is a device without a size"), ("nul\0name", "null "),
    ("loop", "symbolic links"), ("file/below", "Not a directory"),
])
def test_what_can_be_no_region(tmp_path: Path, name: str, reason: str, time_limit: None) -> None:
    """For the server and for a tool; nobody waits for a fifo's other side."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        path = f"{tmp_path}/{name}" if not name.startswith("/") else name
        before = len(os.listdir("/proc/self/fd"))
        for refuse in (lambda: open_region(path, None), lambda: open_region_for_reading(path)):
            with pytest.raises(RegionError, match=reason) as caught:
                refuse()
            assert str(caught.value).count(path) == 1
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
@pytest.mark.parametrize("says_size", [True, False])
def test_a_device_is_a_region_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          kind: int, says_size: bool) -> None:
    """By its st_size, else by its end. It is never made larger, and no other size is accepted."""
    path = tmp_path / "device"
    path.write_bytes(bytes(1 << 20))
    real = os.fstat

    def fstat(fd: int) -> SimpleNamespace:
        return SimpleNamespace(st_mode=kind | 0o600, st_dev=0, st_ino=0,
                               st_size=real(fd).st_size if says_size else 0)

    def fallocate(*_: int) -> None:
        raise AssertionError("a device has all its space")

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    region = open_region(str(path), None)
    assert (region.size, region.is_device) == (1 << 20, True)
    region.write((1 << 20) - 5, b"hello")
    with pytest.raises(RegionError, match="another server"):
        open_region(str(path), None)
    region.close()
    open_region(str(path), 1 << 20).close()
    with pytest.raises(RegionError, match="1048576 bytes, not the 2097152 asked for"):
        open_region(str(path), 2 << 20)
    other = open_region_for_reading(str(path))
    assert other.is_device and other.read((1 << 20) - 5, 5) == b"hello"
    other.close()
    os.truncate(path, 1 << 19)
    for refuse in (lambda: open_region(str(path), None),
                   lambda: open_region_for_reading(str(path))):
        with pytest.raises(RegionError, match="524288 bytes are too few"):
            refuse()


def test_each_read_may_be_told(tmp_path: Path) -> None:
    """So that a watchdog knows of progress; once it is told no more, none."""
    region = open_region(str(tmp_path / "region"), 1 << 20)
    told: list[int] = []
    region.progress = lambda: told.append(1)
    region.read(0, 10)
    region.read(100, 1000)
    region.progress = None
    region.read(0, 10)
    assert told == [1, 1]
