# SPDX-License-Identifier: Apache-2.0
"""No crash loop: a request that kills the server again and again is answered EIO (P6).

J1. Before a turn, an intent names the requests that it may execute. After a death, those that were
    not passed are suspects, with points: many if the death has a recorded cause, few if it has none
    (a kill -9 is not the request's fault), none if it was not the execution that died.
J2. A suspect's turn holds its request alone, and the intent names exactly that one. So of many
    suspects only the culprit gets points a second time. Others are served in turns of their own.
J3. A suspect with POISON_POINTS is not executed any more, but answered EIO: a ring's once, since it
    is passed then; a socket's whenever it comes again. One that was executed and survived is
    acquitted.
J4. A connection that sends poison again and again is muted.
A ring's request is known by epoch and stream position, a socket's by its content, since its
connection is gone. Suspects are items, so that their points survive. Knows nothing of the log."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple, cast

from app import wire
from app.items import Items
from app.wire import FrameError, Request

EXECUTE, SWEEP, IDLE, WAIT = 1, 2, 3, 4  # phases of an intent
POINTS_RECORDED = 16  # for a death with a recorded cause
POINTS_UNEXPLAINED = 1
POISON_POINTS = 32
POISON_PER_CONNECTION = 3  # then it is muted
SUSPECTS_MAX = 256
POISON_MAX = 256  # requests of sockets that are never executed again
SOCKET_TURNS_MAX = 2000  # careful turns for the sake of sockets, which may never come back
KEPT_POISON = 16  # how many are remembered, for people
SHOWN = 64  # bytes of a poison request that are kept

_RING = struct.Struct("<BQQ")  # 1, epoch, position
_SOCKET = struct.Struct("<BH")  # 0, size; the bytes follow
_HASH = struct.Struct("<B8s")  # 2, what a socket's request is known by
RING_ENTRY_SIZE = _RING.size


class RingSuspect(NamedTuple):
    """A request that begins in [position, end) of an epoch's stream, and its points."""

    position: int
    end: int
    points: int


def ring_entry(epoch: int, position: int) -> bytes:
    """A ring whose next request may be executed."""
    return _RING.pack(1, epoch, position)


def socket_entry(data: bytes, room: int) -> bytes:
    """A socket's bytes, as many as fit; of a first request that does not, what it is known by."""
    size = min(len(data), room - _SOCKET.size)
    first = _requests(data, 1) if size < len(data) else []
    if first and wire.HEADER_SIZE + len(first[0].payload) > size:
        return _HASH.pack(2, bytes.fromhex(content(first[0]))) if room >= _HASH.size else b""
    return _SOCKET.pack(0, size) + data[:size] if size > 0 else b""


class RingEntry(NamedTuple):
    """A ring that an intent names, and where its next request begins."""

    epoch: int
    position: int


class SocketEntry(NamedTuple):
    """What a socket had sent."""

    data: bytes


class HashEntry(NamedTuple):
    """What a socket's first request is known by."""

    name: str


def read_entries(payload: bytes) -> Iterator[RingEntry | SocketEntry | HashEntry]:
    """What an intent names."""
    offset = 0
    while offset < len(payload):
        if payload[offset] == 1:
            yield RingEntry(*_RING.unpack_from(payload, offset)[1:])
            offset += _RING.size
        elif payload[offset] == 2:
            yield HashEntry(_HASH.unpack_from(payload, offset)[1].hex())
            offset += _HASH.size
        else:
            _, size = _SOCKET.unpack_from(payload, offset)
            offset += _SOCKET.size
            yield SocketEntry(payload[offset:offset + size])
            offset += size


def parse_entries(payload: bytes) -> tuple[list[tuple[int, int]], list[str]]:
    """(epoch, position) of rings, and what whole requests of sockets are known by, that an intent
    names."""
    rings: list[tuple[int, int]] = []
    names: list[str] = []
    for entry in read_entries(payload):
        if isinstance(entry, RingEntry):
            rings.append(entry)
        elif isinstance(entry, HashEntry):
            names.append(entry.name)
        else:
            names += map(content, _requests(entry.data, SUSPECTS_MAX))
    return rings, names


def _requests(data: bytes, most: int) -> list[Request]:
    found: list[Request] = []
    offset = 0
    try:
        while len(found) < most and (taken := wire.take(data, offset)) is not None:
            request, offset = taken
            found.append(request)
    except FrameError:
        pass
    return found


