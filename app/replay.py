# SPDX-License-Identifier: Apache-2.0
"""Records in order -> the state they describe. Used by recovery, and by tools beside a server.

Z1. Records may begin anywhere in a history: a child may come before its parent, a removal before
    what it removed. Only at the end is the state whole.
Z2. Since the last seal, what each changed path was before is kept: so the sealed state can be
    looked at again while the present one goes on (Sealed).
Z3. Of a ring's streams the newest entry counts, and all bytes that were not published when it was
    written. Records and slots come in the order of their stamps.
Knows nothing of positions and damage (persist/recover.py)."""

from __future__ import annotations

from collections import deque
from typing import Any

from app import codec
from app import path as paths
from app.codec import Life, SealMark, Stream
from app.effects import Item, Put
from app.errors import InvariantError
from app.items import grouped
from app.path import ROOT, Path
from app.perms import from_wire
from app.tree import Directory, Node, Tree
from persist.record import Kind, Record

SEALED_CHANGES_MAX = 20_000  # paths changed since a seal; beyond it the seal is given up
UNKNOWN = -1  # ordinal of a node that is only known from what is below it


class Sealed:
    """The state as it was at a seal: what was changed since, over what is there now."""

    def __init__(self, mark: SealMark) -> None:
        self.mark = mark
        self._nodes: dict[Path, Node | None] = {}
        self._items: dict[str, Item] = {}
        self._groups: dict[tuple[str, str], dict[str, Item]] | None = None
        self._names: dict[Path, set[bytes]] = {}
        self.is_given_up = False  # more was changed than is worth the memory to remember
        self.tree: Tree | None = None  # the present, set when it is whole
        self.present_items: dict[str, Item] = {}

    def note(self, path: Path, before: Node | None) -> None:
        """`path` is about to change; `before` is what it was."""
        if path not in self._nodes and not self.is_given_up:
            if len(self._nodes) >= SEALED_CHANGES_MAX:
                self.is_given_up = True
                self._nodes.clear()
                self._names.clear()
                return
            self._nodes[path] = before
            if before is not None and path != ROOT:
                self._names.setdefault(paths.parent(path), set()).add(paths.name(path))

    def note_item(self, key: str, before: Item) -> None:
        """Item `key` is about to change."""
        self._items.setdefault(key, before)

    def changed(self) -> list[Path]:
        """All paths that are not as they were."""
        return list(self._nodes)

    def changed_items(self) -> list[str]:
        """The keys of all items that are not as they were."""
        return list(self._items)

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

    def item_groups(self) -> dict[tuple[str, str], dict[str, Item]]:
        """The items at the seal."""
        if self._groups is None:  # whatever changes meanwhile, it stays the same
            merged = {**self.present_items, **self._items}
            self._groups = grouped({key: value for key, value in merged.items()
                                    if value is not None})
        return self._groups


Stamp = tuple[int, int]  # log position, and in it: 0 and up for slots, then IN_LOG for the record
IN_LOG = 1 << 63


