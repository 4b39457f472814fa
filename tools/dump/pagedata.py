# SPDX-License-Identifier: Apache-2.0
"""The past as data for the page: a list of moments, each with what it changed.

M1. The state at a moment is `base` with the differences of all moments up to it. What a difference
    replaced is not said again: the page knows it from the moments before.
M2. Guests' bytes are text when they leave here (text.text), each string once, in `strings`.
M3. At most `last` changes are carried, the newest; what came before them is in `base`, and
    `omitted` counts it; `carried` and `lost` are what the log's picture needs of it.
Change with: page/data.js, which reads it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from app import codec, wire
from app.death import Death
from app.path import Path
from app.tree import Node
from persist import layout
from persist.region import Medium
from tools.dump.ending import death_of, ending_lines, last_words, present_lines
from tools.dump.fill import LEVELS, Fill
from tools.dump.items import item_words
from tools.dump.past import Begun, Carried, Change, Ended, Event, Lost, Moved, Past, Sealed
from tools.dump.state import Difference
from tools.dump.text import permissions, text

CHANGE, BEGUN, ENDED, SEALED, LOST, CARRIED, PRESENT = range(7)  # kinds of moments
Kept = tuple[Event, bool, tuple[int, int, int]]  # and whether the state is whole, and the fill


def moments(region: Medium, past: Past, last: int,
            progress: Callable[[int], None]) -> dict[str, Any]:
    """All that the page shows. `progress` is told how many records were read."""
    book = Book(last, Fill(past.entries, layout.log_size(region.size)))
    book.begin(past)
    for number, event in enumerate(past.walk()):
        book.add(event, past.is_whole)
        if number % 500 == 0:
            progress(event.after if isinstance(event, Lost) else event.sequence)
    state = past.found.state if past.found is not None else None
    return {
        **book.rows(),
        "is_from_the_beginning": past.is_from_the_beginning,
        "problems": past.problems,
        "present": {"lines": present_lines(region, past), "is_whole": past.is_whole,
                    "is_crash": bool(last_words(region)),
                    "is_end": past.present is not None and past.present.ended_cleanly},
        "start": state.superblock.start if state is not None else 0,
        "size": region.size,
        "version": layout.VERSION,
        "types": {**{str(number): name for number, name in wire.TYPE_NAMES.items()},
                  str(codec.START.type): "server"},
        "server": codec.START.type,
    }


class Book:
    """Keeps the newest moments, and what the state was before them."""

    def __init__(self, last: int, fill: Fill) -> None:
        self._last = last
        self._fill = fill
        self._kept: deque[Kept] = deque()
        self._changes = 0
        self._omitted = 0
        self._carried = 0  # among what was omitted
        self._lost: list[tuple[int, int]] = []
        self._base: dict[Path | str, Any] = {}
        self._is_base_whole = False
        self._life: int | None = None
        self._strings: dict[str, int] = {}
        self._deaths: dict[int, Death] = {}

    def begin(self, past: Past) -> None:
        """The state before the first record."""
        self._base = dict(past.base())
        self._is_base_whole = past.is_from_the_beginning
        self._fill.begin(self._base.items())

    def add(self, event: Event, is_whole: bool) -> None:
        """The next event, and whether the state behind it is whole."""
        fill = self._fill
        if isinstance(event, Change):
            fill.change(event)
            self._changes += 1
            if (found := death_of(event)) is not None:
                self._deaths[found.life] = found
        elif isinstance(event, Carried):
            fill.carry(event)
        if not isinstance(event, Lost):
            fill.reached(event.sequence)
        if isinstance(event, Moved):
            return
        self._kept.append((event, is_whole, (fill.tail, fill.oldest, fill.live)))
        while self._changes > self._last:
            self._drop()

    def _drop(self) -> None:
        event, self._is_base_whole, _ = self._kept.popleft()
        if isinstance(event, Change):
            self._changes -= 1
            self._omitted += 1
            self._life = event.life
        elif isinstance(event, Begun):
            self._life = event.life.number
        elif isinstance(event, Carried):
            self._carried += 1
        elif isinstance(event, Lost):
            self._lost.append((event.position, event.size))
        for key, _, after in _differences(event):
            if after is None:
                self._base.pop(key, None)
            else:
                self._base[key] = after

    def rows(self) -> dict[str, Any]:
        """What was kept, for JSON."""
        fill = self._fill
        times = [time for event, _, _ in self._kept if (time := _time(event))]
        return {
            "base": [self._difference(Difference(key, None, value))
                     for key, value in self._base.items()],
            "is_base_whole": self._is_base_whole,
            "omitted": self._omitted,
            "carried": self._carried,
            "lost": self._lost,
            "first_life": self._first_life(),
            "first_time": times[0] if times else 0,
            "moments": self._rows(times[0] if times else 0),
            "fill": _steps([kept[2] for kept in self._kept]),
            "log": {"size": fill.log_size, "shares": fill.shares(), "most": LEVELS,
                    "levels": [[number for pair in _steps(noted) for number in pair]
                               for noted in fill.levels]},
            "strings": list(self._strings),
        }

    def _first_life(self) -> int:
        if self._life is not None:
            return self._life
        for event, _, _ in self._kept:
            if isinstance(event, (Change, Ended)):
                return event.life
            if isinstance(event, Begun):
                return event.life.number - 1
        return 0

    def _rows(self, now_us: int) -> list[list[Any]]:
        """[kind, sequence, microseconds since the one before, whether whole, ...] each."""
        rows = []
        for event, is_whole, _ in self._kept:
            time_us = _time(event) or now_us
            kind, sequence, more = self._row(event)
            rows.append([kind, sequence, time_us - now_us, int(is_whole), *more])
            now_us = time_us
        return rows

    def _row(self, event: Event) -> tuple[int, int, list[Any]]:
        if isinstance(event, Change):
            return CHANGE, event.sequence, [
                event.step, event.steps, event.domid, event.conn_id, event.pid, event.type,
                event.req_id, [self._difference(one) for one in event.differences]]
        if isinstance(event, Begun):
            return BEGUN, event.sequence, [event.life.number, int(event.is_clean),
                                           ending_lines(event, self._deaths.get(
                                               event.life.number - 1))]
        if isinstance(event, Ended):
            return ENDED, event.sequence, []
        if isinstance(event, Sealed):
            mark = event.mark
            return SEALED, event.sequence, [mark.sequence, mark.commit.hex(), mark.tree.hex(),
                                            mark.parent.hex()]
        if isinstance(event, Lost):
            return LOST, event.after, [event.position, event.size]
        assert isinstance(event, Carried)
        return CARRIED, event.sequence, [
            event.nodes, event.items, [self._difference(one) for one in event.differences]]

    def _difference(self, one: Difference) -> list[int]:
        """[key] of what is gone, [key, value, permissions, ordinal] of a node, [key, value] of an
        item; keys of items begin with '#'."""
        key, _, after = one
        if isinstance(key, str):
            name = self._string("#" + text(key.encode()))
            assert not isinstance(after, Node)
            return [name] if after is None else [name, self._string(item_words(key, after))]
        name = self._string(text(key))
        if after is None:
            return [name]
        assert isinstance(after, Node)
        return [name, self._string(text(after.value)), self._string(permissions(after)),
                after.ordinal]

    def _string(self, said: str) -> int:
        return self._strings.setdefault(said, len(self._strings))


def _differences(event: Event) -> list[Difference]:
    return event.differences if isinstance(event, (Change, Carried)) else []


def _time(event: Event) -> int:
    if isinstance(event, Begun):
        return event.life.time_us
    return 0 if isinstance(event, Sealed) else event.time_us


def _steps(rows: list[Any]) -> list[tuple[int, ...]]:
    """Each row as the difference to the one before: small numbers are short."""
    if not rows:
        return []
    first = tuple(0 for _ in rows[0])
    return [tuple(now - was for was, now in zip(before, row, strict=True))
            for before, row in pairwise([first, *rows])]
