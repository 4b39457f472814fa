# SPDX-License-Identifier: Apache-2.0
"""Groups about a domain's own home: contents, transactions, targets, kexec, and what a successor
with the same number may see. As groups.py; what each kind shows is said at its class."""

from __future__ import annotations

from typing import Any

from tests.sim.groups import Group, Member
from tests.sim.guest import (
    DIRECTORY,
    END,
    MKDIR,
    READ,
    RM,
    START,
    WATCH,
    WRITE,
    Ask,
    Guest,
    Program,
    Until,
    must,
    ok,
)
from tests.sim.peer import Violation

Tree = dict[bytes, Any]  # name -> [value, Tree]


class Home(Group):
    """A domain that works in its own home and watches it: every answer, every listing's order and
    every single event are known beforehand; an event stands before the reply of its request. In a
    second program it holds transactions open for long: none may fail, since nobody interferes."""

    sizes = (1, 1)
    ops = (20, 60)

    def act(self, member: Member, guest: Guest) -> Program:
        self.world.counts["homes"] += 1
        yield from self._check_fresh(member)
        guest.run(self.hold_transactions(member))
        yield from self.work(guest, b"%d" % self.world.counts["homes"])
        yield Until(lambda: self.holders == 0, "its transactions")

    holders = 0

    def _check_fresh(self, member: Member) -> Program:
        reply = yield Ask(DIRECTORY, b"/local/domain/%d\0" % member.domid)
        ok(reply, "DIRECTORY of the home")
        if reply.payload:
            raise Violation(f"domain {member.domid}: its new home holds {reply.payload!r}")
        for path in self.world.pasts.get(member.domid, ()):
            reply = yield Ask(READ, path + b"\0")
            must(reply, (b"EACCES",), f"READ of {path!r}, a predecessor's right")

    def work(self, guest: Guest, token: bytes) -> Program:
        """Changes below "data"."""
        heard: list[bytes] = []
        expected = [b"data"]
        guest.watch(token, heard.append)
        reply = yield Ask(WATCH, b"data\0" + token + b"\0")
        ok(reply, "WATCH data")
        tree: Tree = {}
        for number in self.rounds():
            names = [b"data", *(self.rng.choice((b"a", b"b", b"c-"))
                                for _ in range(self.rng.randint(0, 2)))]
            yield from self._change(tree, names, number, expected)
            if heard != expected:
                raise Violation(f"domain {guest.domid}: behind request {number}: heard "
                                f"{heard[-5:]} ({len(heard)}), not {expected[-5:]} "
                                f"({len(expected)})")
            if self.is_over:
                break
            yield self.pause()

    def _change(self, tree: Tree, names: list[bytes], number: int,
                expected: list[bytes]) -> Program:
        path = b"/".join(names)
        above, name = names[:-1], names[-1]
        found = self._find(tree, above)
        kind = self.rng.choice((WRITE, WRITE, MKDIR, RM, READ, DIRECTORY))
        value = b"%d" % number + b"x" * self.rng.choice((0, 0, 9, 1400))
        reply = yield Ask(kind, path + (b"\0" + value if kind == WRITE else b"\0"))
        node = found.get(name) if found is not None else None
        if kind in (WRITE, MKDIR):
            ok(reply, f"{kind} {path!r}")
            if node is None:
                self._make(tree, names)[0] = value if kind == WRITE else b""
            elif kind == WRITE:
                node[0] = value
            if kind == WRITE or node is None:
                expected.append(path)
        elif kind == RM:
            if found is None:
                must(reply, (b"ENOENT",), f"RM {path!r}")
            else:
                ok(reply, f"RM {path!r}")
                if node is not None:
                    del found[name]
                    expected.append(path)
        elif node is None:
            must(reply, (b"ENOENT",), f"{kind} {path!r}")
        else:
            right = node[0] if kind == READ else b"".join(one + b"\0" for one in node[1])
            if reply.error or reply.payload != right:
                raise Violation(f"{kind} {path!r}: {reply.error or reply.payload!r}, not {right!r}")

    def _find(self, tree: Tree, names: list[bytes]) -> Tree | None:
        for name in names:
            if name not in tree:
                return None
            tree = tree[name][1]
        return tree

    def _make(self, tree: Tree, names: list[bytes]) -> list[Any]:
        node: list[Any] = []
        for name in names:
            node = tree.setdefault(name, [b"", {}])
            tree = node[1]
        return node

    def hold_transactions(self, member: Member) -> Program:
        """Open a transaction, work in it slowly, commit or not; look at what is there."""
        self.holders += 1
        kept: dict[bytes, bytes] = {}
        for number in range(self.rng.randint(1, 4)):
            reply = yield Ask(START, b"\0")
            ok(reply, "START")
            tx_id = int(reply.payload[:-1])
            own = dict(kept)
            for step in range(self.rng.randint(1, 6)):
                path = b"tx/%d" % self.rng.randint(0, 3)
                if self.rng.random() < 0.5:
                    value = b"%d.%d" % (number, step) + b"y" * self.rng.choice((0, 0, 1300))
                    reply = yield Ask(WRITE, b"%b\0%b" % (path, value), tx_id)
                    ok(reply, f"WRITE {path!r} in a transaction")
                    own[path] = value
                yield from self._compare(path, own, tx_id)
                yield from self._compare(path, kept, 0)
                if self.is_over:
                    break
                yield self.pause()
            is_kept = self.rng.random() < 0.7
            reply = yield Ask(END, b"T\0" if is_kept else b"F\0", tx_id)
            ok(reply, "END of a transaction that nobody interfered with")
            if is_kept:
                kept = own
            for path in sorted(own):
                yield from self._compare(path, kept, 0)
            reply = yield Ask(READ, b"tx/0\0", tx_id)
            must(reply, (b"ENOENT",), "READ in a transaction that has ended")
            if self.is_over:
                break
        self.holders -= 1

    def _compare(self, path: bytes, right: dict[bytes, bytes], tx_id: int) -> Program:
        reply = yield Ask(READ, path + b"\0", tx_id)
        if path not in right:
            must(reply, (b"ENOENT",), f"READ {path!r} in {tx_id}")
        elif reply.error or reply.payload != right[path]:
            raise Violation(f"READ {path!r} in {tx_id}: {reply.error or reply.payload[:40]!r}, "
                            f"not {right[path][:40]!r}")


