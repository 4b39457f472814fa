# SPDX-License-Identifier: Apache-2.0
"""A page's loads, stores and copies touch exactly the bytes that they name, and what is copied out
is a copy. Method: two pages on one buffer; a file mapped twice.

Cannot show: that a store is a single one for another processor (G1), which CPython's memoryview
is read to do; order of stores between processors (G3)."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import pytest

from ring import layout
from ring.page import Page

WORDS = range(layout.REQ_CONS, layout.EVTCHN_PORT + 4, 4)
VALUES = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01020304]


@pytest.mark.parametrize("offset", [*WORDS, 0, layout.PAGE_SIZE - 4])
def test_a_word_is_four_bytes_in_the_machine_s_order(offset: int) -> None:
    buffer = bytearray(b"\xa5" * layout.PAGE_SIZE)
    page = Page(buffer)
    for value in VALUES:
        page.store(offset, value)
        assert page.load(offset) == value
        assert buffer[offset:offset + 4] == struct.pack("=I", value)
        assert set(buffer[:offset] + buffer[offset + 4:]) == {0xA5}


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_what_is_no_word_is_not_stored(value: int) -> None:
    buffer = bytearray(layout.PAGE_SIZE)
    with pytest.raises(ValueError):
        Page(buffer).store(layout.RSP_PROD, value)
    assert not any(buffer)


def test_copies_touch_their_own_bytes() -> None:
    buffer = bytearray(layout.PAGE_SIZE)
    page = Page(buffer)
    page.copy_in(1000, b"abcdef")
    assert buffer.count(0) == layout.PAGE_SIZE - 6 and buffer[1000:1006] == b"abcdef"
    assert page.copy_out(998, 10) == b"\0\0abcdef\0\0"
    page.copy_in(layout.PAGE_SIZE - 2, b"xy")
    assert page.copy_out(layout.PAGE_SIZE - 2, 2) == b"xy"
    page.copy_in(5, b"")
    assert page.copy_out(5, 0) == b""


def test_what_was_copied_out_does_not_change() -> None:
    """G2: the other side may write at any time."""
    buffer = bytearray(layout.PAGE_SIZE)
    page, other = Page(buffer), Page(buffer)
    page.copy_in(0, b"before")
    copy = page.copy_out(0, 6)
    other.copy_in(0, b"behind")
    assert copy == b"before" and page.copy_out(0, 6) == b"behind"


def test_both_sides_of_a_mapping_see_the_same(tmp_path: Path) -> None:
    path = tmp_path / "page"
    path.write_bytes(bytes(layout.PAGE_SIZE))
    with open(path, "r+b") as file:
        ours, theirs = (mmap.mmap(file.fileno(), layout.PAGE_SIZE) for _ in range(2))
    closed: list[str] = []
    page, peer = Page(ours, lambda: closed.append("ours")), Page(theirs, theirs.close)
    page.store(layout.RSP_PROD, 0xDEADBEEF)
    peer.copy_in(0, b"request")
    assert peer.load(layout.RSP_PROD) == 0xDEADBEEF and page.copy_out(0, 7) == b"request"
    page.close()
    assert closed == ["ours"]
    ours.close()  # no view is left: it would raise BufferError
    peer.close()
    assert theirs.closed and path.read_bytes()[:7] == b"request"


@pytest.mark.parametrize("size", [0, 4092, 4100, 8192])
def test_a_page_is_a_page(size: int) -> None:
    with pytest.raises(AssertionError):
        Page(bytearray(size))


def test_no_access_leaves_the_page() -> None:
    page = Page(bytearray(layout.PAGE_SIZE))
    with pytest.raises(IndexError):
        page.load(layout.PAGE_SIZE)
    with pytest.raises(IndexError):
        page.store(layout.PAGE_SIZE, 0)
    with pytest.raises(ValueError):
        page.copy_in(layout.PAGE_SIZE - 1, b"xy")
