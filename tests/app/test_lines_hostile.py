# SPDX-License-Identifier: Apache-2.0
"""L4, M3, M4: nothing that the other end sends does more than end a session, on either side.

Method: frames that must not be sent, one by one; then thousands of right frames in no order, and
after them an honest other end. Cannot show: bytes that are no frames (test_mux.py)."""

from __future__ import annotations

import random

import pytest

from app import mux
from app.lines import LINES_MAX
from app.mux import CLOSE, CREDIT, DATA, END, HELLO, OPEN, PRELUDE, RESET, WELCOME, frame
from tests.app.two_ends import OPENED, Asker, Life, World, number, spelt
from tools.muxhub import PATIENCE_MIN_S


@pytest.mark.parametrize("data", [
    OPENED + OPENED, OPENED + frame(CREDIT, 1, number(1)),
    OPENED + frame(CREDIT, 1, number(0xFFFFFFFF)), OPENED + frame(DATA, 1, b"early"),
    OPENED + frame(END, 1) + frame(DATA, 1, b"late"), OPENED + b"garbage, and more of it",
    OPENED + PRELUDE + frame(RESET), OPENED + frame(HELLO, 0, bytes(16)),
    OPENED + bytes(100) + frame(END, 1), frame(DATA, 1, b"to nobody")[:-1] + OPENED],
    ids=["opened twice", "too much credit", "credit overflow", "data without credit",
         "data after END", "garbage", "RESET", "HELLO", "zeros", "cut"])
def test_the_host_misbehaves(data: bytes) -> None:
    """L4: the session ends, and another begins."""
    life = Life()
    welcome = frame(WELCOME, 0, life.lines.outgoing[-mux.NONCE_SIZE:])
    life.lines.outgoing.clear()
    life.lines.receive(welcome + data)
    assert life.lines.outgoing.startswith(PRELUDE) and not life.lines.is_welcome
    life.turn()
    assert not life.open


@pytest.mark.parametrize("kind", [DATA, CREDIT, END, CLOSE])
def test_frames_for_nobody_are_ignored(kind: int) -> None:
    """M4: they have crossed with a CLOSE."""
    world = World()
    world.join(Asker(1, 100))
    world.settle()
    payload = number(1)[:mux.SIZES.get(kind, 4)]
    world.life.lines.receive(frame(kind, 77, payload))
    if kind != END:
        world.hub.receive(frame(kind, 77, payload), 0.0)
    assert world.life.lines.is_welcome and not world.life.lines.outgoing
    assert world.hub.wait_s(0.0) is None


def test_a_window_is_all_that_may_be_sent() -> None:
    """M3, on the server: a byte more ends the session."""
    life = Life()
    welcome = frame(WELCOME, 0, life.lines.outgoing[-mux.NONCE_SIZE:])
    life.lines.receive(welcome + OPENED)
    life.turn()
    life.lines.receive(mux.data_frames(1, bytes(mux.WINDOW)))
    assert life.lines.is_welcome
    life.lines.receive(frame(DATA, 1, b"x"))
    assert not life.lines.is_welcome


def noise(chance: random.Random, kinds: list[int], nonce: bytes) -> bytes:
    """Frames that are right in themselves, and not otherwise; now and then no frame."""
    parts: list[bytes] = []
    for _ in range(chance.randrange(1, 30)):
        kind = chance.choice(kinds)
        size = mux.SIZES.get(kind, chance.choice((1, 100, mux.DATA_MAX)))
        payload = chance.randbytes(size)
        if kind in (HELLO, WELCOME):
            payload = nonce
        elif kind == CREDIT and chance.random() < 0.9:
            payload = number(chance.choice((0, 1, 5000, mux.WINDOW)))
        part = frame(kind, chance.randrange(6), payload)
        if kind in mux.BEHIND_ZEROS:
            part = PRELUDE + part
        if chance.random() < 0.01:
            part = part[:chance.randrange(len(part))]
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(20))
def test_the_server_survives_noise(seed: int) -> None:
    """L4: no error, no own rule broken, nothing piles up; and an honest host is served then."""
    chance, life = random.Random(seed), Life(3)
    kinds = [WELCOME, *[OPEN, DATA, CREDIT, END, CLOSE] * 4, *[RESET] * (seed % 3)]
    for _ in range(300):
        found = bytes(life.lines.outgoing).rfind(frame(HELLO, 0, bytes(16))[:8])
        nonce = bytes(life.lines.outgoing[found + 16:found + 32]) if found >= 0 else bytes(16)
        if chance.random() < 0.5:
            life.lines.outgoing.clear()
        if found >= 0 and len(nonce) == 16:
            life.lines.receive(frame(WELCOME, 0, nonce))
        if not life.lines.is_full:
            life.lines.receive(noise(chance, kinds, nonce.ljust(16)))
        life.turn()
        assert len(life.open) <= LINES_MAX
        assert len(life.lines.outgoing) < mux.OUTGOING_MAX + 2 * mux.WINDOW
    world = World(3)
    world.life = life
    life.lines.outgoing.clear()
    world.hub.tick(PATIENCE_MIN_S)
    world.join(asker := Asker(1, 1000))
    world.settle()
    assert asker.got == spelt(asker.said, 3)


@pytest.mark.parametrize("seed", range(20))
def test_the_host_survives_noise(seed: int) -> None:
    """No error, no own rule broken; what waits for a client is a window."""
    chance, world = random.Random(seed), World()
    world.hub.receive(bytes(world.life.lines.outgoing), 0.0)
    for turn in range(300):
        if turn % 10 == 0:
            world.join(Asker(turn, 10_000, 1000))
        world.now_s += chance.choice((0, 0, 1))
        world.hub.receive(noise(chance, [HELLO, *[DATA, CREDIT, CLOSE] * 8], bytes(16)),
                          world.now_s)
        world.hub.tick(world.now_s)
        for asker in world.askers:
            assert len(asker.buffer) <= mux.WINDOW
            asker.reads = chance.random() < 0.5
            asker.turn(world.hub)
        if chance.random() < 0.3:
            world.hub.leave(chance.choice(world.askers))
        world.hub.outgoing.clear()
