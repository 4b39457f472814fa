# SPDX-License-Identifier: Apache-2.0
"""The narrow door to the region's bytes: bounds-checked reads, and writes by pwrite only.

G1. No writable mapping of the region exists in the process: a wild store cannot reach it.
G2. One writer: the file is held under an exclusive lock for the life of the process.
G3. All space is reserved when the file is made, so that a full tmpfs cannot fail a later write.
Knows nothing of what the bytes mean. Change with: recover.py, which says whose region it is."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Protocol

from persist import layout

_pwrite = os.pwrite


class RegionError(Exception):
    """The region cannot be used; the text names the file and what is wrong with it."""


class Medium(Protocol):
    """What holds a region: a file here, a device in the unikernel, an array in tests."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`."""

    def write(self, offset: int, data: bytes) -> None:
        """Store `data` at `offset`. Dying inside leaves a prefix of it stored."""


class RegionFile:
    """A region in a file (tmpfs for the daemon). Implements Medium."""

    def __init__(self, path: str, fd: int, size: int) -> None:
        self.path = path
        self.size = size
        self._fd = fd

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= 0 and offset + size <= self.size, (hex(offset), size)
        data = os.pread(self._fd, size, offset)
        while len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                raise RegionError(f"{self.path}: ends at {hex(offset + len(data))}, truncated")
            data += more
        return data

    def write(self, offset: int, data: bytes) -> None:
        size = len(data)
        assert 0 <= offset <= self.size - size, (hex(offset), size)
        written = _pwrite(self._fd, data, offset)
        while written < size:
            count = _pwrite(self._fd, data[written:], offset + written)
            assert count > 0, "pwrite makes no progress"
            written += count

    def identity(self) -> tuple[int, int]:
        """Device and inode of the file."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Give up the lock and the file."""
        os.close(self._fd)


def open_region(path: str, size: int | None) -> RegionFile:
    """Open or make the region file `path` for the one server that owns it.

    `size` in bytes is for a new file (None: the default); an existing region keeps its size, and
    another `size` is refused. Dying halfway leaves a file without superblocks, which counts as new.
    Raises RegionError with one clear line."""
    wanted = layout.REGION_SIZE_DEFAULT if size is None else size
    if not layout.REGION_SIZE_MIN <= wanted <= layout.REGION_SIZE_MAX:
        raise RegionError(f"region size {wanted}: must be {layout.REGION_SIZE_MIN} bytes (1 MiB) "
                          f"to {layout.REGION_SIZE_MAX}")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RegionError(f"{path}: cannot open the region: {error.strerror}") from error
    try:
        _lock(fd, path)
        present = os.fstat(fd).st_size
        if present == 0:
            _reserve(fd, path, wanted)
            present = wanted
        elif size is not None and present != size:
            raise RegionError(f"{path}: the region has {present} bytes, not the {size} asked for; "
                              "leave out the size, or name another file")
        elif present < layout.REGION_SIZE_MIN:
            raise RegionError(f"{path}: {present} bytes are too few for a region (truncated, "
                              "or not a region); it was not touched")
    except RegionError:
        os.close(fd)
        raise
    return RegionFile(path, fd, present)


def open_region_for_reading(path: str) -> RegionFile:
    """The region file for a tool beside the server: no lock, no write. Raises RegionError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RegionError(f"{path}: cannot open the region: {error.strerror}") from error
    size = os.fstat(fd).st_size
    if size < layout.REGION_SIZE_MIN:
        os.close(fd)
        raise RegionError(f"{path}: {size} bytes are too few for a region")
    return RegionFile(path, fd, size)


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise RegionError(f"{path}: another server uses this region") from error
        raise RegionError(f"{path}: cannot lock the region: {error.strerror}") from error


def _reserve(fd: int, path: str, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        os.ftruncate(fd, 0)
        os.unlink(path)
        raise RegionError(f"{path}: cannot reserve {size} bytes for the region: "
                          f"{error.strerror}") from error
