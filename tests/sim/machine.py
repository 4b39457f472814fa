# SPDX-License-Identifier: Apache-2.0
"""A machine in memory: domains with pages and ports, a region, and a fuse that ends the server.

N1. Every store of the server, into the region, a page or a port, passes the fuse: it may die there,
    in the middle of the bytes, before or behind a word; others may act between two stores.
N2. A port can be bound once in a life; a domain's page is its own, and a successor's is another.
N3. Notifications are levels, and those to a server that is down are lost.
Everything that is drawn comes from one random.Random. Implements ring.host.Host and
persist.region.Medium. Knows nothing of xenstore."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from ring.host import DomainState, HostError, OwnRing
from ring.layout import PAGE_SIZE
from ring.page import Page

VIRQ_PORT = 1
DOM0_REMOTE_PORT = 7
GFN_BASE = 0x80000
PORTS_PER_CALL = 8  # small, so that a burst takes more than one turn


class Died(BaseException):
    """The server is gone. Not an Exception: nothing may catch it on the way."""


class Clock:
    """Stands for the module `time` in the server: the time of the world."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s


class Fuse:
    """Counts the points at which the server can die, and burns at one of them.

    `only`: points of this kind alone count ("" for all); `between` is called at every point."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.left: int | None = None
        self.only = ""
        self.where = ""
        self.points = 0
        self.between: Callable[[], None] | None = None

    def arm(self, left: int, only: str) -> None:
        """Burn at the `left`-th point from here on, counted from 0."""
        self.left, self.only = left, only

    def disarm(self) -> None:
        """Burn never."""
        self.left, self.only = None, ""

    def burns(self, where: str) -> bool:
        """Pass a point; whether the server dies here."""
        self.points += 1
        if self.between is not None:
            self.between()
        if self.left is None or (self.only and self.only != where):
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        self.disarm()
        self.where = where
        return True

    def step(self, where: str) -> None:
        """A point between two steps of a turn."""
        if self.burns(where):
            raise Died

    def cut(self, size: int) -> int:
        """How many of `size` bytes are stored by a write that dies."""
        return self.rng.choice((0, min(1, size), size // 2, max(size - 1, 0), size,
                                self.rng.randint(0, size)))


class DyingMedium:
    """A region in an array."""

    def __init__(self, size: int, fuse: Fuse) -> None:
        self.bytes = bytearray(size)
        self.size = size
        self._fuse = fuse

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= 0 and offset + size <= self.size
        return bytes(self.bytes[offset:offset + size])

    def write(self, offset: int, data: bytes) -> None:
        assert offset >= 0 and offset + len(data) <= self.size
        if self._fuse.burns("region"):
            kept = self._fuse.cut(len(data))
            self.bytes[offset:offset + kept] = data[:kept]
            raise Died
        self.bytes[offset:offset + len(data)] = data


class DyingPage(Page):
    """A guest's page as the server maps it."""

    __slots__ = ("_fuse",)

    def __init__(self, buffer: bytearray, fuse: Fuse, unmap: Callable[[], None]) -> None:
        super().__init__(buffer, unmap)
        self._fuse = fuse

    def store(self, offset: int, value: int) -> None:
        if self._fuse.burns("word"):
            if self._fuse.rng.random() < 0.5:
                super().store(offset, value)
            raise Died
        super().store(offset, value)

    def copy_in(self, offset: int, data: bytes) -> None:
        if self._fuse.burns("bytes"):
            super().copy_in(offset, data[:self._fuse.cut(len(data))])
            raise Died
        super().copy_in(offset, data)


class Domain:
    """One domain. `is_notified`: the server has raised its port since it looked last."""

    def __init__(self, domid: int, identity: int) -> None:
        self.domid = domid
        self.identity = identity
        self.page = bytearray(PAGE_SIZE)
        self.gfn = GFN_BASE + identity
        self.remote_port = DOM0_REMOTE_PORT if domid == 0 else 10 + identity % 50
        self.is_shutdown = False
        self.is_alive = True
        self.is_notified = False
        self.is_mapped = False


