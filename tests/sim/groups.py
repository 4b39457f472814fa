# SPDX-License-Identifier: Apache-2.0
"""Honest domains in groups: each group is born, works on nodes of its own, and is judged.

A group's nodes belong to domain 0 and may be used by its members only. Actors work until they are
done or die; then the toolstack reads the nodes (`finals`), and observers, after one more request,
which is behind all events, must have seen everything.
What each kind shows is said at its class. Change with: toolstack.py, which leads groups."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from tests.sim.guest import (
    END,
    READ,
    RM,
    START,
    WATCH,
    WRITE,
    Ask,
    Guest,
    Program,
    Reply,
    Until,
    must,
    ok,
)
from tests.sim.linear import Operation, register_problem
from tests.sim.machine import Domain
from tests.sim.peer import Violation

if TYPE_CHECKING:
    from tests.sim.world import World


class Member:
    """One domain of a group. `has_acted`: its part is done."""

    def __init__(self, number: int, is_actor: bool) -> None:
        self.number = number
        self.is_actor = is_actor
        self.domid = 0
        self.domain: Domain | None = None
        self.guest: Guest | None = None
        self.is_alive = False
        self.has_acted = False
        self.is_freed = False  # its number may be another domain's by now

    @property
    def is_working(self) -> bool:
        """Whether the group still waits for it."""
        return self.is_alive and self.is_actor and not self.has_acted


class Group:
    """A group. `kills`: how many members may die before the end."""

    is_one_actor = False  # the others are observers
    sizes = (2, 5)
    ops = (5, 25)
    quotas: tuple[tuple[bytes, int], ...] = ()  # of each member

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.rng: random.Random = world.rng
        self.base = b"/sim/%d" % number
        size = self.rng.randint(*self.sizes)
        self.members = [Member(one, one == 0 or not self.is_one_actor) for one in range(size)]
        self.finals: dict[bytes, bytes] = {}
        self.is_closed = False
        self.kills = self.rng.choice((0, 0, 1, size))

    def nodes(self) -> list[tuple[bytes, bytes]]:
        """Path and first value of the nodes that domain 0 makes."""
        return []

    def start(self, member: Member) -> None:
        """The member's domain has booted: give its guest something to do."""
        guest = member.guest
        assert guest is not None
        guest.run(self._play(member, guest))

    def _play(self, member: Member, guest: Guest) -> Program:
        yield from (self.act if member.is_actor else self.observe)(member, guest)
        member.has_acted = True

    def act(self, member: Member, guest: Guest) -> Program:
        """What an actor does."""
        raise NotImplementedError

    def observe(self, member: Member, guest: Guest) -> Program:
        """What an observer does."""
        raise NotImplementedError

    def check(self) -> None:
        """All is over: judge. Raises Violation."""

    def rounds(self) -> range:
        """How often an actor does what it does."""
        return range(self.rng.randint(*self.ops))

    def pause(self) -> int:
        """Ticks between two rounds; seldom a long silence."""
        return self.rng.choice((0, 0, 1, 3, 10, 10, self.rng.choice((10, 400))))

    @property
    def is_over(self) -> bool:
        """Whether actors should come to an end."""
        return self.world.is_ending


class Counters(Group):
    """P2, P3: n is read and n + 1 written in a transaction that is tried again on EAGAIN. No two
    successes may have written the same number, and none may be missing in the end."""

    def nodes(self) -> list[tuple[bytes, bytes]]:
        self.keys = [b"%b/c%d" % (self.base, one) for one in range(self.rng.randint(1, 2))]
        self.done: dict[bytes, set[int]] = {key: set() for key in self.keys}
        self.open: dict[bytes, set[int]] = {key: set() for key in self.keys}
        return [(key, b"0") for key in self.keys]

    def act(self, member: Member, guest: Guest) -> Program:
        for _ in self.rounds():
            if self.is_over:
                break
            keys = self.rng.sample(self.keys, self.rng.randint(1, len(self.keys)))
            while not (yield from self._increment(keys)):
                yield self.rng.randint(0, 5)
            yield self.pause()

    def _increment(self, keys: list[bytes]) -> Generator[Any, Reply, bool]:
        reply = yield Ask(START, b"\0")
        ok(reply, "START")
        tx_id = int(reply.payload[:-1])
        written: dict[bytes, int] = {}
        for key in keys:
            reply = yield Ask(READ, key + b"\0", tx_id)
            ok(reply, f"READ {key!r}")
            written[key] = int(reply.payload) + 1
            reply = yield Ask(WRITE, b"%b\0%d" % (key, written[key]), tx_id)
            ok(reply, f"WRITE {key!r}")
        for key, number in written.items():
            self.open[key].add(number)
        reply = yield Ask(END, b"T\0", tx_id)
        if reply.error:
            must(reply, (b"EAGAIN",), "END of a transaction")
            return False
        for key, number in written.items():
            if number in self.done[key]:
                raise Violation(f"{key!r}: two transactions have counted to {number}")
            self.done[key].add(number)
        return True

    def check(self) -> None:
        for key in self.keys:
            final, done = int(self.finals[key]), self.done[key]
            missing = set(range(1, final + 1)) - done
            if max(done, default=0) > final or not missing <= self.open[key]:
                raise Violation(f"{key!r} is {final}; committed: {sorted(done)}, perhaps also "
                                f"{sorted(self.open[key] - done)}")


