# SPDX-License-Identifier: Apache-2.0
"""Hostile domains: whatever can be done to one's own page, and with one's own requests.

Each writes words and bytes of its page as it likes, or floods with requests that are well-formed,
or does not read. `owes_error`: the code that must stand in its error word in the end, if it does
not overwrite that itself. Knows nothing of the server."""

from __future__ import annotations

import random

from tests.sim.guest import END, HEADER, READ, RM, START, WATCH, WRITE
from tests.sim.machine import Domain, Machine
from tests.sim.peer import (
    CONNECTION,
    ERROR,
    FEATURES,
    MASK,
    REQ_CONS,
    REQ_PROD,
    RSP_CONS,
    RSP_PROD,
    SIZE,
)

KINDS = ("garbage", "indices", "reader", "long", "scribble", "flood", "deaf", "watch", "nodes",
         "partial", "conflicts", "junk")
FLOOD = b"/sim/flood"


class Hostile:
    """One boot of a hostile domain."""

    def __init__(self, machine: Machine, domain: Domain, kind: str, rng: random.Random) -> None:
        self.domain = domain
        self.domid = domain.domid
        self.kind = kind
        self.owes_error: int | None = None
        self._machine = machine
        self._rng = rng
        self._bytes = memoryview(domain.page)
        self._words = self._bytes.cast("I")
        self._prod = 0
        self._number = 0
        self._held = 0

    @property
    def error(self) -> int:
        """The error word."""
        return self._words[ERROR]

    def act(self) -> None:
        """One act."""
        getattr(self, "do_" + self.kind)()
        if self._rng.random() < 0.9:
            self._machine.kick(self.domain)

    # -- pieces

    def _put(self, data: bytes) -> bool:
        """Bytes into the ring as an honest guest would; False if they do not fit."""
        cons = self._words[REQ_CONS]
        if (self._prod - cons) & MASK > SIZE - len(data):
            return False
        for index, byte in enumerate(data):
            self._bytes[(self._prod + index) % SIZE] = byte
        self._prod = (self._prod + len(data)) & MASK
        self._words[REQ_PROD] = self._prod
        return True

    def _ask(self, kind: int, payload: bytes, tx_id: int = 0) -> bool:
        return self._put(HEADER.pack(kind, self._number, tx_id, len(payload)) + payload)

    def _swallow(self) -> None:
        """Read everything and look at nothing."""
        self._words[RSP_CONS] = self._words[RSP_PROD]

    # -- kinds

    def do_garbage(self) -> None:
        """Bytes that mean nothing, or something by chance."""
        self._put(self._rng.randbytes(self._rng.randint(1, 100)))
        if self._rng.random() < 0.5:
            self._swallow()

    def do_indices(self) -> None:
        """More requests than a ring holds."""
        self._words[REQ_PROD] = (self._words[REQ_CONS] + self._rng.choice(
            (SIZE + 1, 5000, 1 << 31, MASK))) & MASK
        self.owes_error = 2

    def do_reader(self) -> None:
        """More read than there was."""
        if self.owes_error is None and self._ask(READ, FLOOD + b"\0"):
            self._words[RSP_CONS] = (self._words[RSP_PROD] + self._rng.choice(
                (1, 100, 1 << 30))) & MASK
            self.owes_error = 2

    def do_long(self) -> None:
        """A length that no message may have."""
        if self.owes_error is None and self._put(HEADER.pack(
                WRITE, 1, 0, self._rng.choice((4097, 1 << 16, MASK)))):
            self.owes_error = 3
        self._put(b"more")

    def do_scribble(self) -> None:
        """The server's words, with requests in between."""
        for _ in range(self._rng.randint(1, 8)):
            word = self._rng.choice((REQ_CONS, RSP_PROD, FEATURES, CONNECTION, ERROR))
            self._words[word] = self._rng.choice((0, 1, 2, self._rng.getrandbits(32)))
        self._ask(WRITE, FLOOD + b"/s\0x")
        if self._rng.random() < 0.3:
            self._swallow()

    def do_flood(self) -> None:
        """As many writes to shared nodes as possible, reading."""
        while self._ask(WRITE, b"%b/%d\0%d" % (FLOOD, self._rng.randrange(5), self._number)):
            self._number += 1
        self._swallow()

    def do_deaf(self) -> None:
        """The same without ever reading."""
        while self._ask(READ if self._number % 3 else WRITE, FLOOD + b"\0"):
            self._number += 1

    def do_watch(self) -> None:
        """Watches with long tokens on everything, never reading the events."""
        path = self._rng.choice((b"/", b"/sim", FLOOD, b"@releaseDomain", b"@introduceDomain"))
        self._ask(WATCH, path + b"\0" + b"%d" % self._number + b"t" * 700 + b"\0")
        self._number += 1
        if self._rng.random() < 0.02:
            self._swallow()

    def do_nodes(self) -> None:
        """Nodes, deep and many, until a quota ends it; then all of it removed."""
        depth = b"/d" * self._rng.randint(1, 100)
        self._ask(*(self._rng.choice((
            (WRITE, b"n%d%b\0%b" % (self._number % 50, depth, b"v" * 200)),
            (WRITE, FLOOD + depth + b"\0x"), (RM, b"n%d\0" % (self._number % 50)),
            (RM, FLOOD + b"/d\0")))))
        self._number += 1
        self._swallow()

    def do_partial(self) -> None:
        """A request that is never completed, with more or less of it there."""
        if self._number == 0:
            self._put(HEADER.pack(WRITE, 1, 0, 4000)[:self._rng.choice((3, 8, 15, 16))])
            self._number = 1
        elif self._rng.random() < 0.1 and self._number < 3000:
            self._put(b"p" * 100)
            self._number += 100

    def do_conflicts(self) -> None:
        """Transactions opened and left, and writes that make others' fail."""
        self._ask(START, b"\0")
        self._ask(self._rng.choice((READ, WRITE)), FLOOD + b"\0", self._rng.randrange(1, 5000))
        self._ask(END, b"T\0", self._rng.randrange(1, 5000))
        self._swallow()

    def do_junk(self) -> None:
        """Well-formed messages of any type with any payload."""
        while self._put(HEADER.pack(self._rng.randrange(30), 1, self._rng.choice((0, 1, MASK)), 12)
                        + self._rng.choice((b"/sim/flood/\0", b"@releaseDoma", b"\0" * 12,
                                            b"0\x001\x002\x00345678", self._rng.randbytes(12)))):
            pass
        self._swallow()
