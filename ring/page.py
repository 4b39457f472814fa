# SPDX-License-Identifier: Apache-2.0
"""Loads, stores and copies on one shared page. The other side may write at any time.

G1. An index is loaded and stored as one aligned 32-bit word, by way of memoryview.cast('I'):
    struct.pack_into() may store byte by byte.
G2. What is copied out of the page is a copy: it does not change any more.
G3. x86 keeps stores in program order, and CPython does not move them across calls: so bytes are
    in the page before the index that announces them. No other fence is needed.
Knows nothing of what the words mean. Tests stand in for this class, to die at any store."""

from __future__ import annotations

from collections.abc import Callable

from ring.layout import PAGE_SIZE


class Page:
    """A mapped page. `unmap` is called once, by close(), when no view is left."""

    __slots__ = ("_bytes", "_unmap", "_words")

    def __init__(self, buffer: object, unmap: Callable[[], None] = lambda: None) -> None:
        view = memoryview(buffer)  # type: ignore[arg-type]
        assert view.nbytes == PAGE_SIZE, view.nbytes
        self._bytes = view
        self._words = view.cast("I")
        self._unmap = unmap

    def load(self, offset: int) -> int:
        """The 32-bit word at `offset`, read once."""
        return self._words[offset >> 2]

    def store(self, offset: int, value: int) -> None:
        """Store a 32-bit word: all of it, or nothing."""
        self._words[offset >> 2] = value

    def copy_out(self, offset: int, size: int) -> bytes:
        """A copy of `size` bytes."""
        return self._bytes[offset:offset + size].tobytes()

    def copy_in(self, offset: int, data: bytes) -> None:
        """Write bytes. Dying inside leaves a prefix of them."""
        self._bytes[offset:offset + len(data)] = data

    def close(self) -> None:
        """Let go of the page."""
        self._words.release()
        self._bytes.release()
        self._unmap()
