# SPDX-License-Identifier: Apache-2.0
"""One client of tests/crash/kill9_rings.py: a key space of its own, and a script of requests whose
answers and events follow from it.

K1. Nobody else changes anything below HOME/k: so what the model says is what must come.
K2. A request is applied to the model when it is sent: a connection's requests are executed in
    order. So many may be under way at once.
Source of the semantics: the protocol reference, as in tests/model.py, of which this is a small
part that stays small however long it runs. Knows nothing of the server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from typing import NamedTuple

from tests.crash.kill9_channel import OK, Expecting, Wrong
from tests.oracle.xsclient import MessageType as M
from tests.oracle.xsclient import strings

OUTSTANDING_MAX = 24
VALUES = (0, 1, 20, 300, 1200, 1900)
INBOXES = ("a", "b")
INBOX_PLACES = 7  # consecutive writes go to different places, so a lost or double event shows
BIG_NAMES = [f"{'n' * 96}{number:02}" for number in range(40)]  # 3,960 bytes of a listing

Tree = dict[str, tuple[bytes, tuple[str, ...]]]  # path below the home -> value, permissions


class OwnWatch(NamedTuple):
    """A watch of the client's own on its own keys; `base` is what its events show in front."""

    path: str
    token: str
    base: str


def parent(path: str) -> str:
    """'k/1' of 'k/1/2'."""
    return path.rpartition("/")[0]


def walk_up(tree: Tree, path: str) -> Iterator[str]:
    """The path and all below it, children first, in order of creation."""
    for one in [one for one in tree if parent(one) == path]:
        yield from walk_up(tree, one)
    yield path


class KeySpace:
    """The nodes below "k", relative to the home of `domid`, and the watches on them."""

    def __init__(self, domid: int) -> None:
        self.home = f"/local/domain/{domid}"
        self.tree: Tree = {"k": (b"", (f"n{domid}",))}
        self.watches: list[OwnWatch] = []

    def put(self, tree: Tree, path: str, value: bytes) -> None:
        """WRITE: what is missing above takes over the permissions."""
        if path in tree:
            tree[path] = (value, tree[path][1])
            return
        above = parent(path)
        if above not in tree:
            self.put(tree, above, b"")
        tree[path] = (value, tree[above][1])

    def fire(self, path: str, exact: bool = False) -> list[bytes]:
        """The events of a change of `path`; exact: only watches on the node itself hear."""
        return [Expecting.event(one.base + path, one.token) for one in self.watches
                if one.path == path or (not exact and path.startswith(one.path + "/"))]

    def remove(self, tree: Tree, path: str) -> list[bytes]:
        """RM: children first, each heard by its own watches alone, but the last by all."""
        events = []
        for one in list(walk_up(tree, path)):
            del tree[one]
            events += self.fire(one, exact=one != path)
        return events

    def names(self, tree: Tree, path: str) -> bytes:
        """DIRECTORY."""
        return b"".join(one.rpartition("/")[2].encode() + b"\0" for one in tree
                        if parent(one) == path)


