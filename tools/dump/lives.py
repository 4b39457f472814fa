# SPDX-License-Identifier: Apache-2.0
"""xsdump crashes: each life of the server, why it ended, what was in flight, how the next one came
up. Also for whoever else tells of deaths.

Sources: LIFE records and `last.death` items (app/death.py) for all lives but the last; for that one
the region's intent and crash slot."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any, NamedTuple

from app import death
from app.death import Death, Underway
from app.lastwords import RECOVERING, telling
from app.quarantine import EXECUTE, IDLE, SWEEP, WAIT, RingEntry, read_entries
from persist.crash import read_crash_slot
from persist.intent import Intent, read_intent
from persist.region import Medium, RegionFile
from tools.dump.output import Output
from tools.dump.past import Begun, Change, Ended, Lost, Past, read_past
from tools.dump.text import operation, printable, text, when

ON_PURPOSE, CRASH, OPEN = "on purpose", "a crash", "it runs, or has just crashed"
LAST_WORDS_MAX = 1 << 16
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
    is_first = True
    for event in past.walk():
        if isinstance(event, Begun):
            if not (is_first and event.sequence == past.first):
                found.append(one._replace(
                    number=event.life.number - 1, end=ON_PURPOSE if event.is_clean else CRASH,
                    cause=event.life.cause, next_us=event.life.time_us))
            one = Lived(event.life.number, event.sequence, event.life.time_us, event.sequence,
                        event.life.time_us, 0, event.life.outcome, OPEN, "", None, 0,
                        event.life.damages)
            is_first = False
        elif isinstance(event, Change):
            one = one._replace(end_sequence=event.sequence, end_us=event.time_us,
                               changes=one.changes + 1)
            if (known := death_of(event)) is not None:
                deaths[known.life] = known
        elif isinstance(event, Ended):
            one = one._replace(end=ON_PURPOSE)
        elif isinstance(event, Lost):
            is_first = is_first and one.changes == 0
    found.append(one)
    return [life._replace(death=deaths.get(life.number)) for life in found]


def death_of(change: Change) -> Death | None:
    """What a change says of the death of the life before, if it does."""
    for key, value in change.effects:
        if key == death.KEY and value is not None:
            return death.unpack(value)
    return None


# -- words


def crash_message(number: int, cause: str, lines: list[str]) -> bytes:
    """For a tag: one line that tells, then `lines`, which are death_lines() or present_lines()."""
    told = printable(telling(cause)) or "nothing was said (SIGKILL says nothing)"
    return "\n".join([f"life {number} ended by: {told}", "", *lines, ""]).encode()


def death_lines(cause: str, one: Death | None) -> list[str]:
    """What there is to say of a life's end: what was in flight, what it said, how the next one came
    up. Text of others in it is printable."""
    lines = in_flight_lines(one) if one is not None else []
    lines += [f"said: {printable(telling(cause))}" if cause else "nothing was said"]
    lines += [f"| {printable(line)}" for line in cause.splitlines()]
    if one is not None:
        took = f", in {one.took_us / 1000:.1f} ms" if one.took_us else ""
        lines.append(f"the next one replayed {one.records} records{took}")
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


def last_words(region: Medium) -> str:
    """What a life that nobody has followed yet has said, or its kernel: in the crash slot, or in
    the file beside the region."""
    slot = read_crash_slot(region)
    said = "" if slot is None else "the crash slot is torn" if slot.is_torn else slot.text
    if not said and isinstance(region, RegionFile) and not region.is_device:
        with contextlib.suppress(OSError), open(region.path + ".crash", "rb") as file:
            said = file.read(LAST_WORDS_MAX).decode("utf-8", "replace")
    return "" if said == RECOVERING else said.strip()


def present_lines(region: Medium, past: Past) -> list[str]:
    """What the region says of a life that has not ended on purpose, and may still go on."""
    intent, said = read_intent(region), last_words(region)
    lines = _intent_lines(intent, past) if intent is not None else []
    if said:
        lines.append(f"said: {printable(telling(said))}")
        lines += [f"| {printable(line)}" for line in said.splitlines()]
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
    found = lives(past)
    shown = [life for life in found if options.all or life.end != ON_PURPOSE]
    for life in shown:
        lines = death_lines(life.cause, life.death) if life.end == CRASH else (
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
