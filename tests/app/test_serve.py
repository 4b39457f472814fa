# SPDX-License-Identifier: Apache-2.0
"""O1-O3 and fairness: the order of a turn, and what one connection may cost the others.

Method: a Server in this process on a real listening socket, stepped turn by turn, with a region
that notes when it is written. Cannot show: crashes (tests/crash)."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import wire
from app.execute import REQUESTS_PER_CONNECTION, REQUESTS_PER_TURN
from app.host import NoHost
from app.journal import open_journal, space_for
from app.serve import Server
from app.services import Console
from app.sockets import OWED_BYTES_MAX, Listener
from app.store import Store
from persist import layout
from tests.crash.world import HEAP, ArrayMedium


class NotingMedium(ArrayMedium):
    """Calls `on_write` before every store."""

    def __init__(self) -> None:
        super().__init__(layout.REGION_SIZE_DEFAULT)
        self.writes = 0
        self.on_write = lambda: None

    def write(self, offset: int, data: bytes) -> None:
        self.writes += 1
        self.on_write()
        super().write(offset, data)


class World:
    """A server to be stepped, and sockets to it."""

    def __init__(self, path: str) -> None:
        self.medium = NotingMedium()
        console = Console("error")
        self.store = Store(space_for(self.medium, HEAP), NoHost(), console)
        self.journal, _ = open_journal(self.medium, self.store, lambda: 0, lambda: None)
        self.server = Server(self.store, self.journal, Listener(path), console)
        self.path = path
        self.sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """A new client, accepted."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        sock.setblocking(False)
        self.sockets.append(sock)
        self.server.turn(0)
        return sock

    def drain(self, most: int = 1000) -> int:
        """Take turns until nothing is left; returns how many."""
        for count in range(most):
            if not self.server.turn(0):
                return count
        return most


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh server."""
    one = World(str(tmp_path / "s"))
    yield one
    for sock in one.sockets:
        sock.close()
    one.server.end()


def packet(kind: int, payload: bytes, req_id: int = 1, tx_id: int = 0) -> bytes:
    """A request's bytes."""
    return wire.HEADER.pack(kind, req_id, tx_id, len(payload)) + payload


def received(sock: socket.socket) -> bytes:
    """What has arrived, b"" if nothing."""
    data = b""
    while True:
        try:
            more = sock.recv(1 << 20)
        except BlockingIOError:
            return data
        if not more:
            return data
        data += more


WRITE = packet(wire.XS_WRITE, b"/a\0b")
READ = packet(wire.XS_READ, b"/tool\0")
OK = wire.HEADER.pack(wire.XS_WRITE, 1, 0, 3) + wire.OK


def test_nothing_leaves_before_the_commit_point(world: World) -> None:
    """P1: at the moment of every store of a turn, no client has its reply or its event."""
    client, watcher = world.connect(), world.connect()
    watcher.send(packet(wire.XS_WATCH, b"/a\0token\0"))
    world.drain()
    received(watcher)
    early: list[bytes] = []
    world.medium.on_write = lambda: early.extend((received(client), received(watcher)))
    client.send(WRITE)
    before = world.medium.writes
    world.server.turn(0)
    assert world.medium.writes > before
    world.medium.on_write = lambda: None
    assert not any(early), "a packet left before the record was written"
    assert received(client) == OK
    assert wire.HEADER.unpack_from(received(watcher))[0] == wire.XS_WATCH_EVENT


def test_one_record_per_turn(world: World) -> None:
    """Group commit: what several clients change in one turn is one record."""
    clients = [world.connect() for _ in range(5)]
    sequence = world.journal.log.sequence
    for client in clients:
        client.send(WRITE * 3)
    world.server.turn(0)
    assert world.journal.log.sequence == sequence + 1
    assert all(received(client) == OK * 3 for client in clients)
    clients[0].send(READ * 10)
    world.server.turn(0)
    assert world.journal.log.sequence == sequence + 1, "a turn of reads was recorded"


def test_a_flood_does_not_keep_others_waiting(world: World) -> None:
    """Round robin: one request is answered in the next turn, whatever another has sent."""
    flood, other = world.connect(), world.connect()
    flood.send(READ * 1500)
    world.server.turn(0)
    assert len(received(flood)) // len(READ) <= REQUESTS_PER_CONNECTION * 2
    other.send(READ)
    world.server.turn(0)
    assert received(other), "a flood delayed another client"
    assert REQUESTS_PER_CONNECTION < REQUESTS_PER_TURN
    world.drain()


def test_cut_and_joined_messages(world: World) -> None:
    """Bytes may come in any portions."""
    client = world.connect()
    stream = WRITE + READ + packet(wire.XS_MKDIR, b"/m\0")
    for position in range(len(stream)):
        client.send(stream[position:position + 1])
        world.server.turn(0)
    answers = received(client)
    assert answers.startswith(OK) and answers.endswith(b"OK\0")
    assert b"/m" in world.store.tree.nodes


def test_oversized_message_ends_its_connection_only(world: World) -> None:
    """C's answer to len > 4096: close; what came before it is answered, what follows is not."""
    bad, good = world.connect(), world.connect()
    bad.send(READ + wire.HEADER.pack(wire.XS_READ, 1, 0, 4097) + WRITE * 20)
    world.drain()
    assert received(bad) == wire.HEADER.pack(wire.XS_READ, 1, 0, 0)
    bad.setblocking(True)
    assert bad.recv(1) == b""
    assert b"/a" not in world.store.tree.nodes
    good.send(WRITE)
    world.server.turn(0)
    assert received(good) == OK