class Bank(Group):
    """P3: money is moved between accounts; whoever reads all in a transaction that commits sees
    the same sum."""

    ACCOUNTS, EACH = 4, 100

    def nodes(self) -> list[tuple[bytes, bytes]]:
        self.keys = [b"%b/a%d" % (self.base, one) for one in range(self.ACCOUNTS)]
        return [(key, b"%d" % self.EACH) for key in self.keys]

    def act(self, member: Member, guest: Guest) -> Program:
        for _ in self.rounds():
            if self.is_over:
                break
            reply = yield Ask(START, b"\0")
            ok(reply, "START")
            tx_id = int(reply.payload[:-1])
            is_audit = self.rng.random() < 0.3
            keys = self.keys if is_audit else self.rng.sample(self.keys, 2)
            read = []
            for key in keys:
                reply = yield Ask(READ, key + b"\0", tx_id)
                ok(reply, f"READ {key!r}")
                read.append(int(reply.payload))
            if not is_audit:
                amount = self.rng.randint(1, 20)
                for key, value in zip(keys, (read[0] - amount, read[1] + amount), strict=True):
                    reply = yield Ask(WRITE, b"%b\0%d" % (key, value), tx_id)
                    ok(reply, f"WRITE {key!r}")
            is_kept = self.rng.random() < 0.9
            reply = yield Ask(END, b"T\0" if is_kept else b"F\0", tx_id)
            if reply.error:
                must(reply, (b"EAGAIN",), "END of a transfer")
            elif is_audit and is_kept and sum(read) != self.ACCOUNTS * self.EACH:
                raise Violation(f"{self.base!r}: an audit that committed has seen {read}")
            yield self.pause()

    def check(self) -> None:
        if sum(map(int, self.finals.values())) != self.ACCOUNTS * self.EACH:
            raise Violation(f"{self.base!r}: in the end there is {self.finals}")


class Registers(Group):
    """Linearizability per key: reads and writes of unique values, some of them as transactions."""

    ops = (10, 40)

    def nodes(self) -> list[tuple[bytes, bytes]]:
        self.keys = [b"%b/r%d" % (self.base, one) for one in range(self.rng.randint(1, 2))]
        self.histories: dict[bytes, list[Operation]] = {key: [] for key in self.keys}
        return [(key, b"first") for key in self.keys]

    def act(self, member: Member, guest: Guest) -> Program:
        for number in self.rounds():
            if self.is_over:
                break
            key = self.rng.choice(self.keys)
            draw = self.rng.random()
            one = Operation(draw >= 0.5, b"%d.%d" % (member.number, number) + b"." * (
                self.rng.choice((0, 0, 0, 1500))), guest.now())
            if draw < 0.5:
                reply = yield Ask(READ, key + b"\0")
                ok(reply, f"READ {key!r}")
                one.value = reply.payload
            else:
                self.histories[key].append(one)
                tx_id = 0
                if draw > 0.85:
                    reply = yield Ask(START, b"\0")
                    ok(reply, "START")
                    tx_id = int(reply.payload[:-1])
                reply = yield Ask(WRITE, b"%b\0%b" % (key, one.value), tx_id)
                ok(reply, f"WRITE {key!r}")
                if tx_id:
                    reply = yield Ask(END, b"T\0", tx_id)
                    ok(reply, "END of a blind write")
            one.began, one.ended = reply.began, reply.ended
            if draw < 0.5:
                self.histories[key].append(one)
            yield self.pause()

    def check(self) -> None:
        now = self.world.time.next_moment()
        for key, history in self.histories.items():
            last = Operation(False, self.finals[key], now)
            last.ended = now
            problem = register_problem(b"first", [*history, last])
            if problem is not None:
                raise Violation(f"{key!r} is not linearizable: {problem}")


