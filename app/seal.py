# SPDX-License-Identifier: Apache-2.0
"""Git ids of the whole state, hashed lazily: a write marks, an idle moment hashes.

J1. If a path is dirty, so are all its ancestors; so marking again costs one look-up.
J2. The deepest dirty path is hashed first: its children are clean by then. A write in between
    just marks again; nothing is thrown away but a directory that is being hashed in slices.
J3. When nothing is dirty, the root's oid is that of the state at this moment.
The mapping (FORMAT.md section 7): a node is a tree with blob .p (permissions), blob .v (value,
left out if empty) and a tree per child; the root also holds tree .xs with a blob per item. No
xenstore name can begin with '.'. Knows nothing of logs and of serving."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import sha1
from typing import Protocol

from app import path as paths
from app.effects import Item
from app.items import group_of
from app.path import ROOT, Path
from app.tree import Node
from persist import oid
from persist.oid import BLOB_MODE, TREE_MODE, Entry

NAME_MAX = 255  # longer names cannot be checked out: they get a stand-in
_FORGET_SLICE = 2000  # removed nodes worked off per turn
_SLICE = 1000  # children of a large directory handled between two looks at the clock


class SealedView(Protocol):
    """The state to be hashed."""

    def node(self, path: Path) -> Node | None:
        """The node, or None."""

    def child_names(self, path: Path) -> list[bytes]:
        """The names of its children, in any order."""

    def item_groups(self) -> dict[tuple[str, str], dict[str, Item]]:
        """The items by group, see items.group_of()."""


class ItemSealer:
    """Keeps the oids of the items' trees: .xs/KIND/KEY, and .xs/KIND/NUMBER/KEY for those with a
    number. Only what has changed is hashed again."""

    def __init__(self) -> None:
        self._oids: dict[tuple[str, str], bytes] = {}
        self._kinds: dict[str, bytes] = {}
        self._dirty: set[tuple[str, str]] | None = None  # None: all

    @property
    def is_clean(self) -> bool:
        """Whether every group's oid is up to date."""
        return self._dirty is not None and not self._dirty

    def mark(self, key: str) -> None:
        """An item was changed, made or removed."""
        if self._dirty is not None:
            self._dirty.add(group_of(key))

    def step(self, view: SealedView, budget: int) -> int:
        """Hash some groups; returns what that was worth in nodes."""
        groups = view.item_groups()
        if self._dirty is None:
            self._dirty = set(groups)
        done = 0
        while self._dirty and done < budget:
            group = self._dirty.pop()
            members = groups.get(group, {})
            self._kinds.pop(group[0], None)
            if members:
                self._oids[group] = oid.tree_id([
                    Entry(BLOB_MODE, key.encode(), oid.blob_id(item_text(value)))
                    for key, value in members.items()])
            else:
                self._oids.pop(group, None)
            done += 1 + len(members)
        return done

    def entries(self, view: SealedView) -> list[Entry]:
        """What is in .xs."""
        by_kind: dict[str, list[Entry]] = {}
        groups = view.item_groups()
        for (kind, number), members in groups.items():
            if kind in self._kinds:
                by_kind.setdefault(kind, [])
            elif number:
                by_kind.setdefault(kind, []).append(
                    Entry(TREE_MODE, number.encode(), self._oids[kind, number]))
            else:
                by_kind.setdefault(kind, []).extend(
                    Entry(BLOB_MODE, key.encode(), oid.blob_id(item_text(value)))
                    for key, value in members.items())
        for kind, entries in by_kind.items():
            if entries:
                self._kinds[kind] = oid.tree_id(entries)
        return [Entry(TREE_MODE, kind.encode(), self._kinds[kind]) for kind in by_kind]