class Machine:
    """All domains. Implements ring.host.Host for one life of the server after the other."""

    virq_port = VIRQ_PORT

    def __init__(self, rng: random.Random, fuse: Fuse) -> None:
        """Some machines do not tell which domains have changed, some not even that one has; and
        some cannot always tell how a domain is."""
        self.fuse = fuse
        self._rng = rng
        self.tells_changes = rng.random() < 0.7
        self.poll_interval_s = None if rng.random() < 0.7 else 0.2
        self.vagueness = 0.05 if rng.random() < 0.3 else 0.0
        self.is_silent = False  # it tells nothing of domains' ends just now
        self._identities = 0
        self._changed: set[int] = set()
        self._raised: dict[int, None] = {}
        self._bound: dict[int, Domain] = {}  # by local port
        self._ports: dict[int, int] = {}  # local port by identity
        self._next_port = 2
        self.is_up = False
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.domains: dict[int, Domain] = {}
        self.create(0)

    def shut(self) -> None:
        """The world ends."""
        os.close(self._fd)

    # -- the toolstack's and the guests' side

    def create(self, domid: int) -> Domain:
        """A new domain."""
        assert domid not in self.domains
        self._identities += 1
        one = self.domains[domid] = Domain(domid, self._identities)
        self._tell(domid)
        return one

    def destroy(self, domid: int) -> None:
        """The domain is gone."""
        self.domains.pop(domid).is_alive = False
        self._tell(domid)

    def shut_down(self, domid: int) -> None:
        """The domain has shut down, but is not gone."""
        self.domains[domid].is_shutdown = True
        self._tell(domid)

    def kick(self, domain: Domain) -> None:
        """A guest notifies the server."""
        port = self._ports.get(domain.identity)
        if port is not None:
            self._raise(port)

    def _tell(self, domid: int) -> None:
        self._changed.add(domid)
        if self.poll_interval_s is None and not self.is_silent:
            self._raise(VIRQ_PORT)

    def _raise(self, port: int) -> None:
        if not self.is_up:
            return
        if not self._raised:
            os.eventfd_write(self._fd, 1)
        self._raised[port] = None

    # -- a server's life

    def begin_life(self) -> None:
        """Nothing is mapped, bound or raised."""
        self.end_life()
        self.is_up = True

    def end_life(self) -> None:
        """The server is gone."""
        if self._raised:
            os.eventfd_read(self._fd)
        self._raised.clear()
        self._bound.clear()
        self._ports.clear()
        for one in self.domains.values():
            one.is_mapped = False
        self.is_up = False

    @property
    def has_raised(self) -> bool:
        """Whether a port waits to be told."""
        return bool(self._raised)

    @property
    def mapped(self) -> set[int]:
        """The domids whose pages are mapped."""
        return {one.domid for one in self.domains.values() if one.is_mapped}

    # -- ring.host.Host

    def fileno(self) -> int:
        return self._fd

    def pending(self) -> list[int]:
        ports = list(self._raised)[:PORTS_PER_CALL]
        for port in ports:
            del self._raised[port]
        if ports and not self._raised:
            os.eventfd_read(self._fd)
        return ports

    def map_page(self, domid: int, gfn: int) -> Page:
        domain = self.domains.get(domid)
        if domain is None:
            raise HostError(f"map: no domain {domid}")
        domain.is_mapped = True

        def unmap() -> None:
            domain.is_mapped = False
        return DyingPage(domain.page, self.fuse, unmap)

    def bind(self, domid: int, remote_port: int) -> int:
        self.fuse.step("bind")
        domain = self.domains.get(domid)
        if domain is None or domain.remote_port != remote_port:
            raise HostError(f"bind: no port {remote_port} in domain {domid}")
        if domain.identity in self._ports:
            raise HostError(f"bind: port {remote_port} of domain {domid} is bound already")
        self._next_port += 1
        self._bound[self._next_port] = domain
        self._ports[domain.identity] = self._next_port
        return self._next_port

    def unbind(self, port: int) -> None:
        self.fuse.step("unbind")
        del self._ports[self._bound.pop(port).identity]
        if self._raised.pop(port, 0) is None and not self._raised:
            os.eventfd_read(self._fd)

    def notify(self, port: int) -> None:
        self.fuse.step("notify")
        domain = self._bound.get(port)
        assert domain is not None, f"notification of port {port}, which is not bound"
        domain.is_notified = True
        self.fuse.step("notified")

    def own_ring(self) -> OwnRing | None:
        return OwnRing(self.map_page(0, 0), DOM0_REMOTE_PORT, self.domains[0].identity)

    def look(self, domid: int) -> DomainState | None:
        domain = self.domains.get(domid)
        if self.vagueness and self._rng.random() < self.vagueness:
            raise HostError(f"look: domain {domid} cannot be looked at now")
        if domain is None or domid == 0:
            return None
        return DomainState(domain.identity, domain.is_shutdown)

    def changed(self) -> set[int] | None:
        changed, self._changed = self._changed, set()
        return changed if self.tells_changes else None

    def close(self) -> None:
        pass
