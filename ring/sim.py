# SPDX-License-Identifier: Apache-2.0
"""The simulated Xen directory: rings are files, event channels are datagrams.

Specified in tests/oracle/README.md, section "The simulated Xen directory"; C xenstored and
oxenstored run on it too.
S1. A domain's identity is the inode of its ring file: a new domain's ring is a new file.
S2. Which domains changed is told by inotify, if the system has it: else all must be looked at.
S3. No guest's silence may cost another's notification.
S4. One server at a time: the directory itself is locked, as long as the server lives.
Knows nothing of xenstore."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from fcntl import LOCK_EX, LOCK_NB, flock, ioctl
from termios import TIOCOUTQ

from ring.host import DomainState, HostError, OwnRing
from ring.layout import PAGE_SIZE
from ring.page import Page

PORT_VIRQ_DOM_EXC = 1
PORT_GUEST_BASE = 1000
DOMID_FIRST_RESERVED = 0x7FF0
PORTS_PER_CALL = 512
PATH_MAX = 107  # of a unix socket

_ALIVE = {"running": False, "shutdown": True, "crashed": True}  # word -> is_shutdown
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ENOBUFS, errno.EPROTOTYPE)
_PORT = struct.Struct("<I")
_IN_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_IN_CHANGES = 0x8 | 0x40 | 0x80 | 0x100 | 0x200  # CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE
_IN_Q_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")


class SimHost:
    """Implements ring.host.Host on the directory `directory`. Raises HostError."""

    virq_port = PORT_VIRQ_DOM_EXC
    poll_interval_s: float | None = None

    def __init__(self, directory: str) -> None:
        self._directory = directory
        path = self._path("evtchn.sock")
        if len(os.fsencode(path)) > PATH_MAX:
            raise HostError(f"{path}: longer than the {PATH_MAX} bytes of a unix socket's path")
        self._lock = _lock(directory)
        try:
            if os.path.lexists(path):
                os.unlink(path)
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._sock.bind(path)
        except OSError as error:
            os.close(self._lock)
            raise HostError(f"{path}: cannot bind: {error.strerror}") from error
        self._sender = _sender()
        self._inode = os.stat(path).st_ino
        self._changes = _Changes(directory)

    def fileno(self) -> int:
        return self._sock.fileno()

    def pending(self) -> list[int]:
        ports: list[int] = []
        receive = self._sock.recv
        try:
            while len(ports) < PORTS_PER_CALL:
                datagram = receive(2 * _PORT.size)
                if len(datagram) == _PORT.size:
                    ports += _PORT.unpack(datagram)
        except BlockingIOError:
            pass
        return ports

    def map_page(self, domid: int, gfn: int) -> Page:
        path = self._path(f"ring.{domid}")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(fd).st_size < PAGE_SIZE:
                    os.ftruncate(fd, PAGE_SIZE)
                mapped = mmap.mmap(fd, PAGE_SIZE)
            finally:
                os.close(fd)
        except OSError as error:
            raise HostError(f"{path}: cannot map: {error.strerror}") from error
        return Page(mapped, mapped.close)

    def bind(self, domid: int, remote_port: int) -> int:
        return PORT_GUEST_BASE + domid

    def unbind(self, port: int) -> None:
        pass  # a port is a number here

    def notify(self, port: int) -> None:
        path = f"{self._directory}/guest.{port - PORT_GUEST_BASE}"
        try:
            self._sender.sendto(b"\1", path)
        except BlockingIOError:
            self._notify_anew(path)
        except OSError as error:
            if error.errno not in _NOBODY:
                raise

    def _notify_anew(self, path: str) -> None:
        """The guest's queue is full, which is no harm; or our socket's, with notifications that
        other guests have not taken yet: then a new one takes its place (S3)."""
        waiting = int.from_bytes(ioctl(self._sender.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
        if 2 * waiting < self._sender.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF):
            return
        sender = _sender()
        try:
            sender.sendto(b"\1", path)
        except OSError as error:
            sender.close()
            if error.errno not in _NOBODY:
                raise
        else:
            self._sender.close()  # what is on its way arrives all the same
            self._sender = sender

    def own_ring(self) -> OwnRing | None:
        return OwnRing(self.map_page(0, 0), PORT_GUEST_BASE, self.identity(0))

    def look(self, domid: int) -> DomainState | None:
        if not 0 < domid < DOMID_FIRST_RESERVED:
            return None
        self._changes.forget(domid)
        path = self._path(f"state.{domid}")
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                word = file.readline(32).strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"{path}: cannot read: {error.strerror}") from error
        if word not in _ALIVE:
            return None
        return DomainState(self.identity(domid), _ALIVE[word])

    def identity(self, domid: int) -> int:
        """The inode of the domain's ring file, 0 if there is none yet."""
        try:
            return os.stat(self._path(f"ring.{domid}")).st_ino
        except OSError:
            return 0

    def changed(self) -> set[int] | None:
        return self._changes.take()

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._sock.close()
        self._sender.close()
        self._changes.close()
        path = self._path("evtchn.sock")
        try:
            if os.stat(path).st_ino == self._inode:
                os.unlink(path)
        except FileNotFoundError:
            pass
        os.close(self._lock)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"


def _lock(directory: str) -> int:
    """A descriptor that keeps others out (S4). Raises HostError."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{directory}: cannot open: {error.strerror}") from error
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EWOULDBLOCK:
            raise HostError(f"{directory}: cannot lock: {error.strerror}") from error
        raise HostError(f"{directory}: another server serves this simulated Xen directory"
                        ) from error
    return fd


def _sender() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


class _Changes:
    """Which files of a directory were renamed, made or removed, by inotify."""

    def __init__(self, directory: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._found: set[int] = set()
        self._fd = libc.inotify_init1(_IN_CLOEXEC_NONBLOCK)
        if self._fd >= 0 and libc.inotify_add_watch(
                self._fd, os.fsencode(directory), _IN_CHANGES) < 0:
            self.close()
        self._is_whole = self._fd >= 0

    def forget(self, domid: int) -> None:
        """The domain is about to be looked at: what has changed until now is no news any more."""
        self._read()
        self._found.discard(domid)

    def take(self) -> set[int] | None:
        """The domids named by files changed since the last call; None: unknown."""
        self._read()
        found, self._found = self._found, set()
        is_whole, self._is_whole = self._is_whole, self._fd >= 0
        return found if is_whole else None

    def _read(self) -> None:
        if self._fd < 0:
            return
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(data):
                _, mask, _, size = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size
                name = data[offset:offset + size].rstrip(b"\0")
                offset += size
                self._is_whole = self._is_whole and not mask & _IN_Q_OVERFLOW
                kind, _, digits = name.partition(b".")
                if kind in (b"state", b"ring") and digits.isdigit():
                    self._found.add(int(digits))

    def close(self) -> None:
        """Give up the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
