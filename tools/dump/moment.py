# SPDX-License-Identifier: Apache-2.0
"""Words for moments of the past (1234.2, life:3, ~5, 01:02, 90s; WORDS has them all), and the
state at one of them.

Knows nothing of how records are stored."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from persist.region import Medium
from tools.dump.past import Past, read_past

WORDS = """moments:
  1234            behind record 1234 (as log shows them); 1234.1 behind its second step
  life:3          when life 3 began;  crash:3  when it ended
  ~5              five changes before the end
  2026-11-26T01:02:03.5, "2026-11-26 01:02", 01:02:03    local time (today)
  90s  5m  2h     that long before the last change
  end             now, or the crash
"""
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ALL_STEPS = 1 << 32
_clock = re.compile(r"(?:(\d{4}-\d\d-\d\d)[T ])?(\d\d:\d\d)(:\d\d)?(\.\d{1,6})?").fullmatch


class MomentError(ValueError):
    """What was written names no moment, or none that is still remembered."""


class Moment(NamedTuple):
    """Behind step `step` of record `sequence`. Ordered."""

    sequence: int
    step: int = _ALL_STEPS


END = Moment(1 << 63)


def find(past: Past, word: str) -> Moment:
    """The moment that a word names. Raises MomentError."""
    if word == "end":
        return END
    if match := re.fullmatch(r"(\d+)(?:\.(\d+))?", word):
        moment = Moment(int(match[1]), int(match[2]) if match[2] else _ALL_STEPS)
        if past.first and moment.sequence < past.first:
            raise MomentError(f"{word}: the oldest record that is left is {past.first}")
        return moment
    if match := re.fullmatch(r"(life|crash):(\d+)", word):
        return _of_life(past, match[1], int(match[2]))
    if match := re.fullmatch(r"~(\d+)", word):
        return _before_the_end(past, int(match[1]))
    if match := re.fullmatch(r"(\d+)([smhd])", word):
        last_us = next((time_us for _, _, time_us in past.backwards()), 0)
        return _at(past, word, last_us - int(match[1]) * UNITS_S[match[2]] * 1_000_000)
    if match := _clock(word):
        return _at(past, word, _time_us(match))
    raise MomentError(f"{word!r} is no moment; such are 1234, life:3, crash:3, ~5, 12:30:05, 90s, "
                      "end: --help has them all")


def at(region: Medium, word: str) -> Past:
    """The past, with `state` as it was at the moment that a word names. Raises MomentError and
    RegionError."""
    past = read_past(region, is_whole_history=word != "end")
    go_to(past, find(past, word))
    if word == "end" and not past.is_whole and past.found is not None and past.found.damages:
        older = read_past(region)  # what damage has taken may be there in an older copy
        go_to(older, END)
        if older.is_whole:
            return older
    return past


def go_to(past: Past, moment: Moment) -> None:
    """Leave `past.state` as it was at `moment`."""
    for _ in past.walk(moment):
        pass


def _of_life(past: Past, word: str, number: int) -> Moment:
    wanted = number if word == "life" else number + 1
    lives = past.begun()
    for sequence, life in lives:
        if life.number == wanted:
            return Moment(sequence)
    if word == "crash" and past.last_life == number:
        return END
    known = f"{lives[0][1].number} to {lives[-1][1].number}" if lives else "none"
    raise MomentError(f"{word}:{number}: the beginnings of lives that are remembered: {known}")


def _before_the_end(past: Past, count: int) -> Moment:
    if count == 0:
        return END
    known = 0
    for sequence, step, _ in past.backwards():
        if known == count:
            return Moment(sequence, step)
        known += 1
    raise MomentError(f"~{count}: there are only {known} changes")


def _at(past: Past, word: str, time_us: int) -> Moment:
    """Behind the last change up to that time."""
    for sequence, step, changed_us in past.backwards():
        if changed_us <= time_us:
            return Moment(sequence, step)
    raise MomentError(f"{word}: that is before the first change that is remembered")


def _time_us(match: re.Match[str]) -> int:
    day = match[1] or time.strftime("%Y-%m-%d")
    try:
        whole = time.strptime(f"{day} {match[2]}{match[3] or ':00'}", "%Y-%m-%d %H:%M:%S")
        seconds = int(time.mktime(whole))
    except (ValueError, OverflowError) as error:
        raise MomentError(f"{match[0]!r} is no time: {error}") from error
    part_us = int(match[4][1:].ljust(6, "0")) if match[4] else (
        999_999 if match[3] else 59_999_999)
    return seconds * 1_000_000 + part_us
