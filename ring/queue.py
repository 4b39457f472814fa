# SPDX-License-Identifier: Apache-2.0
"""The two directions of a ring: look at a position, advance separately, because a crash may
come in between.

Q1. Each method reads the other side's index once, checks it against our own local copy, and uses
    that one value: what the guest does meanwhile changes nothing.
Q2. Our own indices live in local copies; the page is only told them. A guest that overwrites them
    there confuses itself.
Knows nothing of messages."""

from __future__ import annotations

from ring import layout
from ring.index import INDEX_MASK, index_of, spans
from ring.layout import ERROR_RINGIDX, RING_MASK, RING_SIZE
from ring.page import Page


class RingError(Exception):
    """The guest broke the ring: `code` is for the page's error word."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class RequestQueue:
    """What the guest sends. `position`: consumed up to here, told to the guest or about to be."""

    __slots__ = ("_page", "position")

    def __init__(self, page: Page, position: int) -> None:
        self._page = page
        self.position = position

    def has_any(self) -> bool:
        """Whether the guest has moved its index; what that is worth, peek() finds out."""
        return self._page.load(layout.REQ_PROD) != self.position & INDEX_MASK

    def peek(self) -> bytes:
        """A copy of all that waits. Nothing is acknowledged. Raises RingError."""
        page, position = self._page, self.position
        prod = page.load(layout.REQ_PROD)
        size = (prod - position) & INDEX_MASK
        if size == 0:
            return b""
        if size > RING_SIZE:
            raise RingError(ERROR_RINGIDX, f"req_prod {prod:#x} with req_cons "
                                           f"{index_of(position):#x}")
        offset = position & RING_MASK
        if offset + size <= RING_SIZE:
            return page.copy_out(layout.REQ_OFFSET + offset, size)
        (offset, head), (_, rest) = spans(position, size)
        return (page.copy_out(layout.REQ_OFFSET + offset, head)
                + page.copy_out(layout.REQ_OFFSET, rest))

    def advance(self, position: int) -> None:
        """Give [old position, position) back to the guest. After the commit point only.

        Dying before: the bytes are peeked again, and delivery.py knows whether they count.
        Dying after: the guest may already have used the place again."""
        self.position = position
        self._page.store(layout.REQ_CONS, position & INDEX_MASK)


class ResponseQueue:
    """What the guest receives. `position`: published up to here."""

    __slots__ = ("_page", "position")

    def __init__(self, page: Page, position: int) -> None:
        self._page = page
        self.position = position

    def put(self, data: bytes) -> int:
        """Publish as much of `data` as the ring takes; how many bytes. Raises RingError.

        Dying before the last store: the guest has seen nothing of it. After: all of it."""
        page, position = self._page, self.position
        cons = page.load(layout.RSP_CONS)
        filled = (position - cons) & INDEX_MASK
        if filled > RING_SIZE:
            raise RingError(ERROR_RINGIDX, f"rsp_cons {cons:#x} with rsp_prod "
                                           f"{index_of(position):#x}")
        size = len(data)
        if size > RING_SIZE - filled:
            size = RING_SIZE - filled
            if size == 0:
                return 0
        offset = position & RING_MASK
        if offset + size <= RING_SIZE:
            page.copy_in(layout.RSP_OFFSET + offset, data if size == len(data) else data[:size])
        else:
            (offset, head), _ = spans(position, size)
            page.copy_in(layout.RSP_OFFSET + offset, data[:head])
            page.copy_in(layout.RSP_OFFSET, data[head:size])
        self.position = position = position + size
        page.store(layout.RSP_PROD, position & INDEX_MASK)
        return size
