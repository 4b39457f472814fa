# SPDX-License-Identifier: Apache-2.0
"""A server without sockets whose memory can die at any store: for crash and damage tests.

The crash model is DESIGN.md section 2's: what is left is a prefix of the program's stores. Each
write to the region can be cut at five points: before it, after one byte, in the middle, before the
last byte, and behind it (which is "before" the next thing that happens)."""

from __future__ import annotations

from app.client import Client
from app.errors import InvariantError
from app.host import NoHost
from app.journal import Journal, Start, open_journal, space_for
from app.services import Console
from app.store import Store
from app.wire import Request

HEAP = 1 << 40
CUTS = 5


class Died(BaseException):
    """The process is gone. Not an Exception: nothing may catch it on the way."""


class ArrayMedium:
    """A region in an array. Implements persist.region.Medium."""

    def __init__(self, image: bytes | int) -> None:
        self.bytes = bytearray(image)
        self.size = len(self.bytes)

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= 0 and offset + size <= self.size
        return bytes(self.bytes[offset:offset + size])

    def write(self, offset: int, data: bytes) -> None:
        assert offset >= 0 and offset + len(data) <= self.size
        self.bytes[offset:offset + len(data)] = data


class DyingMedium(ArrayMedium):
    """Dies at cut point `die_at` (counted from 0 over all writes); None: only counts."""

    def __init__(self, image: bytes | int, die_at: int | None = None) -> None:
        super().__init__(image)
        self.points = 0
        self.die_at = die_at

    def write(self, offset: int, data: bytes) -> None:
        first, self.points = self.points, self.points + CUTS
        if self.die_at is not None and first <= self.die_at < self.points:
            size = len(data)
            kept = (0, 1, size // 2, size - 1, size)[self.die_at - first]
            super().write(offset, data[:kept])
            raise Died
        super().write(offset, data)


class Life:
    """One life of a server on a medium: recovers at once, then takes turns."""

    def __init__(self, medium: ArrayMedium, time_us: int = 1_700_000_000_000_000) -> None:
        self._time_us = time_us
        self.kept_damaged = 0
        self.published = 0  # turns whose packets went out
        self._appended = 0
        self.medium = medium
        self.store = Store(space_for(medium, HEAP), NoHost(), Console("error"))
        self.journal, self.start = self._open()
        self.client = Client(1, 0, privileged=True)
        self.store.clients.add(self.client)

    def _open(self) -> tuple[Journal, Start]:
        def keep() -> None:
            self.kept_damaged += 1
        return open_journal(self.medium, self.store, self._clock, keep)

    def _clock(self) -> int:
        self._time_us += 1000
        return self._time_us

    def turn(self, *requests: tuple[int, int, bytes]) -> list[bytes]:
        """One turn of (type, tx_id, payload) requests, up to the commit point; returns what
        would be published. A store in the region may raise Died."""
        self.journal.prepare()
        steps = []
        for kind, tx_id, payload in requests:
            request = Request(kind, 1, tx_id, payload)
            effects = self.store.handle(self.client, request)
            if effects:
                steps.append((self.client, request, effects))
        if steps:
            self._appended = self.journal.commit(steps)
        else:
            self._appended = 0
        published = self.client.outbox[:]
        self.client.take_outbox()
        return published

    def tidy(self, idle: bool = False) -> None:
        """What follows publishing: carrying, and hashing and sealing when idle."""
        if self._appended:
            while self.journal.after_turn(self._appended):
                self._appended = 0
        if idle:
            while self.journal.idle():
                pass

    def state(self) -> dict[object, object]:
        """Everything durable that a client could tell apart, listings' order included."""
        tree = self.store.tree
        problem = tree.check()
        if problem is not None:
            raise InvariantError(problem)
        state: dict[object, object] = {
            path: (node.value, node.perms.wire, tree.listing(path))
            for path, node in tree.nodes.items()}
        for key, value in self.store.items.values.items():
            if not key.startswith(("next.", "last.")):
                state[key] = value
        return state
