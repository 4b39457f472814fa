# SPDX-License-Identifier: Apache-2.0
"""Domain 0 by its own ring: makes domains, leads groups through their lives, and counts.

D1. @releaseDomain is due once for a shutdown that was seen and once for the end of an introduced
    domain, @introduceDomain once for each that is introduced anew. `Count` knows how often.
D2. Behind the event a dead domain's home is gone, and no permission list names it any more.
Each group is one program of domain 0's guest. Change with: groups.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.groups import Group, Member
from tests.sim.guest import (
    GET_PERMS,
    INTRODUCE,
    READ,
    RELEASE,
    RM,
    SET_PERMS,
    SET_QUOTA,
    SET_TARGET,
    WATCH,
    WRITE,
    Ask,
    Program,
    Until,
    must,
    ok,
)
from tests.sim.hostile import FLOOD, KINDS, Hostile
from tests.sim.peer import Violation
from tests.sim.solos import Hoarder, Kexec, Stub

if TYPE_CHECKING:
    from tests.sim.world import World


class Count:
    """How many events of one kind came per domid, and how many are due, at least and at most."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.seen: dict[int, int] = {}
        self.least: dict[int, int] = {}
        self.most: dict[int, int] = {}

    def hear(self, path: bytes) -> None:
        """Handler of the events."""
        if path == self.name and not self.seen:
            self.seen[-1] = 1  # the watch's own first
            return
        name, _, digits = path.partition(b"/")
        if name != self.name or not digits.isdigit():
            raise Violation(f"domain 0: an event {path!r} for {self.name!r}")
        domid = int(digits)
        self.seen[domid] = self.seen.get(domid, 0) + 1
        if self.seen[domid] > self.most.get(domid, 0):
            raise Violation(f"{path!r}: {self.seen[domid]} events, {self.most.get(domid, 0)} due")

    def expect(self, domid: int, least: int, most: int) -> None:
        """So many more are due."""
        self.least[domid] = self.least.get(domid, 0) + least
        self.most[domid] = self.most.get(domid, 0) + most

    def has_all(self, domid: int) -> bool:
        """Whether all have come."""
        return self.seen.get(domid, 0) >= self.least.get(domid, 0)

    def settle(self, domid: int) -> None:
        """Those that could have come and did not will not any more."""
        self.least[domid] = self.most[domid] = self.seen.get(domid, 0)


def set_up(world: World) -> Program:
    """What is there before any domain."""
    guest = world.dom0
    for count in (world.released, world.introduced):
        guest.watch(count.name, count.hear)
        reply = yield Ask(WATCH, b"%b\0%b\x001\0" % (count.name, count.name))
        ok(reply, "WATCH of a special node")
    for path, perms in ((b"/local/domain", b"n0\0"), (b"/sim", b"n0\0"), (FLOOD, b"b0\0")):
        reply = yield Ask(WRITE, path + b"\0")
        ok(reply, f"WRITE {path!r}")
        reply = yield Ask(SET_PERMS, path + b"\0" + perms)
        ok(reply, f"SET_PERMS {path!r}")
    world.is_set_up = True


def make(world: World, member: Member) -> Program:
    """A new domain with a home, introduced."""
    if member.domid == 0:
        while not world.free_domids:
            yield 5
        member.domid = world.free_domids.pop(0 if world.rng.random() < 0.5 else -1)
    domid = member.domid
    member.domain = world.machine.create(domid)
    home = b"/local/domain/%d" % domid
    yield from insist(Ask(WRITE, home + b"\0"))
    yield from insist(Ask(SET_PERMS, home + b"\0n%d\0" % domid))
    yield from introduce(world, member)


def insist(ask: Ask) -> Program:
    """A request that is tried again where the machine could not be looked at (ENOMEM)."""
    while (reply := (yield ask)).error:
        must(reply, (b"ENOMEM",), ask)


