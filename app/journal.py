# SPDX-License-Identifier: Apache-2.0
"""A store's steps <-> the log: recovery, one record per turn, carrying, sealing. No policy.

U1. Everything durable of the store goes through commit(), in one record per turn.
U2. The state digest is kept up to date with every record; recovery computes it anew from what it
    rebuilt, and the two must agree (P5).
U3. A node's `position` is that of the newest record that holds it, and the cleaner counts such
    entries per segment: that is how it knows live from dead.
U4. prepare() makes room for the largest turn before the first request of a turn is executed:
    memory is never ahead of a log that is full.
Change with: codec.py and FORMAT.md (what a record says), store.py (what there is to restore)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app import codec
from app.client import Client
from app.codec import DIGEST_MASK, Carry, Life, SealMark, Stream
from app.effects import Cut, Effect, Item, Put, SetItem
from app.path import ROOT, Path
from app.replay import FoundStream, Replay, Sealed, Stamp, mend
from app.seal import Sealer
from app.store import Store
from app.streams import StreamBook, StreamSource
from app.tree import Node, Space, node_bytes
from app.wire import Request
from persist import oid
from persist.clean import Cleaner
from persist.layout import log_size, record_size_max
from persist.log import Log, format_region
from persist.record import Kind, Record
from persist.recover import SEGMENT_SHIFT, Damage, Outcome, Recovery, recover
from persist.region import Medium, RegionError
from persist.slots import SLOT_PAYLOAD_MAX, TurnSlots, read_slots

NODES_PER_CARRY = 32
BYTES_PER_CARRY = 8 << 10
DAMAGES_LISTED = 64  # in a LIFE record
IDLE_BUDGET = 200  # nodes hashed between two looks at the sockets
SEAL_AUTHOR = "tardigrade <tardigrade@xenstore>"


class Start(NamedTuple):
    """How the server came to its state, for people to read."""

    outcome: Outcome
    damages: list[Damage]  # not reported by an earlier life
    notes: list[str]
    life: int
    ended_cleanly: bool
    records: int
    nodes: int
    sequence: int  # of the last record before this life
    cause: str  # why the last life ended, if it said so
    streams: dict[int, FoundStream]
    last_stamp: Stamp


def space_for(medium: Medium, heap_bytes: int) -> Space:
    """The admission limits that go with a region: half the log, and a quarter of a record for one
    step. A record also holds a quarter of requests executed before, a quarter of events for
    guests, an eighth of those for domain 0, and a sixteenth for where the rings stand."""
    size = log_size(medium.size)
    return Space(size // 2, heap_bytes, record_size_max(size) // 4)


class Journal:
    """The log of one store. Made by open_journal()."""

    def __init__(self, medium: Medium, store: Store, clock_us: Callable[[], int], log: Log,
                 replay: Replay, found: Recovery, slot_sequence: int) -> None:
        self.log = log
        self.digest = replay.digest or 0
        self.last_seal = replay.sealed.mark if replay.sealed is not None else None
        self.verdict: str | None = None  # of the sealed state's verification, once it is known
        self.turn_bytes_max = log.record_size_max // 4
        self._room = 2 * log.record_size_max
        self._store = store
        self._clock_us = clock_us
        self._item_positions = replay.item_positions
        self._seal_position = replay.seal_position
        self._cleaner = Cleaner(log, self, found.damages, found.segments)
        self._count_live(found)
        self._carry_nodes: dict[Path, Node] = {}
        self._carry_items: dict[str, Item] = {}
        self._carry_seal = False
        self.streams = StreamBook(self._died)
        self._slots = TurnSlots(medium, slot_sequence)
        self._in_slot: set[int] = set()  # epochs of which only the newest slot has the newest entry
        self._born = 0
        self._unsealed = True
        # The sealed state is verified first, then its ids are the base of all later ones.
        self._sealed: Sealed | None = None
        sealed = replay.sealed
        if sealed is not None and not sealed.is_given_up and (
                sealed.mark.start >= log.superblock.start):
            sealed.tree, sealed.present_items = store.tree, store.items.values
            self._sealed = sealed
            self._sealer = Sealer(self._sealed, [*store.tree.nodes, *self._sealed.changed()])
        else:
            self._sealer = Sealer(self, store.tree.nodes)

    def _count_live(self, found: Recovery) -> None:
        """Tell the cleaner what recovery found live (U3)."""
        positions = [node.position for node in self._store.tree.nodes.values()]
        positions += self._item_positions.values()
        if self.last_seal is not None:
            positions.append(self._seal_position)
        live = Counter([position >> SEGMENT_SHIFT for position in positions])
        live.pop(-1, None)  # mended nodes are in no record yet
        self._cleaner.live.update(dict.fromkeys(found.segments, 0))
        self._cleaner.live.update(live)

    def begin_stream(self, source: StreamSource, found: FoundStream | None = None) -> None:
        """Record this connection's streams from now on; `found` is what recovery knows of them."""
        for position in self.streams.begin(source, found):
            self._cleaner.born(position)

    # -- the commit point

    def prepare(self) -> None:
        """Make room for the largest turn. Before the first request of a turn is executed."""
        log = self.log
        if log.size - log.tail + log.floor < self._room:
            self._cleaner.make_room(log.record_size_max)

    def commit(self, steps: list[tuple[Client, Request, list[Effect]]],
               streams: Sequence[Stream] = ()) -> int:
        """Append one record with all of a turn's steps and the streams of the rings that it
        moved; returns its size in the log.

        Nothing of the turn may be published before this returns. Dying inside: either the
        whole turn is replayed, or none of it."""
        for _, _, effects in steps:
            for effect in effects:
                if type(effect) is Put:
                    self._take_put(effect)
                elif isinstance(effect, Cut):
                    self._take_cut(effect)
                elif isinstance(effect, SetItem):
                    self._take_item(effect)
        self._unsealed = self._unsealed or bool(steps)
        self._in_slot.clear()
        for stream in streams:
            self._born += self.streams.take(stream, self.log.tail)
        payload = codec.encode_turn(self._clock_us(), self._store.tree.generation, self.digest,
                                    steps, streams)
        return self._append(Kind.TURN, payload)

    def commit_slot(self, streams: Sequence[Stream]) -> bool:
        """Write a turn that only moved rings to a turn slot, if it may be there: whether it is."""
        if not self.streams.may_stay_out(streams):
            return False
        payload = codec.encode_slot(self._clock_us(), streams)
        if len(payload) > SLOT_PAYLOAD_MAX:
            return False
        self._slots.write(self.log.tail, payload)
        self._in_slot = {stream.epoch for stream in streams}
        return True

    def log_owed(self, sources: Sequence[StreamSource]) -> int:
        """These are owed bytes after publishing: what only a slot holds goes into the log. Returns
        its size there."""
        streams = [source.whole_stream() for source in sources if source.conn_id in self._in_slot]
        return self.commit([], streams) if streams else 0

    def _take_put(self, effect: Put) -> None:
        path, before, after = effect.path, effect.before, effect.after
        tail = after.position = self.log.tail
        change = codec.node_digest(path, after)
        if before is None:
            self._born += 1
        else:
            change -= codec.node_digest(path, before)
            position = before.position
            if position != tail:  # else it was changed twice in this turn
                self._born += 1
                self._cleaner.died(position)
        self.digest = (self.digest + change) & DIGEST_MASK
        if self._sealed is None:
            self._sealer.mark(path)
        else:
            self._sealed.note(path, before)

    def _take_cut(self, effect: Cut) -> None:
        removed = effect.removed
        self.digest = (self.digest - codec.nodes_digest(removed)) & DIGEST_MASK
        tail = self.log.tail
        segments = Counter([node.position >> SEGMENT_SHIFT for _, node in removed
                            if node.position != tail])
        self._cleaner.died_in(segments)
        self._born -= len(removed) - segments.total()  # those were made in this very turn
        if self._sealed is None:
            self._sealer.forget(removed)
            self._sealer.mark(effect.path)
        else:
            for path, node in removed:
                self._sealed.note(path, node)

    def _take_item(self, effect: SetItem) -> None:
        key, change = effect.key, 0
        if effect.before is not None:
            change -= codec.item_digest(key, effect.before)
            self._died(self._item_positions.pop(key))
        if effect.after is not None:
            change += codec.item_digest(key, effect.after)
            self._item_positions[key] = self.log.tail
            self._born += 1
        self.digest = (self.digest + change) & DIGEST_MASK
        if self._sealed is None:
            self._sealer.mark_item(key)
        else:
            self._sealed.note_item(key, effect.before)

    def _died(self, position: int) -> None:
        """What the record at `position` held of something is no longer its newest copy."""
        if position == self.log.tail:
            self._born -= 1  # changed twice in the turn that is being recorded
        else:
            self._cleaner.died(position)

    def _append(self, kind: int, payload: bytes) -> int:
        """Append a record that holds the `_born` live entries taken in since the last one."""
        position, born, self._born = self.log.tail, self._born, 0
        size = self.log.append(kind, payload)
        self._cleaner.appended(position, born)
        return size

    # -- between turns

    def after_turn(self, appended: int) -> bool:
        """Carry a share in proportion to what the turn appended; True while more is due."""
        is_forgetting = self._sealer.has_gone and self._sealer.forget_some()
        return self._cleaner.pay(appended) or is_forgetting

    @property
    def has_lost(self) -> bool:
        """Whether take_lost() has something to tell."""
        return bool(self._cleaner.lost)

    def take_lost(self) -> list[Damage]:
        """Damage that the cleaner met in records of this life; all of it was carried on."""
        lost, self._cleaner.lost = self._cleaner.lost, []
        return lost

    def idle(self) -> bool:
        """Hash a little, and seal when everything is hashed; True while there is more to do."""
        if self._sealed is not None and self._sealed.is_given_up:
            self.verdict = "too much was changed before the last seal could be verified"
            self._sealed, self._sealer = None, Sealer(self, self._store.tree.nodes)
        if not self._sealer.is_clean:
            self._sealer.step(IDLE_BUDGET)
            if not self._sealer.is_clean:
                return True
        if self._sealed is not None:
            self._end_verification(self._sealed)
            return True
        if self._unsealed:
            self._seal()
        return False

    def end(self) -> None:
        """Append the END record of a life that ends on purpose."""
        self.prepare()
        self._append(Kind.END, b"")

    def _end_verification(self, sealed: Sealed) -> None:
        found = self._sealer.root_oid()
        if found == sealed.mark.tree:
            self.verdict = f"git tree {found.hex()} of the seal at sequence " \
                           f"{sealed.mark.sequence} verified"
        else:
            self.verdict = f"CORRUPT: git tree {found.hex()} instead of {sealed.mark.tree.hex()} " \
                           f"at sequence {sealed.mark.sequence}"
        self._sealed = None
        self._sealer.view = self
        for path in sealed.changed():
            self._sealer.mark(path)
        for key in sealed.changed_items():
            self._sealer.mark_item(key)
        self._sealer.mark(ROOT)

    def _seal(self) -> None:
        self.prepare()
        tree = self._sealer.root_oid()
        parent = self.last_seal.commit if self.last_seal is not None else b""
        sequence, time_s = self.log.sequence, self._clock_us() // 1_000_000
        commit = oid.commit_id(tree, parent or None, SEAL_AUTHOR, time_s, seal_message(sequence))
        if self.last_seal is not None:
            self._died(self._seal_position)
        self.last_seal = SealMark(time_s, tree, commit, parent, sequence,
                                  self.log.superblock.start)
        self._seal_position = self.log.tail
        self._born += 1
        self._append(Kind.SEAL, codec.encode_seal(self.last_seal))
        self._unsealed = False

    # -- SealedView of the present state

    def node(self, path: Path) -> Node | None:
        """The node, or None."""
        return self._store.tree.nodes.get(path)

    def child_names(self, path: Path) -> list[bytes]:
        """The names of its children."""
        directory = self._store.tree.dirs.get(path)
        return list(directory.names) if directory is not None else []

    def item_groups(self) -> dict[tuple[str, str], dict[str, Item]]:
        """The items."""
        return self._store.items.groups

    # -- Carrier

    def live_bytes(self) -> int:
        """An upper bound of what all live state takes in the log."""
        return (self._store.tree.bytes + self._store.tree.space.items_bytes
                + self.streams.live_bytes())

    def collect(self, one: Record) -> None:
        """Remember what of a record is still live."""
        position = one.position
        if one.kind == Kind.TURN:
            *_, steps, streams = codec.unpack(one.payload)
            self.streams.collect(streams, position)
            for step in steps:
                for effect in step[-1]:
                    if type(effect) is bytes:
                        continue
                    if len(effect) == 4:
                        self._collect_node(effect[0], position)
                    else:
                        self._collect_item(effect[0], position)
        elif one.kind == Kind.CARRY:
            _, _, nodes, items, _, streams = codec.unpack(one.payload)
            self.streams.collect(streams, position)
            for path, *_ in nodes:
                self._collect_node(path, position)
            for key, _ in items:
                self._collect_item(key, position)
        self._carry_seal |= one.position == self._seal_position

    def collect_lost(self, begin: int, end: int) -> None:
        """Remember all that only lost records hold. O(nodes): only after damage."""
        for path, node in self._store.tree.nodes.items():
            if begin <= node.position < end:
                self._collect_node(path, node.position)
        for key, position in list(self._item_positions.items()):
            if begin <= position < end:
                self._collect_item(key, position)
        self.streams.collect_lost(begin, end)
        self._carry_seal |= begin <= self._seal_position < end

    def flush(self) -> None:
        """Append what was collected, a batch to a record."""
        batch: list[tuple[Path, Node]] = []
        size = 0
        for path, node in self._carry_nodes.items():
            if size + node_bytes(path, node) > BYTES_PER_CARRY or len(batch) == NODES_PER_CARRY:
                self._append_carry(batch)
                batch, size = [], 0
            batch.append((path, node))
            size += node_bytes(path, node)
        if batch or self._carry_items or self._carry_seal:
            self._append_carry(batch)
        self._carry_nodes.clear()
        self._append_streams()

    def _append_streams(self) -> None:
        while True:
            streams, self._born = self.streams.carry(self.log.tail)
            if not streams:
                break
            self._append(Kind.CARRY, codec.encode_carry(Carry(
                self._store.tree.generation, self.digest, [], [], None, streams)))

    def _collect_node(self, path: Path, position: int) -> None:
        node = self._store.tree.nodes.get(path)
        if node is not None and node.position == position:
            self._carry_nodes[path] = node

    def _collect_item(self, key: str, position: int) -> None:
        if self._item_positions.get(key) == position:
            self._carry_items[key] = self._store.items.get(key)

    def _append_carry(self, batch: list[tuple[Path, Node]]) -> None:
        tail, items = self.log.tail, self._carry_items
        for _, node in batch:
            self._died(node.position)
            node.position = tail
        for key in items:
            self._died(self._item_positions[key])
            self._item_positions[key] = tail
        if self._carry_seal:
            self._died(self._seal_position)
            self._seal_position = tail
        self._born += len(batch) + len(items) + self._carry_seal
        carry = Carry(self._store.tree.generation, self.digest, batch, list(items.items()),
                      self.last_seal if self._carry_seal else None, [])
        self._carry_items, self._carry_seal = {}, False
        self._append(Kind.CARRY, codec.encode_carry(carry))


