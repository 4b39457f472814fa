# SPDX-License-Identifier: Apache-2.0
"""The narrow door to the region's bytes: bounds-checked reads, and writes by pwrite only.

G1. No writable mapping of the region exists in the process: a wild store cannot reach it.
G2. One writer: the file is held under an exclusive lock for the life of the process.
G3. All space is reserved when the file is made, so that a full tmpfs cannot fail a later write.
G4. A device is a region of the size that it says; nothing else than a plain file and a device is
    opened, and opening waits for nobody.
Knows nothing of what the bytes mean. Change with: recover.py, which says whose region it is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Protocol

from persist import layout

_pwrite = os.pwrite
_KINDS = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a fifo"), (stat.S_ISSOCK, "a socket"),
          (stat.S_ISCHR, "a device without a size"), (stat.S_ISBLK, "a device without a size"))


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
    """A region in a file (tmpfs for the daemon), or on a device (the image's). Implements
    Medium."""

    def __init__(self, path: str, fd: int, size: int, is_device: bool = False,
                 base: int = 0) -> None:
        self.path = path
        self.size = size
        self.is_device = is_device
        self.base = base  # where it begins in the file
        self.progress: Callable[[], None] | None = None  # told of each read
        self._fd = fd

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= 0 and offset + size <= self.size, (hex(offset), size)
        if self.progress is not None:
            self.progress()
        place = self.base + offset
        data = os.pread(self._fd, size, place)
        while len(data) < size:
            more = os.pread(self._fd, size - len(data), place + len(data))
            if not more:
                raise RegionError(f"{self.path}: ends at {hex(offset + len(data))}, truncated")
            data += more
        return data

    def write(self, offset: int, data: bytes) -> None:
        size = len(data)
        assert 0 <= offset <= self.size - size, (hex(offset), size)
        offset += self.base
        written = _pwrite(self._fd, data, offset)
        while written < size:
            count = _pwrite(self._fd, data[written:], offset + written)
            assert count > 0, "pwrite makes no progress"
            written += count

    def identity(self) -> tuple[int, int]:
        """Device and inode of the file."""
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def stretches(self) -> list[tuple[int, int]]:
        """Beginning and end of what is there."""
        return [(0, self.size)]

    def part(self, base: int, size: int) -> RegionFile:
        """The region at `base` in this file, in its place: this one is not to be used any more."""
        assert self.base == 0 <= base <= self.size - size
        return RegionFile(self.path, self._fd, size, self.is_device, base)

    def close(self) -> None:
        """Give up the lock and the file."""
        os.close(self._fd)


def open_region(path: str, size: int | None) -> RegionFile:
    """Open or make the region file `path` for the one server that owns it, or open a device.

    `size` in bytes is for a new file (None: the default); an existing region keeps its size, as
    does a device, and another `size` is refused. Dying halfway leaves a file without superblocks,
    which counts as new. Raises RegionError with one clear line."""
    wanted = layout.REGION_SIZE_DEFAULT if size is None else size
    if not layout.REGION_SIZE_MIN <= wanted <= layout.REGION_SIZE_MAX:
        raise RegionError(f"region size {wanted}: must be {layout.REGION_SIZE_MIN} bytes (1 MiB) "
                          f"to {layout.REGION_SIZE_MAX}")
    fd, present, is_device = _open(path, os.O_RDWR, may_make=True)
    try:
        _lock(fd, path)
        if not is_device:
            present = os.fstat(fd).st_size  # whoever held the lock before may have made it
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
    return RegionFile(path, fd, present, is_device)


def open_region_for_reading(path: str) -> RegionFile:
    """The region for a tool beside the server: no lock, no write. Raises RegionError."""
    fd, size, is_device = _open(path, os.O_RDONLY, may_make=False)
    if size < layout.REGION_SIZE_MIN:
        os.close(fd)
        raise RegionError(f"{path}: {size} bytes are too few for a region")
    return RegionFile(path, fd, size, is_device)


def _open(path: str, flags: int, may_make: bool) -> tuple[int, int, bool]:
    """Descriptor, size, and whether it is a device (G4). Raises RegionError."""
    flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            if not may_make:
                raise
            fd = os.open(path, flags | os.O_CREAT, 0o600)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RegionError(f"{path}: cannot open the region: {reason}") from error
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return fd, status.st_size, False
    size = 0
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        size = status.st_size
        if not size:
            with contextlib.suppress(OSError):
                size = os.lseek(fd, 0, os.SEEK_END)
        if size > 0:
            return fd, size, True
    os.close(fd)
    kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "something else")
    raise RegionError(f"{path}: this is {kind}: a region is a plain file, or a device that has "
                      "a size")


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
