# SPDX-License-Identifier: Apache-2.0
"""A transaction: an overlay on the tree, and the list of what it was told.

X1. Nothing of a transaction is in the tree before its commit, and all of it afterwards.
X2. THE CONFLICT RULE: a transaction commits if, run again now as one step, it would be told the
    same. That is serialisable by construction: its place in the order is the moment of commit.
X3. If the tree has not changed since the start, the overlay is what running again would give.
X4. A durable client's transaction survives: after each request, pack() tells what it was told and
    all that its view has seen or changed in it, and unpack() puts the same view together again.
    Its commit then always runs the requests again.

Worked timelines ([ ] a transaction, a=1 a write outside it):
    [ read a -> 0   ..a=1..    write b ]   EAGAIN  it was told 0, now it would be told 1
    [ read a -> ENOENT  ..a=1..  ]         EAGAIN  absence is an answer too
    [ list d -> x   ..d/y=1..  ]           EAGAIN  so is a listing
    [ read a -> 0   ..a=1..    read a -> 0 ]  EAGAIN  what was seen stays; told 1 now
    [ read a -> 0   ..a=1, a=0.. ]         commits the answer would be the same
    [ write a       ..a=1..    ]           commits a blind write was told nothing
    [ write d/x     ..d/y=1..  ]           commits creating siblings neither
    [ rm f          ..f/x=1..  ]           commits f is there as it was; f/x goes with it
    [ rm f          ..rm f..   ]           EAGAIN  f was there, now it is not (XSA-440)
Rejected: generations per node as C xenstored keeps them (siblings conflict in their parent), and a
read set of single facts (what an answer depends on behind own changes is easy to get wrong).
Knows nothing of request payloads: it keeps them and hands them back."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

from app import path as paths
from app.effects import Item
from app.errors import Enospc
from app.path import Path
from app.perms import Perms, from_wire
from app.tree import Node, Tree, node_bytes

_KEPT_WHOLE = 32  # answers up to this size are kept, longer ones as a digest of 16 bytes
_ENTRY_COST = 64
TOLD_MAX = 20_000  # requests of one transaction, whoever makes it: all may have to be run again


class Overlay:
    """What a transaction sees: the tree under its own changes. The same methods as Tree.

    It may touch `touch_limit` nodes (None: a privileged client, no limit). A guest's view keeps a
    node's listing from when the node was first seen: a right that is taken away afterwards shows
    it nothing new."""

    def __init__(self, tree: Tree, touch_limit: int | None) -> None:
        self.tree = tree
        self.touch_limit = touch_limit
        self.nodes: dict[Path, Node | None] = {}
        # In order of first touch. None: looked at; False: fires normally; True: fires only
        # watches on the path itself (a descendant of what was removed).
        self.touched: dict[Path, bool | None] = {}
        self.observed: list[bytes] = []
        self.poisoned = False
        # What the transaction has seen of the tree stays as it was seen, whatever happens outside.
        self._seen: dict[Path, Node | None] = {}
        self._listings: dict[Path, bytes] = {}
        self._added: dict[Path, dict[bytes, None]] = {}
        self._hidden: dict[Path, set[bytes]] = {}
        self._generations: dict[Path, int] = {}
        self._recalled: dict[str, Perms] = {}
        self._owned_base: dict[int, tuple[int, int]] = {}
        self._owned: dict[int, int] = {}
        self._owned_bytes: dict[int, int] = {}
        self._growth = 0
        self._unpacked: dict[Path, None] = {}  # paths of which pack() has something to tell

    # -- reading

    def get(self, path: Path) -> Node | None:
        """The node as the transaction sees it. Raises Enospc beyond the touch limit."""
        self.touch(path)
        return self._peek(path)

    def listing(self, path: Path) -> bytes:
        """The names of the children, each with its NUL."""
        if path not in self._generations:
            return self._base_listing(path)
        return b"".join(name + b"\0" for name in self._names(path))

    def name_bytes(self, path: Path) -> int:
        """len(listing(path))."""
        return len(self.listing(path))

    def listing_generation(self, path: Path) -> int:
        """Another number whenever the listing has changed."""
        if path in self._generations or path not in self.tree.nodes:
            return self._generations.get(path, 0)
        return self.tree.listing_generation(path)

    def owned_count(self, domid: int) -> int:
        """How many nodes `domid` would own."""
        return self._own_base(domid)[0] + self._owned.get(domid, 0)

    def owned_size(self, domid: int) -> int:
        """The bytes of the nodes that `domid` would own."""
        return self._own_base(domid)[1] + self._owned_bytes.get(domid, 0)

    def touch(self, path: Path) -> None:
        """Count `path` as accessed. Raises Enospc beyond the limit: the transaction has failed."""
        if path not in self.touched:
            if self.touch_limit is not None and len(self.touched) >= self.touch_limit:
                self.poison()
                raise Enospc
            self.touched[path] = None
            self._unpacked[path] = None

    def recall(self, key: str, present: Perms) -> Perms:
        """What is beside the tree, as it was first seen."""
        return self._recalled.setdefault(key, present)

    def observe(self, fact: bytes) -> None:
        """Add a fact to what the transaction was told."""
        self.observed.append(fact)

    def poison(self) -> None:
        """A create has failed: the whole transaction has."""
        self.poisoned = True

    # -- changing

    def next_ordinal(self) -> int:
        """A new ordinal."""
        return self.tree.next_ordinal()

    def admit(self, growth: int, nodes: int = 0) -> None:
        """As Tree.admit, on top of what the transaction has grown already. A refusal is a failed
        create: a client that overlooks it must not commit the rest."""
        if growth > 0:
            try:
                self.tree.admit(max(self._growth, 0) + growth, nodes)
            except Enospc:
                self.poison()
                raise

    def replace(self, path: Path, before: Node, after: Node, fires: bool = True) -> None:
        """Give an existing node a new value or new perms."""
        self._account(path, before, -1)
        self._account(path, after, 1)
        self._set(path, after)
        self._fire(path, fires)

    def create(self, path: Path, after: Node, fires: bool = True) -> None:
        """Add a node whose parent is there."""
        parent, name = paths.parent(path), paths.name(path)
        self._added.setdefault(parent, {})[name] = None
        self._generations[parent] = self.next_ordinal()
        self._account(path, after, 1)
        self._set(path, after)
        self._fire(path, fires)

    def cut(self, path: Path, fires: bool = True) -> None:
        """Remove a node other than the root, and all below it."""
        self.touch(paths.parent(path))
        for one in self._subtree(path):
            node = self._peek(one)
            assert node is not None, one
            self._account(one, node, -1)
            self._set(one, None)
            parent, name = paths.parent(one), paths.name(one)
            self._added.get(parent, {}).pop(name, None)
            self._hidden.setdefault(parent, set()).add(name)
            self._generations[parent] = self.next_ordinal()
            if one != path and self.touched[one] is None:
                self.touched[one] = True
        self._fire(path, fires)

    # -- the commit

    def apply(self) -> list[tuple[Path, bool, Node | None, Node | None]]:
        """Move all changes into the tree. Returns what watches are to hear of, in order of first
        touch: path, only the path's own watches, the node before and after.

        The tree must be the one that the overlay's view still holds for (X3)."""
        tree = self.tree
        heard = [(path, exact, tree.get(path), self._peek(path))
                 for path, exact in self.touched.items() if exact is not None]
        gone: dict[Path, None] = {}
        replaced: list[tuple[Path, Node, Node]] = []
        created: list[tuple[Path, Node]] = []
        for path, after in self.nodes.items():
            before = tree.get(path)
            if before is not None and (after is None or after.ordinal != before.ordinal):
                gone[path] = None
                before = None
            if after is not None:
                if before is None:
                    created.append((path, after))
                elif after is not before:
                    replaced.append((path, before, after))
        tree.admit(sum(node_bytes(path, node) for path, node in created)
                   + sum(node_bytes(path, after) - node_bytes(path, before)
                         for path, before, after in replaced)
                   - sum(node_bytes(path, tree.nodes[path]) for path in gone), len(created))
        for path in gone:
            if paths.parent(path) not in gone:
                tree.cut(path, fires=False)
        for path, before, after in replaced:
            tree.replace(path, before, after, fires=False)
        for path, node in sorted(created, key=_ordinal):
            tree.create(path, node, fires=False)
        return [one for one in heard if one[2] is not None or one[3] is not None]

    def step_bytes(self) -> int:
        """An upper bound of what the commit's effects take in the log."""
        return sum(node_bytes(path, node) if node is not None else len(path) + 8
                   for path, node in self.nodes.items())

    # -- surviving a crash

    def pack(self) -> tuple[Item, ...]:
        """What the view has seen and changed since the last call: (is poisoned, special nodes'
        permissions seen, then per path: path, whether touched, its own node, the node seen, the
        listing seen). A node is (value, perms, ordinal), () if it is not there, None if it was
        not looked at."""
        changes = tuple((path, int(path in self.touched), _pack_node(self.nodes, path),
                         _pack_node(self._seen, path), self._listings.get(path))
                        for path in self._unpacked)
        self._unpacked.clear()
        recalled = tuple((key, perms.wire) for key, perms in self._recalled.items())
        return int(self.poisoned), recalled, *changes

    def unpack(self, entries: list[Any]) -> None:
        """Put together the view from all that pack() has told, in order."""
        for is_poisoned, recalled, *changes in entries:
            self.poisoned = bool(is_poisoned)
            self._recalled.update((key, from_wire(wire)) for key, wire in recalled)
            for path, is_touched, own, seen, listing in changes:
                if is_touched:
                    self.touched.setdefault(path, None)
                if own is not None:
                    self.nodes[path] = _unpack_node(own)
                if seen is not None:
                    self._seen[path] = _unpack_node(seen)
                if listing is not None:
                    self._listings[path] = listing
        for path, own in sorted(self.nodes.items(), key=_own_ordinal):
            seen = self._seen[path]
            parent, name = paths.parent(path), paths.name(path)
            if own is None or seen is None or own.ordinal != seen.ordinal:
                self._generations[parent] = self.next_ordinal()
                if seen is not None:
                    self._hidden.setdefault(parent, set()).add(name)
                if own is not None:
                    self._added.setdefault(parent, {})[name] = None
            if seen is not None:
                self._account(path, seen, -1)
            if own is not None:
                self._account(path, own, 1)

    # -- own

    def _set(self, path: Path, node: Node | None) -> None:
        self.nodes[path] = node
        self._unpacked[path] = None

    def _peek(self, path: Path) -> Node | None:
        if path in self.nodes:
            return self.nodes[path]
        if path not in self._seen:
            self._seen[path] = self.tree.nodes.get(path)
            self._unpacked[path] = None
            if self.touch_limit is not None:
                self._base_listing(path)
        return self._seen[path]

    def _base_listing(self, path: Path) -> bytes:
        listing = self._listings.get(path)
        if listing is None:
            listing = self._listings[path] = self.tree.listing(path)
            self._unpacked[path] = None
        return listing

    def _names(self, path: Path) -> list[bytes]:
        """The names of the children that the transaction can see. One that was listed before, and
        has gone outside since, is none: the transaction cannot commit, but it may go on."""
        names = dict.fromkeys(self._base_listing(path).split(b"\0")[:-1])
        for name in self._hidden.get(path, ()):
            names.pop(name, None)
        names.update(self._added.get(path, {}))
        return [name for name in names if self._peek(paths.child(path, name)) is not None]

    def _subtree(self, path: Path) -> list[Path]:
        """`path` and all below it that the transaction can see, parents before children. Each is
        touched when it is met: a walk beyond the limit ends there."""
        found, stack = [], [path]
        while stack:
            one = stack.pop()
            self.touch(one)
            found.append(one)
            stack += [paths.child(one, name) for name in reversed(self._names(one))]
        return found

    def _own_base(self, domid: int) -> tuple[int, int]:
        """Count and bytes of a domain's nodes in the tree, when first asked for."""
        base = self._owned_base.get(domid)
        if base is None:
            base = self._owned_base[domid] = (self.tree.owned_count(domid),
                                              self.tree.owned_size(domid))
        return base

    def _account(self, path: Path, node: Node, sign: int) -> None:
        owner, size = node.perms.owner, node_bytes(path, node)
        self._owned[owner] = self._owned.get(owner, 0) + sign
        self._owned_bytes[owner] = self._owned_bytes.get(owner, 0) + sign * size
        self._growth += sign * size

    def _fire(self, path: Path, fires: bool) -> None:
        if fires:
            self.touch(path)
            self.touched[path] = False
        else:
            self.touch(path)


