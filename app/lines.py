# SPDX-License-Identifier: Apache-2.0
"""The server's end of a channel: frames in, and lines, which behave as connected sockets do.

L1. To who serves them, Lines is what a listening socket and an epoll are to sockets: accept(),
    register(), modify(), unregister(), and ready() instead of poll(). Numbers stand for
    descriptors, beyond those of any file, and none twice.
L2. Bytes to the host wait in `outgoing`; no DATA is added beyond OUTGOING_MAX. Lines that had to
    wait for room are served before others, and in turn: one with much to say delays nobody by more
    than a share.
L3. A session that ends takes its lines with it: what they have received is dropped, for the host
    has closed its clients. A line that the host alone has closed can still be read to its end.
L4. Whatever the host sends: the worst is a new session.
No devices, no clock; whoever carries the bytes is in channel.py. Frames are in mux.py."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from itertools import islice

from app import mux
from app.mux import CLOSE, CREDIT, DATA, END, HELLO, OPEN, RESET, WELCOME, ChannelError, Frame

ARRIVALS = 1 << 32  # what is ready when a line can be accepted
LINES_MAX = 2 * mux.CONNECTIONS_MAX  # those of the last session may not be closed yet


class Line:
    """One client on the other side. `may_send`: credit from the host; `granted`: the host's."""

    __slots__ = ("_fd", "_lines", "_taken", "conn", "events", "granted", "has_ended", "is_gone",
                 "may_send", "pid", "received")

    def __init__(self, lines: Lines, fd: int, conn: int, pid: int) -> None:
        self._lines = lines
        self._fd = fd
        self._taken = 0  # bytes that were received and may be granted again
        self.conn = conn
        self.pid = pid
        self.events = 0  # what is asked for: EPOLLIN, EPOLLOUT
        self.received = b""
        self.may_send = 0
        self.granted = 0
        self.has_ended = False  # the client sends no more
        self.is_gone = False  # nor does it read

    def fileno(self) -> int:
        """Its number among the descriptors; -1 once it is closed."""
        return self._fd

    def recv(self, size: int) -> bytes:
        """What has come, b"" at the end. Raises BlockingIOError if nothing has."""
        data = self.received[:size]
        if not data:
            if self.has_ended or self.is_gone:
                return b""
            raise BlockingIOError
        self.received = self.received[size:]
        self._taken += len(data)
        if self._taken >= mux.REGRANT and not self.is_gone:
            self.grant(self._taken)
            self._taken = 0
        self._lines.look(self)
        return data

    def send(self, data: bytes, flags: int = 0) -> int:
        """Queue what there is credit and room for; how many bytes. Raises BlockingIOError for
        none, BrokenPipeError if nobody is there."""
        if self.is_gone:
            raise BrokenPipeError
        size = min(len(data), self.may_send, self._lines.room(self))
        if size <= 0:
            raise BlockingIOError
        self.may_send -= size
        self._lines.outgoing += mux.data_frames(self.conn, data[:size])
        self._lines.look(self)
        return size

    def grant(self, size: int) -> None:
        """Let the host send that much more."""
        self.granted += size
        assert self.granted <= mux.WINDOW, f"{self.granted} bytes granted"
        self._lines.outgoing += mux.frame(CREDIT, self.conn, mux.NUMBER.pack(size))

    def close(self) -> None:
        """Let go of it. Again: nothing."""
        if self._fd >= 0:
            self._lines.drop(self._fd)
            self._fd = -1


