# SPDX-License-Identifier: Apache-2.0
"""An honest guest: several programs that share one connection, and what it demands of its replies.

U1. Every byte that comes is part of a well-formed packet. A reply answers the oldest unanswered
    request: same req_id, same tx_id, same type or ERROR. So none is lost, doubled or torn.
U2. Whatever is not a reply is an event for a token that a program of this guest has registered.
U3. A guest looks at its ring when it was notified, and when a program wants to send: never else.
A program is a generator: it yields Ask for a request, a number of ticks to sleep, or Until.
Knows nothing of what its programs check."""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from tests.sim.machine import Domain, Machine
from tests.sim.peer import Peer, Violation

HEADER = struct.Struct("<IIII")
WATCH_EVENT, ERROR = 15, 16
(DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, START, END, INTRODUCE, RELEASE) = range(1, 10)
WRITE, MKDIR, RM, SET_PERMS = range(11, 15)
SET_TARGET, SET_QUOTA = 19, 26
EVERYTHING = 1 << 20


class Style(NamedTuple):
    """How a guest behaves: bytes per write and per read, how often it acts when it could, and
    whether it is sparing with notifications."""

    write_max: int = EVERYTHING
    read_max: int = EVERYTHING
    pace: float = 0.5
    is_sparing: bool = False


STYLES = (Style(), Style(pace=0.9), Style(pace=0.03), Style(write_max=1, pace=0.9),
          Style(write_max=16), Style(write_max=700, read_max=100), Style(read_max=40),
          Style(read_max=30, pace=0.5), Style(pace=0.2))


class Ask(NamedTuple):
    """A request."""

    kind: int
    payload: bytes
    tx_id: int = 0


class Until(NamedTuple):
    """Wait for a condition; `what` is named if it does not come about."""

    condition: Callable[[], bool]
    what: str


class Sent:
    """A request under way. `began`: the moment at which its last byte was in the ring."""

    __slots__ = ("began", "end", "program", "request", "tick")

    def __init__(self, program: _Running, request: Ask, end: int, tick: int) -> None:
        self.program = program
        self.request = request
        self.end = end  # bytes of this guest's stream of requests up to here
        self.began = 0
        self.tick = tick


class Reply(NamedTuple):
    """An answer: the error's name, or b"" and the payload. `began` and `ended` are moments."""

    error: bytes
    payload: bytes
    began: int
    ended: int


Program = Generator[Any, Reply, None]


class _Running:
    """A program and what it waits for."""

    __slots__ = ("generator", "since", "until", "value", "waits", "wakes")

    def __init__(self, generator: Program) -> None:
        self.generator = generator
        self.value: Reply | None = None
        self.waits = False  # for a reply
        self.wakes = 0  # tick
        self.until: Until | None = None
        self.since = 0


class Time:
    """Ticks of the world, and moments: a number for everything that happens, in order."""

    def __init__(self) -> None:
        self.tick = 0
        self.served = 0  # turns that the server has completed
        self._moment = 0

    def next_moment(self) -> int:
        """A later number than all before."""
        self._moment += 1
        return self._moment