def limit(member: Member, quotas: tuple[tuple[bytes, int], ...]) -> Program:
    """Quotas of a domain's own."""
    for name, value in quotas:
        ok((yield Ask(SET_QUOTA, b"%d\0%b\0%d\0" % (member.domid, name, value))), "SET_QUOTA")


def introduce(world: World, member: Member) -> Program:
    """INTRODUCE, again if what is left of a predecessor is still being removed."""
    assert member.domain is not None
    world.introduced.expect(member.domid, 1, 1)
    if world.rng.random() < 0.1:
        reply = yield Ask(INTRODUCE, b"%d\0%d\x00999\0" % (member.domid, member.domain.gfn))
        must(reply, (b"EINVAL", b"ENOMEM", b"EBUSY"), "INTRODUCE of a port that is not there")
    while True:
        reply = yield Ask(INTRODUCE, b"%d\0%d\0%d\0" % (
            member.domid, member.domain.gfn, member.domain.remote_port))
        if not reply.error:
            break
        must(reply, (b"EBUSY", b"ENOMEM"), f"INTRODUCE {member.domid}")
        yield 2
    member.is_alive = True


def lead(world: World, group: Group) -> Program:
    """A group from its birth to its end."""
    for member in group.members:
        yield from make(world, member)
        yield from limit(member, group.quotas)
    nodes = group.nodes()
    perms = b"n0\0" + b"".join(b"b%d\0" % one.domid for one in group.members)
    for path, value in nodes:
        ok((yield Ask(WRITE, path + b"\0" + value)), f"WRITE {path!r}")
        ok((yield Ask(SET_PERMS, path + b"\0" + perms)), f"SET_PERMS {path!r}")
    for member in group.members:
        world.boot(group, member)
    victims = world.rng.sample(group.members, group.kills)
    for victim in victims:
        yield world.rng.randint(0, 150)
        if victim.is_alive:
            yield from kill(world, victim, nodes)
            world.pasts[victim.domid] = [path for path, _ in nodes][:2]
            world.free_domids.append(victim.domid)
            victim.is_freed = True
    yield from special_events(world, group)
    yield Until(lambda: not any(one.is_working for one in group.members), "a group's actors")
    for path, _ in nodes:
        reply = yield Ask(READ, path + b"\0")
        ok(reply, f"READ {path!r}")
        group.finals[path] = reply.payload
    group.is_closed = True
    yield Until(lambda: all(one.has_acted or not one.is_alive for one in group.members),
                "a group's observers")
    group.check()
    for member in group.members:
        if member.is_alive:
            yield from kill(world, member, nodes)
    if nodes:
        ok((yield Ask(RM, group.base + b"\0")), f"RM {group.base!r}")
    for member in group.members:
        if not member.is_freed:
            world.pasts[member.domid] = [path for path, _ in nodes][:2]
            world.free_domids.append(member.domid)
    world.groups.remove(group)


def special_events(world: World, group: Group) -> Program:
    """What the kinds of solos.py need of domain 0."""
    first = group.members[0]
    if isinstance(group, Stub):
        yield Until(lambda: group.has_tried, "a stub's first request")
        second = group.members[1]
        ok((yield Ask(SET_TARGET, b"%d\0%d\0" % (first.domid, second.domid))), "SET_TARGET")
        group.is_target_set = True
    elif isinstance(group, Kexec):
        for _ in range(world.rng.randint(1, 3)):
            yield world.rng.randint(5, 200)
            world.halt(first)
            assert first.domain is not None
            first.has_acted = False
            yield from insist(Ask(INTRODUCE, b"%d\0%d\0%d\0" % (
                first.domid, first.domain.gfn, first.domain.remote_port)))
            world.boot(group, first)
    elif isinstance(group, Hoarder):
        yield Until(lambda: first.has_acted or world.is_ending, "the hoarder")
        world.halt(first)
        world.machine.destroy(first.domid)
        world.released.expect(first.domid, 1, 1)
        first.has_acted = False
        group.is_successor = True
        yield from succeed(world, first)
        world.boot(group, first)


