# SPDX-License-Identifier: Apache-2.0
"""A server, a simulated Xen directory, domain 0 on the socket, and guests on their rings.

    with house("tardigrade") as it:
        guest = it.guest(1)               # made, introduced, with a home of its own
        guest.write("data", "x")

O1. The same on C xenstored: house("c"). What is expected of ours is expected of it, too, by the
    same line of a test, unless the test says why not.
O2. Whatever was started is ended, and its files are removed.
Knows nothing of the tests."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.oracle import oracle
from tests.oracle.guest import (
    REQ_CONS,
    REQ_PROD,
    RING_ERROR,
    RING_MASK32,
    RING_SIZE,
    RSP_CONS,
    RSP_PROD,
    RingConnection,
    SimXen,
)
from tests.oracle.ours import OurServer
from tests.oracle.xsclient import HEADER, MessageType, SocketConnection, XenstoreError, strings

M = MessageType
KINDS = ("c", "tardigrade")
WAIT_S = 10.0
POLL_S = 0.002
ERROR_COMM, ERROR_RINGIDX, ERROR_PROTO = 1, 2, 3


class House:
    """One server and all around it."""

    def __init__(self, kind: str, socket_path: Path, sim: Path, server: OurServer | None,
                 pid: int) -> None:
        self.kind = kind
        self.server = server
        self.sim = SimXen(sim)
        self.socket_path = socket_path
        self.guests: dict[int, RingConnection] = {}
        self.clients: list[SocketConnection] = []
        self._pid = pid
        self.dom0 = self.client()

    @property
    def is_ours(self) -> bool:
        """Whether it is our server."""
        return self.server is not None

    def client(self) -> SocketConnection:
        """One more privileged client."""
        self.clients.append(SocketConnection(self.socket_path))
        return self.clients[-1]

    # -- domains

    def guest(self, domid: int) -> RingConnection:
        """A new domain with a home, introduced. An older one of this number must be gone."""
        self.sim.create_domain(domid)
        guest = self.connect(domid)
        self.dom0.introduce(domid)
        self.furnish(domid)
        return guest

    def connect(self, domid: int) -> RingConnection:
        """The domain's end of its ring, whether or not it is introduced."""
        old = self.guests.pop(domid, None)
        if old is not None:
            old.close()
        self.guests[domid] = RingConnection(self.sim, domid)
        return self.guests[domid]

    def furnish(self, domid: int) -> None:
        """Its home."""
        home = f"/local/domain/{domid}"
        self.dom0.mkdir(home)
        self.dom0.set_perms(home, f"n{domid}")

    def destroy(self, domid: int) -> None:
        """The domain ceases to exist, and the server knows."""
        self.sim.destroy_domain(domid)
        wait_until(lambda: not self.dom0.is_introduced(domid), f"the end of domain {domid}")

    def public(self, path: str = "/pub", perms: Sequence[str] = ("b0",)) -> str:
        """A directory that everybody may write in."""
        self.dom0.mkdir(path)
        self.dom0.set_perms(path, *perms)
        return path

    # -- the server

    def crash(self) -> None:
        """kill -9 and the next life; domain 0's clients are gone."""
        assert self.server is not None
        self.server.kill9()
        self.server.restart()
        for client in self.clients:
            client.close()
        self.clients.clear()
        self.dom0 = self.client()

    def rss_kib(self) -> int:
        """Resident memory of the server's process."""
        pid = self.server.pid if self.server is not None else self._pid
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("the server has no memory")

    def nodes(self) -> int:
        """How many nodes there are. Ours only."""
        for line in self.dom0.control("memreport").splitlines():
            if line.startswith("nodes: "):
                return int(line.split()[1])
        raise AssertionError("no count of nodes")

    def check(self) -> None:
        """Everyone else is served, and the server believes its own indices."""
        self.dom0.write("/still", "v")
        assert self.dom0.read("/still") == b"v"
        if self.is_ours:
            assert self.dom0.control("check") == "OK"

    def close(self) -> None:
        """Let go of all ends."""
        for one in (*self.guests.values(), *self.clients):
            one.close()
        self.sim.close()


@contextlib.contextmanager
def house(kind: str, arguments: Sequence[str] = ()) -> Iterator[House]:
    """A new server of that kind, with everything. `arguments` are for ours."""
    with contextlib.ExitStack() as stack:
        if kind == "c":
            directory = stack.enter_context(oracle.running("c"))
            pid = int((directory / "pid").read_text())
            it = House(kind, directory / "socket", directory / "sim", None, pid)
        else:
            sim = stack.enter_context(tempfile.TemporaryDirectory(prefix="sim-"))
            server = stack.enter_context(OurServer(sim=sim, arguments=arguments))
            it = House(kind, server.socket_path, Path(sim), server, 0)
        try:
            yield it
        finally:
            it.close()


# -- small things that tests do


def refused(action: Callable[..., object], *arguments: object) -> str | None:
    """The name of the error that action(*arguments) is answered with; None if it succeeds."""
    try:
        action(*arguments)
    except XenstoreError as error:
        return error.name
    return None


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Ask until something is so; AssertionError if it does not become so in time."""
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, f"not within {WAIT_S:g} s: {what}"
        time.sleep(POLL_S)


def settled(client: RingConnection | SocketConnection) -> list[tuple[str, str]]:
    """The events that came before the answer to a request that changes nothing."""
    client.request(M.GET_DOMAIN_PATH, b"0\0")
    return [tuple(event) for event in client.take_queued_events()]  # type: ignore[misc]


def packet(kind: int, payload: bytes, tx_id: int = 0, length: int | None = None) -> bytes:
    """The bytes of a message whose header may lie about its length."""
    return HEADER.pack(kind, 99, tx_id, len(payload) if length is None else length) + payload


def put_raw(guest: RingConnection, data: bytes, is_kicked: bool = True) -> None:
    """Write up to a ring's size of bytes as requests, whatever they are."""
    req_prod = guest.get_field(REQ_PROD)
    for index, byte in enumerate(data):
        guest.page[(req_prod + index) % RING_SIZE] = byte
    guest.set_field(REQ_PROD, req_prod + len(data))
    if is_kicked:
        guest.kick()


def break_ring(guest: RingConnection, way: str) -> int:
    """Break the rules of the ring; returns the error code that must come of it."""
    if way == "length":
        put_raw(guest, packet(M.READ, b"", length=4097))
        return ERROR_PROTO
    if way == "req_prod":
        guest.set_field(REQ_PROD, guest.get_field(REQ_CONS) + RING_SIZE + 1)
    elif way == "req_prod behind":
        guest.set_field(REQ_PROD, (guest.get_field(REQ_CONS) - 1) & RING_MASK32)
    elif way == "rsp_cons":
        guest.set_field(RSP_CONS, guest.get_field(RSP_PROD) + 1)
        put_raw(guest, packet(M.GET_DOMAIN_PATH, strings(0)), is_kicked=False)
    guest.kick()
    return ERROR_RINGIDX


def wait_error(guest: RingConnection, code: int) -> None:
    """Until the ring's error word says so."""
    wait_until(lambda: guest.get_field(RING_ERROR) == code, f"error word {code}")
