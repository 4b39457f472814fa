# SPDX-License-Identifier: Apache-2.0
"""A xenstore client for tests, on the unix socket. guest.py has the one on a ring.

    with SocketConnection("DIR/socket") as dom0:
        dom0.write("/a", b"1")
        reply = dom0.request(MessageType.READ, b"/missing\0")  # reply.error == "ENOENT"

C1. request() returns the raw reply and never interprets it: that is for tests of errors. The
    methods named after the messages (read, write, ...) raise XenstoreError instead.
C2. Watch events that arrive while a reply is awaited are kept in `queued_events`.
C3. Every wait has an end: NoReply. A closed socket is ConnectionClosed.
Knows nothing of our server: it shares no code with it."""

from __future__ import annotations

import enum
import select
import socket
import struct
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple, TypeVar

Self = TypeVar("Self", bound="Connection")

HEADER = struct.Struct("<IIII")  # type, req_id, tx_id, length
PAYLOAD_MAX = 4096
TIMEOUT_S = 5.0
PORT_GUEST_BASE = 1000  # of the simulated Xen directory


class MessageType(enum.IntEnum):
    """Message types of the xenstore protocol (XS_*)."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22
    GET_FEATURE = 23
    SET_FEATURE = 24
    GET_QUOTA = 25
    SET_QUOTA = 26


class XenstoreError(Exception):
    """The server answered with an ERROR message; `name` is e.g. "ENOENT"."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class ConnectionClosed(Exception):
    """The server closed the socket."""


class NoReply(TimeoutError):
    """The server did not answer (or did not take our bytes) in time."""


class Event(NamedTuple):
    """One watch event."""

    path: str
    token: str


class Message(NamedTuple):
    """One message received from the server."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes

    @property
    def error(self) -> str | None:
        """The error's name, or None if this is not an ERROR message."""
        if self.type != MessageType.ERROR:
            return None
        return self.payload.rstrip(b"\0").decode("latin-1")

    @property
    def event(self) -> Event:
        """The payload of a WATCH_EVENT message."""
        path, token = self.payload.split(b"\0")[:2]
        return Event(path.decode("latin-1"), token.decode("latin-1"))


def to_bytes(text: object) -> bytes:
    """What goes on the wire for a string, a number or bytes."""
    return text if isinstance(text, bytes) else str(text).encode("latin-1")


def strings(*parts: object) -> bytes:
    """A payload of NUL-terminated strings."""
    return b"".join(to_bytes(part) + b"\0" for part in parts)


