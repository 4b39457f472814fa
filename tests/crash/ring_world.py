# SPDX-License-Identifier: Apache-2.0
"""A server with rings in this process, all of whose memory is watched store by store.

Method: region and ring pages are arrays behind one Memory. Every store of the server goes through
it and is a place to die: a 32-bit word is stored whole or not at all, anything longer can be cut at
five points. Memory either dies at one of these (Died), or keeps, at each of them, the image that a
death there would leave: region, pages, and what lies outside of the server (Outside: guests and
domains, which do nothing within a turn). test_every_ring_store.py shows that both are the same.
A new World on an image is a new life. Notifications are not part of an image: they are lost.

Schedules are fixed: a step is done by guests, then guests and server alternate until all is quiet.
Cannot show: guests that run while the server does, and real kills (kill9_rings.py)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from copy import copy
from typing import NamedTuple

from mmh3 import mmh3_x64_128_digest

from app.guests import Guests
from app.journal import Journal, Start, open_journal, space_for
from app.serve import Server
from app.services import Console
from app.store import Store
from persist.intent import read_intent
from persist.recover import Outcome
from ring import layout
from ring.host import DomainState, HostError, OwnRing
from ring.page import Page
from tests.crash.ring_guest import RingGuest
from tests.crash.world import HEAP, Died

LOG_BYTES = 256 << 10
VIRQ_PORT = 1
PORT_BASE = 1000
ROUNDS_MAX = 2000  # of guests and server until all is quiet
LIVES_MAX = 5000
IDLE_ROUNDS = 4
TIME_US = 1_700_000_000_000_000
NEVER = -1


class Outside(NamedTuple):
    """All that a death of the server leaves alone, besides memory: `step` is the step of the
    schedule that is under way, `is_begun` whether the guests have done their part of it."""

    step: int
    is_begun: bool
    guests: dict[int, RingGuest]
    domains: dict[int, DomainState]


class Image(NamedTuple):
    """What is there after a death. `is_recovering`: the server had not begun to serve."""

    region: bytes
    pages: dict[int, bytes]  # by domid
    outside: Outside
    is_recovering: bool
    point: int  # the first point that leaves it


class Memory:
    """Region and pages. `die_at`: at which point of all to die; NEVER: not at all. `keep`: takes
    the image of every point that differs from the one before."""

    def __init__(self, image: Image, die_at: int = NEVER,
                 keep: Callable[[int], None] | None = None) -> None:
        self.region = bytearray(image.region)
        self.pages = {domid: bytearray(page) for domid, page in image.pages.items()}
        self.points = 0
        self.is_elsewhere = True  # something has changed behind the stores' back: keep that too
        self._die_at = die_at
        self._keep = keep

    def store(self, place: bytearray, offset: int, data: bytes, is_word: bool) -> None:
        """A store of the server: one place to die for each cut."""
        size = len(data)
        cuts = (0, size) if is_word else (0, 1, size // 2, size - 1, size)
        first, self.points = self.points, self.points + len(cuts)
        if first <= self._die_at < self.points:
            kept = cuts[self._die_at - first]
            place[offset:offset + kept] = data[:kept]
            raise Died
        if self._keep is not None:
            for number, kept in enumerate(cuts):
                if self.is_elsewhere or place[offset:offset + kept] != data[:kept]:
                    place[offset:offset + kept] = data[:kept]
                    self.is_elsewhere = False
                    self._keep(first + number)
        place[offset:offset + size] = data


class RegionOfMemory:
    """Implements persist.region.Medium."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._view = memoryview(memory.region)
        self.size = len(memory.region)

    def read(self, offset: int, size: int) -> bytes:
        """A copy of bytes of the region."""
        assert offset >= 0 and offset + size <= self.size
        return bytes(self._view[offset:offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes: five places to die."""
        assert offset >= 0 and offset + len(data) <= self.size
        self._memory.store(self._memory.region, offset, data, is_word=False)


class DyingPage(Page):
    """A page of Memory: stores of a word are one place to die, before and after; copies five."""

    __slots__ = ("_memory", "_page")

    def __init__(self, memory: Memory, page: bytearray) -> None:
        super().__init__(page)
        self._memory = memory
        self._page = page

    def store(self, offset: int, value: int) -> None:
        self._memory.store(self._page, offset, value.to_bytes(4, "little"), is_word=True)

    def copy_in(self, offset: int, data: bytes) -> None:
        self._memory.store(self._page, offset, data, is_word=False)


class Machine:
    """Implements ring.host.Host for one life on a Memory, with domains under the test's control."""

    virq_port = VIRQ_PORT
    poll_interval_s: float | None = None

    def __init__(self, memory: Memory, domains: dict[int, DomainState]) -> None:
        self.domains = domains
        self._memory = memory
        self._raised: dict[int, None] = {}
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def raise_event(self, port: int) -> None:
        """Somebody notifies the server."""
        self._raised[port] = None
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        return self._event

    def pending(self) -> list[int]:
        if self._raised:
            os.eventfd_read(self._event)
        raised = list(self._raised)
        self._raised.clear()
        return raised

    def map_page(self, domid: int, gfn: int) -> Page:
        if domid not in self._memory.pages:
            raise HostError(f"domain {domid} has no page")
        return DyingPage(self._memory, self._memory.pages[domid])

    def bind(self, domid: int, remote_port: int) -> int:
        return PORT_BASE + domid

    def unbind(self, port: int) -> None:
        pass  # a port is a number here

    def notify(self, port: int) -> None:
        pass  # the guests look after every turn anyway

    def own_ring(self) -> OwnRing | None:
        return OwnRing(self.map_page(0, 0), PORT_BASE, self.domains[0].identity)

    def look(self, domid: int) -> DomainState | None:
        return self.domains.get(domid)

    def changed(self) -> set[int] | None:
        return None

    def close(self) -> None:
        os.close(self._event)


class _NoSocket:
    """The listener of a server that nobody connects to."""

    def __init__(self) -> None:
        self.sock = self
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._event

    def accept(self) -> None:
        return None

    def close(self) -> None:
        os.close(self._event)


Step = Callable[["World"], None]  # what guests and toolstack do at once; never the server


class Plan(NamedTuple):
    """A schedule on an image; `quiet` as in World."""

    image: Image
    steps: Sequence[Step]
    quiet: int = 1


class World:
    """One life on `image`, which goes on with `steps` where the image stands. start() and play()
    may raise Died; `kept` are the images of all points that were passed, if asked for. `quiet`:
    how many turns without work end a step: with more than one, there is hashing and sealing."""

    def __init__(self, image: Image, steps: Sequence[Step], die_at: int = NEVER,
                 keeps: bool = False, quiet: int = 1) -> None:
        self.kept: list[Image] = []
        self.memory = Memory(image, die_at, self._keep if keeps else None)
        self.guests = {domid: copy(guest) for domid, guest in image.outside.guests.items()}
        self.domains = dict(image.outside.domains)
        self.step, self.is_begun = image.outside.step, image.outside.is_begun
        self._steps, self._quiet = steps, quiet
        self._cause = None if image.is_recovering else ""
        self._seen: set[bytes] = set()
        self._time_us = TIME_US
        self.is_recovering = True
        self.complaints = io.StringIO()
        self.store: Store
        self.journal: Journal
        self.server: Server
        self.found: Start
        self._listener = _NoSocket()
        self.machine = Machine(self.memory, self.domains)
        self._outside: Outside | None = None

    # -- a life

    def start(self) -> None:
        """What app/__main__.py recover() does."""
        medium, console = RegionOfMemory(self.memory), Console("error", self.complaints)
        guests = Guests(self.machine)
        intent = read_intent(medium)
        self.store = Store(space_for(medium, HEAP), guests, console)
        self.journal, self.found = open_journal(medium, self.store, self._clock_us,
                                                self._is_damaged, self._cause or "")
        self.server = Server(self.store, self.journal, self._listener,  # type: ignore[arg-type]
                             console, guests)
        self.server.resume(self.found, intent, self._cause)
        assert self.found.outcome is not Outcome.CORRUPT, self.found
        self.is_recovering = False

    def play(self, until: int | None = None) -> None:
        """The rest of the schedule, or up to a step."""
        while self.step < (len(self._steps) if until is None else until):
            self.begin_step()
            self.settle()
            self.end_step()
        assert not self.complaints.getvalue(), self.complaints.getvalue()

    def begin_step(self) -> None:
        """The guests' part of a step, unless a life before has seen it."""
        if not self.is_begun:
            self._steps[self.step](self)
            self.is_begun = True
            self._has_changed()

    def end_step(self) -> None:
        """All is quiet."""
        self.step, self.is_begun = self.step + 1, False
        self._has_changed()

    def settle(self) -> None:
        """Guests and server in turn, until nothing moves any more."""
        quiet = 0
        for _ in range(ROUNDS_MAX):
            quiet = 0 if self.round() else quiet + 1
            if quiet >= self._quiet:
                return
        raise AssertionError(f"step {self.step} never ends")

    def round(self) -> bool:
        """All guests act once, then the server has a turn; whether there was anything to do."""
        has_moved = False
        for domid, guest in self.guests.items():
            if guest.act(self.memory.pages.get(domid)):
                has_moved = True
                self._has_changed()
                self.machine.raise_event(PORT_BASE + domid)
        return self.server.turn(0) or has_moved or self.has_work()

    def has_work(self) -> bool:
        """Whether the server has something to do by itself."""
        assert self.server.rings is not None
        return self.server.rings.has_work

    def close(self) -> None:
        """The process is gone: the kernel closes what it had open."""
        if hasattr(self, "server"):
            self.server._poll.close()
        self._listener.close()
        self.machine.close()

    def _clock_us(self) -> int:
        self._time_us += 1000
        return self._time_us

    def _is_damaged(self) -> None:
        raise AssertionError("recovery calls the region damaged")

    # -- for steps

    def set_domain(self, domid: int, state: DomainState | None) -> None:
        """A domain changes its state, and the VIRQ says so."""
        if state is None:
            self.domains.pop(domid, None)
        else:
            self.domains[domid] = state
        self.machine.raise_event(VIRQ_PORT)

    # -- images

    def image(self, point: int = NEVER) -> Image:
        """What a death right now would leave."""
        if self._outside is None:
            self._outside = Outside(self.step, self.is_begun,
                                    {domid: copy(one) for domid, one in self.guests.items()},
                                    dict(self.domains))
        return Image(bytes(self.memory.region),
                     {domid: bytes(page) for domid, page in self.memory.pages.items()},
                     self._outside, self.is_recovering, point)

    def _has_changed(self) -> None:
        """Something outside of the server has."""
        self._outside = None
        self._seen.clear()
        self.memory.is_elsewhere = True

    def _keep(self, point: int) -> None:
        memory = self.memory
        mark = mmh3_x64_128_digest(memory.region) + b"".join(
            mmh3_x64_128_digest(page) for page in memory.pages.values())
        image = self.image(point) if mark not in self._seen else None
        if image is not None:
            self._seen.add(mark)
            self.kept.append(image)


def life(image: Image, steps: Sequence[Step], quiet: int = 1) -> World:
    """A whole life that goes on to the end of the schedule."""
    world = World(image, steps, quiet=quiet)
    try:
        world.start()
        world.play()
    finally:
        world.close()
    return world


def lives(image: Image, steps: Sequence[Step], quiet: int = 1) -> tuple[int, World]:
    """As life(), but the process is killed behind every turn that does something; how many lives
    that takes."""
    count = 0
    while True:
        world = World(image, steps, quiet=quiet)
        count += 1
        assert count < LIVES_MAX, f"step {world.step} never ends"
        try:
            world.start()
            if world.step == len(steps):
                return count, world
            world.begin_step()
            before = _standing(world)
            for _ in range(IDLE_ROUNDS):  # a turn of a careful server may have been another's
                world.round()
                if _standing(world) != before or world.has_work():
                    break
            else:
                world.end_step()
            image = world.image()
        finally:
            world.close()


def _standing(world: World) -> tuple[object, ...]:
    """What is another if anything was done; suspicions do not count."""
    items = {key: value for key, value in world.store.items.values.items()
             if not key.startswith(("suspect.", "last."))}
    return world.image().pages, items, world.store.tree.changes


def empty_page(connection: int = layout.CONNECTED) -> bytearray:
    """A ring page as the toolstack leaves it."""
    page = bytearray(layout.PAGE_SIZE)
    page[layout.CONNECTION:layout.CONNECTION + 4] = connection.to_bytes(4, "little")
    return page
