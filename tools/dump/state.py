# SPDX-License-Identifier: Apache-2.0
"""The store at one moment of the past, and what a change makes different in it.

S1. A child may be known before its parent, and be removed with it: `children` names whatever is
    known below a path, whether the path itself is known or not.
S2. `digest` is always that of what is here (FORMAT.md section 6): where it is the recorded one,
    all that there was is here.
Knows nothing of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from app import codec
from app import path as paths
from app.effects import Item
from app.items import grouped
from app.path import ROOT, Path
from app.tree import Node


class Difference(NamedTuple):
    """A node or, with a str for its key, an item: what it was, and what it is. None: not there."""

    key: Path | str
    before: Node | Item
    after: Node | Item


class State:
    """Nodes and items; implements app.seal.SealedView."""

    def __init__(self) -> None:
        self.nodes: dict[Path, Node] = {}
        self.items: dict[str, Item] = {}
        self.digest = 0
        self._children: dict[Path, set[bytes]] = {}

    def apply(self, effects: Iterable[tuple[Any, Any]]) -> list[Difference]:
        """Take in the effects of a step, in order; returns what is different now. Of a removed
        subtree every node is listed, children first."""
        found: list[Difference] = []
        for key, value in effects:
            if isinstance(key, str):
                found.append(self._set_item(key, value))
            elif value is None:
                found += self._cut(key)
            else:
                before = self.nodes.get(key)
                if before is not None and before.ordinal != value.ordinal:
                    found += self._cut(key)  # in a record that is lost, all below it, too
                    before = None
                if before is None:
                    self._put(key, value)
                else:
                    self.nodes[key] = value
                    self.digest = (self.digest + codec.node_digest(key, value)
                                   - codec.node_digest(key, before)) & codec.DIGEST_MASK
                found.append(Difference(key, before, value))
        return found

    def listing(self, path: Path) -> list[bytes]:
        """The names of the children that are there, in the order of their creation."""
        there = [(node.ordinal, name) for name in self._children.get(path, ())
                 if (node := self.nodes.get(paths.child(path, name))) is not None]
        return [name for _, name in sorted(there)]

    def below(self, path: Path) -> list[Path]:
        """All nodes from `path` down, parents first, siblings in the order of creation."""
        return [one for one in self._walk(path, self.listing) if one in self.nodes]

    def known_below(self, path: Path) -> list[Path]:
        """The same, and the nodes whose parents are lost."""
        return [one for one in self._walk(path, self._known_names) if one in self.nodes]

    def _walk(self, path: Path, names_of: Callable[[Path], list[bytes]]) -> Iterator[Path]:
        stack = [path]
        while stack:
            one = stack.pop()
            yield one
            stack += [paths.child(one, name) for name in reversed(names_of(one))]

    def _known_names(self, path: Path) -> list[bytes]:
        """As listing(); names of lost nodes stand in front."""
        there = self.listing(path)
        return sorted(self._children.get(path, set()).difference(there)) + there

    def orphans(self) -> list[Path]:
        """Paths that are not there, although something below them is."""
        return [path for path in self._children if path not in self.nodes]

    # -- SealedView

    def node(self, path: Path) -> Node | None:
        """The node, or None."""
        return self.nodes.get(path)

    def child_names(self, path: Path) -> list[bytes]:
        """The names of its children, in any order."""
        return list(self._children.get(path, ()))

    def item_groups(self) -> dict[tuple[str, str], dict[str, Item]]:
        """The items by group."""
        return grouped(self.items)

    # -- changes

    def _put(self, path: Path, node: Node) -> None:
        """A node that was not there."""
        self.digest = (self.digest + codec.node_digest(path, node)) & codec.DIGEST_MASK
        self.nodes[path] = node
        while path != ROOT:
            parent = paths.parent(path)
            names = self._children.setdefault(parent, set())
            if paths.name(path) in names:
                return
            names.add(paths.name(path))
            path = parent

    def _cut(self, path: Path) -> list[Difference]:
        order, stack = [], [path]
        while stack:
            one = stack.pop()
            order.append(one)
            stack += [paths.child(one, name) for name in self._children.pop(one, ())]
        found = []
        for one in reversed(order):
            node = self.nodes.pop(one, None)
            if node is not None:
                self.digest = (self.digest - codec.node_digest(one, node)) & codec.DIGEST_MASK
                found.append(Difference(one, node, None))
        while path != ROOT:  # whatever was only known for what was below it goes, too
            parent = paths.parent(path)
            names = self._children.get(parent)
            if names is None:
                break
            names.discard(paths.name(path))
            if names:
                break
            del self._children[parent]
            if parent in self.nodes:
                break
            path = parent
        return found

    def _set_item(self, key: str, value: Item) -> Difference:
        before = self.items.pop(key, None)
        if before is not None:
            self.digest -= codec.item_digest(key, before)
        if value is not None:
            self.items[key] = value
            self.digest += codec.item_digest(key, value)
        self.digest &= codec.DIGEST_MASK
        return Difference(key, before, value)