def seal_message(sequence: int) -> str:
    """The message of a seal's commit."""
    return f"seal at sequence {sequence}\n"


def open_journal(medium: Medium, store: Store, clock_us: Callable[[], int],
                 keep_damaged: Callable[[], None], cause: str = "",
                 has_rings: bool = True) -> tuple[Journal, Start]:
    """Recover `store` (which must be empty) from `medium`, or begin a new region.

    `cause`: why the last life ended, as far as that is known. `keep_damaged` is called before the
    first write if new damage was found. Writes nothing before the state is rebuilt; then a LIFE
    record, and a TURN with the server's own changes. Dying at any point leaves a region that starts
    just as well. Where rings are to be placed, no room is made yet: what the last prepare() left
    is enough for hundreds of starts. Raises RegionError for what is no region of ours."""
    replay = Replay()
    found = recover(medium, replay.apply)
    slots = read_slots(medium)
    for slot in slots:
        replay.apply_slot(slot)
    if not has_rings and replay.has_introduced():
        raise RegionError("domains were introduced to the server of this region: name the --host "
                          "that they are on, or take another region; it was not touched")
    outcome, damages, notes, mended = _judge(found, replay)
    if damages:
        keep_damaged()
    state = found.state if found.state is not None else format_region(medium)
    log = Log(medium, state)
    if log.free < log.record_size_max // 4:
        raise RegionError("so many starts have failed one after the other that the log is full")
    if found.notes or outcome is Outcome.CORRUPT:
        for _ in range(2):  # both superblocks are made whole
            log.move_start(state.superblock.start, state.superblock.start_sequence)
    _restore(store, replay)
    number = max(replay.life.number + 1 if replay.life is not None else 1,
                 store.items.number("next.life", 1))
    journal = Journal(medium, store, clock_us, log, replay, found,
                      slots[-1].sequence if slots else 0)
    if not replay.streams:
        journal.prepare()  # else once every ring is placed: until then nobody could carry them
    journal._append(Kind.LIFE, codec.encode_life(Life(
        clock_us(), number, store.tree.generation, journal.digest, outcome.value,
        [(one.position, one.size, one.reason) for one in damages[:DAMAGES_LISTED]], cause)))
    effects: list[Effect] = list(mended)
    if not store.tree.nodes:
        effects += store.populate()
    store.items.put("next.life", number + 1)
    effects += store.take_effects()
    journal.commit([(codec.SERVER, codec.START, effects)])
    store.resume()
    return journal, Start(outcome, damages, notes, number, replay.ended_cleanly, found.records,
                          len(store.tree.nodes), state.sequence, cause, replay.streams,
                          replay.last_stamp)


