# SPDX-License-Identifier: Apache-2.0
"""Unix-socket connections: bytes in, packets out, and what a slow reader costs (itself only).

Q1. While bytes are owed to a connection, nothing more is read from it.
Q2. A connection that lets more than `owed_max` bytes pile up is closed. (Of all together, serve.py
    closes the one that is owed most.)
Q3. What carries the bytes is a socket, or a line of a channel (lines.py) that behaves as one; what
    says that it can be used is an epoll, or the lines. Nothing here or above asks which.
Knows nothing of requests' meaning and of the turn."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from typing import Protocol

from app.client import Client
from app.quarantine import socket_entry

RECEIVE_SIZE = 1 << 16
HELD_PACKETS = 64  # how many packets, at least, are queued between two looks at Q2
OWED_BYTES_MAX = 16 << 20
PACKET_HEAP = 48  # what a waiting packet takes beside its bytes
BACKLOG = 1024
PATH_MAX = 107
_NO_CONNECTION = (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR, errno.ENOBUFS, errno.ENOMEM,
                  errno.EPERM)
_CREDENTIALS = struct.Struct("iII")


class SocketError(Exception):
    """The socket cannot be listened on; the text says why."""


class Stream(Protocol):
    """The part of a socket that a connection needs."""

    def fileno(self) -> int:
        """A number that no other open stream has; -1 once it is closed."""

    def recv(self, size: int, /) -> bytes:
        """What has come, b"" at the end. Raises BlockingIOError or ConnectionError."""

    def send(self, data: bytes, flags: int, /) -> int:
        """Send what is taken; how many bytes. Raises BlockingIOError or ConnectionError."""

    def close(self) -> None:
        """Let go of it."""


class Poll(Protocol):
    """The part of an epoll that concerns one stream, by its number."""

    def register(self, fd: int, events: int, /) -> None:
        """Tell of these events from now on."""

    def modify(self, fd: int, events: int, /) -> None:
        """Tell of these instead."""

    def unregister(self, fd: int, /) -> None:
        """Tell of nothing."""


class SocketConnection(Client):
    """One client on the unix socket, or on the channel. `inbox` holds received bytes that are not
    executed yet; `poll` is to say when `sock` can be used."""

    __slots__ = ("fd", "held_check", "inbox", "is_queued", "owed_max", "poll", "sock", "unsent")

    def __init__(self, conn_id: int, sock: Stream, poll: Poll, pid: int,
                 owed_max: int = OWED_BYTES_MAX) -> None:
        super().__init__(conn_id, 0, privileged=True, pid=pid)
        self.sock = sock
        self.poll = poll
        self.owed_max = owed_max
        self.fd = sock.fileno()
        self.inbox = b""
        self.unsent = b""
        self.is_queued = False
        self.held_check = HELD_PACKETS  # packets in the outbox at the next look at Q2

    def is_ready(self) -> bool:
        """Whether requests may be taken from it: it is there, and takes what it is sent (Q1)."""
        return not self.unsent and self.sock.fileno() >= 0

    def waiting(self) -> bytes:
        """The bytes from which requests are cut."""
        return self.inbox

    def leave(self, data: bytes, size: int, is_part: bool) -> bool:
        """The first `size` bytes of `data`, all that waited, are executed; `is_part`: what is left
        is no whole request. Whether more can be executed."""
        self.inbox = data[size:]
        return bool(self.inbox) and not is_part

    def intent(self, room: int) -> bytes:
        """What an intent of `room` bytes says of it."""
        return socket_entry(self.inbox, room)

    def receive(self) -> bool:
        """Take what has arrived; False if the peer is gone."""
        try:
            data = self.sock.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        self.inbox = self.inbox + data if self.inbox else data
        return bool(data)

    def publish(self) -> bool:
        """Send what the outbox holds, as far as the peer takes it; False if the peer is gone.

        Only after the commit point. Dying inside ends the connection, which is all it had."""
        if self.unsent:
            if len(self.outbox) < self.held_check:
                return True
            self.held_check = len(self.outbox) + max(HELD_PACKETS, len(self.outbox) // 8)
            return self.owed() <= self.owed_max
        return self._send(self.take_outbox())

    def owed(self) -> int:
        """Bytes of memory that wait for it to read."""
        return len(self.unsent) + sum(map(len, self.outbox)) + PACKET_HEAP * len(self.outbox)

    def flush(self) -> bool:
        """Send owed bytes; False if the peer is gone."""
        self.held_check = HELD_PACKETS
        return self._send(self.unsent + self.take_outbox())

    def _send(self, data: bytes) -> bool:
        try:
            sent = self.sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            return False
        self.unsent = data[sent:] if sent < len(data) else b""
        return True


def pid_of(sock: socket.socket) -> int:
    """The process that has connected."""
    pid: int = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED,
                                                   _CREDENTIALS.size))[0]
    return pid


class Listener:
    """The listening socket at `path`, readable by its owner only."""

    def __init__(self, path: str) -> None:
        self.path = path
        if len(os.fsencode(path)) > PATH_MAX:
            raise SocketError(f"{path}: longer than the {PATH_MAX} bytes of a unix socket's path")
        self._clear_stale()
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:  # the image has none
            raise SocketError(f"{path}: there are no sockets: {error.strerror}") from error
        umask = os.umask(0o177)
        try:
            self.sock.bind(path)
        except OSError as error:
            self.sock.close()
            raise SocketError(f"{path}: cannot listen: {error.strerror}") from error
        finally:
            os.umask(umask)
        self._inode = os.stat(path).st_ino
        self.sock.listen(BACKLOG)
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _clear_stale(self) -> None:
        """Remove the socket of a server that is dead; refuse that of a live one."""
        try:
            mode = os.stat(self.path).st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise SocketError(f"{self.path}: {error.strerror}") from error
        if not stat.S_ISSOCK(mode):
            raise SocketError(f"{self.path}: there is a file that is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                os.unlink(self.path)
            except OSError as error:
                raise SocketError(f"{self.path}: {error.strerror}") from error
            else:
                raise SocketError(f"{self.path}: another server listens there")

    def accept(self) -> socket.socket | None:
        """The next connection, None if there is none to be had. Where the process is out of
        file descriptors, the one that waits is accepted and closed, by means of the spare."""
        try:
            sock, _ = self.sock.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            elif error.errno not in _NO_CONNECTION:
                raise
            return None
        sock.setblocking(False)
        return sock

    def _turn_away(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):  # nobody waits, or the descriptor is taken: next turn
            self.sock.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop listening, and remove the socket if it is still ours. Again: nothing."""
        if self.sock.fileno() < 0:
            return
        self.sock.close()
        if self._spare >= 0:
            os.close(self._spare)
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except FileNotFoundError:
            pass
