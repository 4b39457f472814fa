# SPDX-License-Identifier: Apache-2.0
"""Where a domain keeps its region: SIZE@ADDRESS, as the kernel's command line says it. On Unikraft
it is a part of the kernel, whose file says where.

Knows nothing of domains. Change with: image/kernel/cmdline.c, parse_region();
image/unikraft/apart.c, place_note."""

from __future__ import annotations

import shlex
import struct
from typing import NamedTuple

from persist import layout
from tools.boot.failure import BootError

PHYSICAL_MAX = 1 << 32  # image/kernel/layout.h
WORD = "region="
NOTE = struct.Struct("=16sQQ")  # magic, size, address; somewhere in the file
MAGIC = b"TARDIGRADEREGION"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Place(NamedTuple):
    """A range of guest-physical memory, in bytes."""

    size: int = 16 << 20
    address: int = 16 << 20  # image/README.md

    def __str__(self) -> str:
        return f"{self.size >> 10}K@{self.address:#x}"


def parse_place(text: str) -> Place:
    """SIZE or SIZE@ADDRESS; or the path, with a slash, of a kernel that says it. Raises
    BootError."""
    if "/" in text:
        found = place_in_kernel(text)
        if found is None:
            raise BootError(f"{text}: this kernel does not say where its region is")
        return found
    size_text, at, address_text = text.partition("@")
    try:
        place = Place(_number(size_text), _number(address_text) if at else Place().address)
    except ValueError as error:
        raise BootError(f"{text}: expected SIZE@ADDRESS, such as 16M@16M") from error
    return _checked(place, text)


def _checked(place: Place, text: str) -> Place:
    if (place.size % layout.PAGE_SIZE or place.address % layout.PAGE_SIZE
            or place.size < layout.REGION_SIZE_MIN or place.address + place.size > PHYSICAL_MAX):
        raise BootError(f"{text}: a region has 1M at least, whole pages, and ends below 4G")
    return place


def place_in(words: str) -> Place:
    """Where the kernel's command line puts the region. Raises BootError."""
    found = Place()
    try:
        split = shlex.split(words)
    except ValueError as error:
        raise BootError(f"{words}: {error}") from error
    for word in split:
        if word == "--":
            break  # the server's from here on
        if word.startswith(WORD):
            found = parse_place(word.removeprefix(WORD))
    return found


def place_of_image(kernel: str | None, words: str) -> Place:
    """Where the region of an image is, whose command line has `words`. Raises BootError."""
    found = place_in_kernel(kernel) if kernel is not None else None
    return found if found is not None else place_in(words)


def place_in_kernel(path: str) -> Place | None:
    """Where the region is in a kernel that has it within itself; None: it has not. Raises
    BootError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BootError(f"{path}: cannot be read: {error.strerror}") from error
    offset = data.find(MAGIC)
    if offset < 0 or len(data) - offset < NOTE.size:
        return None
    _, size, address = NOTE.unpack_from(data, offset)
    return _checked(Place(size, address), path)


def _number(text: str) -> int:
    digits, unit = (text[:-1], text[-1]) if text[-1:] in ("K", "M", "G") else (text, "")
    return int(digits, 16 if digits.startswith("0x") else 10) * UNITS[unit]
