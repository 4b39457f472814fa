# SPDX-License-Identifier: Apache-2.0
"""Many clients of a server that has nothing but a channel: real processes, tools/xsmux in between.

Properties: hundreds at once are served; whoever does not read costs itself; a client that comes
while the server, or the multiplexer, is away is answered when it is back; who had been served sees
its connection close; what was acknowledged is there; nobody turns round and round.
Method: the server and xsmux as users start them, killed at will; clients of our own. The programs
of others run through the same channel in the other files here ("tardigrade-channel").
Cannot show: every moment of a death; tests/app/test_lines.py enumerates those."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import mux
from tests.clients.subjects import WAIT_S, OursFar, running, wait_until
from tests.oracle.xsclient import (
    HEADER,
    ConnectionClosed,
    MessageType,
    SocketConnection,
    strings,
)

REQUESTS = 3000
IDLE_S = 0.5  # how long nothing happens, while CPU time is looked at


@pytest.fixture
def far() -> Iterator[OursFar]:
    """Our server behind a channel."""
    with running(OursFar.name) as server:
        assert isinstance(server, OursFar)
        yield server


def packet(kind: MessageType, payload: bytes, req_id: int) -> bytes:
    """A request."""
    return HEADER.pack(kind, req_id, 0, len(payload)) + payload


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly that many bytes."""
    data = b""
    while len(data) < size:
        more = sock.recv(min(size - len(data), 1 << 16))
        assert more, f"closed after {len(data)} bytes of {size}"
        data += more
    return data


