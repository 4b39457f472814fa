# SPDX-License-Identifier: Apache-2.0
"""What people read in the git history: subjects, bodies, trailers; and the trailers read back.

W1. The last paragraph of every message of main is trailers in git's format; `Last` is all that a
    later run needs to go on.
W2. Nothing in a message is longer than SHOWN lines and CUT characters a line, whatever guests do.
Knows nothing of git's commands. What is told of a death: ending.py."""

from __future__ import annotations

import calendar
import sys
import time
from functools import lru_cache
from typing import NamedTuple

from app.codec import Life
from app.lastwords import telling
from app.wire import XS_TRANSACTION_END
from tools.dump.changes import effect_texts
from tools.dump.past import SERVER_TYPE, Change
from tools.dump.text import damage_text, operation, printable, text

SHOWN = 40  # effects in a body
CUT = 300  # characters of one
SUBJECT = 120
BEHIND = sys.maxsize  # a step behind all others of its record
INCOMPLETE = "incomplete"


class Last(NamedTuple):
    """What the newest commit says of itself. `check`: of record `sequence`, in hexadecimal, or
    empty; `step` is BEHIND for a commit that is about no step."""

    sequence: int
    step: int
    check: str
    life: int
    region: int
    time_us: int
    is_whole: bool


def change_message(change: Change, last: Last, begins: bool) -> bytes:
    """The message of a change. `begins`: a life begins with it."""
    subject = f"life {change.life} begins" if begins else subject_of(change)
    lines = [subject, ""]
    effects = effect_texts(change.effects)
    lines += [_cut(one, CUT) for one in effects[:SHOWN]]
    if len(effects) > SHOWN:
        lines.append(f"and {len(effects) - SHOWN} more effects")
    said = [f"Sequence: {change.sequence}", f"Step: {change.step + 1}/{change.steps}"]
    if change.type != SERVER_TYPE:
        said.append(f"Connection: {change.conn_id}")
        if change.pid:
            said.append(f"Process: {change.pid}")
        said.append(f"Request: {change.req_id}")
    return "\n".join([*lines, "", *said, *_common(last), ""]).encode()


def note_message(subject: str, body: str, last: Last) -> bytes:
    """The message of a commit that is about no request."""
    return "\n".join([subject, "", *([body, ""] if body else []), f"Sequence: {last.sequence}",
                      *_common(last), ""]).encode()


def subject_of(change: Change) -> str:
    """The request and what it is about: the node it names comes last, its parents before."""
    name = "transaction:" if change.type == XS_TRANSACTION_END else operation(change.type)
    keys = [key for key, _ in change.effects]
    keys = [key for key in keys if isinstance(key, bytes)] or keys
    key = keys[-1] if keys else ""
    count = len({*keys}) - 1
    more = f" and {count} more" if count > 0 else ""
    target = key if isinstance(key, str) else text(key)
    return f"{name} {_cut(target, SUBJECT)}{more}"


def life_message(life: Life) -> bytes:
    """The text of the tag life/N."""
    lines = [f"life {life.number} begins: {life.outcome}", ""]
    lines.append(f"Began at {moment(life.time_us)}.")
    if life.cause:
        lines += [f"The life before ended by: {printable(telling(life.cause))}"]
    lines += [f"Dropped: {damage_text(*one)}" for one in life.damages]
    return "\n".join([*lines, ""]).encode()


def parse_last(message: str) -> Last:
    """The trailers of a commit of main. Raises ValueError if they are not ours."""
    said = dict(line.split(": ", 1) for line in message.rstrip("\n").rpartition("\n\n")[2]
                .splitlines() if ": " in line)
    try:
        step = said.get("Step")
        return Last(int(said["Sequence"]), BEHIND if step is None else
                    int(step.partition("/")[0]) - 1, said.get("Record", ""), int(said["Life"]),
                    int(said["Region"]), _parse_moment(said["Time"]),
                    said.get("State") != INCOMPLETE)
    except KeyError as error:
        raise ValueError(f"no trailer {error}") from error


def crash_message(number: int, lines: list[str]) -> bytes:
    """Of the end of life `number`, in the words of ending.py."""
    return "\n".join([f"life {number} ended by: {lines[0]}", *lines[1:], ""]).encode()


def moment(time_us: int) -> str:
    """UTC, to the microsecond."""
    return f"{_second(time_us // 1_000_000)}.{time_us % 1_000_000:06} UTC"


def _common(last: Last) -> list[str]:
    said = [f"Life: {last.life}", f"Region: {last.region}", f"Time: {moment(last.time_us)}"]
    if last.check:
        said.append(f"Record: {last.check}")
    if not last.is_whole:
        said.append(f"State: {INCOMPLETE}")
    return said


@lru_cache(maxsize=16)
def _second(time_s: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_s))


def _parse_moment(said: str) -> int:
    second, _, micros = said.removesuffix(" UTC").partition(".")
    parsed = time.strptime(second, "%Y-%m-%d %H:%M:%S")
    return calendar.timegm(parsed) * 1_000_000 + int(micros)


def _cut(line: str, size: int) -> str:
    return line if len(line) <= size else f"{line[:size // 2]}...{line[-size // 2:]}"
