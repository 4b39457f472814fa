# SPDX-License-Identifier: Apache-2.0
"""A region's bytes outside of their domain: out of it, into it, to a file, and whether they are
believed.

B1. Nothing is written to a domain, and no domain is given up, before the bytes are a region's by
    one superblock at least.
B2. A file is complete under its name, or is not there under it.
B3. In /dev/shm everybody may make files: what is not our own is neither read nor written to, but
    for a region that somebody has named on the command line.
Knows nothing of what the records say."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from persist import layout
from persist.record import decode_superblock
from persist.recover import recover
from persist.region import RegionError
from tools.boot.failure import BootError
from tools.boot.foreign import ForeignMemory
from tools.boot.place import Place

UNFINISHED = ".unfinished"
OWN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SAVE_FLAGS = os.O_WRONLY | os.O_CREAT | OWN_FLAGS


class Bytes:
    """A copy of a region. Implements persist.region.Medium, for reading."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes."""
        assert offset >= 0 and offset + size <= self.size, (hex(offset), size)
        return self._data[offset:offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Never."""
        raise AssertionError("a copy is not written to")


def take(domid: int, place: Place, numbers: Sequence[int] | None) -> bytes:
    """The region of a domain, with its frames' numbers (frames.py). If it runs, this is what a
    crash could have left: the bytes are not of one moment. Raises BootError."""
    with ForeignMemory(domid, place, frames=numbers) as memory:
        return copy(memory)


def copy(memory: ForeignMemory) -> bytes:
    """The same, of one that is mapped already."""
    data = memory.read(0, memory.size)
    check_is_region(data, memory.path)
    return data


def put(domid: int, place: Place, data: bytes, numbers: Sequence[int] | None = None) -> None:
    """Fill a domain's region; `numbers`: of all of its frames. It must not have run yet. Raises
    BootError."""
    if len(data) != place.size:
        raise BootError(f"a region of {len(data)} bytes does not fit {place}")
    first = place.address // layout.PAGE_SIZE
    here = numbers and numbers[first:first + place.size // layout.PAGE_SIZE]
    if here is not None and len(here) * layout.PAGE_SIZE != place.size:
        raise BootError(f"domain {domid}: {place} does not lie in its memory")
    with ForeignMemory(domid, place, may_write=True, frames=here) as memory:
        memory.write(0, data)


def check_is_region(data: bytes, where: str) -> None:
    """Raises BootError if neither superblock is one of a region of this size (B1)."""
    blocks = [decode_superblock(data[offset:offset + layout.SUPERBLOCK_SIZE])
              for offset in layout.SUPERBLOCK_OFFSETS]
    if not any(block is not None and block.region_size == len(data) for block in blocks):
        raise BootError(f"{where}: there is no region, or not of this size; --region says where")


def describe(data: bytes) -> str:
    """What recovery makes of it, in words. Raises BootError."""
    try:
        found = recover(Bytes(data), lambda record: None)
    except RegionError as error:
        raise BootError(str(error)) from error
    text = f"{found.outcome.value}, {found.records} records"
    if found.damages:
        text += f", {len(found.damages)} of its places damaged"
    return text


def load(path: str) -> bytes:
    """A region file. Raises BootError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}") from error
    check_is_region(data, path)
    return data


def load_own(path: str) -> bytes | None:
    """What save() has written. None: there is nothing, or it is not ours (B3). Raises BootError."""
    try:
        with open(os.open(path, os.O_RDONLY | OWN_FLAGS), "rb") as file:
            return file.read() if _is_own(file.fileno()) else None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise BootError(f"{path}: {error.strerror}") from error


def create(path: str) -> int:
    """A descriptor to write to a file, made if there is none; one that is not ours goes away (B3).
    Raises OSError."""
    with contextlib.suppress(OSError):
        fd = os.open(path, SAVE_FLAGS, 0o600)
        if _is_own(fd):
            return fd
        os.close(fd)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, SAVE_FLAGS | os.O_EXCL, 0o600)


def _is_own(fd: int) -> bool:
    status = os.fstat(fd)
    return (stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            and status.st_nlink == 1)


def prepare(path: str, size: int) -> None:
    """Have room for save(), which is faster then. Raises BootError."""
    try:
        with open(create(path + UNFINISHED), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}") from error


def save(path: str, data: bytes) -> None:
    """Write a file (B2), readable by its owner alone. Raises BootError."""
    unfinished = path + UNFINISHED
    try:
        with open(create(unfinished), "wb") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}") from error