def test_largest_message(world: World) -> None:
    """4096 bytes of payload are legal."""
    client = world.connect()
    client.send(packet(wire.XS_WRITE, b"/a\0" + b"x" * 4093))
    world.drain()
    assert received(client) == OK


def test_a_client_that_does_not_read_costs_itself(world: World) -> None:
    """Q1: no more is read from it, and others are served; when it reads, nothing is missing."""
    slow, other = world.connect(), world.connect()
    other.send(packet(wire.XS_WRITE, b"/v\0" + b"x" * 4000))
    world.drain()
    received(other)
    request = packet(wire.XS_READ, b"/v\0")
    sent = 0
    try:
        while True:
            sent += slow.send(request * 100)
            world.drain(50)
    except BlockingIOError:
        pass
    conn = next(one for one in world.server.connections.values() if one.unsent)
    assert len(conn.unsent) < 2 << 20, "owed bytes pile up"
    other.send(READ)
    world.server.turn(0)
    assert received(other)
    got, deadline = 0, time.monotonic() + 20
    wanted = sent // len(request) * (4000 + wire.HEADER_SIZE)
    while got < wanted and time.monotonic() < deadline:
        got += len(received(slow))
        world.server.turn(0)
    assert got == wanted


def test_together_those_who_do_not_read_are_bounded(world: World) -> None:
    """Q2: none of them owes too much alone; the one that is owed most is closed, then the next."""
    world.server._owed_max = (16 << 20, 3 << 20)
    writer = world.connect()
    watchers = [world.connect() for _ in range(6)]
    for number, watcher in enumerate(watchers):
        token = b"t" * (1000 + 100 * number)
        watcher.send(packet(wire.XS_WATCH, b"/w\0" + token + b"\0"))
    world.drain()
    most = 0
    for number in range(0, 12_000, 20):
        writer.send(b"".join(packet(wire.XS_WRITE, b"/w/%d\0x" % (number + one))
                             for one in range(20)))
        world.drain()
        received(writer)
        most = max(most, sum(one.owed() for one in world.server.connections.values()))
        if len(world.server.connections) < 3:
            break
    assert 2 << 20 < most < 7 << 20, most
    assert len(world.server.connections) < 6
    writer.send(READ)
    world.drain()
    assert received(writer), "the writer suffered"


def test_watcher_that_does_not_read_is_coalesced_then_closed(world: World) -> None:
    """K1, Q2: equal events wait once; different ones without end close the connection."""
    watcher, writer = world.connect(), world.connect()
    watcher.send(packet(wire.XS_WATCH, b"/w\0" + b"t" * 2000 + b"\0"))
    world.drain()
    same = packet(wire.XS_WRITE, b"/w/same\0x")
    for _ in range(400):
        writer.send(same * 20)
        world.drain()
        received(writer)
    (conn,) = [one for one in world.server.connections.values() if one.unsent]
    assert sum(map(len, conn.outbox)) < 8 << 20, "equal events were not made one"
    number = 0
    while conn.fd in world.server.connections and number < 40_000:
        writer.send(b"".join(packet(wire.XS_WRITE, b"/w/%d\0x" % (number + one))
                             for one in range(20)))
        number += 20
        world.drain()
        received(writer)
    assert conn.fd not in world.server.connections, "a connection grew without bound"
    assert number * 2000 < 4 * OWED_BYTES_MAX
    writer.send(READ)
    world.drain()
    assert received(writer), "the writer suffered"


def test_disconnect_forgets_watches_and_transactions(world: World) -> None:
    """A closed connection leaves nothing in the store."""
    client, other = world.connect(), world.connect()
    client.send(packet(wire.XS_WATCH, b"/a\0t\0") + packet(wire.XS_TRANSACTION_START, b"\0"))
    world.drain()
    client.close()
    world.drain()
    assert not world.store.watches.by_path
    assert len(world.store.clients) == 1
    other.send(WRITE)
    world.drain()
    assert received(other) == OK


def test_nothing_makes_cycles(world: World) -> None:
    """The collector is off while serving: a mixed load must leave it nothing to find."""
    client = world.connect()
    load = [WRITE, READ, packet(wire.XS_READ, b"/none\0"), packet(wire.XS_RM, b"/a\0"),
            packet(wire.XS_WATCH, b"/a\0t\0"), packet(wire.XS_UNWATCH, b"/a\0t\0"),
            packet(99, b""), packet(wire.XS_MKDIR, b"//\0"), packet(wire.XS_CONTROL, b"check\0"),
            packet(wire.XS_GET_PERMS, b"/a/b/c\0"), packet(wire.XS_SET_PERMS, b"/a\0x\0")]
    world.drain()
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            for one in load:
                client.send(one)
            world.drain()
            received(client)
            client.send(packet(wire.XS_TRANSACTION_START, b"\0"))
            world.drain()
            tx_id = int(received(client)[wire.HEADER_SIZE:].rstrip(b"\0"))
            client.send(packet(wire.XS_READ, b"/none\0", 1, tx_id)
                        + packet(wire.XS_READ, b"/x\0", 1, tx_id) + packet(wire.XS_WRITE, b"/x\0y")
                        + packet(wire.XS_TRANSACTION_END, b"T\0", 1, tx_id)
                        + packet(wire.XS_RM, b"/x\0"))
            world.drain()
            received(client)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_many_idle_connections(world: World) -> None:
    """A turn with a thousand idle connections touches only the one that asks."""
    for _ in range(1000):
        world.connect()
    client = world.connect()
    client.send(READ)
    ready = world.server.wait(0)
    assert len(ready) == 1
    world.server.peek(ready)
    steps, clients = world.server.execute()
    world.server.publish(clients)
    assert not steps and len(clients) == 1
    assert received(client)
