# SPDX-License-Identifier: Apache-2.0
"""What the word SOURCE on a command line names, opened for reading."""

from __future__ import annotations

import os
from typing import Protocol

from persist.find import open_source
from persist.region import Medium, RegionError
from tools.boot.failure import BootError
from tools.boot.frames import memory_of
from tools.boot.place import Place, parse_place


class Source(Medium, Protocol):
    """What is read."""

    def close(self) -> None:
        """Give it back."""


def open_any(name: str) -> Source:
    """A file that holds a region, or domain:DOMID[:SIZE@ADDRESS]; or domain:DOMID:KERNEL with the
    path of one that says where its region is. Raises RegionError."""
    kind, _, rest = name.partition(":")
    if kind != "domain" or os.path.exists(name):
        return open_source(name)
    domid, _, place = rest.partition(":")
    if not domid.isdecimal():
        raise RegionError(f"{name}: expected domain:DOMID, or domain:DOMID:SIZE@ADDRESS")
    try:
        return memory_of(int(domid), parse_place(place) if place else Place())
    except BootError as error:
        raise RegionError(str(error)) from error