class Lines:
    """All lines of a channel. `draw` makes a nonce, `tell` is told of sessions."""

    def __init__(self, draw: Callable[[], bytes], tell: Callable[[str], None]) -> None:
        self.outgoing = bytearray()
        self.is_welcome = False  # the host has answered: there is a session
        self._draw = draw
        self._tell = tell
        self._decoder = mux.Decoder(mux.OF_HOST)
        self._next_fd = ARRIVALS + 1
        self._by_conn: dict[int, Line] = {}  # that the host knows, too
        self._by_fd: dict[int, Line] = {}  # that are accepted, and not closed
        self._arrived: deque[Line] = deque()
        self._readable: dict[int, Line] = {}  # or gone
        self._waiting: dict[int, Line] = {}  # to send, for room (L2)

    # -- as a listening socket

    def accept(self) -> Line | None:
        """The next line, None if there is none."""
        while self._arrived:
            line = self._arrived.popleft()
            if not line.is_gone:
                self._by_fd[line.fileno()] = line
                line.grant(mux.WINDOW)
                return line
        return None

    # -- as an epoll

    def register(self, fd: int, events: int) -> None:
        """Say in ready() when a line can be read, or written to."""
        self.modify(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Ask for other events."""
        line = self._by_fd[fd]
        line.events = events & (select.EPOLLIN | select.EPOLLOUT)
        self.look(line)

    def unregister(self, fd: int) -> None:
        """Ask for nothing any more."""
        self.modify(fd, 0)

    @property
    def has_ready(self) -> bool:
        """Whether ready() finds anything."""
        return bool(self._readable or self._arrived or (self._waiting and self._free() > 0))

    def ready(self) -> list[tuple[int, int]]:
        """Numbers and events; of those that wait for room, as many as are likely to find it."""
        found = [(fd, line.events) for fd, line in self._readable.items()]
        if self._arrived:
            found.append((ARRIVALS, select.EPOLLIN))
        if self._waiting and (free := self._free()) > 0:
            count = 1 + free // mux.WINDOW
            found += [(fd, select.EPOLLOUT) for fd in islice(self._waiting, count)]
        return found

    def look(self, line: Line) -> None:
        """Put it where it belongs, after a change."""
        fd = line.fileno()
        wants_in, wants_out = line.events & select.EPOLLIN, line.events & select.EPOLLOUT
        if (wants_in and (line.received or line.has_ended)) or (line.events and line.is_gone):
            self._readable[fd] = line
        else:
            self._readable.pop(fd, None)
        if wants_out and line.may_send and not line.is_gone:
            self._waiting.setdefault(fd, line)
        else:
            self._waiting.pop(fd, None)

    def room(self, line: Line) -> int:
        """How many bytes it may queue now; whoever gets some goes to the end of those that wait."""
        free = self._free()
        if self._waiting and free > 0 and self._waiting.pop(line.fileno(), None) is None:
            return 0
        return free

    def _free(self) -> int:
        return mux.OUTGOING_MAX - len(self.outgoing)

    @property
    def is_full(self) -> bool:
        """Whether nothing should be received, since answers would pile up."""
        return self._free() <= 0

    # -- sessions

    def begin(self) -> None:
        """End the session, and ask the host for another one."""
        self.end()
        nonce = self._draw()
        self._decoder.search(nonce)
        self.outgoing += mux.PRELUDE + mux.frame(HELLO, 0, nonce)

    def end(self) -> None:
        """All lines are gone, and what waited for the host, too."""
        self.is_welcome = False
        self.outgoing.clear()
        self._decoder.search()
        for line in self._by_conn.values():
            line.is_gone, line.received = True, b""
            self.look(line)
        self._by_conn.clear()
        self._arrived.clear()

    def forget(self) -> None:
        """The stream of bytes itself has ended, and with it the session."""
        self.end()
        self._decoder.forget()

    def drop(self, fd: int) -> None:
        """Close a line; only for the line itself."""
        line = self._by_fd.pop(fd)
        line.events = 0
        self.look(line)
        if not line.is_gone:
            del self._by_conn[line.conn]
            self.outgoing += mux.frame(CLOSE, line.conn)

    def receive(self, data: bytes) -> None:
        """Bytes from the host."""
        self._decoder.feed(data)
        while True:
            try:
                frame = self._decoder.take()
                if frame is None:
                    return
                self._act(frame)
            except ChannelError as error:
                self._tell(f"channel: {error}; all its connections are closed")
                self.begin()

    def _act(self, frame: Frame) -> None:
        """Raises ChannelError for a frame that must not be sent."""
        kind, conn, payload = frame
        if kind == RESET:
            self.begin()
        elif kind == WELCOME:
            if self.is_welcome:
                raise ChannelError("a second WELCOME")
            self.is_welcome = True
            self._decoder.synchronized()
        elif kind == OPEN:
            self._open(conn, mux.number(payload))
        elif (line := self._by_conn.get(conn)) is None:
            pass  # M4
        elif kind == DATA:
            if len(payload) > line.granted or line.has_ended:
                raise ChannelError(f"{len(payload)} bytes on connection {conn}, "
                                   f"which may send {line.granted}")
            line.granted -= len(payload)
            line.received += payload
            self.look(line)
        elif kind == CREDIT:
            line.may_send += mux.number(payload)
            if line.may_send > mux.WINDOW:
                raise ChannelError(f"credit {line.may_send} on connection {conn}")
            self.look(line)
        elif kind == END:
            line.has_ended = True
            self.look(line)
        else:
            assert kind == CLOSE, kind
            line.is_gone = True
            del self._by_conn[conn]
            self.look(line)

    def _open(self, conn: int, pid: int) -> None:
        if conn in self._by_conn:
            raise ChannelError(f"connection {conn} is opened twice")
        if len(self._by_fd) + len(self._arrived) >= LINES_MAX:
            self.outgoing += mux.frame(CLOSE, conn)
            return
        line = Line(self, self._next_fd, conn, pid)
        self._next_fd += 1
        self._by_conn[conn] = line
        self._arrived.append(line)