class FoundStream:
    """What log and slots know of a ring's streams: see codec.Stream."""

    def __init__(self) -> None:
        self.stamp: Stamp = (-1, 0)
        self.before = self.after = self.sent = self.end = 0
        self.input = b""
        self.position = -1  # of the log record that holds the newest entry, -1: none does
        # The record's position (-1: a slot), start, bytes.
        self.chunks: deque[tuple[int, int, bytes]] = deque()

    def apply(self, one: Stream, stamp: Stamp) -> None:
        """Take in an entry; an older one than the newest changes nothing."""
        if stamp < self.stamp:
            return
        position = stamp[0] if stamp[1] == IN_LOG else -1
        self.stamp, self.before, self.after, self.sent = stamp, one.before, one.after, one.sent
        self.input, self.position = one.input, position
        chunks = self.chunks
        while chunks and chunks[-1][1] + len(chunks[-1][2]) > one.start:
            # An entry may say again what was owed (a carried one): from there on it replaces.
            place, start, data = chunks.pop()
            if start < one.start:
                chunks.append((place, start, data[:one.start - start]))
        while chunks and chunks[0][1] + len(chunks[0][2]) <= one.sent:
            chunks.popleft()
        if one.data:
            self.chunks.append((position, one.start, one.data))
        self.end = one.start + len(one.data)

    def is_whole_from(self, sent: int) -> bool:
        """Whether all bytes from `sent` on are there: damage may have taken some."""
        position = self.end
        for _, start, chunk in reversed(self.chunks):
            if start + len(chunk) != position:
                return False
            position = start
        return sent >= position

    def owed(self, sent: int) -> bytes:
        """All bytes from `sent` on."""
        data = b"".join(chunk for _, _, chunk in self.chunks)
        start = self.end - len(data)
        assert start <= sent <= self.end or sent == self.end, (start, sent, self.end)
        return data[sent - start:]