class Kexec(Home):
    """A domain that is introduced again while it is alive: a connection that has seen nothing, in
    the middle of requests, transactions and watches of the old one."""

    def __init__(self, world: Any, number: int) -> None:
        super().__init__(world, number)
        self.kills = 0

    def act(self, member: Member, guest: Guest) -> Program:
        self.world.counts["homes"] += 1
        reply = yield Ask(RM, b"data\0")
        ok(reply, "RM data")
        reply = yield Ask(RM, b"tx\0")
        ok(reply, "RM tx")
        self.holders = 0
        guest.run(self.hold_transactions(member))
        yield from self.work(guest, b"k%d" % self.world.counts["homes"])
        yield Until(lambda: self.holders == 0, "its transactions")


class Stub(Group):
    """SET_TARGET: the first may write the second's home from then on, and not any more when the
    second is gone."""

    sizes = (2, 2)

    def __init__(self, world: Any, number: int) -> None:
        super().__init__(world, number)
        self.kills = 0
        self.has_tried = False
        self.is_target_set = False
        self.members[1].is_actor = False

    def act(self, member: Member, guest: Guest) -> Program:
        path = b"/local/domain/%d/by-stub" % self.members[1].domid
        reply = yield Ask(WRITE, path + b"\0x")
        must(reply, (b"EACCES",), "WRITE before SET_TARGET")
        self.has_tried = True
        yield Until(lambda: self.is_target_set, "SET_TARGET")
        for number in range(self.rng.randint(1, 5)):
            reply = yield Ask(WRITE, b"%b\0%d" % (path, number))
            ok(reply, "WRITE for the target")
            yield self.pause()
            reply = yield Ask(READ, path + b"\0")
            if reply.payload != b"%d" % number:
                raise Violation(f"READ {path!r}: {reply}")

    def observe(self, member: Member, guest: Guest) -> Program:
        yield Until(lambda: self.is_closed, "the end of the group")


class Hoarder(Group):
    """A domain with many nodes outside of its home, more than one step of the server removes, that
    dies; its successor with the same number may be introduced before the server has looked. The
    successor must see nothing of it, may not touch what it could, and nothing may happen to it."""

    sizes = (1, 1)
    quotas = ((b"node-size", 0),)

    def __init__(self, world: Any, number: int) -> None:
        super().__init__(world, number)
        self.kills = 0
        self.is_successor = False
        size = world.lives.medium.size
        self.count = 300 if size > 2 << 20 and self.rng.random() < 0.4 else 30

    def nodes(self) -> list[tuple[bytes, bytes]]:
        self.hoard = self.base + b"/h"
        return [(self.hoard, b"")]

    def act(self, member: Member, guest: Guest) -> Program:
        home = b"/local/domain/%d" % member.domid
        reply = yield Ask(DIRECTORY, home + b"\0")
        ok(reply, "DIRECTORY of the home")
        if reply.payload:
            raise Violation(f"domain {member.domid}: its new home holds {reply.payload[:60]!r}")
        if not self.is_successor:
            for number in range(self.count):
                reply = yield Ask(WRITE, b"%b/%d-%b\0x" % (self.hoard, number, b"n" * 480))
                ok(reply, "WRITE of a long name")
            return
        for kind in (READ, WRITE):
            reply = yield Ask(kind, self.hoard + b"\0")
            must(reply, (b"EACCES",), "what only the predecessor may do")
        heard: list[bytes] = []
        guest.watch(b"successor", heard.append)
        ok((yield Ask(WATCH, home + b"\0successor\0")), "WATCH of the new home")
        for name in (b"a", b"b"):
            ok((yield Ask(WRITE, b"%b/%b\0v" % (home, name))), "WRITE in the new home")
        yield 60
        for name in (b"a", b"b"):
            reply = yield Ask(READ, b"%b/%b\0" % (home, name))
            if reply.payload != b"v":
                raise Violation(f"domain {member.domid}: {name!r} of a successor has become "
                                f"{reply.error or reply.payload!r}")
        if heard != [home, home + b"/a", home + b"/b"]:
            raise Violation(f"domain {member.domid}: a successor has heard {heard}")
