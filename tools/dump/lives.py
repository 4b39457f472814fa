# SPDX-License-Identifier: Apache-2.0
"""xsdump crashes: each life of the server, why it ended, what was in flight, how the next one came
up. Also for whoever else tells of deaths.

Sources: LIFE records and `last.death` items (app/death.py) for all lives but the last; for that one
the region's intent and crash slot."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

from app import death
from app.death import Death, Underway
from app.lastwords import telling
from app.quarantine import EXECUTE, IDLE, SWEEP, WAIT, RingEntry, read_entries
from persist.crash import read_crash_slot
from persist.intent import Intent, read_intent
from persist.region import Medium
from tools.dump.output import Output
from tools.dump.past import SERVER_TYPE, Begun, Change, Ended, Lost, Past, read_past
from tools.dump.text import operation, printable, text, when

ON_PURPOSE, CRASH, OPEN = "on purpose", "a crash", "it runs, or has just crashed"
PHASES = {death.RECOVERING: "recovering", EXECUTE: "executing requests",
          SWEEP: "looking after what dead domains left", IDLE: "hashing and sealing, idle",
          WAIT: "nothing of anybody's"}


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
            if event.type == SERVER_TYPE:
                deaths.update((known.life, known) for known in _deaths(event))
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


def _deaths(change: Change) -> Iterator[Death]:
    for key, value in change.effects:
        if key == death.KEY and value is not None:
            yield death.unpack(value)


# -- words


def death_lines(life: Lived) -> list[str]:
    """What there is to say of a life's end: what was in flight, what it said, how the next one came
    up. Lines of others' text in it are printable."""
    lines = []
    if life.death is not None:
        lines += in_flight_lines(life.death)
    lines += [f"said: {telling(life.cause)}" if life.cause else "nothing was said"]
    lines += [f"| {printable(line)}" for line in life.cause.splitlines()]
    if life.death is not None:
        took = f", in {life.death.took_us / 1000:.1f} ms" if life.death.took_us else ""
        lines.append(f"the next one replayed {life.death.records} records{took}")
    return lines


def in_flight_lines(one: Death) -> list[str]:
    """What was being done."""
    if one.phase == EXECUTE and one.is_recorded:
        said = "while answering; the requests were executed, and are in the log"
    else:
        said = f"while {PHASES.get(one.phase, 'doing something unknown')}"
    return [said, *(f"in flight: {underway_text(request)}" for request in one.requests),
            *([f"and {one.more} more requests"] if one.more else [])]


def underway_text(one: Underway) -> str:
    """A request: whose, what."""
    who = "a socket's" if one.domid == death.SOCKET else (
        f"dom{one.domid} conn {one.epoch}, at stream position {one.position}:")
    return f"{who} {operation(one.type)} {text(one.payload)} (req_id {one.req_id})"


def present_lines(region: Medium, past: Past) -> list[str]:
    """What the region says of a life that has not ended on purpose."""
    lines = []
    intent = read_intent(region)
    if intent is not None:
        lines += _intent_lines(intent, past)
    slot = read_crash_slot(region)
    if slot is not None and slot.is_torn:
        lines.append("the crash slot is torn")
    elif slot is not None and slot.text:
        lines.append(f"said, at {when(slot.time_us)} in restart {slot.restart}: "
                     f"{telling(slot.text)}")
        lines += [f"| {printable(line)}" for line in slot.text.splitlines()]
    return lines


def _intent_lines(intent: Intent, past: Past) -> list[str]:
    lines = [f"it named last: {PHASES.get(intent.phase, 'something unknown')}"]
    if intent.phase != EXECUTE:
        return lines
    state = past.found.state if past.found is not None else None
    if state is not None and state.sequence > intent.sequence:
        return [f"{lines[0]}; they were executed, and are in the log"]
    lines += [f"in flight: {underway_text(one)}" for one in death.underway(intent, {})]
    streams = past.present.streams if past.present is not None else {}
    for entry in read_entries(intent.payload):
        if isinstance(entry, RingEntry):
            stream = streams.get(entry.epoch)
            done = stream is not None and stream.after > entry.position
            lines.append(f"in flight: {ring_owner(past, entry.epoch)} conn {entry.epoch}: "
                         + ("its request was answered" if done else
                            f"its request at stream position {entry.position}, "
                            "which is in its ring's page"))
    return lines


def ring_owner(past: Past, epoch: int) -> str:
    """dom7 for the domain whose connection this is."""
    items = past.present.items if past.present is not None else {}
    return next((f"dom{key.split('.')[1]}" for key, value in items.items()
                 if key.startswith("domain.") and isinstance(value, tuple)
                 and len(value) > 1 and value[1] == epoch), "an unknown domain's")


# -- the command


def show_crashes(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print the lives, oldest first."""
    past = read_past(region)
    if not past.first:
        out.say("(no life is remembered)")
        return 0
    found = lives(past)
    shown = [life for life in found if options.all or life.end != ON_PURPOSE]
    for life in shown:
        lines = death_lines(life) if life.end == CRASH else (
            present_lines(region, past) if life.end == OPEN else [])
        lines += [f"its start dropped {size} bytes at {position:#x}: {reason}"
                  for position, size, reason in life.damages]
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
    if life.end == CRASH and life.end_us:
        title += f"; the next began {(life.next_us - life.end_us) / 1e6:.3f} s behind that"
    return out.paint("red" if life.end == CRASH else "bold", title)


def _fields(life: Lived, lines: list[str]) -> dict[str, Any]:
    fields = life._asdict()
    if life.death is not None:
        fields["death"] = {**life.death._asdict(),
                           "phase": PHASES.get(life.death.phase, str(life.death.phase)),
                           "requests": [{**one._asdict(), "operation": operation(one.type)}
                                        for one in life.death.requests]}
    return {**fields, "text": lines}
