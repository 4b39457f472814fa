# SPDX-License-Identifier: Apache-2.0
"""L1-L3, H1-H3: the two ends of a channel, app/lines.py and tools/muxhub.py.

Property: what a client gets is a prefix of what its requests are answered, and everything if
nobody dies; whoever had credit is dropped with its session, whoever had none is served by the next;
credit, queues and turns are bounded.
Method: both ends back to back (two_ends.py); a life ends at every byte between them. Cannot show:
what the other end sends against the rules (test_lines_hostile.py), real descriptors
(test_channel.py), real programs (tests/clients)."""

from __future__ import annotations

import contextlib
from collections import deque

import pytest

from app import mux
from app.lines import LINES_MAX, Line
from app.mux import CLOSE, CREDIT, DATA, HELLO, OPEN, PRELUDE, RESET, WELCOME, frame
from tests.app.two_ends import IN, OPENED, OUT, Asker, Life, World, number, spelt
from tools.muxhub import PATIENCE_MAX_S, PATIENCE_MIN_S, Hub


@pytest.mark.parametrize("most", [1, 5, 100, 8191, None])
def test_what_is_asked_is_answered(most: int | None) -> None:
    """However the channel cuts the bytes."""
    world = World()
    sizes = (0, 1, 30, 200) if most == 1 else (0, 1, 30, 200_000, 70_000)
    world.join(*(Asker(number, size) for number, size in enumerate(sizes)))
    world.settle(most)
    for asker in world.askers:
        assert asker.got == spelt(asker.said, 1)
        assert not asker.is_dropped
    assert world.hub.sessions == 1 and len(world.life.open) == len(sizes)


def scene() -> World:
    """Three clients that talk, one of whom leaves; one comes late: see play()."""
    world = World(factor=2)
    world.join(Asker(1, 40, 7), Asker(2, 60, 9), Asker(3, 5))
    return world


def play(world: World, cut: int) -> None:
    """A scene until `cut` bytes have come to the host, in small portions."""
    turn = 0
    while world.carried < cut:
        assert turn < 10_000, "the scene is over"
        left = cut - world.carried
        world.to_host(min(left, 33 if world.hub.sessions else 1 << 15))
        for asker in world.askers:
            asker.turn(world.hub)
        turn += 1
        if turn == 6:
            world.hub.leave(world.askers[2])
            world.left.append(world.askers[2])
        if turn == 9:
            world.join(Asker(4, 30, 11))
        world.to_server(29)
        world.life.turn()


def length() -> int:
    """How many bytes come to the host in a whole scene."""
    world = scene()
    with contextlib.suppress(AssertionError):
        play(world, 1 << 30)
    return world.carried


