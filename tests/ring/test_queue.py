# SPDX-License-Identifier: Apache-2.0
"""Both queues carry every byte once and in order across both wraps, look at the guest's index once,
and keep to their own copy of ours, whatever a hostile guest stores. Method: Hypothesis with two
peers on one page, from positions just below a multiple of 2^32 (that the wrap was crossed is
asserted); a page that counts accesses and lets the guest write between any two of them.

Cannot show: what another processor sees between two stores."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring import layout
from ring.layout import ERROR_RINGIDX, RING_SIZE
from ring.page import Page
from ring.queue import RequestQueue, ResponseQueue, RingError
from tests.ring.pages import WRAP, ring_page, words

POSITIONS = st.builds(lambda wraps, delta: wraps * WRAP - delta,
                      st.integers(1, 3), st.integers(1, 3000))
SIZES = st.integers(0, 1500)
MOVES = st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=40)
# Every kind of word that a page can hold, relative to where an honest index would stand.
DELTAS = [*range(-3, 4), *range(RING_SIZE - 3, RING_SIZE + 4), -RING_SIZE, 2 * RING_SIZE, WRAP // 2,
          WRAP // 2 - 1, WRAP - RING_SIZE, WRAP - RING_SIZE - 1, 12345678]


def pattern(start: int, size: int) -> bytes:
    """Bytes [start, start + size) of a stream in which no two places near each other look alike."""
    return bytes([(number * 131 + (number >> 8) * 17) & 0xFF
                  for number in range(start, start + size)])


class Guest:
    """The other side, byte by byte, with indices of its own."""

    def __init__(self, page: Page, req: int, rsp: int) -> None:
        self.page = page
        self.req, self.rsp = req, rsp

    def send(self, data: bytes) -> int:
        """Put as many bytes as fit; how many."""
        (cons,) = words(self.page, layout.REQ_CONS)
        size = 0
        while size < len(data) and (self.req + size - cons) % WRAP < RING_SIZE:
            place = (self.req + size) % RING_SIZE
            Page.copy_in(self.page, layout.REQ_OFFSET + place, data[size:size + 1])
            size += 1
        self.req += size
        Page.store(self.page, layout.REQ_PROD, self.req % WRAP)
        return size

    def receive(self, most: int) -> bytes:
        """Take at most so many bytes."""
        (prod,) = words(self.page, layout.RSP_PROD)
        data = b""
        while len(data) < most and (prod - self.rsp) % WRAP:
            data += Page.copy_out(self.page, layout.RSP_OFFSET + self.rsp % RING_SIZE, 1)
            self.rsp += 1
        Page.store(self.page, layout.RSP_CONS, self.rsp % WRAP)
        return data


@settings(max_examples=60, deadline=None)
@given(POSITIONS, MOVES)
def test_requests_are_peeked_whole_and_in_order(start: int, moves: list[tuple[int, int]]) -> None:
    """Peeking shows all that waits, again and again, until it is given back in any portions."""
    page = ring_page(req=start)
    queue, guest, sent = RequestQueue(page, start), Guest(page, start, 0), 0
    moves = [*moves, *[(RING_SIZE, RING_SIZE)] * 4]  # 3000 bytes and more: the wrap is behind us
    for offered, taken in moves:
        assert queue.has_any() is (guest.req != queue.position)
        sent += guest.send(pattern(start + sent, offered))
        waiting = queue.peek()
        assert waiting == queue.peek() == pattern(queue.position, start + sent - queue.position)
        queue.advance(queue.position + min(taken, len(waiting)))
        assert words(page, layout.REQ_CONS) == [queue.position % WRAP]
    assert queue.position // WRAP == start // WRAP + 1, "the wrap was not crossed"


@settings(max_examples=60, deadline=None)
@given(POSITIONS, MOVES)
def test_replies_arrive_whole_and_in_order(start: int, moves: list[tuple[int, int]]) -> None:
    """As much is published as there is room for, and no more."""
    page = ring_page(rsp=start)
    queue, guest = ResponseQueue(page, start), Guest(page, 0, start)
    data, done, got = pattern(start, 5000), 0, b""
    for offered, taken in [*moves, *[(RING_SIZE, RING_SIZE)] * 5]:
        room = RING_SIZE - (queue.position - guest.rsp)
        size = queue.put(data[done:done + offered])
        assert size == min(offered, room, len(data) - done)
        done += size
        assert queue.position == start + done and words(page, layout.RSP_PROD) == [
            queue.position % WRAP]
        got += guest.receive(taken)
        assert got == data[:len(got)]
    got += guest.receive(RING_SIZE)
    assert got == data[:done]
    assert done == len(data) and queue.position // WRAP == start // WRAP + 1, "no wrap crossed"


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("position", [0, 5, WRAP - 1, WRAP - 512, WRAP, 3 * WRAP + 1000])
def test_any_index_of_the_guest_is_refused_or_harmless(position: int, delta: int) -> None:
    """Of all words, 1025 are harmless; each other one is told with the error's code."""
    page = ring_page(req=position, rsp=position)
    requests, responses = RequestQueue(page, position), ResponseQueue(page, position)
    before = page.copy_out(0, layout.PAGE_SIZE)
    page.store(layout.REQ_PROD, (position + delta) % WRAP)
    if delta % WRAP <= RING_SIZE:
        assert len(requests.peek()) == delta % WRAP
    else:
        with pytest.raises(RingError) as caught:
            requests.peek()
        assert caught.value.code == ERROR_RINGIDX
    page.store(layout.REQ_PROD, position % WRAP)
    page.store(layout.RSP_CONS, (position - delta) % WRAP)
    if delta % WRAP <= RING_SIZE:
        assert responses.put(bytes(2000)) == RING_SIZE - delta % WRAP
    else:
        with pytest.raises(RingError) as caught:
            responses.put(b"x")
        assert caught.value.code == ERROR_RINGIDX and responses.position == position
        page.store(layout.RSP_CONS, position % WRAP)
        assert page.copy_out(0, layout.PAGE_SIZE) == before, "something was written"


