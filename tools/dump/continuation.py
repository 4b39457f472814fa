# SPDX-License-Identifier: Apache-2.0
"""Where an archive goes on: what it ends with, held against what a region still has.

C1. The same past is one whose record has the checksum that the archive names. A region that has
    another record there, or ends before it, is another one: after a host's boot it begins anew.
C2. Where the record itself has gone, cleaned away or damaged, lives and times decide: they grow.
C3. What is missing in between is a commit of its own, never silence.
Knows nothing of git."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from app import codec
from persist.record import Kind, Record
from tools.dump.gitwords import BEHIND, Last
from tools.dump.past import Past
from tools.dump.state import State


class Plan(NamedTuple):
    """`last`: events up to there are left out. `is_in_step`: the archive's state is then the
    walk's. `note`: subject and body of a commit that comes first; it sets the state to `base`, if
    there is one."""

    last: Last
    is_in_step: bool
    is_other_region: bool = False
    note: tuple[str, str] | None = None
    base: State | None = None


class Checks:
    """The checksums of records by sequence; each record names that of the one before it, too."""

    def __init__(self, past: Past) -> None:
        self._by_sequence: dict[int, bytes] = {}
        for one in past.entries:
            if isinstance(one, Record):
                self.add(one)

    def add(self, one: Record) -> None:
        """One more record, in order."""
        self._by_sequence.setdefault(one.sequence - 1, one.previous)
        self._by_sequence[one.sequence] = one.check

    def of(self, sequence: int) -> str:
        """In hexadecimal; empty if it is not known."""
        return self._by_sequence.get(sequence, b"").hex()


def plan(past: Past, checks: Checks, last: Last | None,
         has_record: Callable[[str], bool]) -> Plan:
    """How to go on behind `last`, the end of the archive, if it has one. `has_record`: whether the
    archive has a commit of the record with this checksum."""
    if last is None:
        return _begin(past, checks)
    known = checks.of(last.sequence)
    if known:
        if known == last.check or not last.check:
            return Plan(last, is_in_step=False)
        return _other_region(past, checks, last)
    if last.sequence > _newest(past):
        newest = _newest_change(past)
        if newest is not None and has_record(checks.of(newest)):
            return Plan(last, is_in_step=False)  # an older copy: all of it is there already
        return _other_region(past, checks, last)
    if past.first > last.sequence:
        is_later = past.first_life() >= last.life and _first_time(past) >= last.time_us
        return (_gap if is_later else _other_region)(past, checks, last)
    if _newest_life(past) < last.life:
        return _other_region(past, checks, last)
    if last.step == BEHIND and not last.is_whole:
        return Plan(last, is_in_step=False)  # it was said before
    return Plan(last._replace(step=BEHIND, is_whole=False), is_in_step=False, note=(
        f"LOST: what came behind record {last.sequence}",
        "That record was archived, and is damaged now, as may be others behind it. What they "
        "changed is seen once it is changed again."))


def _begin(past: Past, checks: Checks) -> Plan:
    base = _base(past)
    if past.is_from_the_beginning and not base.nodes and not base.items:
        return Plan(_before_first(past, checks, 1, is_whole=True), is_in_step=True)
    is_cut = isinstance(past.entries[0], Record) and not past.is_from_the_beginning
    why = "cleaned away" if is_cut else "damaged"
    return Plan(_before_first(past, checks, 1, is_whole=False), is_in_step=True, base=base, note=(
        f"the history begins at sequence {past.first}",
        f"What was before is {why}. {_known(base)}"))


def _gap(past: Past, checks: Checks, last: Last) -> Plan:
    base = _base(past)
    return Plan(_before_first(past, checks, last.region, is_whole=False), is_in_step=True,
                base=base, note=(
        f"LOST: records {last.sequence + 1} to {past.first - 1}",
        f"The log had cleaned them away before they were archived. {_known(base)}"))


def _other_region(past: Past, checks: Checks, last: Last) -> Plan:
    base = _base(past)
    whole = past.is_from_the_beginning
    return Plan(_before_first(past, checks, last.region + 1, whole), is_in_step=True,
                is_other_region=True, base=base, note=(
        f"region {last.region + 1} begins: the store was made anew",
        "This region has another past, as after a boot of the host. Of the one before, record "
        f"{last.sequence} of life {last.life} was archived last."
        + ("" if whole else f"\nIts history begins at sequence {past.first}. {_known(base)}")))


def _before_first(past: Past, checks: Checks, region: int, is_whole: bool) -> Last:
    sequence = max(past.first - 1, 0)
    return Last(sequence, BEHIND, checks.of(sequence), past.first_life(), region,
                _first_time(past), is_whole)


def _base(past: Past) -> State:
    base = State()
    base.apply(past.base())
    return base


def _known(base: State) -> str:
    return (f"{len(base.nodes)} nodes and {len(base.items)} items are known of the state then; "
            "commits say `State: incomplete` until all of it is.")


def _newest(past: Past) -> int:
    return max((one.sequence for one in past.entries if isinstance(one, Record)), default=0)


def _newest_life(past: Past) -> int:
    return max((codec.decode_life(one.payload).number for one in past.entries
                if isinstance(one, Record) and one.kind == Kind.LIFE), default=past.first_life())


def _newest_change(past: Past) -> int | None:
    """The sequence of the newest record with steps."""
    return next((one.sequence for one in reversed(past.entries) if isinstance(one, Record)
                 and one.kind == Kind.TURN and codec.unpack(one.payload)[3]), None)


def _first_time(past: Past) -> int:
    """Of the first record that has one, in microseconds."""
    for one in past.entries:
        if isinstance(one, Record) and one.kind in (Kind.TURN, Kind.LIFE):
            time_us: int = codec.unpack(one.payload)[0]
            return time_us
    return 0
