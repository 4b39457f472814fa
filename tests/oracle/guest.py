# SPDX-License-Identifier: Apache-2.0
"""A fake guest and its hypervisor: the simulated Xen directory of README.md, seen from their side.

    sim = SimXen("DIR/sim")
    sim.create_domain(5)                    # state.5 = running, a fresh ring.5
    dom0.introduce(5)                       # a SocketConnection
    guest = RingConnection(sim, 5)
    guest.write("data/x", b"value")         # /local/domain/5/data/x
    sim.destroy_domain(5)                   # state.5 removed, VIRQ_DOM_EXC raised

G1. An index of the other side is read once; ours is stored as one 32-bit word, from a local copy.
Knows nothing of our server: it shares no code with it. Change with: README.md, simxen.c."""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import time
from pathlib import Path

from tests.oracle.xsclient import PORT_GUEST_BASE, Connection, NoReply

RING_SIZE = 1024
RING_MASK32 = 0xFFFFFFFF
REQ_OFFSET, RSP_OFFSET = 0, 1024
REQ_CONS, REQ_PROD = 2048, 2052
RSP_CONS, RSP_PROD = 2056, 2060
SERVER_FEATURES, CONNECTION_STATE, RING_ERROR = 2064, 2068, 2072

PAGE_SIZE = 4096
PORT_VIRQ_DOM_EXC = 1
NOTIFICATION_WAIT_S = 0.05  # at most, so that a lost notification costs little


class SimXen:
    """The simulated Xen directory, seen from the guests' and the hypervisor's side."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sender.settimeout(2.0)

    def close(self) -> None:
        """Let go of the socket; the directory stays."""
        self.sender.close()

    def ring_path(self, domid: int) -> Path:
        """The file that is a domain's ring page."""
        return self.directory / f"ring.{domid}"

    def create_domain(self, domid: int) -> None:
        """A new domain: a zeroed ring page of its own, state "running"."""
        temporary = self.directory / f".ring.{domid}.new"
        temporary.write_bytes(bytes(PAGE_SIZE))
        os.replace(temporary, self.ring_path(domid))
        self.set_state(domid, "running", notify=False)

    def set_state(self, domid: int, state: str, notify: bool = True) -> None:
        """Set running, shutdown, crashed, dying or dead, and raise VIRQ_DOM_EXC."""
        temporary = self.directory / f".state.{domid}.new"
        temporary.write_text(state + "\n")
        os.replace(temporary, self.directory / f"state.{domid}")
        if notify:
            self.raise_virq()

    def destroy_domain(self, domid: int, notify: bool = True) -> None:
        """The domain ceases to exist."""
        (self.directory / f"state.{domid}").unlink(missing_ok=True)
        if notify:
            self.raise_virq()

    def raise_event(self, port: int) -> bool:
        """Make the server see an event on one of its ports; False if no server is there.

        A server that was down has missed events: it must look at all rings when it starts."""
        try:
            self.sender.sendto(struct.pack("<I", port), str(self.directory / "evtchn.sock"))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True

    def raise_virq(self) -> bool:
        """Make the server look at the domains' states; False if no server is there."""
        return self.raise_event(PORT_VIRQ_DOM_EXC)


class RingConnection(Connection):
    """A guest's connection through its ring page and event channel."""

    def __init__(self, sim: SimXen, domid: int) -> None:
        super().__init__()
        self.sim = sim
        self.domid = domid
        descriptor = os.open(sim.ring_path(domid), os.O_RDWR | os.O_CREAT, 0o666)
        if os.fstat(descriptor).st_size < PAGE_SIZE:
            os.ftruncate(descriptor, PAGE_SIZE)
        self.page = mmap.mmap(descriptor, PAGE_SIZE)
        # Indices must be stored as one word: struct.pack_into() may do it byte by byte.
        self.words = memoryview(self.page).cast("I")
        os.close(descriptor)
        self.notify_path = sim.directory / f"guest.{domid}"
        self.notify_path.unlink(missing_ok=True)
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(self.notify_path))
        self.notifications.setblocking(False)

    def get_field(self, offset: int) -> int:
        """Read one 32-bit field of the interface page."""
        return self.words[offset // 4]

    def set_field(self, offset: int, value: int) -> None:
        """Store one 32-bit field of the interface page."""
        self.words[offset // 4] = value & RING_MASK32

    def kick(self) -> None:
        """Notify the server."""
        self.sim.raise_event(PORT_GUEST_BASE + self.domid)

    def wait_notification(self, timeout_s: float) -> None:
        """Wait until notified, or for a moment."""
        poll = select.poll()
        poll.register(self.notifications, select.POLLIN)
        if not poll.poll(min(timeout_s, NOTIFICATION_WAIT_S) * 1000):
            return
        try:
            while True:
                self.notifications.recv(16)
        except BlockingIOError:
            pass

    def send_bytes(self, data: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while data:
            req_cons, req_prod = self.get_field(REQ_CONS), self.get_field(REQ_PROD)
            start = req_prod % RING_SIZE
            free = RING_SIZE - ((req_prod - req_cons) & RING_MASK32)
            count = min(free, len(data), RING_SIZE - start)
            if count <= 0:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise NoReply("the server does not read its ring")
                self.wait_notification(remaining_s)
                continue
            self.page[REQ_OFFSET + start:REQ_OFFSET + start + count] = data[:count]
            self.set_field(REQ_PROD, req_prod + count)
            data = data[count:]
            self.kick()

    def receive_bytes(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            rsp_cons, rsp_prod = self.get_field(RSP_CONS), self.get_field(RSP_PROD)
            start = rsp_cons % RING_SIZE
            count = min((rsp_prod - rsp_cons) & RING_MASK32, RING_SIZE - start)
            if count > 0:
                data = self.page[RSP_OFFSET + start:RSP_OFFSET + start + count]
                self.set_field(RSP_CONS, rsp_cons + count)
                self.kick()
                return data
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return b""
            self.wait_notification(remaining_s)

    def close(self) -> None:
        self.words.release()
        self.page.close()
        self.notifications.close()
        self.notify_path.unlink(missing_ok=True)


def add_guest(sim: SimXen, dom0: Connection, domid: int, *others: str) -> None:
    """A domain as xl makes one: introduced, with a home of its own. `others`: permissions of the
    home for other domains, such as "r7"."""
    home = f"/local/domain/{domid}"
    sim.create_domain(domid)
    dom0.introduce(domid)
    dom0.mkdir(home)
    dom0.set_perms(home, f"n{domid}", *others)
