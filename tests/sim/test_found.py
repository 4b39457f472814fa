# SPDX-License-Identifier: Apache-2.0
"""The smallest reproduction of each defect that the simulation has found. Method: one machine, a
few domains, requests by hand; the server takes turns until it sleeps.

Cannot show: what else is wrong. tests/sim/test_sim.py looks for that."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.sim.guest import (
    DIRECTORY,
    HEADER,
    INTRODUCE,
    READ,
    SET_PERMS,
    SET_QUOTA,
    WATCH,
    WRITE,
    Ask,
    Guest,
    Program,
    Reply,
    Style,
    Time,
)
from tests.sim.machine import Clock, Domain, DyingMedium, Fuse, Machine
from tests.sim.peer import SIZE
from tests.sim.server import Lives
from tests.sim.world import frozen_time

TURNS = 200


class Room:
    """A server, domain 0, and whoever is made."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rng = random.Random(1)
        self.fuse = Fuse(self.rng)
        self.machine = Machine(self.rng, self.fuse)
        self.machine.poll_interval_s = None
        self.machine.vagueness = 0.0
        self.machine.tells_changes = True
        self.lives = Lives(self.machine, DyingMedium(2 << 20, self.fuse))
        assert self.lives.start()
        self.time = Time()
        self.heard: list[bytes] = []
        self.dom0 = self.guest(self.machine.domains[0], False)
        self.dom0.watch(b"r", self.heard.append)

    def guest(self, domain: Domain, is_sparing: bool) -> Guest:
        """A guest that acts when it can."""
        return Guest(self.machine, domain, Style(is_sparing=is_sparing), self.time, self.rng)

    def serve(self) -> None:
        """Turns until the server sleeps."""
        for _ in range(TURNS):
            self.clock.now_s += 0.01
            assert self.lives.turn(self.clock.now_s)

    def ask(self, who: Guest, *asks: Ask) -> list[Reply]:
        """One request after the other, each answered."""
        replies: list[Reply] = []

        def program() -> Program:
            for one in asks:
                replies.append((yield one))
        who.run(program())
        for _ in range(5 * len(asks)):
            who.act()
            self.serve()
        assert len(replies) == len(asks), who.stuck()
        return replies

    def introduce(self, domid: int, port: int = 0) -> bytes:
        """INTRODUCE; the error."""
        one = self.machine.domains[domid]
        (reply,) = self.ask(self.dom0, Ask(INTRODUCE, b"%d\0%d\0%d\0" % (
            domid, one.gfn, port or one.remote_port)))
        return reply.error

    def make(self, domid: int) -> Domain:
        """A domain with a home, introduced."""
        domain = self.machine.create(domid)
        home = b"/local/domain/%d\0" % domid
        self.ask(self.dom0, Ask(WRITE, home), Ask(SET_PERMS, home + b"n%d\0" % domid))
        assert self.introduce(domid) == b""
        return domain


@pytest.fixture
def room() -> Iterator[Room]:
    with frozen_time() as clock:
        one = Room(clock)
        yield one
        one.lives.kill()
        one.machine.shut()


def at_point(room: Room, number: int, act: Callable[[], None]) -> None:
    """Let `act` happen right before the `number`-th point from here on."""
    left = [number]

    def between() -> None:
        left[0] -= 1
        if left[0] == 0:
            act()
    room.fuse.between = between


def test_an_introduction_that_the_machine_refuses(room: Room) -> None:
    """It took an epoch before it asked the machine: "Einval after a change" ended the server."""
    room.machine.create(5)
    assert room.introduce(5, port=999) == b"EINVAL"
    assert room.introduce(5) == b""


def test_a_refused_introduction_of_a_successor(room: Room) -> None:
    """The same, behind the removal of a predecessor whose end nobody had seen yet."""
    room.ask(room.dom0, Ask(WATCH, b"@releaseDomain\0r\x001\0"))
    room.make(5)
    room.machine.is_silent = True
    room.machine.destroy(5)
    room.machine.create(5)
    assert room.introduce(5, port=999) == b"EINVAL"
    assert room.introduce(5) == b""
    assert room.heard == [b"@releaseDomain", b"@releaseDomain/5"]


def test_a_domain_that_cannot_be_looked_at(room: Room) -> None:
    """An own step raised Enomem, and the server ended; its end must be told of all the same."""
    room.ask(room.dom0, Ask(WATCH, b"@releaseDomain\0r\x001\0"))
    room.make(5)
    room.machine.vagueness = 1.0
    room.machine.destroy(5)
    room.serve()
    room.machine.vagueness = 0.0
    room.serve()
    room.dom0.act()
    assert room.heard == [b"@releaseDomain", b"@releaseDomain/5"]


