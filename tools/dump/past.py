# SPDX-License-Identifier: Apache-2.0
"""What a region remembers: every change in order, and the state at each of them.

U1. One walk gives everything: walk() applies the records to a State and says after each step what
    has happened; whoever needs the state at a moment looks at `state` there. Who needs none skims.
U2. What was cleaned away is inferred where it can be: a node that is carried before anything else
    is said of it was there, like that, when the history begins.
U3. `is_whole` says whether the state is proven to be all that there was: its digest is the recorded
    one. It is whole from the beginning of a region, or from the first record on at which it
    agrees; behind damage it is open again.
Knows nothing of text. Source of the bytes' meaning: app/codec.py, FORMAT.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from app import codec
from app import path as paths
from app.codec import Life, SealMark, Stream, Turn
from app.path import ROOT, Path
from app.replay import Replay
from persist.history import READ_TRIES, Gap, history, overtaken, recover_beside
from persist.record import Kind, Record
from persist.recover import Recovery
from persist.region import Medium
from persist.slots import read_slots
from tools.dump.state import Difference, State

SERVER_TYPE = codec.START.type  # of a step that nobody has asked for


class Change(NamedTuple):
    """One request, or one doing of the server's own (type SERVER_TYPE), that changed something:
    step `step` of `steps` in record `sequence`. `effects` as recorded, a removed subtree in one
    piece; `differences` node by node."""

    sequence: int
    step: int
    steps: int
    time_us: int
    life: int
    domid: int
    conn_id: int
    pid: int
    type: int
    req_id: int
    effects: list[tuple[Any, Any]]
    differences: list[Difference]


class Begun(NamedTuple):
    """A life begins. `is_clean`: the one before had ended on purpose, or there was none."""

    sequence: int
    life: Life
    is_clean: bool


class Ended(NamedTuple):
    """A life ends on purpose."""

    sequence: int
    time_us: int
    life: int


class Sealed(NamedTuple):
    """A git commit was sealed. Its tree is that of the state after record `mark.sequence`."""

    sequence: int
    mark: SealMark


class Lost(NamedTuple):
    """Damage: bytes of the log do not verify; `after` is the last sequence before them."""

    position: int
    size: int
    after: int
    time_us: int


class Carried(NamedTuple):
    """Live state was appended again. `differences`: what was not known before; all of it existed
    already. None but behind damage."""

    sequence: int
    time_us: int
    nodes: int
    items: int
    streams: list[Stream]
    differences: list[Difference]


class Moved(NamedTuple):
    """Rings moved in record `sequence`, whose changes were given before."""

    sequence: int
    time_us: int
    streams: list[Stream]


Event: TypeAlias = Change | Begun | Ended | Sealed | Lost | Carried | Moved


class Past:
    """A region's records. Read once; walk() as often as one likes."""

    def __init__(self, entries: list[Record | Gap], found: Recovery | None = None,
                 present: Replay | None = None, kinds: Counter[str] | None = None) -> None:
        """`found`, `present`, `kinds`: how recovery sees it, see read_past()."""
        self.entries = entries
        self.found = found
        self.present = present
        self.kinds = kinds if kinds is not None else Counter()
        self.problems: list[str] = []  # of the last walk: digests that differ without damage
        self._base: list[tuple[Path | str, Any]] | None = None
        self.begin()

    @property
    def first(self) -> int:
        """The oldest sequence that is still there; 0 if there is none."""
        return next((one.sequence for one in self.entries if isinstance(one, Record)), 0)

    @property
    def newest(self) -> int:
        """The sequence that recovery ends with; 0 if there is none."""
        return self.found.state.sequence if self.found is not None and self.found.state else 0

    @property
    def sequence(self) -> int:
        """Of the record that the walk has looked at last."""
        return self._sequence

    @property
    def is_from_the_beginning(self) -> bool:
        """Whether nothing was cleaned away yet."""
        return self.first == 1 or self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recorded yet."""
        return not self.entries

    @property
    def last_life(self) -> int:
        """The number of the life that the newest record belongs to."""
        for one in reversed(self.entries):
            if isinstance(one, Record) and one.kind == Kind.LIFE:
                return codec.decode_life(one.payload).number
        return self.first_life()

    def begun(self) -> list[tuple[int, Life]]:
        """The lives whose beginnings are remembered, with the sequences of those."""
        return [(one.sequence, codec.decode_life(one.payload)) for one in self.entries
                if isinstance(one, Record) and one.kind == Kind.LIFE]

    def backwards(self) -> Iterator[tuple[int, int, int]]:
        """Sequence, step and time of each change, the last one first: only what is looked at is
        decoded."""
        for one in reversed(self.entries):
            if isinstance(one, Record) and one.kind == Kind.TURN:
                time_us, _, _, steps, _ = codec.unpack(one.payload)
                for step in reversed(range(len(steps))):
                    yield one.sequence, step, time_us

    def base(self) -> list[tuple[Path | str, Any]]:
        """What is known of the state before the first record (U2), as effects: parents first."""
        if self._base is None:
            self._base = self._find_base()
        return self._base

    def _find_base(self) -> list[tuple[Path | str, Any]]:
        """Ends at a seal whose `start` is not before the first record: whatever lived then, and was
        not changed since, has been carried."""
        begin = next((one.position for one in self.entries), 0)
        known: dict[Path | str, Any] = {}
        said: set[Path | str] = set()
        cuts: set[Path] = set()
        for one in self.entries:
            if isinstance(one, Gap) or (
                    one.kind == Kind.SEAL and codec.decode_seal(one.payload).start >= begin):
                break
            if one.kind == Kind.CARRY:
                carry = codec.decode_carry(one.payload, one.position)
                for path, node in carry.nodes:
                    if path not in said and not _is_below(path, cuts):
                        known[path] = node
                    said.add(path)
                for key, value in carry.items:
                    if key not in said:
                        known[key] = value
                    said.add(key)
            elif one.kind == Kind.TURN:
                for step in codec.unpack(one.payload)[3]:
                    for effect in step[-1]:
                        if isinstance(effect, bytes):
                            cuts.add(Path(effect))
                            said.add(Path(effect))
                        else:
                            said.add(effect[0])
        return sorted(known.items(), key=lambda pair: (isinstance(pair[0], str), pair[0]))

    def begin(self) -> None:
        """Let `state` be what is known of the time before the first record."""
        self.state, self.problems = State(), []
        self.state.apply(self.base())
        self.is_whole = self.is_from_the_beginning
        self._sequence = self._time_us = 0
        self._life, self._has_ended = self.first_life(), False
        self._keeps_state = True

    def skim(self) -> Iterator[Event]:
        """As walk(), several times as fast, but without states: no event has differences, and
        `state` stays what begin() leaves."""
        self.begin()
        self._keeps_state = False
        for one in self.entries:
            yield from self._take(one)

    def state_at_end(self) -> State:
        """The present state; a walk where damage makes that the better source."""
        if self.present is None or self.found is None or self.found.damages:
            for _ in self.walk():
                pass
            return self.state
        state = State()
        state.apply(self.present.nodes.items())
        state.apply(self.present.items.items())
        return state

    def walk(self, limit: tuple[int, int] | None = None,
             more: Iterable[Record | Gap] = ()) -> Iterator[Event]:
        """Everything that has happened, oldest first, and then what `more` gives; up to step
        `limit[1]` of record `limit[0]`. While an event is looked at, `state` is what it left, and
        `is_whole` says whether that is all. It starts as begin() leaves it."""
        self.begin()
        for one in chain(self.entries, more):
            if limit is not None and isinstance(one, Record) and one.sequence > limit[0]:
                return
            yield from self._take(one, limit[1] if limit is not None and isinstance(one, Record)
                                  and one.sequence == limit[0] else None)

    def _take(self, one: Record | Gap, last_step: int | None = None) -> Iterable[Event]:
        if isinstance(one, Gap):
            self.is_whole = False
            return (Lost(one.position, one.size, self._sequence, self._time_us),)
        self._sequence = one.sequence
        if one.kind == Kind.TURN:
            turn = codec.decode_turn(one.payload, one.position)
            self._time_us, self._has_ended = turn.time_us, False
            if len(turn.steps) == 1 and not turn.streams:  # by far the most turns: no generator
                return (self._change(one, turn, 0),)
            return self._changes(one, turn, last_step)
        if one.kind == Kind.CARRY:
            return (self._carry(one),)
        if one.kind == Kind.LIFE:
            life = codec.decode_life(one.payload)
            is_clean = self._has_ended or (one.sequence == 1 and not life.cause)
            self._time_us, self._life, self._has_ended = life.time_us, life.number, False
            self._compare(one, life.digest)
            return (Begun(one.sequence, life, is_clean),)
        if one.kind == Kind.SEAL:
            return (Sealed(one.sequence, codec.decode_seal(one.payload)),)
        self._has_ended = True
        return (Ended(one.sequence, self._time_us, self._life),)

    def _changes(self, one: Record, turn: Turn, last_step: int | None) -> Iterator[Event]:
        for step in range(len(turn.steps)):
            if last_step is not None and step > last_step:
                return
            yield self._change(one, turn, step)
        if turn.streams:
            yield Moved(one.sequence, turn.time_us, turn.streams)

    def _change(self, one: Record, turn: Turn, step: int) -> Change:
        said, steps = turn.steps[step], len(turn.steps)
        differences = self.state.apply(said.effects) if self._keeps_state else []
        if step == steps - 1:
            self._compare(one, turn.digest)
        return Change(one.sequence, step, steps, turn.time_us, self._life, said.domid,
                      said.conn_id, said.pid, said.type, said.req_id, said.effects, differences)

    def _carry(self, one: Record) -> Carried:
        carry = codec.decode_carry(one.payload, one.position)
        if not self._keeps_state:
            return Carried(one.sequence, self._time_us, len(carry.nodes), len(carry.items),
                           carry.streams, [])
        state = self.state
        news: Iterable[tuple[Any, Any]] = [
            *((path, node) for path, node in carry.nodes
              if (known := state.nodes.get(path)) is None or known.ordinal != node.ordinal
              or known.value != node.value or known.perms is not node.perms),
            *((key, value) for key, value in carry.items if state.items.get(key) != value)]
        differences = state.apply(news)
        if not self.is_whole:
            self.is_whole = state.digest == carry.digest
        return Carried(one.sequence, self._time_us, len(carry.nodes), len(carry.items),
                       carry.streams, differences)

    def _compare(self, one: Record, digest: int) -> None:
        """Whether the state is whole now. A difference that neither damage nor what was cleaned
        away explains is a problem."""
        if not self._keeps_state:
            return
        agrees = self.state.digest == digest
        if self.is_whole and not agrees:
            self.problems.append(f"state digest {self.state.digest:016x} instead of the recorded "
                                 f"{digest:016x} at sequence {one.sequence}")
        self.is_whole = agrees

    def first_life(self) -> int:
        """The number of the life that the oldest record belongs to."""
        for one in self.entries:
            if isinstance(one, Record) and one.kind == Kind.LIFE:
                return codec.decode_life(one.payload).number - 1
        number = self.present.items.get("next.life", 1) if self.present is not None else 1
        return number - 1 if isinstance(number, int) else 0


def read_past(region: Medium, is_whole_history: bool = True) -> Past:
    """All that the region holds, or only what its present state rests on. Raises RegionError."""
    replays: list[Replay] = []
    kinds: Counter[str] = Counter()
    window: list[Record | Gap] = []

    def begin() -> Any:
        replays.append(Replay())
        kinds.clear()
        window.clear()

        def take(one: Record) -> None:
            kinds[kind_name(one.kind)] += 1
            if not is_whole_history:
                window.append(one)
            replays[-1].apply(one)
        return take

    for _ in range(READ_TRIES):
        found = recover_beside(region, begin)
        for slot in read_slots(region):
            replays[-1].apply_slot(slot)
        entries = window
        if is_whole_history and found.state is not None:
            entries = list(history(region, found.state.tail))
        if found.damages or found.state is None or _is_unbroken(
                entries, found.state.superblock.start):
            break
    else:
        raise overtaken()
    if found.state is not None:  # damage that nothing follows
        entries += [Gap(one.position, one.size) for one in found.damages
                    if one.position >= found.state.tail]
    return Past(entries, found, replays[-1], kinds)


def _is_unbroken(entries: list[Record | Gap], start: int) -> bool:
    """Whether all that recovery has just read from `start` on is still there: a running server may
    have used it again before it was read a second time."""
    expected = start
    for one in entries:
        if one.position >= start:
            if one.position != expected or isinstance(one, Gap):
                return False
            expected += one.size
    return True


def kind_name(kind: int) -> str:
    """As FORMAT.md names it."""
    try:
        return Kind(kind).name
    except ValueError:
        return f"kind {kind}"


def _is_below(path: Path, cuts: set[Path]) -> bool:
    """Whether `path` or one above it is in `cuts`."""
    while path != ROOT:
        if path in cuts:
            return True
        path = paths.parent(path)
    return ROOT in cuts
