# SPDX-License-Identifier: Apache-2.0
"""How a connection begins, what it offers, and how it ends: which words are stored, in which order,
and that dying in between leaves a ring that can be begun again. Method: a page that counts.

Cannot show: that the guest is told (rings.py)."""

from __future__ import annotations

import pytest

from ring import layout
from ring.connection import Ring
from ring.page import Page
from tests.ring.pages import INDICES, WRAP, ring_page, words

ALL = (*INDICES, layout.SERVER_FEATURES, layout.CONNECTION, layout.ERROR)


def used_ring() -> Ring:
    """A ring with a past: indices, an error, a request for reconnection, bytes in both queues."""
    page = ring_page(WRAP - 7, 12345)
    for offset, value in ((layout.ERROR, 2), (layout.CONNECTION, layout.RECONNECT),
                          (layout.REQ_PROD, 99), (layout.SERVER_FEATURES, 1)):
        page.store(offset, value)
    page.copy_in(0, b"\xff" * 2 * layout.RING_SIZE)
    page.seen.clear()
    return Ring(page, WRAP - 7, 12345)


def test_reset_makes_a_ring_that_has_seen_nothing() -> None:
    ring = used_ring()
    ring.reset(14)
    assert words(ring.page, *ALL) == [0, 0, 0, 0, 14, layout.CONNECTED, layout.ERROR_NONE]
    assert ring.requests.peek() == b"" and ring.responses.put(b"hello") == 5
    assert words(ring.page, *INDICES) == [0, 0, 0, 5]
    assert (ring.requests.position, ring.responses.position) == (0, 5)


def test_the_connection_word_comes_last() -> None:
    """The guest does not look before it says so."""
    ring = used_ring()
    ring.reset(14)
    assert isinstance(ring.page, Page)
    seen = ring.page.seen  # type: ignore[attr-defined]
    assert {what for what, _ in seen} == {"store"} and seen[-1] == ("store", layout.CONNECTION)
    assert sorted(offset for _, offset in seen) == sorted(ALL)


@pytest.mark.parametrize("stores", range(8))
def test_dying_inside_a_reset_and_resetting_again_is_one_reset(stores: int) -> None:
    """C1, at every store."""

    class Died(BaseException):
        """The process is gone."""

    ring = used_ring()

    def die() -> None:
        if len(ring.page.seen) == stores:  # type: ignore[attr-defined]
            raise Died

    ring.page.interfere = die  # type: ignore[attr-defined]
    if 0 < stores <= 7:
        with pytest.raises(Died):
            ring.reset(14)
    ring.page.interfere = lambda: None  # type: ignore[attr-defined]
    again = Ring(ring.page, 0, 0)
    again.reset(14)
    assert words(ring.page, *ALL) == [0, 0, 0, 0, 14, layout.CONNECTED, layout.ERROR_NONE]
    assert again.requests.peek() == b""


@pytest.mark.parametrize("before, offered, after, is_stored", [
    (0, 14, 14, True), (14, 14, 14, False), (15, 14, 15, False), (1, 14, 15, True),
    (14, 0, 14, False), (14, 2, 14, False), (0x80000000, 14, 0x8000000E, True)])
def test_features_are_only_ever_added(before: int, offered: int, after: int,
                                      is_stored: bool) -> None:
    """C3; a word that says it already is left alone."""
    page = ring_page(5, 6)
    page.store(layout.SERVER_FEATURES, before)
    page.seen.clear()
    Ring(page, 5, 6).offer(offered)
    assert words(page, layout.SERVER_FEATURES) == [after]
    assert [what for what, _ in page.seen] == ["load", "store"][:1 + is_stored]
    assert words(page, *INDICES) == [5, 5, 6, 6]


@pytest.mark.parametrize("code", [layout.ERROR_COMM, layout.ERROR_RINGIDX, layout.ERROR_PROTO])
def test_a_ring_that_failed_is_told_so_and_not_touched(code: int) -> None:
    """C2: one store."""
    page = ring_page(5, 6)
    Ring(page, 5, 6).fail(code)
    assert words(page, layout.ERROR) == [code] and page.seen == [("store", layout.ERROR)]
