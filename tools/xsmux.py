# SPDX-License-Identifier: Apache-2.0
"""xsmux: the unix socket of a xenstore server that runs on another machine, over one byte channel.

U1. Nothing blocks. The channel is always read; while it takes nothing, no client is read from, and
    none accepted, so that all memory is bounded: OUTGOING_MAX, and WINDOW for each client.
U2. A client outlives neither the session that has granted it credit, nor the channel; one that has
    had nothing executed stays, and is served by the next (muxhub.py).
Usable within another program: register fileno() in its poll, and call turn(0) when it is readable
or wait_s() is over."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from app import mux
from app.sockets import Listener, SocketError, pid_of
from tools.muxhub import Client, Hub

EXIT_USAGE = 2
EXIT_CANNOT_START = 1
READ_SIZE = 1 << 16  # bytes from the channel in one turn
ACCEPTS_PER_TURN = 64
CLIENTS_PER_TURN = 64
CONNECT_PAUSE_S = 0.1

EXAMPLES = """examples:
  tools/xsmux run/socket run/channel
      and on the same machine:  python3 -m app --channel run/channel
      or in QEMU:               -chardev socket,id=xs,path=run/channel,reconnect=1
                                -global virtio-mmio.force-legacy=false
                                -device virtio-serial-device -device virtserialport,nr=1,chardev=xs
  tools/xsmux --connect run/socket run/channel
      with QEMU:                -chardev socket,id=xs,path=run/channel,server=on,wait=off

A client finds the server by XENSTORED_PATH:
  XENSTORED_PATH=run/socket xenstore-ls -f

exit codes: 0 ended by SIGTERM or SIGINT, 1 could not start, 2 wrong arguments
"""


class _Peer(Client):
    """A client's socket. `events`: what is asked of it, -1 if it is not registered."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(pid_of(sock))
        self.sock = sock
        self.events = -1


