# SPDX-License-Identifier: Apache-2.0
"""Pages for tests: one that counts what is done to it, and lets another side interfere."""

from __future__ import annotations

from collections.abc import Callable

from ring import layout
from ring.page import Page

WRAP = 1 << 32
INDICES = (layout.REQ_CONS, layout.REQ_PROD, layout.RSP_CONS, layout.RSP_PROD)


class CountingPage(Page):
    """Notes loads, stores and copies in order; `interfere` is called behind each of them."""

    __slots__ = ("interfere", "seen")

    def __init__(self, buffer: bytearray) -> None:
        super().__init__(buffer)
        self.seen: list[tuple[str, int]] = []
        self.interfere: Callable[[], None] = lambda: None

    def load(self, offset: int) -> int:
        """As Page.load(), noted."""
        value = super().load(offset)
        self.note("load", offset)
        return value

    def store(self, offset: int, value: int) -> None:
        """As Page.store(), noted."""
        super().store(offset, value)
        self.note("store", offset)

    def copy_out(self, offset: int, size: int) -> bytes:
        """As Page.copy_out(), noted."""
        data = super().copy_out(offset, size)
        self.note("out", offset)
        return data

    def copy_in(self, offset: int, data: bytes) -> None:
        """As Page.copy_in(), noted."""
        super().copy_in(offset, data)
        self.note("in", offset)

    def note(self, what: str, offset: int) -> None:
        """One access has been made."""
        self.seen.append((what, offset))
        self.interfere()


def words(page: Page, *offsets: int) -> list[int]:
    """The words at these offsets, unnoticed."""
    return [Page.load(page, offset) for offset in offsets]


def ring_page(req: int = 0, rsp: int = 0) -> CountingPage:
    """An empty ring whose queues stand at these positions."""
    page = CountingPage(bytearray(layout.PAGE_SIZE))
    for offset, position in zip(INDICES, (req, req, rsp, rsp), strict=True):
        page.store(offset, position % WRAP)
    page.seen.clear()
    return page