@pytest.mark.parametrize("stale", ["none", "part", "all"])
def test_the_server_dies_at_every_byte(stale: str) -> None:
    """H1. `stale`: how much of what the host has sent comes to the next life instead."""
    whole = length()
    begun = len(PRELUDE) + len(frame(HELLO, 0, bytes(mux.NONCE_SIZE)))
    assert whole > begun + 500
    unheard = 0
    for cut in range(begun - 50, whole):
        world = scene()
        play(world, cut)
        world.life = Life(world.factor)
        world.to_host(mux.HEADER_SIZE)  # its zeros may complete a frame of which zeros were missing
        granted = [asker for asker in world.askers if asker.is_granted]
        if stale == "none":
            world.hub.outgoing.clear()
        elif stale == "part":
            del world.hub.outgoing[:len(world.hub.outgoing) // 2]
        before = [asker.got for asker in granted]
        world.settle()
        for asker, got in zip(granted, before, strict=True):
            world.check(asker)
            assert asker.is_dropped, cut
            assert asker.got == got, cut
        for asker in world.askers:
            if asker not in granted and asker not in world.left:
                assert not asker.is_dropped, cut
                assert asker.got == spelt(asker.said, 2), f"cut {cut}: not served by the next life"
                unheard += 1
        late = Asker(9, 100)
        world.join(late)
        world.settle()
        assert late.got == spelt(late.said, 2), cut
        assert not world.life.told
        assert world.hub.sessions == (2 if cut >= begun else 1), cut
    assert unheard > 100, "all had been served before"


def test_the_multiplexer_dies_at_every_byte() -> None:
    """The server forgets the clients of the last one, and serves those of the next."""
    for cut in range(60, 700):
        world = World(factor=2)
        world.join(Asker(1, 40, 7), Asker(2, 60, 9))
        sent = 0
        while sent < cut and world.step(0 if sent else None):
            sent += world.to_server(min(29, cut - sent))
            world.to_host()
        old = list(world.life.open.values())
        world.hub = Hub(lambda text: None)
        world.hub.connect(world.now_s)
        world.askers = []
        world.join(late := Asker(9, 100))
        world.settle()
        world.now_s += PATIENCE_MIN_S
        world.hub.tick(world.now_s)
        world.settle()
        assert late.got == spelt(late.said, 2), cut
        assert len(world.life.open) == 1 and not any(line in world.life.open.values()
                                                     for line in old)


def test_a_slow_reader_costs_itself() -> None:
    """M3, H2: what waits for it is a window; the server notices, the others do not."""
    world = World(factor=4)
    slow, other = Asker(1, 300_000), Asker(2, 300_000)
    slow.reads = False
    world.join(slow, other)
    world.settle()
    assert other.got == spelt(other.said, 4)
    assert len(slow.buffer) == mux.WINDOW and slow.sent <= 2 * mux.WINDOW
    assert len(world.life.owed) == 1
    slow.reads = True
    world.settle()
    assert slow.got == spelt(slow.said, 4)


def test_much_delays_little_by_a_share() -> None:
    """L2: the channel is slow, one client is owed much, another little."""
    world = World(factor=8)
    many = [Asker(number, 60_000) for number in range(8)]
    world.join(*many)
    for _ in range(60):
        world.step(8192)
    assert world.life.lines.is_full or len(world.life.lines.outgoing) > mux.OUTGOING_MAX // 2
    little = Asker(99, 1)
    world.join(little)
    for _ in range(3 * mux.OUTGOING_MAX // 8192):  # what waits already, and a share of each
        world.step(8192)
    assert little.got
    world.settle()
    for asker in many:
        assert asker.got == spelt(asker.said, 8)


def test_who_waits_for_room_is_first_and_in_turn() -> None:
    """L2, in detail: three lines, of which one has just come, and room for one share each time."""
    life = Life()
    life.lines.receive(frame(WELCOME, 0, life.lines.outgoing[-mux.NONCE_SIZE:]))
    life.lines.outgoing.clear()
    for conn in (1, 2, 3):
        life.lines.receive(frame(OPEN, conn, number(7)) + frame(CREDIT, conn, number(mux.WINDOW)))
    life.turn()
    first, second, third = life.open.values()
    life.lines.outgoing += bytes(mux.OUTGOING_MAX)
    for line in (first, second):
        with pytest.raises(BlockingIOError):
            line.send(b"x")
        life.lines.modify(line.fileno(), OUT)
    assert not life.lines.ready()
    served: list[Line] = []
    for _ in range(6):
        del life.lines.outgoing[:-(mux.OUTGOING_MAX - 1000)]
        if third.events != OUT:
            with pytest.raises(BlockingIOError):
                third.send(b"I have just come")
        ((fd, events),) = life.lines.ready()
        assert events == OUT and life.open[fd].send(bytes(2000)) == 1000
        served.append(life.open[fd])
        if len(served) == 2:
            life.lines.modify(third.fileno(), OUT)
    assert served == [first, second, first, second, third, first]


def test_a_session_takes_what_has_come_with_it() -> None:
    """L3: nothing is executed for a client that the host has closed already; but a client that
    leaves by itself has been heard."""
    for is_lost in (False, True):
        life = Life()
        life.lines.receive(frame(WELCOME, 0, life.lines.outgoing[-mux.NONCE_SIZE:]) + OPENED)
        line = life.lines.accept()
        assert line is not None
        life.lines.register(line.fileno(), IN)
        life.lines.receive(frame(DATA, 1, b"request"))
        life.lines.receive(PRELUDE + frame(RESET) if is_lost else frame(CLOSE, 1))
        assert life.lines.ready() == [(line.fileno(), IN)]
        assert [line.recv(9), line.recv(9)] == ([b"", b""] if is_lost else [b"request", b""])


def test_a_channel_that_takes_nothing() -> None:
    """N1: what waits for it is bounded, on both ends."""
    world = World(factor=8)
    world.join(*(Asker(number, 70_000) for number in range(20)))
    for _ in range(4):
        world.step()
    for _ in range(50):
        for asker in world.askers:
            asker.turn(world.hub)
        if not world.life.lines.is_full:
            world.to_server(1 << 16)
        world.life.turn()
    assert len(world.life.lines.outgoing) < mux.OUTGOING_MAX + mux.WINDOW
    assert len(world.hub.outgoing) < mux.OUTGOING_MAX + 20 * mux.WINDOW
    world.settle()
    assert all(asker.got == spelt(asker.said, 8) for asker in world.askers)


def test_end_and_close() -> None:
    """A client that only stops sending is answered; one that closes is forgotten."""
    world = World()
    ending, leaving = Asker(1, 3000), Asker(2, 3000)
    world.join(ending, leaving)
    for _ in range(3):
        world.step()
    assert ending.sent == leaving.sent == 3000
    world.hub.end(ending)
    world.hub.leave(leaving)
    world.settle()
    assert ending.got == spelt(ending.said, 1) and ending.is_over and ending.is_finished
    assert not world.life.open and leaving.is_dropped


def test_more_clients_than_the_server_takes() -> None:
    """Those beyond are closed, the others served."""
    world = World()
    world.join(*(Asker(number, 1) for number in range(LINES_MAX + 5)))
    world.settle()
    assert sum(asker.is_over for asker in world.askers) == 5
    assert sum(asker.got == spelt(asker.said, 1) for asker in world.askers) == LINES_MAX


# -- patience


def test_a_server_that_is_there_already_is_asked() -> None:
    """H3: with growing patience, and not if the channel takes nothing."""
    hub = Hub(lambda text: None)
    hub.connect(0.0)
    assert hub.wait_s(0.0) == PATIENCE_MIN_S and not hub.outgoing
    hub.tick(PATIENCE_MIN_S)
    assert hub.outgoing == PRELUDE + frame(RESET)
    hub.tick(100.0)
    assert hub.outgoing == PRELUDE + frame(RESET), "they pile up"
    times, now_s = [], 100.0
    while len(times) < 10:
        hub.outgoing.clear()
        wait_s = hub.wait_s(now_s)
        assert wait_s is not None
        now_s += wait_s
        hub.tick(now_s)
        times.append(wait_s)
    assert times == sorted(times) and times[-1] == PATIENCE_MAX_S
    hub.receive(PRELUDE + frame(HELLO, 0, bytes(16)), now_s)
    assert hub.wait_s(now_s) is None, "nobody waits"


def test_a_lost_welcome_is_noticed() -> None:
    """The host believes in a session of which the server knows nothing."""
    world = World()
    world.to_host()
    assert world.hub.sessions == 1
    world.hub.outgoing.clear()
    world.join(asker := Asker(1, 100))
    world.settle()
    assert not asker.got
    world.now_s += PATIENCE_MIN_S
    world.hub.tick(world.now_s)
    world.settle()
    assert asker.got == spelt(asker.said, 1)


def test_a_confirmed_session_is_left_alone() -> None:
    """A server that is silent for long may be stopped: its clients are kept."""
    world = World()
    world.join(Asker(1, 100))
    world.settle()
    world.join(Asker(2, 100))
    assert world.hub.wait_s(world.now_s) is None


def test_lines_leave_nothing_behind() -> None:
    """Neither end remembers a client that is gone."""
    world = World()
    for pid in range(50):
        world.join(asker := Asker(pid, 50))
        world.settle()
        world.hub.leave(asker)
        world.settle()
    for end in (world.life.lines, world.hub):
        assert not any(value for value in vars(end).values()
                       if isinstance(value, (dict, list, deque, bytearray)))
