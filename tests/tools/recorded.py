# SPDX-License-Identifier: Apache-2.0
"""A region as a day of a small host leaves it: guests come and go, the server is killed now and
then, in the end in the middle of its work. By the real server and by way of its socket.

Knows nothing of what is looked for in it."""

from __future__ import annotations

import random
import signal
import socket
import struct
from pathlib import Path

from app import wire
from tests.app.test_main import Daemon

EVIL = b"</script><img src=x onerror=document.title='owned'>"
LIVES = 4


class Toolstack:
    """A client of the socket, domain 0."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(20)
        self._sock.connect(path)
        self._requests = 0

    def close(self) -> None:
        self._sock.close()

    def ask(self, kind: int, *parts: bytes, tx_id: int = 0, end: bytes = b"\0") -> bytes:
        """One request and its answer."""
        payload = b"\0".join(parts) + end
        self._requests += 1
        self._sock.sendall(struct.pack("<IIII", kind, self._requests, tx_id, len(payload))
                           + payload)
        while True:
            head = self._receive(16)
            type_, _, _, size = struct.unpack("<IIII", head)
            answer = self._receive(size)
            if type_ != wire.XS_WATCH_EVENT:
                return answer

    def write(self, path: str, value: bytes, tx_id: int = 0) -> None:
        """WRITE."""
        self.ask(wire.XS_WRITE, path.encode(), value, tx_id=tx_id, end=b"")

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            assert more, "the server has closed the connection"
            data += more
        return data


def make_domain(client: Toolstack, domid: int) -> None:
    """What `xl create` writes: the domain's directory in one transaction, then its devices'."""
    tx_id = int(client.ask(wire.XS_TRANSACTION_START).rstrip(b"\0"))
    home = f"/local/domain/{domid}"
    for path, value in [("name", b"guest-%d" % domid), ("domid", b"%d" % domid),
                        ("vm", b"/vm/0000-%04x" % domid), ("memory/target", b"1048576"),
                        ("memory/static-max", b"1048576"), ("cpu/0/availability", b"online"),
                        ("store/port", b"1"), ("store/ring-ref", b"2441%d" % domid),
                        ("control/shutdown", b""), ("device", b"")]:
        client.write(f"{home}/{path}", value, tx_id)
    client.ask(wire.XS_SET_PERMS, f"{home}/control/shutdown".encode(), b"n0", b"b%d" % domid,
               tx_id=tx_id)
    client.ask(wire.XS_TRANSACTION_END, b"T", tx_id=tx_id)
    for kind, number in (("vif", 0), ("vbd", 51712), ("console", 0)):
        make_device(client, domid, kind, number)


def make_device(client: Toolstack, domid: int, kind: str, number: int) -> None:
    """Front end and back end shake hands."""
    front = f"/local/domain/{domid}/device/{kind}/{number}"
    back = f"/local/domain/0/backend/{kind}/{domid}/{number}"
    tx_id = int(client.ask(wire.XS_TRANSACTION_START).rstrip(b"\0"))
    client.write(f"{front}/backend", back.encode(), tx_id)
    client.write(f"{front}/backend-id", b"0", tx_id)
    client.write(f"{back}/frontend", front.encode(), tx_id)
    client.ask(wire.XS_SET_PERMS, back.encode(), b"n0", b"r%d" % domid, tx_id=tx_id)
    client.ask(wire.XS_TRANSACTION_END, b"T", tx_id=tx_id)
    for state in (b"1", b"2", b"3", b"4"):
        client.write(f"{front}/state", state)
        client.write(f"{back}/state", state)


def destroy_domain(client: Toolstack, domid: int) -> None:
    """What `xl destroy` removes."""
    for kind in ("vif", "vbd", "console"):
        client.ask(wire.XS_RM, f"/local/domain/0/backend/{kind}/{domid}".encode())
    client.ask(wire.XS_RM, f"/local/domain/{domid}".encode())


def traffic(client: Toolstack, chance: random.Random, rounds: int) -> None:
    """Guests balloon, report, mark times; one of them writes what would be markup."""
    for number in range(rounds):
        domid = chance.randrange(1, 7)
        home = f"/local/domain/{domid}"
        roll = chance.random()
        if roll < 0.12:
            make_domain(client, domid)
        elif roll < 0.18:
            destroy_domain(client, domid)
        elif roll < 0.5:
            client.write(f"{home}/memory/target", b"%d" % chance.randrange(1 << 20))
        elif roll < 0.6:
            client.write(f"{home}/data/report", EVIL + b"\xff\xfe\0" + b"%d" % number)
        elif roll < 0.63:
            client.write(f"{home}/data/shared", b"")
            client.ask(wire.XS_SET_PERMS, f"{home}/data/shared".encode(), b"n0", b"r%d" % domid)
        elif roll < 0.7:
            client.ask(wire.XS_MKDIR, f"{home}/data/{number}".encode())
        else:
            client.write(f"{home}/data/updated", b"tick %d" % number)


def record(directory: Path, rounds: int = 60) -> Path:
    """Write such a region; returns its place."""
    chance = random.Random(20)
    for life in range(LIVES):
        daemon = Daemon(directory)
        daemon.wait_until_listening()
        client = Toolstack(daemon.socket_path)
        client.ask(wire.XS_WATCH, b"/local/domain/0/backend", b"token-%d" % life)
        traffic(client, chance, rounds)
        if life == 1:
            client.close()
            daemon.end()  # on purpose
        else:
            daemon.process.send_signal(signal.SIGKILL)
            daemon.end(signal.SIGKILL)
            client.close()
    return directory / "region"