class Connection:
    """What socket and ring have in common. Subclasses move bytes."""

    def __init__(self) -> None:
        self.received = b""
        self.last_req_id = 0
        self.queued_events: deque[Event] = deque()

    # -- transport, supplied by the subclass

    def send_bytes(self, data: bytes, timeout_s: float) -> None:
        """Send all of `data`. Raises NoReply or ConnectionClosed."""
        raise NotImplementedError

    def receive_bytes(self, timeout_s: float) -> bytes:
        """Some bytes, or none if none came in time. Raises ConnectionClosed."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything."""
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- messages

    def send(self, message_type: int, payload: bytes = b"", tx_id: int = 0,
             length: int | None = None, timeout_s: float = TIMEOUT_S) -> int:
        """Send a message, return its req_id. `length` overrides the length field."""
        self.last_req_id += 1
        header = HEADER.pack(message_type, self.last_req_id, tx_id,
                             len(payload) if length is None else length)
        self.send_bytes(header + payload, timeout_s)
        return self.last_req_id

    def receive(self, timeout_s: float = TIMEOUT_S) -> Message | None:
        """The next message from the wire, events included; None if none came in time."""
        deadline = time.monotonic() + timeout_s
        while (message := self._take_message()) is None:
            remaining_s = deadline - time.monotonic()
            data = self.receive_bytes(max(remaining_s, 0))
            if not data and remaining_s <= 0:
                return None
            self.received += data
        return message

    def _take_message(self) -> Message | None:
        if len(self.received) < HEADER.size:
            return None
        message_type, req_id, tx_id, length = HEADER.unpack_from(self.received)
        end = HEADER.size + length
        if len(self.received) < end:
            return None
        payload = self.received[HEADER.size:end]
        self.received = self.received[end:]
        return Message(message_type, req_id, tx_id, payload)

    def receive_reply(self, req_id: int, timeout_s: float = TIMEOUT_S) -> Message:
        """Wait for the reply to a request; events that come first are queued."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self.receive(max(deadline - time.monotonic(), 0))
            if message is None:
                raise NoReply(f"no reply to request {req_id}")
            if message.type == MessageType.WATCH_EVENT:
                self.queued_events.append(message.event)
            elif message.req_id == req_id:
                return message

    def request(self, message_type: int, payload: bytes = b"", tx_id: int = 0,
                timeout_s: float = TIMEOUT_S) -> Message:
        """Send a request and return the reply message, which may be an ERROR."""
        req_id = self.send(message_type, payload, tx_id, timeout_s=timeout_s)
        return self.receive_reply(req_id, timeout_s)

    def call(self, message_type: int, payload: bytes = b"", tx_id: int = 0,
             timeout_s: float = TIMEOUT_S) -> bytes:
        """Like request(), but return the payload and raise XenstoreError on an ERROR."""
        reply = self.request(message_type, payload, tx_id, timeout_s)
        if reply.error is not None:
            raise XenstoreError(reply.error)
        return reply.payload

    # -- watch events

    def take_queued_events(self) -> list[Event]:
        """Events that arrived in front of replies, without looking at the wire."""
        events = list(self.queued_events)
        self.queued_events.clear()
        return events

    def events(self, settle_s: float = 0.2) -> list[Event]:
        """All events queued or arriving until nothing comes for `settle_s`."""
        events = self.take_queued_events()
        while (message := self.receive(settle_s)) is not None:
            if message.type == MessageType.WATCH_EVENT:
                events.append(message.event)
        return events

    def next_event(self, timeout_s: float = TIMEOUT_S) -> Event:
        """The next event; NoReply if none comes in time."""
        if self.queued_events:
            return self.queued_events.popleft()
        deadline = time.monotonic() + timeout_s
        while True:
            message = self.receive(max(deadline - time.monotonic(), 0))
            if message is None:
                raise NoReply("no watch event")
            if message.type == MessageType.WATCH_EVENT:
                return message.event

    # -- one method per request

    def read(self, path: object, tx_id: int = 0) -> bytes:
        """READ."""
        return self.call(MessageType.READ, strings(path), tx_id)

    def write(self, path: object, value: object, tx_id: int = 0) -> None:
        """WRITE."""
        self.call(MessageType.WRITE, strings(path) + to_bytes(value), tx_id)

    def mkdir(self, path: object, tx_id: int = 0) -> None:
        """MKDIR."""
        self.call(MessageType.MKDIR, strings(path), tx_id)

    def rm(self, path: object, tx_id: int = 0) -> None:
        """RM."""
        self.call(MessageType.RM, strings(path), tx_id)

    def directory(self, path: object, tx_id: int = 0) -> list[str]:
        """DIRECTORY: the children's names. XenstoreError("E2BIG") if there are too many."""
        return names(self.call(MessageType.DIRECTORY, strings(path), tx_id))

    def directory_parts(self, path: object, timeout_s: float = TIMEOUT_S) -> list[str]:
        """The children's names by DIRECTORY_PART, whatever their number."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            collected, first_generation = b"", None
            while True:
                payload = self.call(MessageType.DIRECTORY_PART, strings(path, len(collected)))
                generation, _, part = payload.partition(b"\0")
                first_generation = first_generation or generation
                if generation != first_generation:
                    break  # changed meanwhile: start again
                collected += part
                if collected.endswith(b"\0\0") or collected == b"\0":
                    return [name for name in names(collected) if name]
        raise NoReply(f"{path!r} changes faster than it can be listed")

    def get_perms(self, path: object, tx_id: int = 0) -> list[str]:
        """GET_PERMS: permissions such as ["n0", "r5"]."""
        return names(self.call(MessageType.GET_PERMS, strings(path), tx_id))

    def set_perms(self, path: object, *perms: str, tx_id: int = 0) -> None:
        """SET_PERMS."""
        self.call(MessageType.SET_PERMS, strings(path, *perms), tx_id)

    def watch(self, path: object, token: object) -> None:
        """WATCH."""
        self.call(MessageType.WATCH, strings(path, token))

    def unwatch(self, path: object, token: object) -> None:
        """UNWATCH."""
        self.call(MessageType.UNWATCH, strings(path, token))

    def reset_watches(self) -> None:
        """RESET_WATCHES."""
        self.call(MessageType.RESET_WATCHES, b"\0")

    def transaction_start(self) -> int:
        """TRANSACTION_START: the tx_id."""
        return int(self.call(MessageType.TRANSACTION_START, b"\0").rstrip(b"\0"))

    def transaction_end(self, tx_id: int, commit: bool = True) -> None:
        """TRANSACTION_END. A conflict is XenstoreError("EAGAIN")."""
        self.call(MessageType.TRANSACTION_END, strings("T" if commit else "F"), tx_id)

    def introduce(self, domid: int, gfn: int | None = None, port: int | None = None) -> None:
        """INTRODUCE; frame and remote port do not matter in the simulation."""
        gfn = 100000 + domid if gfn is None else gfn
        port = PORT_GUEST_BASE + domid if port is None else port
        self.call(MessageType.INTRODUCE, strings(domid, gfn, port))

    def release(self, domid: int) -> None:
        """RELEASE."""
        self.call(MessageType.RELEASE, strings(domid))

    def resume(self, domid: int) -> None:
        """RESUME."""
        self.call(MessageType.RESUME, strings(domid))

    def set_target(self, domid: int, target: int) -> None:
        """SET_TARGET."""
        self.call(MessageType.SET_TARGET, strings(domid, target))

    def is_introduced(self, domid: int) -> bool:
        """IS_DOMAIN_INTRODUCED."""
        return self.call(MessageType.IS_DOMAIN_INTRODUCED, strings(domid)) == b"T\0"

    def get_domain_path(self, domid: int) -> str:
        """GET_DOMAIN_PATH."""
        payload = self.call(MessageType.GET_DOMAIN_PATH, strings(domid))
        return payload.rstrip(b"\0").decode("latin-1")

    def control(self, *words: object) -> str:
        """CONTROL."""
        payload = self.call(MessageType.CONTROL, strings(*words))
        return payload.rstrip(b"\0").decode("latin-1")


def names(payload: bytes) -> list[str]:
    """The NUL-terminated strings of a payload."""
    return [part.decode("latin-1") for part in payload.split(b"\0")[:-1]]


class SocketConnection(Connection):
    """A privileged client on the server's unix socket."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise

    def send_bytes(self, data: bytes, timeout_s: float) -> None:
        self.socket.settimeout(timeout_s)
        try:
            self.socket.sendall(data)
        except TimeoutError as error:
            raise NoReply("the server does not read its socket") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConnectionClosed from error

    def receive_bytes(self, timeout_s: float) -> bytes:
        poll = select.poll()  # not select(): descriptors go beyond 1023 in tests of many clients
        poll.register(self.socket, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return b""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError as error:
            raise ConnectionClosed from error
        if not data:
            raise ConnectionClosed
        return data

    def close(self) -> None:
        self.socket.close()
