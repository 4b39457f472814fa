# SPDX-License-Identifier: Apache-2.0
"""xsdump crashes: each life of the server, why it ended, what was in flight, how the next one came
up.

Knows nothing of what is to be said of an end: ending.py."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from app.death import Death
from persist.region import Medium
from tools.dump.ending import death_lines, death_of, last_words, present_lines
from tools.dump.output import Output
from tools.dump.past import SERVER_TYPE, Begun, Change, Ended, Lost, Past, read_past
from tools.dump.text import damage_text, operation, when

ON_PURPOSE, CRASH, OPEN = "on purpose", "a crash", "it runs, or has just crashed"


class Lived(NamedTuple):
    """One life. Times in microseconds since 1970; 0: not remembered. `end_sequence`: its last
    record; `end_us`: its last change. `cause`: what it said of its end, or a kernel did. `death`:
    as its successor has found it."""

    number: int
    sequence: int
    begin_us: int
    end_sequence: int
    end_us: int
    changes: int
    outcome: str
    end: str
    cause: str
    death: Death | None
    next_us: int
    damages: list[tuple[int, int, str]]


def add_arguments(commands: Any) -> None:
    """The command's part of the command line."""
    parser = commands.add_parser("crashes", help="each life: why it ended, what was in flight, "
                                 "how long the next one took")
    parser.add_argument("-a", "--all", action="store_true",
                        help="with the lives that ended on purpose")
    parser.set_defaults(command=show_crashes)


def lives(past: Past) -> list[Lived]:
    """All that are remembered, oldest first; the last one is open, unless it ended on purpose."""
    found: list[Lived] = []
    deaths: dict[int, Death] = {}
    one = Lived(past.last_life, 0, 0, 0, 0, 0, "", OPEN, "", None, 0, [])
    is_first, last, count = True, None, 0  # the life's last change, and how many there were
    for event in past.skim():
        if isinstance(event, Change):
            last, count = event, count + 1
            if event.type == SERVER_TYPE and (known := death_of(event)) is not None:
                deaths[known.life] = known
        elif isinstance(event, Begun):
            one, last, count = _with_changes(one, last, count), None, 0
            if not (is_first and event.sequence == past.first):
                found.append(one._replace(
                    number=event.life.number - 1, end=ON_PURPOSE if event.is_clean else CRASH,
                    cause=event.life.cause, next_us=event.life.time_us))
            one = Lived(event.life.number, event.sequence, event.life.time_us, event.sequence,
                        event.life.time_us, 0, event.life.outcome, OPEN, "", None, 0,
                        event.life.damages)
            is_first = False
        elif isinstance(event, Ended):
            one = one._replace(end=ON_PURPOSE)
        elif isinstance(event, Lost):
            is_first = is_first and count == 0
    found.append(_with_changes(one, last, count))
    return [life._replace(death=deaths.get(life.number)) for life in found]


def _with_changes(one: Lived, last: Change | None, count: int) -> Lived:
    if last is None:
        return one
    return one._replace(end_sequence=last.sequence, end_us=last.time_us, changes=count)


# -- the command


def show_crashes(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print the lives, oldest first."""
    past = read_past(region)
    if not past.first:
        out.say("(no life is remembered)")
        return 0
    found = lives(past)
    if found[-1].end == OPEN and last_words(region):  # who has said why it ends does not run
        found[-1] = found[-1]._replace(end=CRASH)
    shown = [life for life in found if options.all or life.end != ON_PURPOSE]
    for life in shown:
        lines = [] if life.end == ON_PURPOSE else (
            death_lines(life.cause, life.death) if life.next_us else present_lines(region, past))
        lines += [f"its start dropped: {damage_text(*one)}" for one in life.damages]
        out.say("\n".join([_title(life, out), *(f"    {line}" for line in lines)]),
                **_fields(life, lines))
    crashed = sum(life.end == CRASH for life in found)
    out.say(f"{len(found)} lives are remembered, {crashed} of them crashed")
    return 0


def _title(life: Lived, out: Output) -> str:
    began = f"began {when(life.begin_us)}" if life.begin_us else "began before the history"
    title = f"life {life.number} {began}, {life.changes} changes"
    if life.end_us:
        title += f", the last {when(life.end_us)} (record {life.end_sequence})"
    title += f"; end: {life.end}"
    if life.end == CRASH and life.end_us and life.next_us:
        title += f"; the next began {(life.next_us - life.end_us) / 1e6:.3f} s behind that"
    return out.paint("red" if life.end == CRASH else "bold", title)


def _fields(life: Lived, lines: list[str]) -> dict[str, Any]:
    fields = life._asdict()
    if life.death is not None:
        fields["death"] = {**life.death._asdict(), "requests": [
            {**one._asdict(), "operation": operation(one.type)} for one in life.death.requests]}
    return {**fields, "text": lines}
