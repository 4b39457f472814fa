# SPDX-License-Identifier: Apache-2.0
"""The flat state: path -> node, path -> child names, owner -> paths, domid -> paths that grant it
a right.

T1. A node's value, perms and ordinal never change: a change makes a new Node.
T2. Every node but the root has its parent in the tree, and its name in the parent's Directory.
T3. Child names stand in order of creation; `ordinal` keeps that order through a replay.
T4. `generation` is the one counter of ordinals and listings: it only grows, across lives too.
T5. Every change but adopt() leaves an effect. Admission is asked before anything is touched.
Knows nothing of clients, permissions' meaning, watches, logs."""

from __future__ import annotations

from app import path as paths
from app.effects import Cut, Effect, Put
from app.errors import Enospc
from app.path import ROOT, Path
from app.perms import Perms

NODE_OVERHEAD = 40  # bytes in the log beyond path, value and perms, at most
NODE_HEAP = 520  # bytes of the Python heap beyond path and value, measured (docs/ARCHITECTURE.md)
GRANT_HEAP = 110  # more for every domain, other than the owner, that a node's permissions name


class Node:
    """One node: value, permissions, and the ordinal of its creation.

    `position` is the journal's own note: of the record that holds the node's newest copy."""

    __slots__ = ("ordinal", "perms", "position", "value")

    def __init__(self, value: bytes, perms: Perms, ordinal: int, position: int = -1) -> None:
        self.value = value
        self.perms = perms
        self.ordinal = ordinal
        self.position = position


def node_bytes(path: Path, node: Node) -> int:
    """An upper bound of what one node takes in the log."""
    return len(path) + len(node.value) + len(node.perms.wire) + NODE_OVERHEAD


def pairs_bytes(pairs: list[tuple[Path, Node]]) -> int:
    """The sum of node_bytes() over many nodes, without a call for each."""
    return NODE_OVERHEAD * len(pairs) + sum([
        len(path) + len(node.value) + len(node.perms.wire) for path, node in pairs])


def by_owner(pairs: list[tuple[Path, Node]]) -> dict[int, list[tuple[Path, Node]]]:
    """Nodes by the domain that owns them."""
    found: dict[int, list[tuple[Path, Node]]] = {}
    if len({id(node.perms) for _, node in pairs}) == 1:  # as in most large removals
        return {pairs[0][1].perms.owner: pairs}
    for pair in pairs:
        found.setdefault(pair[1].perms.owner, []).append(pair)
    return found


class Directory:
    """The names of a node's children and their ordinals; there is one only where there are
    children."""

    __slots__ = ("_listing", "generation", "name_bytes", "names")

    def __init__(self) -> None:
        self.names: dict[bytes, int] = {}
        self.name_bytes = 0  # with one NUL each
        self.generation = 0
        self._listing: bytes | None = None

    def add(self, name: bytes, ordinal: int, generation: int) -> None:
        """Append a name that is not there yet."""
        self.names[name] = ordinal
        self.name_bytes += len(name) + 1
        self.generation = generation
        self._listing = None

    def settle(self, generation: int) -> None:
        """Take names that a replay has added in any order for the whole directory."""
        names = self.names
        if len(names) > 1:
            ordinals = list(names.values())
            if ordinals != sorted(ordinals):
                self.names = names = dict(sorted(names.items(), key=_by_ordinal))
        self.name_bytes = len(b"".join(names)) + len(names)
        self.generation = generation

    def discard(self, name: bytes, generation: int) -> None:
        """Take a name away."""
        del self.names[name]
        self.name_bytes -= len(name) + 1
        self.generation = generation
        self._listing = None

    def listing(self) -> bytes:
        """All names, each with its NUL; kept until the next change."""
        if self._listing is None:
            self._listing = b"\0".join(self.names) + b"\0"
        return self._listing


class Space:
    """Admission: what may be live at most. Three limits in bytes."""

    def __init__(self, log_bytes: int, heap_bytes: int, step_bytes: int) -> None:
        self.log_bytes = log_bytes  # of live data in the log
        self.heap_bytes = heap_bytes  # of the process for nodes
        self.step_bytes = step_bytes  # of one request's or transaction's effects
        self.items_bytes = 0  # what the items take of log_bytes


