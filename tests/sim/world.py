# SPDX-License-Identifier: Apache-2.0
"""The world: one seed decides everything that happens in it.

Per tick: some guests act, hostile ones too; then the server takes one turn, unless it is dead. It
may die at any of its stores and between any two of its steps, also while it recovers; and guests
act between its stores. While it is dead the others go on. Time passes with ticks only.
At the end no more crashes: then everything must be answered and over in a bounded number of turns,
and nothing may be left of any domain.
Cannot show: two processors' store order, real event channels, real pages being taken away."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import app.execute
import app.serve
from app.client import Client
from tests.sim import groups, solos, toolstack
from tests.sim.groups import Group, Member
from tests.sim.guest import STYLES, Guest, Style, Time
from tests.sim.hostile import Hostile
from tests.sim.machine import Clock, DyingMedium, Fuse, Machine
from tests.sim.peer import Violation
from tests.sim.server import Lives

KINDS: tuple[type[Group], ...] = (
    groups.Counters, groups.Bank, groups.Registers, groups.Log, groups.Publisher,
    solos.Home, solos.Home, solos.Home, solos.Kexec, solos.Stub, solos.Hoarder)
POINTS = ("", "", "", "region", "word", "bytes", "notify", "notified", "bind", "unbind",
          "wait", "peek", "execute", "append", "publish", "tidy")
DRAIN_TURNS_MAX = 12_000
CHECK_EVERY, CHECK_DEEPLY_EVERY = 16, 400


class Options:
    """How large the world is. `crash_share`: of the ticks in which the server is doomed."""

    def __init__(self, guests: int = 40, steps: int = 1500, crashes: int = 30,
                 hostile_share: float = 0.25, sparing_share: float = 0.0,
                 kinds: tuple[type[Group], ...] = KINDS) -> None:
        self.guests = guests
        self.steps = steps
        self.crashes = crashes
        self.hostile_share = hostile_share
        self.sparing_share = sparing_share
        self.kinds = kinds


class World:
    """Everything. Within frozen_time()."""

    def __init__(self, seed: int, options: Options, clock: Clock) -> None:
        self.seed = seed
        self.options = options
        self.rng = random.Random(seed)
        self.clock = clock
        self.time = Time()
        self.fuse = Fuse(self.rng)
        self.machine = Machine(self.rng, self.fuse)
        self.lives = Lives(self.machine, DyingMedium(self.rng.choice((2, 4, 8)) << 20, self.fuse))
        self.released = toolstack.Count(b"@releaseDomain")
        self.introduced = toolstack.Count(b"@introduceDomain")
        self.free_domids = list(range(1, options.guests + 6))
        self.pasts: dict[int, list[bytes]] = {}
        self.groups: list[Group] = []
        self.guests: dict[int, Guest] = {}
        self.hostiles: dict[int, Hostile] = {}
        self.hostile_count = 0
        self.is_set_up = False
        self.is_ending = False
        self.crashes: dict[str, int] = {}
        self.counts = {"groups": 0, "hostile": 0, "answers": 0, "guests": 0, "homes": 0}
        self.dom0 = Guest(self.machine, self.machine.domains[0], Style(pace=1.0), self.time,
                          self.rng)
        self.dom0.run(toolstack.set_up(self))
        self._down_until = 0
        self._burst = 0
        self._doomed_at = 0
        self.lives.start()

    # -- for the toolstack

    def boot(self, group: Group, member: Member) -> None:
        """A member's guest starts, and does what its group wants."""
        assert member.domain is not None
        style = self.rng.choice(STYLES)
        if self.rng.random() < self.options.sparing_share:
            style = style._replace(is_sparing=True)
        member.guest = Guest(self.machine, member.domain, style, self.time, self.rng)
        member.is_alive = True
        member.has_acted = False
        self.guests[member.domid] = member.guest
        self.counts["guests"] += 1
        group.start(member)

    def halt(self, member: Member) -> None:
        """A member's guest acts no more."""
        member.is_alive = False
        guest = self.guests.pop(member.domid, None)
        if guest is not None:
            self.counts["answers"] += guest.answered

    # -- one tick

    def tick(self) -> None:
        """Let some time pass."""
        self.time.tick += 1
        self.clock.now_s += self.rng.choice((0.0002, 0.001, 0.004, 0.01))
        if self.is_set_up and not self.is_ending:
            self._populate()
        self._act_all()
        if self.lives.server is not None:
            self._maybe_doom()
            if self.lives.turn(self.clock.now_s):
                self.time.served += 1
                if self.time.tick % CHECK_EVERY == 0:
                    self._check()
            else:
                self._died()
        elif self.time.tick >= self._down_until:
            self._restart()

    def _populate(self) -> None:
        """Keep the world full."""
        if len(self.free_domids) < 6 or self.rng.random() < 0.5:
            return
        if self.hostile_count < self.options.guests * self.options.hostile_share:
            self.hostile_count += 1
            self.counts["hostile"] += 1
            self.dom0.run(toolstack.lead_hostile(self, self.counts["hostile"]))
        elif len(self.groups) * 3 < self.options.guests * (1 - self.options.hostile_share):
            self.counts["groups"] += 1
            group = self.rng.choice(self.options.kinds)(self, self.counts["groups"])
            self.groups.append(group)
            self.dom0.run(toolstack.lead(self, group))

    def _act_all(self) -> None:
        draw = self.rng.random
        self.dom0.act()
        for guest in list(self.guests.values()):
            if draw() < guest.style.pace:
                self._act(guest)
        for hostile in list(self.hostiles.values()):
            if draw() < 0.2:
                hostile.act()

    def _act(self, guest: Guest) -> None:
        guest.act()
        if guest.peer.error:
            raise Violation(f"domain {guest.domid}, which is honest, is ignored with error "
                            f"{guest.peer.error}")

    def _act_between(self) -> None:
        """Somebody acts between two stores of the server."""
        if self.rng.random() < 0.03:
            others: list[Any] = [self.dom0, *self.guests.values(), *self.hostiles.values()]
            self.rng.choice(others).act()

    # -- the server's deaths

    def _maybe_doom(self) -> None:
        self.fuse.between = self._act_between
        if self.is_ending:
            return
        if self.fuse.left is not None:
            if self.time.tick > self._doomed_at + 60:
                self.fuse.disarm()  # what it waits for does not come
            return
        if self.rng.random() < self.options.crashes / self.options.steps:
            only = self.rng.choice(POINTS)
            self.fuse.arm(self.rng.randrange(60 if not only else 8), only)
            self._doomed_at = self.time.tick
            self._burst = self.rng.choice((0, 0, 1, 2))

    def _died(self) -> None:
        self.crashes[self.fuse.where] = self.crashes.get(self.fuse.where, 0) + 1
        self._down_until = self.time.tick + self.rng.choice((0, 1, 1, 5, 30))

    def _restart(self) -> None:
        if self._burst > 0 and not self.is_ending:
            self._burst -= 1
            only = self.rng.choice(("", "", "region", "word", "bytes", "notify", "bind"))
            self.fuse.arm(self.rng.randrange(8 if only else 40), only)
        if not self.lives.start():
            self.fuse.where += " while recovering"
            self._died()

    def _check(self) -> None:
        if self.time.tick % CHECK_DEEPLY_EVERY == 0:
            self.lives.check_deeply()
        else:
            self.lives.check()

    # -- from the beginning to the end

    def run(self) -> Iterator[None]:
        """All ticks; yields after each."""
        for _ in range(self.options.steps):
            self.tick()
            yield
        self.is_ending = True
        self.fuse.disarm()
        began = self.time.served
        while self.groups or self.hostile_count or not self.dom0.is_idle:
            self.tick()
            if self.time.served - began > DRAIN_TURNS_MAX:
                raise Violation("not over yet: " + self.stuck())
            yield
        for _ in range(200):
            self.tick()
            yield
        self._check_end()

    def stuck(self) -> str:
        """Who waits for what."""
        careful = (self.lives.server is not None
                   and self.lives.server.intents.quarantine.is_careful)
        return "; ".join([
            f"{len(self.groups)} groups, {self.hostile_count} hostile; the server is "
            f"{'careful' if careful else 'not careful'}",
            self.dom0.stuck()[:1500],
            *[one.stuck() for one in self.guests.values()][:8]])

    def _check_end(self) -> None:
        for count in (self.released, self.introduced):
            for domid, most in count.most.items():
                if count.seen.get(domid, 0) != most:
                    raise Violation(f"{count.name!r}/{domid}: {count.seen.get(domid, 0)} events, "
                                    f"{most} due")
        self.lives.check_empty()
        self.lives.kill()
        if not self.lives.start():
            raise Violation("the last start died")
        for _ in range(200):
            self.tick()  # so that what was under way is suspected of nothing any more
        self.lives.check_empty()

    def close(self) -> None:
        """Let go of descriptors."""
        self.lives.kill()
        self.machine.shut()


@contextmanager
def frozen_time() -> Iterator[Clock]:
    """Within, the server's clock is the world's, and sets of clients have the same order in every
    play of a seed."""
    clock, modules = Clock(), [vars(app.serve), vars(app.execute)]
    kept = time
    for module in modules:
        assert module["time"] is kept
        module["time"] = clock
    Client.__hash__ = _number  # type: ignore[method-assign,assignment]
    try:
        yield clock
    finally:
        for module in modules:
            module["time"] = kept
        Client.__hash__ = object.__hash__  # type: ignore[method-assign]


def _number(client: Client) -> int:
    return client.conn_id
