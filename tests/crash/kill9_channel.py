# SPDX-License-Identifier: Apache-2.0
"""A guest's end of a ring that believes nothing: every message is compared with a prediction.

J1. It sleeps until it is notified, without ever looking at the ring in between: so a notification
    that a crash has swallowed is a failure, not a delay.
J2. Messages are predicted in the order in which they must come, byte for byte. What others cause
    may come in between; it is known by its token, and must be due, too.
J3. It shares no code with the server.
Change with: tests/oracle/README.md, "The simulated Xen directory"."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from tests.oracle.guest import (
    CONNECTION_STATE,
    PAGE_SIZE,
    REQ_CONS,
    REQ_PROD,
    RING_ERROR,
    RING_MASK32,
    RING_SIZE,
    RSP_CONS,
    RSP_OFFSET,
    RSP_PROD,
    SERVER_FEATURES,
)
from tests.oracle.xsclient import HEADER, PORT_GUEST_BASE, MessageType, strings

PATIENCE_S = 20.0  # without any notification while something is due: then it was lost
OK = b"OK\0"
FEATURES = 14


class Wrong(AssertionError):
    """The server did what it must not; the text says what."""


def error_payload(name: str) -> bytes:
    """What an ERROR message holds."""
    return name.encode() + b"\0"


class Channel:
    """The bytes: two queues in a page, and notifications in both directions."""

    def __init__(self, sim: Path, domid: int) -> None:
        self.domid = domid
        self.outgoing = b""
        self.incoming = b""
        descriptor = os.open(sim / f"ring.{domid}", os.O_RDWR)
        self._page = mmap.mmap(descriptor, PAGE_SIZE)
        os.close(descriptor)
        self.words = memoryview(self._page).cast("I")
        self._notify_path = sim / f"guest.{domid}"
        self._notify_path.unlink(missing_ok=True)
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(self._notify_path))
        self.notifications.setblocking(False)
        self._event = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._server = str(sim / "evtchn.sock")

    def close(self) -> None:
        """Let go of the page and of the channel."""
        self.words.release()
        self._page.close()
        self.notifications.close()
        self._notify_path.unlink(missing_ok=True)
        self._event.close()

    def word(self, offset: int) -> int:
        """A word of the page."""
        return self.words[offset // 4]

    def kick(self) -> None:
        """Notify the server, if there is one; one that starts looks at the ring by itself."""
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            self._event.sendto(struct.pack("<I", PORT_GUEST_BASE + self.domid), self._server)

    def move(self, most: int | None = None) -> bool:
        """Move what can be moved, both ways, but take in `most` bytes at most; whether anything
        was moved."""
        moved = False
        while self.outgoing and (count := self._put()):
            self.outgoing = self.outgoing[count:]
            moved = True
        while data := self._get(RING_SIZE if most is None else most):
            self.incoming += data
            moved = True
            if most is not None:
                break
        if moved:
            self.kick()
        return moved

    def _put(self) -> int:
        cons, prod = self.word(REQ_CONS), self.word(REQ_PROD)
        used = (prod - cons) & RING_MASK32
        if used > RING_SIZE:
            raise Wrong(f"domain {self.domid}: req_cons {cons:#x} with req_prod {prod:#x}")
        start = prod % RING_SIZE
        data = self.outgoing[:min(RING_SIZE - used, RING_SIZE - start)]
        self._page[start:start + len(data)] = data
        self.words[REQ_PROD // 4] = (prod + len(data)) & RING_MASK32
        return len(data)

    def _get(self, most: int) -> bytes:
        cons, prod = self.word(RSP_CONS), self.word(RSP_PROD)
        filled = (prod - cons) & RING_MASK32
        if filled > RING_SIZE:
            raise Wrong(f"domain {self.domid}: rsp_prod {prod:#x} with rsp_cons {cons:#x}")
        start = cons % RING_SIZE
        size = min(filled, RING_SIZE - start, most)
        data = self._page[RSP_OFFSET + start:RSP_OFFSET + start + size]
        self.words[RSP_CONS // 4] = (cons + size) & RING_MASK32
        return data

    def wait(self, timeout_s: float, *others: Pipe) -> bool:
        """Sleep until notified, or until one of `others` has something to say; whether so."""
        poll = select.poll()
        poll.register(self.notifications, select.POLLIN)
        for other in others:
            poll.register(other, select.POLLIN)
        ready = bool(poll.poll(timeout_s * 1000))
        try:
            while self.notifications.recv(16):
                pass
        except BlockingIOError:
            pass
        return ready

    def faults(self) -> str:
        """What is wrong with the words of a ring on which nothing is under way; "" if nothing."""
        words = {offset: self.word(offset) for offset in (
            REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, SERVER_FEATURES, CONNECTION_STATE, RING_ERROR)}
        is_good = (words[REQ_CONS] == words[REQ_PROD] and words[RSP_CONS] == words[RSP_PROD]
                   and words[SERVER_FEATURES] == FEATURES and not words[CONNECTION_STATE]
                   and not words[RING_ERROR] and not self.incoming)
        return "" if is_good else f"domain {self.domid}: {words}, {self.incoming[:64]!r} behind"


class Expecting:
    """A client on a channel: what it sends, and what must come back.

    `control` is its supervisor's pipe; `tell` is called with the number of answers so far and of
    those that are due, whenever they change."""

    def __init__(self, channel: Channel, control: Pipe | None = None,
                 tell: Callable[[int, int], None] = lambda answered, due: None) -> None:
        self.channel = channel
        self.control = control
        self.due: deque[tuple[bytes | None, str]] = deque()  # None: see `free`
        self.free: bytes | None = None  # the last reply that could not be predicted
        self.answered = 0
        self.req_id = 0
        self._tell = tell

    # -- asking

    def ask(self, kind: int, payload: bytes, answer: bytes | str | None, tx_id: int = 0,
            before: tuple[bytes, ...] = (), after: tuple[bytes, ...] = ()) -> None:
        """Send a request. `answer`: the reply's payload, or an error's name, or None if it is not
        known; `before` and `after`: the events that must come around it."""
        self.req_id += 1
        what = f"{MessageType(kind).name if kind in set(MessageType) else kind} {payload[:80]!r}"
        if isinstance(answer, str):
            reply: bytes | None = self._packet(MessageType.ERROR, tx_id, error_payload(answer))
        else:
            reply = None if answer is None else self._packet(kind, tx_id, answer)
        self.due.extend((event, f"event of {what}") for event in before)
        self.due.append((reply, what))
        self.due.extend((event, f"event of {what}") for event in after)
        self.channel.outgoing += self._packet(kind, tx_id, payload)
        self._tell(self.answered, len(self.due))

    def _packet(self, kind: int, tx_id: int, payload: bytes) -> bytes:
        return HEADER.pack(kind, self.req_id, tx_id, len(payload)) + payload

    @staticmethod
    def event(path: str, token: str) -> bytes:
        """The packet of a watch event."""
        payload = strings(path, token)
        return HEADER.pack(MessageType.WATCH_EVENT, 0, 0, len(payload)) + payload

    def settle(self) -> None:
        """Until all that is due has come. Raises Wrong."""
        self.run_until(lambda: not self.due and not self.channel.outgoing)

    def call(self, kind: int, payload: bytes, tx_id: int = 0) -> tuple[int, bytes]:
        """A request whose answer is not predicted: type and payload of the reply."""
        self.ask(kind, payload, None, tx_id)
        self.settle()
        assert self.free is not None
        answered, req_id, its_tx, _ = HEADER.unpack_from(self.free)
        if (req_id, its_tx) != (self.req_id, tx_id) or answered not in (kind, MessageType.ERROR):
            raise Wrong(f"{self.free[:64]!r} for request {self.req_id}, type {kind}")
        return answered, self.free[HEADER.size:]

    # -- hearing

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """Take in what comes until something is so. Raises Wrong if nothing comes any more."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            moved = self.take_in()
            if is_over():
                return
            remaining_s = deadline - time.monotonic()
            if moved:
                deadline = time.monotonic() + PATIENCE_S
            elif remaining_s <= 0:
                raise Wrong(self._silence())
            else:
                self.channel.wait(remaining_s)

    def rest(self, seconds: float) -> None:
        """Nothing to ask for a while."""
        end = time.monotonic() + seconds
        while (remaining_s := end - time.monotonic()) > 0:
            self.take_in()
            waiting = (self.control,) if self.control is not None else ()
            if self.channel.wait(remaining_s, *waiting) and (
                    self.control is not None and self.control.poll()):
                return

    def take_in(self, most: int | None = None) -> bool:
        """Move bytes (of those that have come, `most` at most), and judge whole messages; whether
        anything has moved."""
        moved = self.channel.move(most)
        data = self.channel.incoming
        offset = 0
        while len(data) - offset >= HEADER.size:
            end = offset + HEADER.size + HEADER.unpack_from(data, offset)[3]
            if end > len(data):
                break
            self._judge(data[offset:end])
            offset = end
        if offset:
            self.channel.incoming = data[offset:]
            self._tell(self.answered, len(self.due))
        return moved

    def _judge(self, message: bytes) -> None:
        kind = HEADER.unpack_from(message)[0]
        if kind == MessageType.WATCH_EVENT:
            path, token = message[HEADER.size:].decode("latin-1").split("\0")[:2]
            if self.foreign_event(path, token):
                return
        if not self.due:
            raise Wrong(f"domain {self.channel.domid}: {message[:120]!r}, and nothing is due")
        expected, what = self.due.popleft()
        if expected is None:
            if kind == MessageType.WATCH_EVENT:
                raise Wrong(f"domain {self.channel.domid}: {message[:120]!r} for {what}")
            self.free = message
        elif message != expected:
            raise Wrong(f"domain {self.channel.domid}, {what}, {self.answered} answers so far:\n"
                        f"came {message[:120]!r} ({len(message)} bytes),\n"
                        f"due  {expected[:120]!r} ({len(expected)} bytes)")
        self.answered += kind != MessageType.WATCH_EVENT

    def foreign_event(self, path: str, token: str) -> bool:
        """Take an event that somebody else has caused; False if it is none. Raises Wrong."""
        return False

    def _silence(self) -> str:
        before = {offset: self.channel.word(offset)
                  for offset in (REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, RING_ERROR)}
        what = self.due[0][1] if self.due else "others' events"
        return (f"domain {self.channel.domid}: no notification for {PATIENCE_S:g} s while "
                f"{len(self.due)} messages are due, the first for {what}; its words {before}, "
                f"{len(self.channel.outgoing)} bytes to be sent, {len(self.channel.incoming)} "
                "bytes of a message here")

    def close(self) -> None:
        """Let go of the channel."""
        self.channel.close()