class Scripted(Expecting):
    """A client that works on its key space, and counts the transaction ids that it is given."""

    def begin(self, seed: object, fellows: list[int]) -> None:
        """Make the key space. `fellows`: domids that permissions may name."""
        self.chance = random.Random(f"{seed}:{self.channel.domid}")
        self.keys = KeySpace(self.channel.domid)
        self.fellows = fellows
        self.tx_ids: list[int] = []
        self.counter = 0
        self.ask(M.MKDIR, strings("k"), OK)

    def step(self) -> None:
        """The next thing of the script; some wait for all answers, most do not."""
        chance = self.chance
        kind = chance.randrange(40)
        if kind < 12:
            self.write(self.some_path(), self.some_value())
        elif kind < 20:
            self.look(self.some_path())
        elif kind < 23:
            self.remove(self.some_path())
        elif kind < 25:
            self.permit(self.some_path())
        elif kind < 28:
            self.watch_or_not()
        elif kind < 31:
            self.odd(chance.randrange(6))
        elif kind < 36:
            self.transaction(chance.randrange(4))
        elif kind < 37:
            self.settle()
        elif kind < 38:
            self.dawdle()
        else:
            self.settle()
            self.rest(chance.uniform(0.0, 0.06))
        if len(self.due) > OUTSTANDING_MAX:
            self.run_until(lambda: len(self.due) < OUTSTANDING_MAX // 2)

    def some_path(self) -> str:
        """A path of the key space, whether or not it is there."""
        chance = self.chance
        depth = chance.choice((1, 2, 2, 2, 3))
        return "/".join(["k", *(str(chance.randrange(4)) for _ in range(depth))])

    def some_value(self) -> bytes:
        """A value that was never there before."""
        self.counter += 1
        size = self.chance.choice(VALUES)
        return (b"%d " % self.counter * (size // 2 + 1))[:size]

    def spelt(self, path: str) -> str:
        """Relative or absolute."""
        return path if self.chance.random() < 0.5 else f"{self.keys.home}/{path}"

    # -- single requests

    def write(self, path: str, value: bytes) -> None:
        """WRITE."""
        self.keys.put(self.keys.tree, path, value)
        self.ask(M.WRITE, strings(self.spelt(path)) + value, OK,
                 before=tuple(self.keys.fire(path)))

    def look(self, path: str) -> None:
        """READ, DIRECTORY, GET_PERMS or MKDIR."""
        tree, kind = self.keys.tree, self.chance.choice((M.READ, M.READ, M.DIRECTORY, M.GET_PERMS,
                                                         M.MKDIR))
        if kind == M.MKDIR:
            events = [] if path in tree else self.keys.fire(path)
            if path not in tree:
                self.keys.put(tree, path, b"")
            self.ask(kind, strings(self.spelt(path)), OK, before=tuple(events))
            return
        self.ask(kind, strings(self.spelt(path)), self.answer(tree, kind, path))

    def answer(self, tree: Tree, kind: M, path: str) -> bytes | str:
        """What a request that changes nothing is answered."""
        if path not in tree:
            return "ENOENT"
        if kind == M.READ:
            return tree[path][0]
        return self.keys.names(tree, path) if kind == M.DIRECTORY else strings(*tree[path][1])

    def remove(self, path: str) -> None:
        """RM. A missing node is an error only if its parent is missing, too."""
        tree = self.keys.tree
        if path in tree:
            self.ask(M.RM, strings(self.spelt(path)), OK,
                     before=tuple(self.keys.remove(tree, path)))
        else:
            self.ask(M.RM, strings(self.spelt(path)), OK if parent(path) in tree else "ENOENT")

    def permit(self, path: str) -> None:
        """SET_PERMS."""
        tree, chance = self.keys.tree, self.chance
        perms = (f"{chance.choice('nr')}{self.channel.domid}",
                 f"{chance.choice('rb')}{chance.choice(self.fellows)}")[:chance.randrange(1, 3)]
        payload = strings(self.spelt(path), *perms)
        if path not in tree:
            self.ask(M.SET_PERMS, payload, "ENOENT")
            return
        tree[path] = (tree[path][0], perms)
        self.ask(M.SET_PERMS, payload, OK, before=tuple(self.keys.fire(path)))

    def watch_or_not(self) -> None:
        """WATCH or UNWATCH."""
        watches, chance = self.keys.watches, self.chance
        one = chance.choice(watches) if watches else None
        if one is not None and chance.random() < 0.2:
            self.ask(M.WATCH, strings(self.spelt(one.path), one.token), "EEXIST")
        elif one is not None and (len(watches) >= 6 or chance.random() < 0.3):
            watches.remove(one)
            self.ask(M.UNWATCH, strings(self.spelt(one.path), one.token), OK)
        elif chance.random() < 0.1:
            self.ask(M.UNWATCH, strings(self.some_path(), "none"), "ENOENT")
        else:
            path = self.some_path() if chance.random() < 0.7 else "k"
            base = chance.choice(("", f"{self.keys.home}/"))
            self.counter += 1
            token = f"own{self.counter}"  # equal events might be coalesced
            watches.append(OwnWatch(path, token, base))
            self.ask(M.WATCH, strings(base + path, token), OK,
                     after=(self.event(base + path, token),))

    def odd(self, which: int) -> None:
        """What is refused, and the largest and smallest messages."""
        if which == 0:
            self.ask(M.READ, b"/" + b"x" * 4094 + b"\0",  # 4,112 bytes with the header
                     "ENOENT" if not self.channel.domid else "EINVAL")
        elif which == 1:
            self.ask(M.GET_FEATURE, b"", b"14\0")
        elif which == 2:
            self.ask(77, b"x" * self.chance.choice((0, 1, 1008, 1009, 4096)), "ENOSYS")
        elif which == 3:
            self.ask(M.DIRECTORY, strings("big"), strings(*BIG_NAMES))
        elif which == 4:
            self.ask(M.WRITE, b"k/no-nul", "EINVAL")
        else:
            self.ask(M.READ, strings("/secret"), "EACCES" if self.channel.domid else b"secret")

    def dawdle(self) -> None:
        """Ask for more than a ring holds, and read it slowly: most of it is owed for a while."""
        for _ in range(4):
            self.odd(3)
            self.look(self.some_path())
        assert self.control is not None
        for _ in range(self.chance.randrange(5, 30)):
            self.take_in(self.chance.randrange(1, 700))
            self.control.poll(0.003)

    # -- transactions

    def transaction(self, which: int) -> None:
        """A whole one: committed, given up, made to fail by an own write outside, or empty."""
        kind, payload = self.call(M.TRANSACTION_START, b"\0")
        if kind != M.TRANSACTION_START or not payload[:-1].isdigit():
            raise Wrong(f"TRANSACTION_START: {payload!r}")
        tx_id = int(payload[:-1])
        self.tx_ids.append(tx_id)
        if which == 0:
            self.ask(M.TRANSACTION_END, strings("X"), "EINVAL", tx_id)  # and it stays open
            self.ask(M.TRANSACTION_END, strings("F"), OK, tx_id)
            self.ask(M.READ, strings("k"), "ENOENT", tx_id)
            return
        inside, touched = dict(self.keys.tree), self._inside(tx_id)
        if which == 1:
            self.ask(M.TRANSACTION_END, strings("F"), OK, tx_id)
            return
        if which == 2:
            self._make_fail(tx_id, inside, touched)
            return
        before = self.keys.tree
        self.keys.tree = touched.tree
        events = [event for path in touched.paths if path in before or path in touched.tree
                  for event in self.keys.fire(path)]
        self.ask(M.TRANSACTION_END, strings("T"), OK, tx_id, before=tuple(events))

    def _inside(self, tx_id: int) -> _Overlay:
        """Some requests in the transaction; what they leave."""
        tree, changed, chance = dict(self.keys.tree), [], self.chance
        touched: list[str] = []
        for _ in range(chance.randrange(1, 7)):
            path = f"k/t{chance.randrange(3)}/{chance.randrange(4)}"
            if path not in touched:
                touched.append(path)
            if chance.random() < 0.6:
                value = self.some_value()
                self.keys.put(tree, path, value)
                changed.append(path)
                self.ask(M.WRITE, strings(self.spelt(path)) + value, OK, tx_id)
            elif path in tree and chance.random() < 0.3:
                del tree[path]
                changed.append(path)
                self.ask(M.RM, strings(self.spelt(path)), OK, tx_id)
            else:
                kind = chance.choice((M.READ, M.GET_PERMS))
                self.ask(kind, strings(self.spelt(path)), self.answer(tree, kind, path), tx_id)
        return _Overlay(tree, [path for path in touched if path in changed])

    def _make_fail(self, tx_id: int, before: Tree, inside: _Overlay) -> None:
        """Read a node inside, change it outside: the commit must be refused."""
        path = "k/x"
        self.ask(M.READ, strings(path), self.answer(before, M.READ, path), tx_id)
        self.write(path, b"%d outside" % self.counter)
        self.counter += 1
        self.ask(M.READ, strings(path), self.answer(before, M.READ, path), tx_id)
        self.ask(M.TRANSACTION_END, strings("T"), "EAGAIN", tx_id)

    # -- the end

    def check_all(self) -> None:
        """Everything is as the model says, and nothing more has come."""
        for path, (value, perms) in list(self.keys.tree.items()):
            self.ask(M.READ, strings(path), value)
            self.ask(M.GET_PERMS, strings(path), strings(*perms))
            self.ask(M.DIRECTORY, strings(path), self.keys.names(self.keys.tree, path))
            self.settle()
        self.ask(M.RM, strings("k"), OK, before=tuple(self.keys.remove(self.keys.tree, "k")))
        self.ask(M.MKDIR, strings("k"), OK, before=tuple(self.keys.fire("k")))
        self.settle()
        faults = self.channel.faults()
        if faults:
            raise Wrong(faults)


class Guest(Scripted):
    """A guest that also hears, exactly once each, of what the toolstacks write into its inbox."""

    def main(self, control: Pipe, seed: object, fellows: list[int]) -> list[int]:
        """Until told to finish, and how many events there must have been; its tx ids."""
        self.inbox: dict[str, int] = {}
        self.begin(seed, fellows)
        for letter in INBOXES:
            self.inbox[letter] = -1  # a WATCH's own event comes first
            self.ask(M.WATCH, strings(f"inbox/{letter}", f"in-{letter}"), OK)
        self.settle()
        control.send("ready")
        while not control.poll():
            self.step()
        due = control.recv()
        self.run_until(lambda: self.inbox == due)
        self.check_all()
        if self.inbox != due:
            raise Wrong(f"domain {self.channel.domid}: inbox events {self.inbox}, due {due}")
        return self.tx_ids

    def foreign_event(self, path: str, token: str) -> bool:
        if not token.startswith("in-"):
            return False
        letter = token[3:]
        number = self.inbox[letter]
        expected = f"inbox/{letter}" + (f"/{number % INBOX_PLACES}" if number >= 0 else "")
        if path != expected:
            raise Wrong(f"domain {self.channel.domid}: event for {path}, due is {expected}, "
                        f"number {number}")
        self.inbox[letter] += 1
        return True


class _Overlay(NamedTuple):
    """What a transaction leaves: the tree, and the changed paths in order of first touch."""

    tree: Tree
    paths: list[str]