class Guest:
    """One boot of an honest domain."""

    def __init__(self, machine: Machine, domain: Domain, style: Style, time: Time,
                 rng: random.Random) -> None:
        self.domain = domain
        self.domid = domain.domid
        self.style = style
        self.peer = Peer(machine, domain, style.is_sparing)
        self.handlers: dict[bytes, Callable[[bytes], None]] = {}
        self.waiting: deque[Sent] = deque()
        self.answered = 0
        self.slowest_turns = 0
        self._unpushed: deque[Sent] = deque()
        self._time = time
        self._rng = rng
        self._programs: list[_Running] = []
        self._out = bytearray()
        self._in = b""
        self._queued = self._pushed = 0  # bytes of the stream of requests
        self._next_id = rng.randrange(1 << 32)

    def run(self, program: Program) -> None:
        """One more program."""
        self._programs.append(_Running(program))

    def watch(self, token: bytes, handler: Callable[[bytes], None]) -> None:
        """`handler` gets the paths of events with this token."""
        self.handlers[token] = handler

    def now(self) -> int:
        """A moment."""
        return self._time.next_moment()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done any more, and nothing to come."""
        return not (self._programs or self.waiting or self._out or self._in)

    def stuck(self) -> str:
        """What it waits for."""
        found = [f"{one.until.what} (since tick {one.since})" for one in self._programs
                 if one.until is not None]
        if self.waiting:
            one = self.waiting[0]
            found.append(f"the reply to {one.request} (since tick {one.tick}, "
                         f"{len(self.waiting)} waiting, {len(self._out)} bytes unwritten)")
        if self._in:
            found.append(f"the rest of a packet that begins {self._in[:32]!r}")
        return f"domain {self.domid} {self.style} waits for: " + "; ".join(found or ["nothing"])

    # -- one act

    def act(self) -> None:
        """Read if there was a notification; let programs go on; write."""
        if self.domain.is_notified:
            self._read()
        for one in self._programs[:]:
            if not one.waits and one.wakes <= self._time.tick and self._is_due(one):
                self._go_on(one)
        while self._out:
            if not self._write():
                break
            if self.style.write_max != EVERYTHING:
                break

    def _is_due(self, one: _Running) -> bool:
        if one.until is not None:
            if not one.until.condition():
                return False
            one.until = None
        return True

    def _go_on(self, one: _Running) -> None:
        try:
            wish = one.generator.send(one.value)  # type: ignore[arg-type]
        except StopIteration:
            self._programs.remove(one)
            return
        one.value = None
        if isinstance(wish, Ask):
            one.waits = True
            self._send(one, wish)
        elif isinstance(wish, Until):
            one.until, one.since = wish, self._time.tick
        else:
            one.wakes = self._time.tick + wish

    def _send(self, program: _Running, request: Ask) -> None:
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        data = HEADER.pack(request.kind, self._next_id, request.tx_id, len(request.payload))
        self._out += data + request.payload
        self._queued += len(data) + len(request.payload)
        sent = Sent(program, request, self._queued, self._time.tick)
        self.waiting.append(sent)
        self._unpushed.append(sent)

    def _write(self) -> bool:
        size = self.style.write_max
        moment = self._time.next_moment()  # before it can be seen
        moved = self.peer.write(self._out if size >= len(self._out) else self._out[:size])
        if not moved:
            return False
        del self._out[:moved]
        self._pushed += moved
        while self._unpushed and self._unpushed[0].end <= self._pushed:
            self._unpushed.popleft().began = moment
        return True

    def _read(self) -> None:
        most = self.style.read_max
        self.domain.is_notified = False
        while most > 0:
            data = self.peer.read(most)
            if not data:
                break
            most -= len(data)
            self._in += data
        else:
            self.domain.is_notified = True  # there may be more; it comes back by itself
        offset = 0
        while len(self._in) - offset >= HEADER.size:
            kind, req_id, tx_id, length = HEADER.unpack_from(self._in, offset)
            if length > 4096:
                raise Violation(f"domain {self.domid}: no packet: {self._in[offset:offset + 32]!r}")
            end = offset + HEADER.size + length
            if end > len(self._in):
                break
            self._take(kind, req_id, tx_id, self._in[offset + HEADER.size:end])
            offset = end
        self._in = self._in[offset:]

    def _take(self, kind: int, req_id: int, tx_id: int, payload: bytes) -> None:
        if kind == WATCH_EVENT:
            parts = payload.split(b"\0")
            if (req_id, tx_id) != (0, 0) or len(parts) != 3 or parts[2]:
                raise Violation(f"domain {self.domid}: no event: {payload!r}")
            handler = self.handlers.get(parts[1])
            if handler is None:
                raise Violation(f"domain {self.domid}: an event that it never asked for: "
                                f"{payload!r}")
            handler(parts[0])
            return
        if not self.waiting:
            raise Violation(f"domain {self.domid}: a reply to nothing: type {kind}, {payload!r}")
        sent = self.waiting.popleft()
        expected = (self._next_id - len(self.waiting)) & 0xFFFFFFFF
        request = sent.request
        if (req_id, tx_id) != (expected, request.tx_id) or kind not in (request.kind, ERROR) or (
                not sent.began):
            raise Violation(f"domain {self.domid}: {request} with req_id {expected} was answered "
                            f"by type {kind}, req_id {req_id}, tx_id {tx_id}, {payload!r}")
        self.answered += 1
        error = payload.rstrip(b"\0") if kind == ERROR else b""
        sent.program.value = Reply(error, payload, sent.began, self._time.next_moment())
        sent.program.waits = False


def ok(reply: Reply, what: object) -> None:
    """An answer that must not be an error."""
    if reply.error:
        raise Violation(f"{what}: {reply.error.decode()}")


def must(reply: Reply, errors: tuple[bytes, ...], what: object) -> None:
    """An answer that must be one of these errors."""
    if reply.error not in errors:
        raise Violation(f"{what}: expected {errors}, got {reply.error or reply.payload!r}")