class Sealer:
    """Keeps the oid of every node's tree. `everything` is what is there to begin with."""

    def __init__(self, view: SealedView, everything: Iterable[Path]) -> None:
        self.view = view
        self.oids: dict[Path, bytes] = {}
        self._unmarked = list(everything)
        self._dirty: list[set[Path]] = [set()]
        self._gone: list[list[tuple[Path, Node]]] = []
        self._items = ItemSealer()
        self._slices: Iterator[None] | None = None
        self._sliced: Path | None = None

    @property
    def has_gone(self) -> bool:
        """Whether forget_some() has something to do."""
        return bool(self._gone)

    @property
    def is_clean(self) -> bool:
        """Whether every oid is up to date."""
        return (not self._unmarked and self._slices is None and not any(self._dirty)
                and self._items.is_clean)

    def mark_item(self, key: str) -> None:
        """An item was changed, made or removed."""
        self._items.mark(key)
        self.mark(ROOT)

    def mark(self, path: Path) -> None:
        """`path` or one of its children was changed, made or removed."""
        while True:
            depth = 0 if path == b"/" else path.count(b"/")
            while len(self._dirty) <= depth:
                self._dirty.append(set())
            bucket = self._dirty[depth]
            if path in bucket:
                return
            bucket.add(path)
            if depth == 0:
                return
            path = paths.parent(path)

    def forget(self, removed: list[tuple[Path, Node]]) -> None:
        """These nodes are gone; what was above them is marked by whoever removed them. The list
        becomes ours: it is worked off, and its nodes are freed, a little per turn."""
        self._gone.append(removed)
        if self._slices is not None and self._sliced is not None:
            self._slices = None  # the directory may have gone, and even come back
            self.mark(self._sliced)

    def forget_some(self) -> bool:
        """Work off a little of what is gone; True while there is more."""
        budget = _FORGET_SLICE
        while self._gone and budget > 0:
            removed = self._gone[-1]
            for path, _ in removed[-budget:]:
                if self.view.node(path) is None:  # it may have been made anew since
                    self.oids.pop(path, None)
            budget -= len(removed)
            del removed[-_FORGET_SLICE:]
            if not removed:
                self._gone.pop()
        return bool(self._gone)

    def step(self, budget: int) -> None:
        """Do about `budget` nodes' worth of hashing."""
        while budget > 0:
            if self._unmarked:
                for path in self._unmarked[-budget:]:
                    self.mark(path)
                del self._unmarked[-budget:]
                return
            if self._slices is not None:
                budget -= _SLICE // 10
                self._step_slice()
                continue
            if not self._items.is_clean:
                budget -= self._items.step(self.view, budget)
                continue
            deepest = self._pop_deepest()
            if deepest is None:
                return
            budget -= 1 + self._hash(deepest)

    def root_oid(self) -> bytes:
        """The oid of the whole state (J3); zeros where damage has left no root."""
        assert self.is_clean, "something is dirty"
        return self.oids.get(ROOT, bytes(oid.OID_SIZE))

    def _pop_deepest(self) -> Path | None:
        dirty = self._dirty
        while dirty and not dirty[-1]:
            dirty.pop()
        return dirty[-1].pop() if dirty else None

    def _hash(self, path: Path) -> int:
        node = self.view.node(path)
        if node is None:
            self.oids.pop(path, None)
            return 0
        names = self.view.child_names(path)
        if len(names) > _SLICE:
            self._sliced, self._slices = path, self._hash_slices(path, node, names)
            return 0
        entries = self._own_entries(path, node)
        entries += [self._child_entry(path, name) for name in names]
        self.oids[path] = oid.tree_id(entries)
        return len(names) // 8

    def _own_entries(self, path: Path, node: Node) -> list[Entry]:
        entries = [Entry(BLOB_MODE, b".p", _perms_oid(node.perms.wire))]
        if node.value:
            entries.append(Entry(BLOB_MODE, b".v", oid.blob_id(node.value)))
        if path == ROOT:
            kinds = self._items.entries(self.view)
            if kinds:
                entries.append(Entry(TREE_MODE, b".xs", oid.tree_id(kinds)))
        elif len(paths.name(path)) > NAME_MAX:
            entries.append(Entry(BLOB_MODE, b".n", oid.blob_id(paths.name(path))))
        return entries

    def _child_entry(self, path: Path, name: bytes) -> Entry:
        return Entry(TREE_MODE, entry_name(name), self.oids[paths.child(path, name)])

    def _step_slice(self) -> None:
        path, slices = self._sliced, self._slices
        assert path is not None and slices is not None
        depth = 0 if path == b"/" else path.count(b"/")
        if depth < len(self._dirty) and path in self._dirty[depth]:
            self._slices = None  # changed meanwhile: it will be hashed anew
            return
        if self.view.node(path) is None:
            self._slices = None  # removed meanwhile, with something above it
            return
        try:
            next(slices)
        except StopIteration:
            self._slices = None

    def _hash_slices(self, path: Path, node: Node, names: list[bytes]) -> Iterator[None]:
        """As _hash, for a large directory, giving way after every slice."""
        runs = [sorted(self._own_entries(path, node), key=oid.sort_key)]
        size = sum(len(entry.mode) + len(entry.name) + 2 + oid.OID_SIZE for entry in runs[0])
        for start in range(0, len(names), _SLICE):
            run = sorted((self._child_entry(path, name) for name in names[start:start + _SLICE]),
                         key=oid.sort_key)
            size += sum(len(TREE_MODE) + len(entry.name) + 2 + oid.OID_SIZE for entry in run)
            runs.append(run)
            yield
        digest = sha1(b"tree %d\0" % size, usedforsecurity=False)
        for count, entry in enumerate(heapq.merge(*runs, key=oid.sort_key)):
            digest.update(b"%b %b\0%b" % entry)
            if count % _SLICE == 0:
                yield
        self.oids[path] = digest.digest()


def entry_name(name: bytes) -> bytes:
    """A child's name in its parent's git tree."""
    if len(name) <= NAME_MAX:
        return name
    return b".l-" + sha1(name, usedforsecurity=False).hexdigest().encode()


def item_text(value: Item) -> bytes:
    """The content of an item's blob."""
    if isinstance(value, bytes):
        return value.replace(b"\0", b"\n")
    if isinstance(value, tuple):
        return b" ".join(item_text(one).rstrip(b"\n") for one in value) + b"\n"
    return str(value).encode() + b"\n"


def perms_text(wire: bytes) -> bytes:
    """The content of a node's .p blob: n0,r5 and no newline."""
    return wire[:-1].replace(b"\0", b",")


@lru_cache(maxsize=4096)
def _perms_oid(wire: bytes) -> bytes:
    return oid.blob_id(perms_text(wire))