class Mux:
    """Listens for clients at `socket_path`; the channel is who connects to `channel_path`, or who
    listens there, if `connects`. Raises SocketError."""

    def __init__(self, socket_path: str, channel_path: str, connects: bool = False,
                 tell: Callable[[str], None] = lambda text: None) -> None:
        self.hub = Hub(tell)
        self._tell = tell
        self._channel_path = channel_path
        self._peers: dict[int, _Peer] = {}
        self._link: socket.socket | None = None
        self._connect_s = 0.0
        self._listener = Listener(socket_path)
        try:
            self._links = None if connects else Listener(channel_path)
        except SocketError:
            self._listener.close()
            raise
        self._poll = select.epoll()
        self._clients = select.epoll()  # apart, so that all can be left alone at once
        self._asked: dict[int, int] = {}  # of self._poll
        self._ask_all()

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._poll.fileno()

    def wait_s(self) -> float | None:
        """How long until turn() is due although nothing is ready; None for ever."""
        now_s = time.monotonic()
        if self._link is None and self._links is None:
            return max(self._connect_s - now_s, 0)
        return self.hub.wait_s(now_s)

    def turn(self, timeout_s: float | None = None) -> None:
        """Wait for something to do, at most `timeout_s`, and do it."""
        waits = [wait for wait in (timeout_s, self.wait_s()) if wait is not None]
        ready = {fd for fd, _ in self._poll.poll(min(waits, default=None))}
        if self._link is None:
            self._look_for_link(ready)
        elif self._link.fileno() in ready:
            self._take_in(self._link)
        self.hub.tick(time.monotonic())
        self._deliver()  # first: who is dropped must not be read from
        if self._clients.fileno() in ready:
            for fd, events in self._clients.poll(0, CLIENTS_PER_TURN):
                if fd in self._peers and self.hub.has_room:
                    self._serve(self._peers[fd], events)
        if self._listener.sock.fileno() in ready:
            self._accept()
        self._deliver()
        self._flush()
        self._ask_all()

    def close(self) -> None:
        """End it: clients and channel are closed, both sockets removed."""
        for peer in list(self._peers.values()):
            peer.sock.close()
        self._peers.clear()
        self._listener.close()
        if self._links is not None:
            self._links.close()
        if self._link is not None:
            self._link.close()
        self._clients.close()
        self._poll.close()

    # -- what is asked of the poll

    def _ask_all(self) -> None:
        has_room = self.hub.has_room
        self._ask(self._clients.fileno(), select.EPOLLIN if has_room else 0)
        self._ask(self._listener.sock.fileno(), select.EPOLLIN if (
            has_room and len(self._peers) < mux.CONNECTIONS_MAX) else 0)
        if self._link is not None:
            self._ask(self._link.fileno(),
                      select.EPOLLIN | (select.EPOLLOUT if self.hub.outgoing else 0))
        if self._links is not None:
            self._ask(self._links.sock.fileno(), select.EPOLLIN if self._link is None else 0)

    def _ask(self, fd: int, events: int) -> None:
        before = self._asked.get(fd)
        if before is None:
            self._poll.register(fd, events)
        elif events != before:
            self._poll.modify(fd, events)
        self._asked[fd] = events

    # -- the channel

    def _look_for_link(self, ready: set[int]) -> None:
        if self._links is None:
            self._connect()
        elif self._links.sock.fileno() in ready:
            self._link = self._links.accept()
        if self._link is not None:
            self.hub.connect(time.monotonic())

    def _connect(self) -> None:
        now_s = time.monotonic()
        if now_s < self._connect_s:
            return
        self._connect_s = now_s + CONNECT_PAUSE_S
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self._channel_path)
        except OSError:
            sock.close()
        else:
            self._link = sock

    def _take_in(self, link: socket.socket) -> None:
        try:
            data = link.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        sessions = self.hub.sessions
        self.hub.receive(data, time.monotonic())
        if self.hub.sessions != sessions:
            self._tell(f"the server is there; {len(self._peers)} clients")

    def _flush(self) -> None:
        outgoing = self.hub.outgoing
        if self._link is None or not outgoing:
            return
        try:
            with memoryview(outgoing) as view:
                sent = self._link.send(view, socket.MSG_NOSIGNAL)
            del outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._lose()

    def _lose(self) -> None:
        assert self._link is not None
        del self._asked[self._link.fileno()]
        self._link.close()
        self._link = None
        self.hub.disconnect()
        self._deliver()
        self._tell(f"the channel is gone; {len(self._peers)} clients wait for the next")

    # -- clients

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if len(self._peers) >= mux.CONNECTIONS_MAX or not self.hub.has_room:
                return
            sock = self._listener.accept()
            if sock is None:
                return
            peer = _Peer(sock)
            self._peers[sock.fileno()] = peer
            self.hub.join(peer)
            self._look(peer)

    def _serve(self, peer: _Peer, events: int) -> None:
        """Something can be done for a client."""
        has_hung_up = bool(events & (select.EPOLLHUP | select.EPOLLERR))
        if peer.events & select.EPOLLIN:
            if events & ~select.EPOLLOUT:
                self._read(peer, has_hung_up)
        elif has_hung_up:
            if peer.has_ended or peer.is_over or not _has_unread(peer.sock):
                self.hub.leave(peer)
            else:
                peer.events = -1  # what it has said is to be read, but there is no credit yet
                self._clients.unregister(peer.sock.fileno())
                return
        self.hub.touched.add(peer)

    def _read(self, peer: _Peer, has_hung_up: bool) -> None:
        try:
            data = peer.sock.recv(min(peer.readable, mux.DATA_MAX))
        except BlockingIOError:
            return
        except OSError:
            data, has_hung_up = b"", True
        if data:
            self.hub.send(peer, data)
        elif has_hung_up:
            self.hub.leave(peer)
        else:
            self.hub.end(peer)

    def _deliver(self) -> None:
        """Give clients what there is for them; close those that are finished."""
        while self.hub.touched:
            peer = self.hub.touched.pop()
            assert isinstance(peer, _Peer)
            if peer.buffer:
                try:
                    with memoryview(peer.buffer) as view:
                        sent = peer.sock.send(view, socket.MSG_NOSIGNAL)
                    self.hub.take(peer, sent)
                except BlockingIOError:
                    pass
                except OSError:
                    self.hub.leave(peer)
            self._look(peer)

    def _look(self, peer: _Peer) -> None:
        """Ask for what can be done next, or close it."""
        fd = peer.sock.fileno()
        if fd < 0:
            return
        if peer.is_finished:
            self.hub.leave(peer)
            del self._peers[fd]
            peer.sock.close()
            return
        events = select.EPOLLOUT if peer.buffer else 0
        if peer.readable:
            events |= select.EPOLLIN
        if peer.events < 0:
            self._clients.register(fd, events)
        elif events != peer.events:
            self._clients.modify(fd, events)
        peer.events = events


def _has_unread(sock: socket.socket) -> bool:
    """Whether bytes of a client wait in its socket."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    """Run until a signal; returns the exit code."""
    options = parse(arguments)
    stops: list[int] = []
    wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup[1], warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stops.append(number))
    try:
        one = Mux(options.socket, options.channel, options.connect, tell)
    except SocketError as error:
        print(f"xsmux: {error}", file=sys.stderr)
        return EXIT_CANNOT_START
    tell(f"try: XENSTORED_PATH={os.path.abspath(options.socket)} xenstore-ls -f")
    poll = select.poll()
    poll.register(one, select.POLLIN)
    poll.register(wakeup[0], select.POLLIN)
    try:
        while not stops:
            wait_s = one.wait_s()
            poll.poll(None if wait_s is None else wait_s * 1000 + 1)
            one.turn(0)
    finally:
        one.close()
    return 0


def tell(text: str) -> None:
    """A line for people; nobody may be there to read it."""
    with contextlib.suppress(OSError):
        print(f"xsmux: {text}", file=sys.stderr, flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="xsmux", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="A unix socket for the clients of a xenstore server on another machine, to "
        "which one byte channel leads. The server may die and come back, and so may this.")
    parser.add_argument("socket", metavar="SOCKET", help="where clients connect")
    parser.add_argument("channel", metavar="CHANNEL", help="the channel's unix socket; the server, "
                        "or QEMU, connects to it")
    parser.add_argument("--connect", action="store_true",
                        help="QEMU listens on CHANNEL; connect to it")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