class Quarantine:
    """The suspects. All changes are items, part of the step under way."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._rings: dict[int, RingSuspect] = {}
        self._sockets: dict[str, int] = {}
        self._poison: dict[str, None] = {}  # of sockets, the oldest first
        self._turns_left = SOCKET_TURNS_MAX
        self._has_domains = any(key.startswith("suspect.domain.") for key in items.values)
        for key, value in items.values.items():
            kind, _, rest = key.partition(".")
            what, _, name = rest.partition(".")
            if kind != "suspect":
                continue
            if what == "ring":
                self._rings[int(name)] = RingSuspect(*cast("tuple[int, int, int]", value))
            elif what == "socket":
                self._note_socket(name, cast("int", value))

    @property
    def is_careful(self) -> bool:
        """Whether turns hold a single request (J2)."""
        return bool(self._rings or self._sockets)

    @property
    def has_socket_poison(self) -> bool:
        """Whether there are requests that no socket may have executed any more."""
        return bool(self._poison)

    @property
    def has_suspect_domains(self) -> bool:
        """Whether looking after domains has ended a life."""
        return self._has_domains

    # -- after a death

    def suspect(self, payload: bytes, standing: dict[int, tuple[int, int]], weight: int) -> None:
        """Give points to what an intent named and was not passed. `standing`: per epoch, requests
        consumed up to, and waiting up to."""
        rings, names = parse_entries(payload)
        for epoch in [epoch for epoch in self._rings if epoch not in standing]:
            self.forget(epoch)
        for epoch, position in rings[:SUSPECTS_MAX]:
            consumed, end = standing.get(epoch, (0, 0))
            if consumed > position or end <= position:
                continue  # passed, or there is no request any more
            before = self._rings.get(epoch)
            points = before.points if (before is not None
                                       and before.position <= position < before.end) else 0
            self._keep(epoch, RingSuspect(position, end, points + weight))
        for name in names[:SUSPECTS_MAX]:
            if name in self._poison:
                continue
            points = self._sockets.get(name, 0) + weight
            self._note_socket(name, points)
            self._items.note(f"suspect.socket.{name}", points)
        while len(self._poison) > POISON_MAX:
            oldest = next(iter(self._poison))
            del self._poison[oldest]
            self._items.note(f"suspect.socket.{oldest}", None)

    def suspect_work(self, what: str, weight: int) -> None:
        """Give points to work of the server's own, such as "idle" or "domain.7"."""
        key = f"suspect.{what}"
        self._has_domains = self._has_domains or what.startswith("domain.")
        self._items.note(key, self._items.number(key, 0) + weight)

    def is_poison_work(self, what: str) -> bool:
        """Whether this work must not be done any more."""
        return self._items.number(f"suspect.{what}", 0) >= POISON_POINTS

    def passed_work(self, what: str) -> None:
        """It was done."""
        self._items.note(f"suspect.{what}", None)

    def concerns(self, epoch: int) -> bool:
        """Whether a connection's next request is to be executed alone; epoch 0: a socket's."""
        return epoch in self._rings if epoch else bool(self._sockets)

    # -- while careful

    def is_poison(self, epoch: int, position: int) -> bool:
        """Whether a ring's request that begins at `position` must not be executed."""
        one = self._rings.get(epoch)
        return one is not None and one.position == position and one.points >= POISON_POINTS

    def is_socket_poison(self, request: Request) -> bool:
        """The same for a request on a socket."""
        return bool(self._poison) and content(request) in self._poison

    def passed(self, epoch: int, position: int) -> None:
        """A ring's requests up to `position` were answered."""
        one = self._rings.get(epoch)
        if one is None:
            return
        if position >= one.end or one.points >= POISON_POINTS:
            self.forget(epoch)
        elif position > one.position:
            self._keep(epoch, one._replace(position=position))

    def passed_socket(self, request: Request) -> None:
        """A socket's request was answered."""
        if not self._sockets:
            return
        name = content(request)
        if self._sockets.pop(name, None) is not None:
            self._items.note(f"suspect.socket.{name}", None)
        self._turns_left -= 1
        if self._turns_left < 0:
            for left in self._sockets:
                self._items.note(f"suspect.socket.{left}", None)
            self._sockets.clear()

    def condemn(self, domid: int, epoch: int, position: int, request: Request) -> bool:
        """A request is answered EIO: remember it for people. Whether its connection has sent so
        much poison that it is to be muted (J4)."""
        number = self._items.number("next.poison", 0)
        self._items.note("next.poison", number + 1)
        self._items.note(f"poison.{number % KEPT_POISON}",
                         (number, domid, epoch, position, request.type, request.payload[:SHOWN]))
        if not epoch:
            return False
        return sum(1 for key, value in self._items.values.items()
                   if key.startswith("poison.") and isinstance(value, tuple)
                   and value[2] == epoch) >= POISON_PER_CONNECTION

    def forget(self, epoch: int) -> None:
        """The epoch has passed, or has ended."""
        if self._rings.pop(epoch, None) is not None:
            self._items.note(f"suspect.ring.{epoch}", None)

    def forget_ended(self, epochs: Iterable[int]) -> None:
        """Connections have ended."""
        for epoch in epochs:
            self.forget(epoch)

    def _note_socket(self, name: str, points: int) -> None:
        self._sockets[name] = points
        if points >= POISON_POINTS:
            del self._sockets[name]
            self._poison[name] = None

    def _keep(self, epoch: int, one: RingSuspect) -> None:
        self._rings[epoch] = one
        self._items.note(f"suspect.ring.{epoch}", tuple(one))


def content(request: Request) -> str:
    """What a request on a socket is known by: its type and payload."""
    return blake2b(b"%d " % request.type + request.payload, digest_size=8).hexdigest()
