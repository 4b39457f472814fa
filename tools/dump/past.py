# SPDX-License-Identifier: Apache-2.0
"""What a region remembers: every change in order, and the state at each of them.

U1. One walk gives everything: walk() applies the records to a State and says after each step what
    has happened; whoever needs the state at a moment looks at `state` there.
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
from app.codec import Life, SealMark, Stream
from app.path import ROOT, Path
from app.replay import Replay
from persist.history import Gap, history, recover_beside
from persist.record import Kind, Record
from persist.recover import Recovery
from persist.region import Medium
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
    def is_from_the_beginning(self) -> bool:
        """Whether nothing was cleaned away yet."""
        return self.first == 1

    @property
    def last_life(self) -> int:
        """The number of the life that the newest record belongs to."""
        for one in reversed(self.entries):
            if isinstance(one, Record) and one.kind == Kind.LIFE:
                return codec.decode_life(one.payload).number
        return self.first_life()

    def base(self) -> list[tuple[Path | str, Any]]:
        """What is known of the state before the first record (U2), as effects: parents first."""
        if self._base is None:
            self._base = self._find_base()
        return self._base

    def _find_base(self) -> list[tuple[Path | str, Any]]:
        known: dict[Path | str, Any] = {}
        said: set[Path | str] = set()
        cuts: set[Path] = set()
        for one in self.entries:
            if isinstance(one, Gap):
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

    def walk(self, limit: tuple[int, int] | None = None,
             more: Iterable[Record | Gap] = ()) -> Iterator[Event]:
        """Everything that has happened, oldest first, and then what `more` gives; up to step
        `limit[1]` of record `limit[0]`. While an event is looked at, `state` is what it left, and
        `is_whole` says whether that is all. It starts as begin() leaves it."""
        self.begin()
        for one in chain(self.entries, more):
            if limit is not None and isinstance(one, Record) and one.sequence > limit[0]:
                return
            last_step = limit[1] if limit is not None and isinstance(one, Record) and (
                one.sequence == limit[0]) else None
            yield from self._take(one, last_step)

    def _take(self, one: Record | Gap, last_step: int | None) -> Iterator[Event]:
        if isinstance(one, Gap):
            self.is_whole = False
            yield Lost(one.position, one.size, self._sequence, self._time_us)
            return
        self._sequence = one.sequence
        if one.kind == Kind.TURN:
            yield from self._take_turn(one, last_step)
        elif one.kind == Kind.CARRY:
            yield self._carry(one)
        elif one.kind == Kind.LIFE:
            life = codec.decode_life(one.payload)
            is_clean = self._has_ended or (life.number == 1 and not life.cause)
            self._time_us, self._life, self._has_ended = life.time_us, life.number, False
            self._compare(one, life.digest)
            yield Begun(one.sequence, life, is_clean)
        elif one.kind == Kind.SEAL:
            yield Sealed(one.sequence, codec.decode_seal(one.payload))
        else:
            self._has_ended = True
            yield Ended(one.sequence, self._time_us, self._life)

    def _take_turn(self, one: Record, last_step: int | None) -> Iterator[Event]:
        turn = codec.decode_turn(one.payload, one.position)
        self._time_us, self._has_ended = turn.time_us, False
        for step, said in enumerate(turn.steps):
            if last_step is not None and step > last_step:
                return
            differences = self.state.apply(said.effects)
            if step == len(turn.steps) - 1:
                self._compare(one, turn.digest)
            yield Change(one.sequence, step, len(turn.steps), turn.time_us, self._life, said.domid,
                         said.conn_id, said.pid, said.type, said.req_id, said.effects, differences)
        if turn.streams:
            yield Moved(one.sequence, turn.time_us, turn.streams)

    def _carry(self, one: Record) -> Carried:
        carry = codec.decode_carry(one.payload, one.position)
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

    found = recover_beside(region, begin)
    entries = window
    if is_whole_history and found.state is not None:
        entries = list(history(region, found.state.tail))
    return Past(entries, found, replays[-1], kinds)


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