def test_one_look_at_the_guest_s_index() -> None:
    """Q1: and never at our own."""
    page = ring_page(WRAP - 10, WRAP - 10)
    requests, responses = RequestQueue(page, WRAP - 10), ResponseQueue(page, WRAP - 10)
    page.store(layout.REQ_PROD, 20)
    page.seen.clear()
    assert len(requests.peek()) == 30
    assert page.seen == [("load", layout.REQ_PROD), ("out", layout.REQ_OFFSET + RING_SIZE - 10),
                         ("out", layout.REQ_OFFSET)]
    page.seen.clear()
    requests.advance(WRAP + 20)
    assert page.seen == [("store", layout.REQ_CONS)]
    page.seen.clear()
    assert not requests.has_any() and page.seen == [("load", layout.REQ_PROD)]
    page.seen.clear()
    assert responses.put(bytes(30)) == 30
    assert page.seen == [("load", layout.RSP_CONS), ("in", layout.RSP_OFFSET + RING_SIZE - 10),
                         ("in", layout.RSP_OFFSET), ("store", layout.RSP_PROD)]


def test_bytes_are_in_the_page_before_the_index_that_tells_of_them() -> None:
    """Dying before the last store: the guest has seen nothing of it."""
    page = ring_page()
    responses = ResponseQueue(page, 0)
    seen: list[tuple[int, bytes]] = []

    def look() -> None:
        (prod,) = words(page, layout.RSP_PROD)
        seen.append((prod, Page.copy_out(page, layout.RSP_OFFSET, 5)))

    page.interfere = look
    responses.put(b"hello")
    assert seen[-1] == (5, b"hello") and [prod for prod, _ in seen[:-1]] == [0] * (len(seen) - 1)


@pytest.mark.parametrize("junk", [0, 1, 1 << 31, WRAP - 1])
def test_what_the_guest_writes_meanwhile_changes_nothing(junk: int) -> None:
    """Q1, Q2: all four indices are scribbled over behind every single access."""
    page = ring_page(WRAP - 600, WRAP - 600)
    requests, responses = RequestQueue(page, WRAP - 600), ResponseQueue(page, WRAP - 600)
    Page.copy_in(page, layout.REQ_OFFSET, pattern(0, RING_SIZE))
    Page.store(page, layout.REQ_PROD, 400)

    def scribble() -> None:
        for offset in (layout.REQ_CONS, layout.REQ_PROD, layout.RSP_CONS, layout.RSP_PROD):
            Page.store(page, offset, junk)

    page.interfere = scribble
    assert requests.peek() == (pattern(0, RING_SIZE) * 2)[RING_SIZE - 600:][:1000]
    page.interfere = lambda: None
    requests.advance(WRAP + 400)
    assert words(page, layout.REQ_CONS) == [400], "not our own copy was published"
    Page.store(page, layout.RSP_CONS, WRAP - 600)
    page.interfere = scribble
    assert responses.put(pattern(0, 700)) == 700
    page.interfere = lambda: None
    assert responses.position == WRAP + 100
    Page.store(page, layout.RSP_CONS, 100)
    assert responses.put(b"next") == 4
    assert words(page, layout.RSP_PROD) == [104], "not our own copy was published"
    assert page.copy_out(layout.RSP_OFFSET + 100, 4) == b"next"


def test_a_full_ring_takes_nothing_and_an_empty_one_gives_nothing() -> None:
    page = ring_page(7, 7)
    requests, responses = RequestQueue(page, 7), ResponseQueue(page, 7)
    assert requests.peek() == b"" and page.seen == [("load", layout.REQ_PROD)]
    assert responses.put(bytes(RING_SIZE)) == RING_SIZE
    page.seen.clear()
    assert responses.put(b"more") == 0
    assert {what for what, _ in page.seen} == {"load"}
