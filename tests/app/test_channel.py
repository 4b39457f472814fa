# SPDX-License-Identifier: Apache-2.0
"""N1, N2: the server on a channel. Nothing blocks it, nothing that the other side does ends it, and
clients of the channel cost those of the socket nothing.

Method: a Server in this process, stepped turn by turn; the other side is played by hand on a unix
socket, or on a pseudo-terminal for a device; the command line for real. Cannot show: what the
frames mean (test_lines.py), /dev/channel of the image (tests/qemu)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import mux, wire
from app.channel import PAUSE_MAX_S, Channel, PathError
from app.host import NoHost
from app.journal import open_journal, space_for
from app.mux import DATA, HELLO, WELCOME, frame
from app.serve import Server
from app.services import Console
from app.sockets import OWED_BYTES_MAX, Listener
from app.store import Store
from tests.app.test_serve import OK, READ, WRITE, NotingMedium, packet, received
from tools.muxhub import Client, Hub

TIMEOUT_S = 20


class World:
    """A server with a socket and a channel, and the host on the channel's other end."""

    def __init__(self, directory: Path, device: str = "", listens: bool = True) -> None:
        self.path = device or str(directory / "channel")
        self.listener = self.listen() if listens and not device else None
        self.medium = NotingMedium()
        console = Console("error")
        self.store = Store(space_for(self.medium, 1 << 30), NoHost(), console)
        self.journal, start = open_journal(self.medium, self.store, lambda: 0, lambda: None)
        self.server = Server(self.store, self.journal, Listener(str(directory / "s")), console,
                             channel=Channel(self.path, console))
        self.server.resume(start)
        self.hub = Hub(lambda text: None)
        self.link: socket.socket | None = None
        self.sockets: list[socket.socket] = []

    def listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        return listener

    def accept(self) -> None:
        """The server has connected."""
        assert self.listener is not None
        self.listener.settimeout(TIMEOUT_S)
        self.link, _ = self.listener.accept()
        self.link.setblocking(False)
        self.hub.connect(0.0)

    def carry(self) -> int:
        """Carry bytes between hub and channel; how many."""
        assert self.link is not None
        data = received(self.link)
        if data:
            self.hub.receive(data, 0.0)
        sent = self.link.send(self.hub.outgoing) if self.hub.outgoing else 0
        del self.hub.outgoing[:sent]
        return len(data) + sent

    def settle(self) -> None:
        """Take turns and carry bytes until nothing moves."""
        for _ in range(1000):
            is_busy = self.server.turn(0)
            if not self.carry() and not is_busy:
                return
        raise AssertionError("it does not come to rest")

    def join(self) -> Client:
        """A client of the channel, with credit."""
        self.hub.join(client := Client(42))
        self.settle()
        assert client.is_granted
        return client

    def ask(self, client: Client, data: bytes) -> bytes:
        """Send requests, take what comes."""
        self.hub.send(client, data)
        self.settle()
        return self.take(client)

    def take(self, client: Client) -> bytes:
        """What has come for a client."""
        data = bytes(client.buffer)
        self.hub.take(client, len(data))
        return data

    def connect(self) -> socket.socket:
        """A client of the socket, accepted."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.server._listener.path)  # type: ignore[union-attr]
        sock.setblocking(False)
        self.sockets.append(sock)
        self.server.turn(0)
        return sock

    def is_served(self, sock: socket.socket) -> bool:
        """Whether a client of the socket is answered at once."""
        sock.send(READ)
        self.server.turn(0)
        return bool(received(sock))

    def close(self) -> None:
        """End it all."""
        for sock in [*self.sockets, self.link, self.listener]:
            if sock is not None:
                sock.close()
        self.server.end()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A host that is there."""
    one = World(tmp_path)
    one.accept()
    yield one
    one.close()


def turns(world: World, is_so: Callable[[], bool]) -> None:
    """Take turns, which may wait, until something is so."""
    for _ in range(200):
        world.server.turn(PAUSE_MAX_S / 50)
        if is_so():
            return
    raise AssertionError("it never is so")


def test_requests_and_who_asks(world: World) -> None:
    """A request of the channel is one like any other; the history knows the client's pid."""
    client, sock = world.join(), world.connect()
    assert world.ask(client, WRITE) == OK
    sock.send(packet(wire.XS_READ, b"/a\0"))
    world.settle()
    assert received(sock)[wire.HEADER_SIZE:] == b"b"
    (conn,) = [one for one in world.server.connections.values() if one.pid == 42]
    assert conn.privileged and conn.domid == 0