class Tree:
    """The committed tree. `effects` collects what the current step changes."""

    def __init__(self, space: Space, effects: list[Effect]) -> None:
        self.nodes: dict[Path, Node] = {}
        self.dirs: dict[Path, Directory] = {}
        self.owned: dict[int, set[Path]] = {}
        self.owned_bytes: dict[int, int] = {}
        self.granted: dict[int, set[Path]] = {}  # what a domain's death takes rights from
        self._grants = 0  # entries in `granted`
        self.bytes = 0  # upper bound of all nodes in the log
        self.generation = 0
        self.changes = 0  # counts changes of this life, of items too; transactions compare it
        self.space = space
        self.effects = effects

    # -- reading

    def get(self, path: Path) -> Node | None:
        """The node, or None."""
        return self.nodes.get(path)

    def listing(self, path: Path) -> bytes:
        """The names of the children, each with its NUL, in order of creation."""
        directory = self.dirs.get(path)
        return directory.listing() if directory is not None else b""

    def name_bytes(self, path: Path) -> int:
        """len(listing(path)) without making it."""
        directory = self.dirs.get(path)
        return directory.name_bytes if directory is not None else 0

    def listing_generation(self, path: Path) -> int:
        """A number that is another one whenever the listing has changed."""
        directory = self.dirs.get(path)
        return directory.generation if directory is not None else self.nodes[path].ordinal

    def owned_count(self, domid: int) -> int:
        """How many nodes `domid` owns."""
        return len(self.owned.get(domid, ()))

    def owned_size(self, domid: int) -> int:
        """The bytes of the nodes that `domid` owns."""
        return self.owned_bytes.get(domid, 0)

    def subtree(self, path: Path, is_leaving: bool = False) -> list[Path]:
        """`path` and all below it: children before parents, siblings in order of creation. With
        `is_leaving` their directories are removed on the way."""
        found, stack = [], [path]
        look_up = self.dirs.pop if is_leaving else self.dirs.get
        while stack:
            one = stack.pop()
            found.append(one)
            directory = look_up(one, None)
            if directory is not None:
                prefix = b"/" if one == b"/" else one + b"/"
                stack += [Path(prefix + name) for name in directory.names]
        found.reverse()
        return found

    # -- changing

    def next_ordinal(self) -> int:
        """A new ordinal."""
        self.generation += 1
        return self.generation

    def admit(self, growth: int, nodes: int = 0) -> None:
        """Raise Enospc if `growth` more bytes in `nodes` more nodes could not be held."""
        if growth <= 0:
            return
        after = self.bytes + self.space.items_bytes + growth
        heap = after + (len(self.nodes) + nodes) * NODE_HEAP + self._grants * GRANT_HEAP
        if after > self.space.log_bytes or heap > self.space.heap_bytes:
            raise Enospc
        if growth > self.space.step_bytes:
            raise Enospc

    def replace(self, path: Path, before: Node, after: Node, fires: bool = True) -> None:
        """Give an existing node a new value or new perms. The caller has called admit()."""
        self.nodes[path] = after
        self.changes += 1
        if after.perms is before.perms:
            growth = len(after.value) - len(before.value)
            if growth:
                self.bytes += growth
                self.owned_bytes[after.perms.owner] += growth
        else:
            self._disown(path, before)
            self._own(path, after)
            self.bytes += node_bytes(path, after) - node_bytes(path, before)
        self.effects.append(Put(path, before, after, fires))

    def create(self, path: Path, after: Node, fires: bool = True) -> None:
        """Add a node whose parent is there. The caller has called admit()."""
        self._link(path, after.ordinal, self.next_ordinal())
        self.nodes[path] = after
        self.bytes += node_bytes(path, after)
        self._own(path, after)
        self.changes += 1
        self.effects.append(Put(path, None, after, fires))

    def cut(self, path: Path, fires: bool = True) -> None:
        """Remove a node other than the root, and all below it."""
        dirs, pop = self.dirs, self.nodes.pop
        removed = [(one, pop(one)) for one in self.subtree(path, is_leaving=True)]
        self._disown_all(removed)
        parent = paths.parent(path)
        directory = dirs[parent]
        directory.discard(paths.name(path), self.next_ordinal())
        if not directory.names:
            del dirs[parent]
        self.changes += 1
        self.effects.append(Cut(path, removed, fires))

    def adopt(self, nodes: dict[Path, Node], dirs: dict[Path, Directory]) -> None:
        """Start from the nodes and directories of a replay, in which every directory has its
        node: put names in order, and count what is whose."""
        assert not self.nodes, "the tree is in use"
        self.nodes, self.dirs = nodes, dirs
        # A listing that an earlier life showed had a smaller number than any from now on.
        self.generation += 1
        for directory in dirs.values():
            directory.settle(self.generation)
        pairs = list(nodes.items())
        for owner, own in by_owner(pairs).items():
            self.owned[owner] = {path for path, _ in own}
            self.owned_bytes[owner] = pairs_bytes(own)
        self.bytes = sum(self.owned_bytes.values())
        for path, node in pairs:
            if node.perms.granted:
                self._grant(path, node)

    def _link(self, path: Path, ordinal: int, generation: int) -> None:
        slash = path.rfind(b"/")
        parent = Path(path[:slash] or b"/")
        directory = self.dirs.get(parent)
        if directory is None:
            directory = self.dirs[parent] = Directory()
        directory.add(path[slash + 1:], ordinal, generation)

    def _own(self, path: Path, node: Node) -> None:
        owner = node.perms.owner
        owned = self.owned.get(owner)
        if owned is None:
            owned = self.owned[owner] = set()
            self.owned_bytes[owner] = 0
        owned.add(path)
        self.owned_bytes[owner] += node_bytes(path, node)
        if node.perms.granted:
            self._grant(path, node)

    def _grant(self, path: Path, node: Node) -> None:
        for domid in node.perms.granted:
            self.granted.setdefault(domid, set()).add(path)
            self._grants += 1

    def _revoke(self, path: Path, node: Node) -> None:
        for domid in node.perms.granted:
            granted = self.granted[domid]
            granted.discard(path)
            self._grants -= 1
            if not granted:
                del self.granted[domid]

    def _disown_all(self, removed: list[tuple[Path, Node]]) -> None:
        """Take removed nodes out of all accounts. In whole lists: a removal may be large."""
        for owner, own in by_owner(removed).items():
            size = pairs_bytes(own)
            self.bytes -= size
            self.owned_bytes[owner] -= size
            self.owned[owner].difference_update([path for path, _ in own])
            if not self.owned[owner]:
                del self.owned[owner], self.owned_bytes[owner]
        for path, node in removed:
            if node.perms.granted:
                self._revoke(path, node)

    def _disown(self, path: Path, node: Node) -> None:
        owner = node.perms.owner
        owned = self.owned[owner]
        owned.discard(path)
        self.owned_bytes[owner] -= node_bytes(path, node)
        if not owned:
            del self.owned[owner], self.owned_bytes[owner]
        if node.perms.granted:
            self._revoke(path, node)

    def check(self) -> str | None:
        """Compare every index with the nodes; None, or the first difference. O(nodes)."""
        owned: dict[int, set[Path]] = {}
        granted: dict[int, set[Path]] = {}
        total = names = 0
        for path, node in self.nodes.items():
            owned.setdefault(node.perms.owner, set()).add(path)
            total += node_bytes(path, node)
            for domid in node.perms.granted:
                granted.setdefault(domid, set()).add(path)
            if path != ROOT:
                directory = self.dirs.get(paths.parent(path))
                if directory is None or directory.names.get(paths.name(path)) != node.ordinal:
                    return f"{path.decode()} is not listed in its parent"
        for path, directory in self.dirs.items():
            names += len(directory.names)
            if path not in self.nodes or not directory.names:
                return f"{path.decode()} has a directory and should not"
            if directory.name_bytes != sum(len(name) + 1 for name in directory.names):
                return f"{path.decode()} has a wrong name size"
        if names != len(self.nodes) - 1:
            return f"{names} names for {len(self.nodes)} nodes"
        if owned != self.owned or total != self.bytes:
            return "owners or sizes are wrong"
        if granted != self.granted or self._grants != sum(map(len, granted.values())):
            return "granted rights are wrong"
        for domid, owned_paths in owned.items():
            if self.owned_bytes[domid] != sum(node_bytes(one, self.nodes[one])
                                              for one in owned_paths):
                return f"domain {domid} owns another number of bytes"
        return None

    # -- only a transaction's view does these

    def recall(self, key: str, present: Perms) -> Perms:
        """What is beside the tree: the present."""
        return present

    def observe(self, fact: bytes) -> None:
        """Nothing."""

    def poison(self) -> None:
        """Nothing: a failed request leaves no trace here."""


def _by_ordinal(pair: tuple[bytes, int]) -> int:
    return pair[1]