class Log(Group):
    """P2: one writer makes nodes with ever new names, and removes old ones; every watcher must
    hear of each change once, in order. If the writer dies, of what was left of its nodes too."""

    is_one_actor = True
    sizes = (3, 4)
    ops = (10, 60)
    KEPT = 6

    def nodes(self) -> list[tuple[bytes, bytes]]:
        self.changed: list[bytes] = []  # in the order of the writer's requests
        self.answered = 0
        self.heard: dict[int, list[bytes]] = {}
        self.ready: set[int] = set()
        return [(self.base + b"/log", b"")]

    def act(self, member: Member, guest: Guest) -> Program:
        yield Until(lambda: all(one.number in self.ready or not one.is_alive
                                for one in self.members[1:]), "the watchers of its log")
        names = [b"%b/log/%d" % (self.base, one) for one in self.rounds()]
        for number, name in enumerate(names):
            if number >= self.KEPT and self.rng.random() < 0.8:
                removed = names[number - self.KEPT]
                if self.changed.count(removed) == 1:
                    yield from self._change(RM, removed + b"\0", removed)
            yield from self._change(WRITE, b"%b\0%d" % (name, number), name)
            if self.is_over:
                break
            yield self.pause()

    def _change(self, kind: int, payload: bytes, path: bytes) -> Program:
        self.changed.append(path)
        reply = yield Ask(kind, payload)
        ok(reply, f"{kind} {path!r}")
        self.answered = len(self.changed)

    def observe(self, member: Member, guest: Guest) -> Program:
        heard = self.heard[member.number] = []
        token = b"log.%d" % member.number
        guest.watch(token, heard.append)
        reply = yield Ask(WATCH, b"%b/log\0%b\0" % (self.base, token))
        ok(reply, "WATCH of the log")
        yield Until(lambda: bool(heard) or self.is_closed, "the first event of its watch")
        self.ready.add(member.number)
        yield Until(lambda: self.is_closed, "the end of the log")
        reply = yield Ask(READ, self.base + b"/log\0")
        ok(reply, "READ behind all events")
        self._compare(member, heard[:])

    def _compare(self, member: Member, heard: list[bytes]) -> None:
        where = f"{self.base!r}, watcher in domain {member.domid}"
        if heard[:1] != [self.base + b"/log"]:
            raise Violation(f"{where}: the first event was {heard[:1]}")
        body = heard[1:]
        if self.members[0].is_alive:
            if body != self.changed:
                raise Violation(f"{where}: heard {difference(body, self.changed)}")
            return
        # The last request of the dead writer may or may not have been executed.
        for done in {self.answered, len(self.changed)}:
            left = {path for path in self.changed[:done]
                    if self.changed[:done].count(path) == 1}
            tail = body[done:]
            if body[:done] == self.changed[:done] and set(tail) == left and (
                    len(tail) == len(left)):
                return
        raise Violation(f"{where}: the writer died after {self.answered} of {len(self.changed)}; "
                        f"heard {difference(body, self.changed)}")

    def check(self) -> None:
        lengths = {len(heard) for number, heard in self.heard.items()
                   if self.members[number].is_alive and self.members[number].has_acted}
        if len(lengths) > 1:
            raise Violation(f"{self.base!r}: watchers have heard different numbers: {lengths}")


class Publisher(Group):
    """One writer of growing numbers; whoever reads at every event never sees a smaller one than
    before, and has the last one in the end."""

    is_one_actor = True
    sizes = (3, 5)

    def nodes(self) -> list[tuple[bytes, bytes]]:
        self.key = self.base + b"/p"
        return [(self.key, b"0")]

    def act(self, member: Member, guest: Guest) -> Program:
        for number in self.rounds():
            value = b"%d" % (number + 1)
            if self.rng.random() < 0.2:
                value = value.rjust(1200, b"0")
            reply = yield Ask(WRITE, b"%b\0%b" % (self.key, value))
            ok(reply, f"WRITE {self.key!r}")
            if self.is_over:
                break
            yield self.pause()

    def observe(self, member: Member, guest: Guest) -> Program:
        events: list[bytes] = []
        guest.watch(b"pub", events.append)
        reply = yield Ask(WATCH, self.key + b"\0pub\0")
        ok(reply, "WATCH of the number")
        last = -1
        is_last = False
        while not is_last:
            yield Until(lambda: bool(events) or self.is_closed, "events of its number")
            is_last = self.is_closed and not events
            events.clear()
            reply = yield Ask(READ, self.key + b"\0")
            ok(reply, f"READ {self.key!r}")
            if int(reply.payload) < last:
                raise Violation(f"{self.key!r}: read {int(reply.payload)} after {last}")
            if is_last and not events and last not in (-1, int(reply.payload)):
                raise Violation(f"{self.key!r}: domain {member.domid} has not heard of "
                                f"{int(reply.payload)}, only of {last}")
            is_last = is_last and not events
            last = int(reply.payload)
        if last != int(self.finals[self.key]):
            raise Violation(f"{self.key!r}: {last} in the end, not {self.finals[self.key]!r}")


def difference(heard: list[bytes], expected: list[bytes]) -> str:
    """Where two lists of events part."""
    for index, (one, other) in enumerate(zip(heard, expected, strict=False)):
        if one != other:
            return f"{heard[index:index + 4]} as number {index}, not {expected[index:index + 4]}"
    return f"{len(heard)} events, not {len(expected)}"
