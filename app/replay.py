# SPDX-License-Identifier: Apache-2.0
"""Records in order -> the state they describe. Used by recovery, and by tools beside a server.

Z1. Records may begin anywhere in a history: a child may come before its parent, a removal before
    what it removed. Only at the end is the state whole.
Z2. Since the last seal, what each changed path was before is kept: so the sealed state can be
    looked at again while the present one goes on (Sealed).
Knows nothing of positions and damage (persist/recover.py)."""

from __future__ import annotations

from app import codec
from app import path as paths
from app.codec import Life, SealMark, Step
from app.effects import Item
from app.errors import InvariantError
from app.path import ROOT, Path
from app.tree import Node, Tree
from persist.record import Kind, Record


class Sealed:
    """The state as it was at a seal: what was changed since, over what is there now."""

    def __init__(self, mark: SealMark) -> None:
        self.mark = mark
        self._nodes: dict[Path, Node | None] = {}
        self._items: dict[str, Item] = {}
        self._names: dict[Path, set[bytes]] = {}
        self.tree: Tree | None = None  # the present, set when it is whole
        self.present_items: dict[str, Item] = {}

    def note(self, path: Path, before: Node | None) -> None:
        """`path` is about to change; `before` is what it was."""
        if path not in self._nodes:
            self._nodes[path] = before
            if before is not None and path != ROOT:
                self._names.setdefault(paths.parent(path), set()).add(paths.name(path))

    def note_item(self, key: str, before: Item) -> None:
        """Item `key` is about to change."""
        self._items.setdefault(key, before)

    def changed(self) -> list[Path]:
        """All paths that are not as they were."""
        return list(self._nodes)

    # -- SealedView

    def node(self, path: Path) -> Node | None:
        """The node at the seal."""
        assert self.tree is not None
        if path in self._nodes:
            return self._nodes[path]
        return self.tree.nodes.get(path)

    def child_names(self, path: Path) -> list[bytes]:
        """The names of its children at the seal."""
        assert self.tree is not None
        directory = self.tree.dirs.get(path)
        names = set(directory.names) if directory is not None else set()
        if self._nodes:
            names = {name for name in names if self.node(paths.child(path, name)) is not None}
            names |= self._names.get(path, set())
        return list(names)

    def items(self) -> dict[str, Item]:
        """The items at the seal."""
        merged = {**self.present_items, **self._items}
        return {key: value for key, value in merged.items() if value is not None}


class Replay:
    """Collects the state while records are applied."""

    def __init__(self) -> None:
        self.nodes: dict[Path, Node] = {}
        self.items: dict[str, Item] = {}
        self.item_positions: dict[str, int] = {}
        self.generation = 0
        self.digest: int | None = None  # of the last record that names one
        self.life: Life | None = None
        self.ended_cleanly = False
        self.acknowledged: set[int] = set()  # positions of damage that a life has reported
        self.sealed: Sealed | None = None
        self.seal_position = -1  # of the record that holds the last seal
        self._names: dict[Path, set[bytes]] = {}

    def apply(self, one: Record) -> None:
        """Take one record in."""
        kind = one.kind
        if kind == Kind.TURN:
            turn = codec.decode_turn(one.payload, one.position)
            for step in turn.steps:
                self._apply_step(step, one.position)
            self.generation, self.digest = turn.generation, turn.digest
            self.ended_cleanly = False
        elif kind == Kind.CARRY:
            carry = codec.decode_carry(one.payload, one.position)
            for path, node in carry.nodes:
                self._link(path)
                self.nodes[path] = node
            for key, value in carry.items:
                self._set_item(key, value, one.position)
            if carry.seal is not None:
                self.seal_position = one.position
                if self.sealed is None:
                    self.sealed = Sealed(carry.seal)
            self.generation, self.digest = carry.generation, carry.digest
        elif kind == Kind.LIFE:
            self.life = codec.decode_life(one.payload)
            self.generation, self.digest = self.life.generation, self.life.digest
            self.acknowledged.update(position for position, _, _ in self.life.damages)
            self.ended_cleanly = False
        elif kind == Kind.SEAL:
            self.sealed = Sealed(codec.decode_seal(one.payload))
            self.seal_position = one.position
        elif kind == Kind.END:
            self.ended_cleanly = True
        else:
            raise InvariantError(f"record {one.sequence} has the unknown kind {kind}")

    def compute_digest(self) -> int:
        """The digest of the collected state, to be compared with `digest`."""
        total = sum(codec.node_digest(path, node) for path, node in self.nodes.items())
        total += sum(codec.item_digest(key, value) for key, value in self.items.items())
        return total & codec.DIGEST_MASK

    def _apply_step(self, step: Step, position: int) -> None:
        sealed = self.sealed
        for key, value in step.effects:
            if isinstance(key, str):
                if sealed is not None:
                    sealed.note_item(key, self.items.get(key))
                self._set_item(key, value, position)
            elif value is None:
                self._cut(key)
            else:
                if sealed is not None:
                    sealed.note(key, self.nodes.get(key))
                if key not in self.nodes:
                    self._link(key)
                self.nodes[key] = value

    def _set_item(self, key: str, value: Item, position: int) -> None:
        if value is None:
            self.items.pop(key, None)
            self.item_positions.pop(key, None)
        else:
            self.items[key] = value
            self.item_positions[key] = position

    def _link(self, path: Path) -> None:
        if path == ROOT:
            return
        slash = path.rfind(b"/")
        parent = Path(path[:slash] or b"/")
        names = self._names.get(parent)
        if names is None:
            self._names[parent] = {path[slash + 1:]}
        else:
            names.add(path[slash + 1:])

    def _cut(self, path: Path) -> None:
        stack = [path]
        while stack:
            one = stack.pop()
            node = self.nodes.pop(one, None)
            if self.sealed is not None and node is not None:
                self.sealed.note(one, node)
            stack += [paths.child(one, name) for name in self._names.pop(one, ())]
        names = self._names.get(paths.parent(path))
        if names is not None:
            names.discard(paths.name(path))
