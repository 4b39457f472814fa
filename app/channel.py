# SPDX-License-Identifier: Apache-2.0
"""The byte channel to the host, as descriptor: a device (the unikernel's /dev/channel), or a unix
socket that we connect to, where a multiplexer, tools/xsmux.py, listens.

N1. Nothing here blocks. What the channel does not take stays in Lines.outgoing, which is bounded,
    and nothing is read meanwhile: its clients wait, nobody else does.
N2. When the other side is gone, all lines are; a socket is connected again, a device is looked at
    again, after a pause of at most PAUSE_MAX_S. Serving goes on.
What the bytes mean is in lines.py. Knows nothing of the turn, nor of xenstore."""

from __future__ import annotations

import os
import select
import socket
import stat
import time

from app import mux
from app.lines import Line, Lines
from app.services import Console

READ_SIZE = 1 << 16  # bytes taken in one turn
PAUSE_MIN_S, PAUSE_MAX_S = 0.02, 1.0
_PLACE = "a device, or a socket on which tools/xsmux listens"


class PathError(Exception):
    """There is no channel at a path; the text says why."""


class Channel:
    """The channel at `path`. Raises PathError for what cannot be one; a socket that is not there
    may still come."""

    def __init__(self, path: str, console: Console) -> None:
        self.path = path
        self.lines = Lines(lambda: os.urandom(mux.NONCE_SIZE), console.warn)
        self._console = console
        self._poll: select.epoll | None = None
        self._is_device = False
        self._fd = -1
        self._events = 0  # asked of the descriptor; 0: not registered
        self._pause_s = PAUSE_MIN_S
        self._again_s = 0.0  # when to look for the other side again
        self._has_told = False
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise PathError(f"{path}: {error.strerror}") from error
        self._is_device = stat.S_ISCHR(mode)
        if not self._is_device and not stat.S_ISSOCK(mode):
            raise PathError(f"{path}: neither {_PLACE}")

    def watch(self, poll: select.epoll) -> None:
        """From now on `poll` says when there is something for exchange(). Raises PathError."""
        self._poll = poll
        if self._is_device:
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise PathError(f"{self.path}: {error.strerror}") from error
        self._look_again()

    def wait_s(self) -> float:
        """How long until exchange() must be called although nothing is ready; -1 for ever."""
        if self.lines.has_ready:
            return 0
        return -1 if self._events else max(self._again_s - time.monotonic(), 0)

    def exchange(self, ready: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """What is ready, with lines in the place of the channel."""
        if not self._events:
            if time.monotonic() >= self._again_s:
                self._look_again()
        elif events := dict(ready).get(self._fd):
            ready = [one for one in ready if one[0] != self._fd]
            if events & ~select.EPOLLOUT:
                self._take_in()
            self.flush()
        return ready + self.lines.ready() if self.lines.has_ready else ready

    def accept(self) -> Line | None:
        """The next line, None if there is none."""
        return self.lines.accept()

    def flush(self) -> None:
        """Give the channel what it takes."""
        outgoing = self.lines.outgoing
        if outgoing and self._events:
            try:
                with memoryview(outgoing) as view:
                    sent = os.write(self._fd, view)
                del outgoing[:sent]
            except BlockingIOError:
                pass
            except OSError as error:
                self._lose(error.strerror or str(error))
        self._ask()

    def close(self) -> None:
        """Say what there is still to be said, as far as it is taken, and let go. Again: nothing."""
        self.flush()
        self._unregister()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _ask(self) -> None:
        """Have the poll say what can be used (N1)."""
        if not self._events:
            return
        events = 0 if self.lines.is_full else select.EPOLLIN
        if self.lines.outgoing:
            events |= select.EPOLLOUT
        if events != self._events:
            assert self._poll is not None and events
            self._poll.modify(self._fd, events)
            self._events = events

    def _take_in(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not data:
            self._lose("it has ended")
            return
        was_welcome = self.lines.is_welcome
        self.lines.receive(data)
        if self.lines.is_welcome and not was_welcome:
            self._pause_s, self._has_told = PAUSE_MIN_S, False
            self._console.info(f"channel {self.path}: the host is there")

    def _lose(self, reason: str) -> None:
        """Nobody is on the other side."""
        if not self._has_told:
            self._console.info(f"channel {self.path}: nobody is there: {reason}")
            self._has_told = True
        self.lines.forget()
        self._unregister()
        if not self._is_device and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._again_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _look_again(self) -> None:
        """Begin with whoever is there."""
        if not self._is_device:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                sock.connect(self.path)
            except OSError as error:
                sock.close()
                self._lose(error.strerror or str(error))
                return
            self._fd = sock.detach()
        assert self._poll is not None
        self._events = select.EPOLLIN
        self._poll.register(self._fd, self._events)
        self.lines.begin()
        self.flush()

    def _unregister(self) -> None:
        if self._events:
            assert self._poll is not None
            self._poll.unregister(self._fd)
            self._events = 0
