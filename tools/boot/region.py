# SPDX-License-Identifier: Apache-2.0
"""A region's bytes outside of their domain: out of it, into it, to a file, and whether they are
believed.

B1. Nothing is written to a domain, and no domain is given up, before the bytes are a region's by
    one superblock at least.
B2. A file is complete under its name, or is not there under it.
Knows nothing of what the records say."""

from __future__ import annotations

import os
from collections.abc import Sequence

from persist import layout
from persist.record import decode_superblock
from persist.recover import recover
from persist.region import RegionError
from tools.boot.failure import BootError
from tools.boot.foreign import ForeignMemory
from tools.boot.place import Place

UNFINISHED = ".unfinished"
SAVE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC


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


def prepare(path: str, size: int) -> None:
    """Have room for save(), which is faster then. Raises BootError."""
    try:
        with open(os.open(path + UNFINISHED, SAVE_FLAGS, 0o600), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}") from error


def save(path: str, data: bytes) -> None:
    """Write a file (B2), readable by its owner alone. Raises BootError."""
    unfinished = path + UNFINISHED
    try:
        with open(os.open(unfinished, SAVE_FLAGS, 0o600), "wb") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}") from error