def test_nothing_leaves_before_the_commit_point(world: World) -> None:
    """P1, for the channel: at every store of the turn its queue is as it was."""
    client, lines = world.join(), world.server._channel.lines  # type: ignore[union-attr]
    early: list[int] = []
    world.medium.on_write = lambda: early.append(len(lines.outgoing))
    assert world.ask(client, WRITE) == OK
    assert early and not any(early)


def test_events_come_unasked(world: World) -> None:
    """A line is woken by what somebody else does."""
    client, sock = world.join(), world.connect()
    world.ask(client, packet(wire.XS_WATCH, b"/a\0token\0"))
    sock.send(WRITE)
    world.settle()
    assert wire.HEADER.unpack_from(world.take(client))[0] == wire.XS_WATCH_EVENT


def test_oversized_message_ends_its_connection_only(world: World) -> None:
    """As on a socket: what came before it is answered, then it is closed."""
    bad, good = world.join(), world.join()
    world.hub.send(bad, READ + wire.HEADER.pack(wire.XS_READ, 1, 0, 4097) + WRITE)
    world.settle()
    assert world.take(bad) == wire.HEADER.pack(wire.XS_READ, 1, 0, 0) and bad.is_over
    assert world.ask(good, WRITE) == OK


def test_a_client_that_leaves_is_forgotten(world: World) -> None:
    """Its watches and transactions end."""
    client = world.join()
    world.ask(client, packet(wire.XS_WATCH, b"/a\0t\0") + packet(wire.XS_TRANSACTION_START, b"\0"))
    world.hub.leave(client)
    world.settle()
    assert not world.store.clients and not world.store.watches.by_path
    assert not world.server.connections


def test_a_host_that_takes_nothing(world: World) -> None:
    """N1: the server waits for nobody; what piles up is bounded; nothing is lost in the end."""
    client, sock = world.join(), world.connect()
    world.ask(client, packet(wire.XS_WRITE, b"/v\0" + b"x" * 4000))
    request, asked, got = packet(wire.XS_READ, b"/v\0"), 0, 0
    assert world.link is not None
    for _ in range(200):
        size = min(client.may_send, 10 * len(request))
        if size == 10 * len(request):
            world.hub.send(client, request * 10)
            asked += 10
        with contextlib.suppress(BlockingIOError):
            del world.hub.outgoing[:world.link.send(world.hub.outgoing)]
        world.server.turn(0)
        assert world.is_served(sock)
    assert asked > 200
    lines = world.server._channel.lines  # type: ignore[union-attr]
    assert len(lines.outgoing) < mux.OUTGOING_MAX + mux.WINDOW
    while got < asked * (4000 + wire.HEADER_SIZE):
        world.settle()
        took = len(world.take(client))
        assert took, f"{got} bytes came"
        got += took
    assert got == asked * (4000 + wire.HEADER_SIZE)


def test_a_host_that_asks_and_takes_nothing(world: World) -> None:
    """N1: what has an answer is not read while answers are not taken."""
    sock = world.connect()
    assert world.link is not None
    nonce = received(world.link)[-mux.NONCE_SIZE:]
    opens = b"".join(frame(mux.OPEN, conn, mux.NUMBER.pack(1)) for conn in range(1, 100_000))
    flood = frame(WELCOME, 0, nonce) + opens
    lines = world.server._channel.lines  # type: ignore[union-attr]
    sent = 0
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            sent += world.link.send(flood[sent:])
        assert world.is_served(sock)
        assert len(lines.outgoing) < mux.OUTGOING_MAX + mux.WINDOW
    assert lines.is_full and mux.OUTGOING_MAX < sent < len(flood)


def test_a_watcher_that_does_not_read_is_closed(world: World) -> None:
    """Q2, for a line: it runs out of credit, then owes too much."""
    watcher, sock = world.join(), world.connect()
    world.ask(watcher, packet(wire.XS_WATCH, b"/w\0" + b"t" * 2000 + b"\0"))
    world.take(watcher)
    number = 0
    while len(world.server.connections) == 2 and number < 40_000:
        sock.send(b"".join(packet(wire.XS_WRITE, b"/w/%d\0x" % (number + one))
                           for one in range(20)))
        number += 20
        world.settle()
        received(sock)
    assert len(world.server.connections) == 1 and number * 2000 < 4 * OWED_BYTES_MAX
    assert watcher.is_over and len(watcher.buffer) <= mux.WINDOW
    assert world.is_served(sock)