def test_a_successor_outlives_what_is_left_of_its_predecessor(room: Room) -> None:
    """The removal of more than one step went on behind the successor's introduction, and took
    its connection."""
    domain = room.make(5)
    room.ask(room.dom0, Ask(SET_QUOTA, b"5\0node-size\x000\0"), Ask(WRITE, b"/h\0"),
             Ask(SET_PERMS, b"/h\0n0\0b5\0"))
    guest = room.guest(domain, False)
    room.ask(guest, *(Ask(WRITE, b"/h/%d-%b\0x" % (one, b"n" * 480)) for one in range(300)))
    room.machine.is_silent = True
    room.machine.destroy(5)
    successor = room.machine.create(5)
    while room.introduce(5) == b"EBUSY":
        pass
    (reply,) = room.ask(room.guest(successor, False), Ask(READ, b"/h\0"))
    assert reply.error == b"EACCES"
    (listing,) = room.ask(room.dom0, Ask(DIRECTORY, b"/h\0"))
    assert listing.payload == b""


@pytest.mark.parametrize("point", range(1, 12))
def test_a_request_written_while_one_is_answered(room: Room, point: int) -> None:
    """Linux notifies only if all before was consumed. A request that came between the server's
    look and its store of req_cons was never seen."""
    guest = room.guest(room.make(5), True)
    room.ask(guest, Ask(WRITE, b"a\x001"))
    replies: list[Reply] = []

    def program(value: bytes) -> Program:
        replies.append((yield Ask(WRITE, b"a\0" + value)))
    guest.run(program(b"2"))
    guest.act()
    guest.run(program(b"3"))
    at_point(room, point, guest.act)
    room.serve()
    room.fuse.between = None
    for _ in range(5):
        guest.act()
        room.serve()
    assert len(replies) == 2, guest.stuck()


@pytest.mark.parametrize("first", [1, 16, 17, 24])
def test_a_request_in_two_parts(room: Room, first: int) -> None:
    """Linux writes header and payload one after the other, and notifies only for the first, if
    that was not consumed. What waits for its rest must not be forgotten."""
    guest = room.guest(room.make(5), True)
    room.ask(guest, Ask(WRITE, b"a\x001"))
    guest.style = Style(write_max=first, is_sparing=True)
    replies: list[Reply] = []

    def program() -> Program:
        replies.append((yield Ask(WRITE, b"a\x00222222222")))
    guest.run(program())
    guest.act()
    assert room.lives.turn(room.clock.now_s)
    guest.style = Style(is_sparing=True)
    guest.act()
    room.serve()
    guest.act()
    assert len(replies) == 1, guest.stuck()


@pytest.mark.parametrize("point", range(1, 12))
def test_a_reply_read_while_it_is_written(room: Room, point: int) -> None:
    """Linux notifies only if the ring was full. Room that came between the server's look and its
    store of rsp_prod was never used."""
    guest = room.guest(room.make(5), True)
    room.ask(guest, Ask(WRITE, b"a\0" + b"v" * 900))
    reads = 3
    replies: list[Reply] = []

    def program() -> Program:
        replies.append((yield Ask(READ, b"a\0")))
    for _ in range(reads):
        guest.run(program())
    guest.style = Style(read_max=0, is_sparing=True)
    guest.act()
    guest.style = Style(read_max=7, is_sparing=True)

    def read() -> None:
        guest.domain.is_notified = True
        guest.act()
    room.serve()
    read()  # the ring was full: the server is told, and will fill it
    at_point(room, point, read)
    room.serve()
    room.fuse.between = None
    for _ in range(reads * SIZE):
        guest.act()
        assert room.lives.turn(room.clock.now_s)
    assert len(replies) == reads, guest.stuck()


def test_guests_that_do_not_read_their_replies(room: Room) -> None:
    """Only events were counted against what all rings may be owed together: replies that nobody
    read filled the log, for good ("live data outgrew the log"), in every life after as well."""
    room.ask(room.dom0, Ask(WRITE, b"/big\0" + b"v" * 2000), Ask(SET_PERMS, b"/big\0r0\0"))
    request = HEADER.pack(READ, 1, 0, 5) + b"/big\0"
    for domid in range(1, 331):
        domain = room.machine.create(domid)
        error = room.introduce(domid)
        if error:
            break  # a region of this size holds no more rings: refused, and served on
        peer = room.guest(domain, False).peer
        for _ in range(10):
            peer.write(request)
        room.serve()
        room.lives.check()
    assert domid > 100 and error in (b"", b"ENOSPC")
    assert room.ask(room.dom0, Ask(WRITE, b"/x\0y"))[0].error == b""


@pytest.mark.parametrize("size", [8, 28])
def test_a_suspect_that_never_runs(room: Room, size: int) -> None:
    """After an unexplained death, what one guest had left in its ring, a part of a request or one
    whose replies nobody reads, kept all turns at a single request for as long as it liked."""
    stuck = room.guest(room.make(5), False).peer
    other = room.guest(room.make(6), False)
    stuck.write((HEADER.pack(WRITE, 1, 0, 100) + bytes(100))[:size])
    room.fuse.arm(0, "append")
    while room.lives.turn(room.clock.now_s):
        room.clock.now_s += 0.01
    assert room.lives.start()
    room.serve()
    answered = other.answered
    for _ in range(20):
        def program() -> Program:
            yield Ask(READ, b"/\0")
        other.run(program())
    other.act()
    for _ in range(6):
        assert room.lives.turn(room.clock.now_s)
        other.act()
    assert other.answered - answered == 20, "six turns were not enough for twenty requests"