def connected(far: OursFar) -> socket.socket:
    """A raw client."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(WAIT_S)
    sock.connect(str(far.socket_path))
    return sock


def cpu_s(pid: int) -> float:
    """The CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """The memory that a process has, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_two_hundred_clients_at_once(far: OursFar) -> None:
    """All have a request under way at once, and everyone gets its own answer, again and again."""
    clients = [connected(far) for _ in range(200)]
    for turn in range(5):
        for number, client in enumerate(clients):
            payload = f"/c/{number}".encode() + b"\0" + f"{number}.{turn}".encode() * 50
            client.sendall(packet(MessageType.WRITE, payload, turn + 1)
                           + packet(MessageType.READ, f"/c/{number}".encode() + b"\0", turn + 2))
        for number, client in enumerate(clients):
            value = f"{number}.{turn}".encode() * 50
            assert receive(client, HEADER.size + 3) == HEADER.pack(
                MessageType.WRITE, turn + 1, 0, 3) + b"OK\0"
            assert receive(client, HEADER.size + len(value)) == HEADER.pack(
                MessageType.READ, turn + 2, 0, len(value)) + value
    for client in clients:
        client.close()


def test_more_clients_than_are_taken_at_once(far: OursFar) -> None:
    """Those beyond wait until somebody leaves."""
    clients = [connected(far) for _ in range(mux.CONNECTIONS_MAX + 20)]
    request = packet(MessageType.GET_DOMAIN_PATH, b"0\0", 1)
    for client in clients:
        client.sendall(request)
    receive(clients[0], HEADER.size)
    before = cpu_s(far.server.mux_pid)
    time.sleep(IDLE_S)
    assert cpu_s(far.server.mux_pid) - before < IDLE_S / 4, "it turns round and round"
    clients.pop(0).close()
    for client in clients:
        receive(client, HEADER.size)
        client.close()


def test_slow_readers(far: OursFar) -> None:
    """They ask for much and read nothing; others are answered as ever, memory stays bounded; and in
    the end they get every byte."""
    server, value = far.server, b"x" * 4000
    with SocketConnection(far.socket_path) as other:
        other.write("/v", value)
        before = resident(server.mux_pid)
        request = packet(MessageType.READ, b"/v\0", 7)
        slow = [connected(far) for _ in range(8)]
        senders = [threading.Thread(target=client.sendall, args=(request * REQUESTS,))
                   for client in slow]
        for sender in senders:
            sender.start()
        for number in range(300):
            other.write("/other", str(number))
        assert resident(server.mux_pid) - before < 8 << 20
        answer = HEADER.pack(MessageType.READ, 7, 0, len(value)) + value
        for _ in range(REQUESTS):
            for client in slow:
                assert receive(client, len(answer)) == answer
        for sender in senders:
            sender.join()
        for client in slow:
            client.close()


def test_a_client_waits_for_the_server(far: OursFar) -> None:
    """It has come while there was none: it does not notice."""
    far.server.kill9()
    clients = [connected(far) for _ in range(5)]
    for number, client in enumerate(clients):
        client.sendall(packet(MessageType.WRITE, f"/w{number}".encode() + b"\0x", 5))
    far.server.start()
    for client in clients:
        assert receive(client, HEADER.size + 3)[HEADER.size:] == b"OK\0"
        client.close()
    assert sorted(far.must("xenstore-list", "/").split()) == ["tool", "w0", "w1", "w2", "w3", "w4"]


def test_who_was_served_is_told_of_the_death(far: OursFar) -> None:
    """Its connection closes, whatever it was waiting for."""
    client = SocketConnection(far.socket_path)
    client.write("/a", "1")
    client.watch("/a", "token")
    far.server.kill9()
    with pytest.raises(ConnectionClosed):
        while True:
            client.receive_bytes(WAIT_S)
    client.close()
    far.server.start()
    assert far.must("xenstore-read", "/a") == "1\n"


def test_the_multiplexer_dies_and_comes_back(far: OursFar) -> None:
    """The server goes on, forgets its clients, and has the next ones."""
    server = far.server
    for life in range(4):
        client = SocketConnection(far.socket_path)
        client.watch("/life", f"token-{life}")
        client.write("/life", str(life))
        pid = server.pid
        server.kill_mux()
        client.close()
        server.start_mux()
        assert far.must("xenstore-read", "/life") == f"{life}\n"
        assert server.pid == pid
    with SocketConnection(far.socket_path) as client:
        report = client.control("memreport").split("\n")
        assert "clients: 1" in report and "watches: 0" in report


def test_what_was_said_before_leaving_counts(far: OursFar) -> None:
    """As on a socket: a client sends, and leaves without an answer, or only stops sending."""
    leaving = connected(far)
    leaving.sendall(packet(MessageType.WRITE, b"/left\0x", 1))
    leaving.close()
    wait_until(lambda: far.run("xenstore-exists", "/left").returncode == 0, "the write")
    ending = connected(far)
    ending.sendall(packet(MessageType.WRITE, b"/ended\0x", 1) * 100)
    ending.shutdown(socket.SHUT_WR)
    receive(ending, 100 * (HEADER.size + 3))
    assert ending.recv(1) == b""
    ending.close()
    assert far.must("xenstore-read", "/ended") == "x\n"


def test_nobody_turns_round_and_round(far: OursFar) -> None:
    """With clients that wait, that owe, and that have left: no CPU time while nothing happens."""
    server = far.server
    with SocketConnection(far.socket_path) as watcher:
        watcher.watch("/x", "token")
        slow = connected(far)
        far.must("xenstore-write", "/v", "x" * 2000)
        slow.setblocking(False)
        request = packet(MessageType.READ, b"/v\0", 1)
        for _ in range(400):
            try:
                slow.send(request * 20)
            except BlockingIOError:
                time.sleep(0.005)  # the server is given the time to fill what there is
        watcher.call(MessageType.CONTROL, strings("check"))
        before = cpu_s(server.pid) + cpu_s(server.mux_pid)
        time.sleep(IDLE_S)
        assert cpu_s(server.pid) + cpu_s(server.mux_pid) - before < IDLE_S / 4
        server.kill9()
        gone = [connected(far) for _ in range(3)]
        for client in gone:
            client.sendall(request)
            client.close()
        before = cpu_s(server.mux_pid)
        time.sleep(IDLE_S)
        assert cpu_s(server.mux_pid) - before < IDLE_S / 4, "without a server"
        server.start()
        server.kill_mux()
        before = cpu_s(server.pid)
        time.sleep(IDLE_S)
        assert cpu_s(server.pid) - before < IDLE_S / 2, "without a multiplexer"
        server.start_mux()
        slow.close()