def succeed(world: World, member: Member) -> Program:
    """A successor with the same number at once: the server may not have looked yet."""
    domid = member.domid
    member.domain = world.machine.create(domid)
    if world.rng.random() < 0.7:
        yield from introduce(world, member)
    else:
        member.is_alive = False
        yield Until(lambda: world.released.has_all(domid), f"@releaseDomain/{domid}")
        yield from introduce(world, member)
    home = b"/local/domain/%d" % domid
    reply = yield Ask(READ, home + b"\0")
    must(reply, (b"ENOENT",), "READ of a predecessor's home")
    yield from insist(Ask(WRITE, home + b"\0"))
    yield from insist(Ask(SET_PERMS, home + b"\0n%d\0" % domid))


def kill(world: World, member: Member, nodes: list[tuple[bytes, bytes]]) -> Program:
    """The end of a domain, in one of several ways, and what must be gone then."""
    domid, machine, released = member.domid, world.machine, world.released
    how = world.rng.choice(("destroy", "destroy", "shut down", "abrupt", "release"))
    if how == "release":
        released.expect(domid, 1, 1)
        world.halt(member)
        ok((yield Ask(RELEASE, b"%d\0" % domid)), f"RELEASE {domid}")
    elif how == "shut down":
        released.expect(domid, 1, 1)
        machine.shut_down(domid)
        world.halt(member)
        yield Until(lambda: released.has_all(domid), f"@releaseDomain/{domid} for a shutdown")
        yield world.rng.choice((0, 60))  # looked at again meanwhile
        released.expect(domid, 1, 1)
        machine.destroy(domid)
    else:
        if how == "abrupt":
            machine.shut_down(domid)
        released.expect(domid, 1, 2 if how == "abrupt" else 1)
        machine.destroy(domid)
        world.halt(member)
    yield Until(lambda: released.has_all(domid), f"@releaseDomain/{domid}")
    reply = yield Ask(READ, b"/local/domain/%d\0" % domid)
    must(reply, (b"ENOENT",), f"READ of the home of {domid}, which is gone ({how})")
    for path, _ in nodes:
        reply = yield Ask(GET_PERMS, path + b"\0")
        ok(reply, f"GET_PERMS {path!r}")
        if any(one[1:] == b"%d" % domid for one in reply.payload.split(b"\0")):
            raise Violation(f"{path!r}: {reply.payload!r} names {domid}, which is gone ({how})")
    if not released.has_all(domid) or how == "release":
        yield 1
    if how == "release":
        machine.destroy(domid)
    if how == "abrupt":
        yield 30  # a second event would be here by then
        yield Until(lambda: released.has_all(domid), "events")
        ok((yield Ask(READ, b"/\0")), "READ behind all events")
        released.settle(domid)


def lead_hostile(world: World, number: int) -> Program:
    """A hostile domain: little quota, a life of its own, an end."""
    member = Member(number, True)
    yield from make(world, member)
    yield from limit(member, ((b"memory", 30_000), (b"nodes", 60), (b"watches", 40)))
    assert member.domain is not None
    one = Hostile(world.machine, member.domain, world.rng.choice(KINDS), world.rng)
    world.hostiles[member.domid] = one
    since = world.time.served
    life = world.rng.choice((100, 500, 2000))
    yield Until(lambda: world.time.served - since > life or world.is_ending, "the hostile")
    if one.owes_error is not None:
        world.hostiles.pop(member.domid)
        world.machine.kick(member.domain)
        yield Until(lambda: one.error == one.owes_error,
                    f"error {one.owes_error} in the word of a {one.kind}")
    else:
        world.hostiles.pop(member.domid)
    yield from kill(world, member, [])
    world.free_domids.append(member.domid)
    world.hostile_count -= 1