class Told(NamedTuple):
    """One request of a transaction and what it was told: see digest_answer()."""

    type: int
    payload: bytes
    answer: bytes


class Transaction:
    """One open transaction of a client."""

    __slots__ = ("base_changes", "cost", "overlay", "told", "tx_id")

    def __init__(self, tx_id: int, tree: Tree, touch_limit: int | None) -> None:
        self.tx_id = tx_id
        self.base_changes = tree.changes
        self.overlay = Overlay(tree, touch_limit)
        self.told: list[Told] = []
        self.cost = 0  # bytes that the transaction counts in its domain's memory quota

    def remember(self, type_: int, payload: bytes, answer: bytes) -> None:
        """Note a request and what it was told."""
        self.told.append(Told(type_, payload, answer))
        self.cost += _ENTRY_COST + len(payload) + len(answer)

    def pack_last(self) -> tuple[Item, ...]:
        """The request remembered last, with what it did to the view (X4)."""
        return *self.told[-1], self.overlay.pack()

    @classmethod
    def unpack(cls, tx_id: int, tree: Tree, touch_limit: int | None,
               entries: list[Any]) -> Transaction:
        """The transaction again, from all that pack_last() has told, in order."""
        tx = cls(tx_id, tree, touch_limit)
        tx.base_changes = -1  # it was another life's counter
        for type_, payload, answer, _ in entries:
            tx.remember(type_, payload, answer)
        tx.overlay.unpack([view for *_, view in entries])
        return tx


def digest_answer(mark: bytes, answer: bytes, observed: list[bytes]) -> bytes:
    """What is kept of an answer and the facts observed with it. `mark` tells replies and errors
    apart."""
    whole = b"\0".join([answer, *observed])
    return mark + (whole if len(whole) <= _KEPT_WHOLE else
                   blake2b(whole, digest_size=16).digest())


def _ordinal(pair: tuple[Path, Node]) -> int:
    return pair[1].ordinal


def _own_ordinal(pair: tuple[Path, Node | None]) -> int:
    return pair[1].ordinal if pair[1] is not None else -1


def _pack_node(nodes: dict[Path, Node | None], path: Path) -> Item:
    node = nodes.get(path)
    if node is not None:
        return node.value, node.perms.wire, node.ordinal
    return () if path in nodes else None


def _unpack_node(fields: Any) -> Node | None:
    if not fields:
        return None
    value, wire, ordinal = fields
    return Node(value, from_wire(wire), ordinal)
