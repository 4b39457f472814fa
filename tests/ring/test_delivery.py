# SPDX-License-Identifier: Apache-2.0
"""Exactly once: from what was logged and what the page says, stand() finds where the ring stands.
Method: a server that does the steps of delivery.py's header, one after the other, on a page and a
log of two kinds of entries (the log proper, and slots, of which older ones are gone), dies behind
each of them, and is placed again; a guest that counts every byte of both streams. Beside it, words
that no step can have left are refused.

Cannot show: that rings.py does these steps in this order (tests/crash, tests/sim)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.delivery import FORWARD_MAX, Logged, Standing, stand
from ring.layout import RING_SIZE

WRAP = 1 << 32
BASES = [0, WRAP - 1500, 5 * WRAP - 700]


class Server:
    """Streams of one ring, in numbers of bytes. Each step of turn() is one store or record."""

    def __init__(self, base: int, chance: random.Random) -> None:
        self.chance = chance
        self.req_cons = self.rsp_prod = base  # in the page, unwrapped
        self.req_prod = self.rsp_cons = base  # the guest's
        self.consumed = self.sent = self.end = base
        self.replies: dict[int, int] = {}  # where the request that is executed ends -> reply's end
        self.logged = Logged(base, base, base, base, True)

    def guest(self) -> None:
        """Reads and asks something."""
        self.rsp_cons += self.chance.randrange(self.rsp_prod - self.rsp_cons + 1)
        self.req_prod += self.chance.randrange(self.req_cons + RING_SIZE - self.req_prod + 1)

    def turn(self) -> Iterator[str]:
        """A turn; yields behind each thing that a crash could leave as the last one."""
        before, after = self.consumed, self.req_prod
        reply = self.chance.choice([0, 8, 300, 1500]) if after != before else (
            self.chance.choice([0, 20]))  # an event
        self.consumed, end = after, self.end + reply
        if (after, end) != (before, self.end):
            # A slot may hold it only if nothing is owed: whatever is owed goes to the log.
            self.logged = Logged(before, after, self.sent, end, True)
        self.end = end
        yield "1 logged"
        size = min(self.end - self.sent, RING_SIZE - (self.sent - self.rsp_cons))
        if size:
            yield "2 copied"
            self.sent = self.rsp_prod = self.sent + size
            yield "3 rsp_prod"
        if self.req_cons != self.consumed:
            self.req_cons = self.consumed
            yield "4 req_cons"


def place(server: Server, logged: Logged) -> Standing | None:
    """What a new life finds."""
    return stand(logged, server.req_cons % WRAP, server.rsp_prod % WRAP)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("seed", range(25))
def test_every_step_of_a_long_conversation(base: int, seed: int) -> None:
    """Dying behind each: all that was logged is consumed, and exactly what the guest has is sent;
    also when the entry is not known to be the very last (others were logged behind it)."""
    server = Server(base, random.Random(seed))
    seen: set[str] = set()
    while len(seen) < 4 or server.end < base + 4000:
        server.guest()
        for step in server.turn():
            seen.add(step)
            for is_last in (True, False):
                right = Standing(server.consumed, server.rsp_prod)
                assert place(server, server.logged._replace(is_last=is_last)) == right, step


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("seed", range(25))
def test_turns_whose_entries_are_gone(base: int, seed: int) -> None:
    """Turns that were in slots alone, of which later ones have taken the place: then nothing was
    owed behind the last of them, and the page alone says where the ring stands."""
    server = Server(base, random.Random(seed))
    old: Logged | None = None
    for _ in range(60):
        server.guest()
        list(server.turn())
        while server.sent < server.end:  # the guest reads, and owed bytes go out
            server.rsp_cons = server.rsp_prod
            list(server.turn())
        if old is None or server.chance.random() < 0.1:
            old = server.logged._replace(is_last=False)  # in the log; all later ones are gone
        assert place(server, old) == Standing(server.consumed, server.sent)


@pytest.mark.parametrize("is_last", [True, False])
def test_words_that_no_step_has_left(is_last: bool) -> None:
    """Many pairs of words around the right ones, and anywhere: believed are those that a crash can
    have left, and no others."""
    chance = random.Random(3)
    for base in BASES:
        logged = Logged(base + 100, base + 150, base + 1000, base + 1060, is_last)
        honest = [(req, rsp) for req in (100, 150) for rsp in range(1000, 1061)
                  if req == 100 or rsp > 1000]
        for _ in range(20_000):
            req, rsp = chance.choice([
                (chance.randrange(60, 200), chance.randrange(990, 1070)),
                (chance.randrange(WRAP), chance.randrange(990, 1070)),
                (chance.randrange(60, 200), chance.randrange(WRAP)),
                (chance.randrange(WRAP), chance.randrange(WRAP))])
            got = stand(logged, (base + req) % WRAP, (base + rsp) % WRAP)
            if got is None:
                assert (req, rsp) not in honest
                continue
            inside = 100 <= req <= 150 and 1000 <= rsp <= 1060
            ahead = not is_last and 150 <= req < 150 + FORWARD_MAX and (
                1060 <= rsp < 1060 + FORWARD_MAX)
            assert inside or ahead, (req, rsp)
            assert got == Standing(base + max(req, 150), base + rsp)


@given(st.integers(0, 1 << 50), st.integers(0, 4112), st.integers(0, 4112), st.integers(0, 5000),
       st.integers(0, WRAP - 1), st.integers(0, WRAP - 1), st.booleans())
def test_any_words_at_all(base: int, taken: int, sent: int, owed: int, req: int, rsp: int,
                          is_last: bool) -> None:
    """Whatever is believed lies between what was logged and FORWARD_MAX behind it, says the words
    of the page, and owes no byte that was never logged."""
    logged = Logged(base, base + taken, base + sent, base + sent + owed, is_last)
    standing = stand(logged, req, rsp)
    if standing is None:
        return
    assert standing.sent % WRAP == rsp
    assert logged.after <= standing.consumed < logged.after + FORWARD_MAX
    assert logged.sent <= standing.sent < logged.end + FORWARD_MAX
    if standing.consumed > logged.after:
        assert not is_last and standing.consumed % WRAP == req and standing.sent >= logged.end
    if is_last:
        assert standing.sent <= logged.end and standing.consumed == logged.after


@pytest.mark.parametrize("logged, req, rsp, right", [
    # nothing was ever published; the same, published; a half of it
    ((0, 50, 0, 60, True), 0, 0, (50, 0)),
    ((0, 50, 0, 60, True), 50, 60, (50, 60)),
    ((0, 50, 0, 60, True), 0, 30, (50, 30)),
    # the guest moved our words, backwards and forwards
    ((100, 150, 1000, 1060, True), 99, 1000, None),
    ((100, 150, 1000, 1060, True), 151, 1060, None),
    ((100, 150, 1000, 1060, True), 150, 1061, None),
    ((100, 150, 1000, 1060, True), 150, 999, None),
    # later turns in slots that are gone: both on, or one of them; never one with bytes owed
    ((100, 150, 1000, 1060, False), 160, 1100, (160, 1100)),
    ((100, 150, 1000, 1060, False), 160, 1060, (160, 1060)),
    ((100, 150, 1000, 1060, False), 160, 1059, None),
    ((100, 150, 1000, 1060, False), 150, 1061, None),
    ((100, 150, 1000, 1060, False), 150 + FORWARD_MAX, 1060, None),
    ((100, 150, 1000, 1060, False), 160, 1060 + FORWARD_MAX, None),
    # across 2^32, and once more around
    ((WRAP - 10, WRAP + 10, WRAP - 5, WRAP + 55, True), 10, 55, (WRAP + 10, WRAP + 55)),
    ((WRAP - 10, WRAP + 10, WRAP - 5, WRAP + 55, True), WRAP - 10, 0, (WRAP + 10, WRAP)),
])
def test_by_hand(logged: tuple[int, int, int, int, bool], req: int, rsp: int,
                 right: tuple[int, int] | None) -> None:
    assert stand(Logged(*logged), req, rsp) == right
