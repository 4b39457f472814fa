# SPDX-License-Identifier: Apache-2.0
"""Where a domain keeps its region: SIZE@ADDRESS, as the kernel's command line says it.

Knows nothing of domains. Change with: image/kernel/cmdline.c, parse_region()."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from persist import layout
from tools.boot.failure import BootError

PHYSICAL_MAX = 1 << 32  # image/kernel/layout.h
WORD = "region="
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Place(NamedTuple):
    """A range of guest-physical memory, in bytes."""

    size: int = 16 << 20
    address: int = 16 << 20  # image/README.md

    def __str__(self) -> str:
        return f"{self.size >> 10}K@{self.address:#x}"


def parse_place(text: str) -> Place:
    """SIZE or SIZE@ADDRESS. Raises BootError."""
    size_text, at, address_text = text.partition("@")
    try:
        place = Place(_number(size_text), _number(address_text) if at else Place().address)
    except ValueError as error:
        raise BootError(f"{text}: expected SIZE@ADDRESS, such as 16M@16M") from error
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


def _number(text: str) -> int:
    digits, unit = (text[:-1], text[-1]) if text[-1:] in ("K", "M", "G") else (text, "")
    return int(digits, 16 if digits.startswith("0x") else 10) * UNITS[unit]