class Replay:
    """Collects the state while records are applied."""

    def __init__(self) -> None:
        self.nodes: dict[Path, Node] = {}
        self.dirs: dict[Path, Directory] = {}
        self.items: dict[str, Item] = {}
        self.item_positions: dict[str, int] = {}
        self.generation = 0
        self.digest: int | None = None  # of the last record that names one
        self.life: Life | None = None
        self.ended_cleanly = False
        self.acknowledged: set[int] = set()  # positions of damage that a life has reported
        self.sealed: Sealed | None = None
        self.seal_position = -1  # of the record that holds the last seal
        self.streams: dict[int, FoundStream] = {}
        self.last_stamp: Stamp = (-1, 0)  # of the newest entry of all

    def apply(self, one: Record) -> None:
        """Take one record in."""
        kind, position = one.kind, one.position
        if kind == Kind.TURN:
            self._apply_turn(one.payload, position)
        elif kind == Kind.CARRY:
            carry = codec.decode_carry(one.payload, position)
            for path, node in carry.nodes:
                before = self.nodes.get(path)
                if before is None or before.ordinal != node.ordinal:
                    self._begin(path, before, node.ordinal)
                self.nodes[path] = node
            for key, value in carry.items:
                self.items[key], self.item_positions[key] = value, position
            if carry.seal is not None:
                self.seal_position = position
                if self.sealed is None:
                    self.sealed = Sealed(carry.seal)
            self.generation, self.digest = carry.generation, carry.digest
            self._apply_streams(carry.streams, (position, IN_LOG))
        elif kind == Kind.LIFE:
            self.life = codec.decode_life(one.payload)
            self.generation, self.digest = self.life.generation, self.life.digest
            self.acknowledged.update(place for place, _, _ in self.life.damages)
            self.ended_cleanly = False
        elif kind == Kind.SEAL:
            self.sealed = Sealed(codec.decode_seal(one.payload))
            self.seal_position = position
        elif kind == Kind.END:
            self.ended_cleanly = True
        else:
            raise InvariantError(f"record {one.sequence} has the unknown kind {kind}")

    def apply_slot(self, one: Record) -> None:
        """Take in a turn slot, after all records."""
        self._apply_streams(codec.decode_slot(one.payload), (one.position, one.sequence))

    def _apply_streams(self, streams: list[Any], stamp: Stamp) -> None:
        for fields in streams:
            epoch = fields[0]
            found = self.streams.get(epoch)
            if found is None:
                found = self.streams[epoch] = FoundStream()
            found.apply(Stream(*fields), stamp)
        if streams:
            self.last_stamp = max(self.last_stamp, stamp)

    def has_introduced(self) -> bool:
        """Whether any domain has a connection."""
        return any(key.startswith("domain.") and isinstance(value, tuple) and value[1] != 0
                   for key, value in self.items.items())

    def compute_digest(self) -> int:
        """The digest of the collected state, to be compared with `digest`."""
        total = codec.nodes_digest(self.nodes.items())
        total += sum(codec.item_digest(key, value) for key, value in self.items.items())
        return total & codec.DIGEST_MASK

    def _apply_turn(self, payload: bytes, position: int) -> None:
        """The hot loop of recovery: codec.decode_turn() without its objects."""
        nodes, dirs, sealed = self.nodes, self.dirs, self.sealed
        _, self.generation, self.digest, steps, streams = codec.unpack(payload)
        if streams:
            self._apply_streams(streams, (position, IN_LOG))
        self.ended_cleanly = False
        for step in steps:
            for effect in step[-1]:
                if type(effect) is bytes:
                    self._cut(Path(effect))
                elif len(effect) == 4:
                    path, value, wire, ordinal = effect
                    before = nodes.get(path)
                    if sealed is not None:
                        sealed.note(path, before)
                    if before is None:
                        slash = path.rfind(b"/")
                        directory = dirs.get(path[:slash])
                        if directory is not None:
                            directory.names[path[slash + 1:]] = ordinal
                        else:
                            self._begin(path, None, ordinal)
                    elif before.ordinal != ordinal:
                        self._begin(path, before, ordinal)
                    nodes[path] = Node(value, from_wire(wire), ordinal, position)
                else:
                    self._set_item(effect[0], codec.item(effect[1]), position)

    def _set_item(self, key: str, value: Item, position: int) -> None:
        if self.sealed is not None:
            self.sealed.note_item(key, self.items.get(key))
        if value is None:
            self.items.pop(key, None)
            self.item_positions.pop(key, None)
        else:
            self.items[key], self.item_positions[key] = value, position

    def _begin(self, path: Path, before: Node | None, ordinal: int) -> None:
        """A node begins. If there is one with another ordinal, it was removed in between, in a
        record that is lost: what was below it went with it."""
        if before is not None:
            self._cut(path)
        while path != ROOT:
            slash = path.rfind(b"/")
            parent = Path(path[:slash] or b"/")
            directory = self.dirs.get(parent)
            if directory is not None:
                directory.names[path[slash + 1:]] = ordinal
                return
            directory = self.dirs[parent] = Directory()
            directory.names[path[slash + 1:]] = ordinal
            if parent in self.nodes:
                return
            # The parent's record may be behind us, or still to come; a removal of what is above
            # must find its way down to here all the same.
            path, ordinal = parent, UNKNOWN

    def _cut(self, path: Path) -> None:
        stack = [path]
        while stack:
            one = stack.pop()
            node = self.nodes.pop(one, None)
            if self.sealed is not None and node is not None:
                self.sealed.note(one, node)
            directory = self.dirs.pop(one, None)
            if directory is not None:
                stack += [paths.child(one, name) for name in directory.names]
        parent = paths.parent(path)
        directory = self.dirs.get(parent)
        if directory is not None:
            directory.names.pop(paths.name(path), None)
            if not directory.names:
                del self.dirs[parent]


def mend(replay: Replay) -> list[Put]:
    """Make the parents that damage has taken, readable by domain 0 only; none in a whole log."""
    mended: list[Put] = []
    if all(path in replay.nodes for path in replay.dirs):
        return mended
    for path in sorted(replay.dirs, key=len, reverse=True):  # children before parents
        directory = replay.dirs[path]
        for name in [name for name, ordinal in directory.names.items() if ordinal == UNKNOWN]:
            below = paths.child(path, name)
            if below not in replay.nodes and below not in replay.dirs:
                del directory.names[name]
        if not directory.names:
            del replay.dirs[path]
            continue
        while path not in replay.nodes:
            node = Node(b"", from_wire(b"n0\0"), 0)
            replay.nodes[path] = node
            mended.append(Put(path, None, node, fires=False))
            if path != ROOT:
                parent = paths.parent(path)
                replay.dirs.setdefault(parent, Directory()).names[paths.name(path)] = 0
                path = parent
    return mended