def _judge(found: Recovery, replay: Replay) -> tuple[Outcome, list[Damage], list[str], list[Put]]:
    """Outcome, news of damage, notes, and the parents that had to be made anew."""
    notes = list(found.notes)
    damages = [one for one in found.damages if one.position not in replay.acknowledged]
    problem = _compare_digest(replay)
    if problem is not None and not damages:
        damages.append(Damage(0, 0, problem))
    elif problem is not None:
        notes.append(problem)
    elif found.damages:
        notes.append("the state digest agrees with the last one recorded")
    mended = mend(replay)
    if mended:
        notes.append(f"{len(mended)} lost parents of known nodes were made anew, the first is "
                     f"{mended[0].path.decode()}")
    outcome = found.outcome
    if damages:
        outcome = Outcome.CORRUPT
    elif outcome is Outcome.CORRUPT:
        outcome = Outcome.CLEAN
        notes.append("damage that an earlier life has reported is still in the log")
    return outcome, damages, notes, mended


def _compare_digest(replay: Replay) -> str | None:
    """Recompute the state digest (U2); None if it is the recorded one."""
    computed = replay.compute_digest()
    recorded, replay.digest = replay.digest, computed
    if recorded is None or recorded == computed:
        return None
    return f"state digest {computed:016x} instead of {recorded:016x}"


def _restore(store: Store, replay: Replay) -> None:
    """Hand the replayed state to the store."""
    store.tree.generation = replay.generation
    for key, value in replay.items.items():
        store.items.restore(key, value)
    store.tree.adopt(replay.nodes, replay.dirs)
