# SPDX-License-Identifier: Apache-2.0
"""The two ends of a channel back to back, with the bytes between them in hand: app/lines.py and a
server that answers with what it has heard, spelt otherwise; tools/muxhub.py and its clients.

J1. A turn of the server here reads and writes as app/serve.py does with SocketConnection.
Knows nothing of xenstore, devices and sockets."""

from __future__ import annotations

import random
import select
from itertools import count

from app import mux
from app.lines import ARRIVALS, Line, Lines
from app.mux import CREDIT, OPEN, frame
from tools.muxhub import Client, Hub

IN, OUT = select.EPOLLIN, select.EPOLLOUT


def number(value: int) -> bytes:
    """A payload."""
    return mux.NUMBER.pack(value)


OPENED = frame(OPEN, 1, number(7)) + frame(CREDIT, 1, number(mux.WINDOW))


def spelt(data: bytes, factor: int) -> bytes:
    """The answer to bytes that were heard."""
    return bytes(byte ^ 0x20 for byte in data for _ in range(factor))


class Life:
    """A server: answers every byte with `factor` bytes, on every line, as SocketConnection would
    behave: it reads nothing while it owes bytes."""

    numbers = count(1)

    def __init__(self, factor: int = 1) -> None:
        number = next(self.numbers)
        self.factor = factor
        self.told: list[str] = []
        self.lines = Lines(lambda: number.to_bytes(mux.NONCE_SIZE, "big"), self.told.append)
        self.open: dict[int, Line] = {}
        self.owed: dict[int, bytes] = {}
        self.lines.begin()

    def turn(self) -> None:
        """What is ready."""
        for fd, events in self.lines.ready():
            if fd == ARRIVALS:
                while (line := self.lines.accept()) is not None:
                    self.open[line.fileno()] = line
                    self.lines.register(line.fileno(), IN)
            elif events & OUT:
                self._send(fd, self.owed.pop(fd))
            else:
                data = self.open[fd].recv(1 << 16)
                if data:
                    self._send(fd, spelt(data, self.factor))
                else:
                    self.close(fd)

    def _send(self, fd: int, data: bytes) -> None:
        try:
            rest = data[self.open[fd].send(data):]
        except BlockingIOError:
            rest = data
        except BrokenPipeError:
            self.close(fd)
            return
        if rest:
            self.owed[fd] = rest
        self.lines.modify(fd, OUT if rest else IN)

    def close(self, fd: int) -> None:
        """Let go of a line."""
        self.lines.unregister(fd)
        self.open.pop(fd).close()


class Asker(Client):
    """A client with something to say, in portions of `portion` bytes."""

    def __init__(self, number: int, size: int, portion: int = 1 << 16) -> None:
        super().__init__(pid=number)
        self.said = random.Random(number).randbytes(size)
        self.sent = 0
        self.got = b""
        self.reads = True
        self._portion = portion

    def turn(self, hub: Hub) -> None:
        """Send what may be sent, take what is there."""
        size = min(len(self.said) - self.sent, self.readable, self._portion)
        if size and hub.has_room:
            hub.send(self, self.said[self.sent:self.sent + size])
            self.sent += size
        if self.buffer and self.reads:
            self.got += self.buffer
            hub.take(self, len(self.buffer))


class World:
    """A host, and a server. Bytes go from one to the other when they are carried."""

    def __init__(self, factor: int = 1) -> None:
        self.now_s = 0.0
        self.factor = factor
        self.hub = Hub(lambda text: None)
        self.life = Life(factor)
        self.askers: list[Asker] = []
        self.left: list[Asker] = []
        self.hub.connect(0.0)
        self.carried = 0  # bytes from server to host

    def join(self, *askers: Asker) -> None:
        """More clients."""
        for asker in askers:
            self.hub.join(asker)
            self.askers.append(asker)

    def to_host(self, most: int | None = None) -> int:
        """Carry bytes to the host."""
        data = bytes(self.life.lines.outgoing[:most])
        del self.life.lines.outgoing[:most]
        self.hub.receive(data, self.now_s)
        self.carried += len(data)
        return len(data)

    def to_server(self, most: int | None = None) -> int:
        """Carry bytes to the server."""
        data = bytes(self.hub.outgoing[:most])
        del self.hub.outgoing[:most]
        self.life.lines.receive(data)
        return len(data)

    def step(self, most: int | None = None) -> bool:
        """Everybody does what there is to do; whether anything moved."""
        moved = self.to_host(most)
        for asker in self.askers:
            asker.turn(self.hub)
        moved += self.to_server(most)
        self.life.turn()
        return bool(moved or self.life.lines.outgoing or self.life.lines.has_ready)

    def settle(self, most: int | None = None) -> None:
        """Until nothing moves."""
        for _ in range(100_000):
            if not self.step(most):
                return
        raise AssertionError("it does not come to rest")

    def check(self, asker: Asker) -> None:
        """What a client has got belongs to it."""
        answer = spelt(asker.said[:asker.sent], self.factor)
        assert answer.startswith(asker.got), f"client {asker.pid} got what is not its own"