def test_the_host_goes_and_comes_back(world: World) -> None:
    """N2: its clients are forgotten; the socket's are served meanwhile; the next host is found."""
    client, sock = world.join(), world.connect()
    world.ask(client, packet(wire.XS_WATCH, b"/a\0token\0"))
    assert world.link is not None and world.listener is not None
    world.listener.close()
    world.link.close()
    turns(world, lambda: len(world.server.connections) == 1)
    assert world.is_served(sock) and not world.store.watches.by_path
    for _ in range(5):
        world.server.turn(0.05)
    os.unlink(world.path)
    world.listener = world.listen()
    world.hub.disconnect()
    turns(world, lambda: world.server._channel.wait_s() == -1)  # type: ignore[union-attr]
    world.accept()
    assert world.ask(world.join(), WRITE) == OK
    assert world.is_served(sock)


def test_a_server_without_a_host_waits(tmp_path: Path) -> None:
    """There is no socket yet: it does not turn round and round, and finds it when it comes."""
    world = World(tmp_path, listens=False)
    for _ in range(8):
        world.server.turn(0.02)
    wait_s = world.server._shorten(-1)
    assert 0.02 < wait_s <= PAUSE_MAX_S
    world.listener = world.listen()
    turns(world, lambda: world.server._channel.wait_s() == -1)  # type: ignore[union-attr]
    world.accept()
    assert world.ask(world.join(), WRITE) == OK
    world.close()


def test_noise(world: World) -> None:
    """Bytes without sense: the next honest host is served."""
    sock = world.connect()
    assert world.link is not None
    nonce = received(world.link)[-mux.NONCE_SIZE:]
    for data in (b"x" * 50_000, frame(WELCOME, 0, nonce), frame(DATA, 1, b"x"), os.urandom(50_000),
                 bytes(50_000), frame(HELLO, 0, nonce)):
        world.link.send(data)
        assert world.is_served(sock)
        received(world.link)
    world.hub = Hub(lambda text: None)
    world.hub.connect(0.0)
    world.hub.tick(100.0)
    assert world.ask(world.join(), WRITE) == OK


def test_a_device(tmp_path: Path) -> None:
    """The other form: opened, not connected to; at its end looked at again, after a pause."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    tty.setraw(ours)
    os.set_blocking(ours, False)
    world = World(tmp_path, os.ttyname(theirs))
    os.close(theirs)

    def has_come(size: int) -> Callable[[], bool]:
        """Carry; whether the client has so many bytes. A terminal takes its time with bytes."""
        def look() -> bool:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(ours, 4096):
                    world.hub.receive(data, 0.0)
            if world.hub.outgoing:
                with contextlib.suppress(BlockingIOError):
                    del world.hub.outgoing[:os.write(ours, world.hub.outgoing[:2048])]
            return client.is_granted and len(client.buffer) >= size
        return look

    world.hub.join(client := Client(42))
    sock = world.connect()
    turns(world, has_come(0))
    value = packet(wire.XS_WRITE, b"/v\0" + b"x" * 4000)
    world.hub.send(client, WRITE + value * 4)
    turns(world, has_come(5 * len(OK)))
    assert world.take(client) == OK * 5
    os.close(ours)
    turns(world, lambda: len(world.server.connections) == 1)
    for _ in range(8):
        world.server.turn(0.02)
    assert world.server._shorten(-1) > 0.02, "it turns round and round"
    assert world.is_served(sock)
    world.close()


# -- the command line


def test_what_no_channel_is(tmp_path: Path) -> None:
    """A file is none; nor is what cannot be looked at."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path, tmp_path / "file" / "x"):
        with pytest.raises(PathError):
            Channel(str(path), Console("error"))
    done = subprocess.run(
        [sys.executable, "-m", "app", "--channel", str(tmp_path / "file"), "--region",
         str(tmp_path / "region"), "--region-size", "1M"], timeout=TIMEOUT_S,
        stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert str(tmp_path / "file") in done.stderr


@pytest.mark.parametrize("has_socket", [False, True])
def test_the_socket_is_listened_on_if_asked_for(tmp_path: Path, has_socket: bool) -> None:
    """--channel alone: no socket at all, whatever the environment says."""
    path = tmp_path / "socket"
    arguments = ["--socket", str(path)] if has_socket else []
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "--channel", str(tmp_path / "channel"), "--region",
         str(tmp_path / "region"), "--region-size", "1M", *arguments], stderr=subprocess.PIPE,
        text=True, env={**os.environ, "XENSTORED_PATH": str(path)})
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if ("XENSTORED_PATH=" if has_socket else "clients of channel") in line:
                break
        assert path.exists() is has_socket
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.communicate()
