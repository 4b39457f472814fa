# SPDX-License-Identifier: Apache-2.0
"""How lives end, in words: what was being done, what they said of it, how the next one came up.

N1. One place for all who tell of deaths: xsdump crashes, the tags of a git history, the page.
N2. Of a life that another has followed, that one's finding counts (app/death.py): it has seen the
    rings. Of the newest, the region's intent is all there is.
N3. What others wrote is made printable here.
N4. Whether a ring's request was answered is known from its stream. A socket's may have been: an
    intent stands until the next one, and of a turn that changed nothing there is no other trace.
Knows nothing of how lines are shown. Change with: FORMAT.md sections 5, 10 and 11."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

from app import death, wire
from app.death import Death, Underway
from app.lastwords import RECOVERING, telling
from app.quarantine import EXECUTE, IDLE, SWEEP, WAIT, HashEntry, RingEntry, read_entries
from app.wire import Request
from persist.crash import read_crash_slot
from persist.intent import Intent, read_intent
from persist.region import Medium, RegionFile
from tools.dump.items import domains_of
from tools.dump.past import Begun, Change, Past
from tools.dump.text import damage_text, printable, request_words

SILENT = "it said nothing of its end: killed, or out of power"
LAST_WORDS_MAX = 1 << 16
SURE, MAYBE = "in flight: ", "in flight, or answered: "  # N4


# -- of a life that another has followed


def death_of(change: Change) -> Death | None:
    """What a change says of the death of the life before, if it does."""
    for key, value in change.effects:
        if key == death.KEY and value is not None:
            return death.unpack(value)
    return None


def ending_lines(begun: Begun, found: Death | None) -> list[str]:
    """Why the life before has ended, and what this one has met: the first line says it all."""
    life = begun.life
    if begun.is_clean:
        lines = ["nothing was there before" if begun.sequence == 1 else "ended on purpose"]
    else:
        lines = death_lines(life.cause, found)
    lines += ["", f"The region was found: {life.outcome}."]
    return lines + [f"DAMAGE at log {damage_text(*one)}" for one in life.damages]


def death_lines(cause: str, found: Death | None) -> list[str]:
    """The line that tells; what was in flight and how the next life came up; all that was said."""
    lines = [printable(telling(cause)) or SILENT]
    if found is not None:
        took = f" in {found.took_us / 1000:.1f} ms" if found.took_us else ""
        lines += ["", *_found_lines(found),
                  f"The next life replayed {found.records} records{took}."]
    return lines + _said_lines(cause)


def _found_lines(found: Death) -> list[str]:
    if found.phase == death.RECOVERING:
        return ["It had not begun to serve."]
    lines = [_underway(request) for request in found.requests]
    return [_phase_line(found.phase, found.is_recorded, lines), *lines,
            *([f"and {found.more} more"] if found.more else [])]


def _underway(one: Underway) -> str:
    who = f"{MAYBE}a socket" if one.domid == death.SOCKET else (
        f"{SURE}dom{one.domid} conn {one.epoch} at stream position {one.position}")
    return f"{who}: {request_words(one.type, one.payload)} (request {one.req_id})"


# -- of the newest life


def present_lines(region: Medium, past: Past) -> list[str]:
    """How the log ends, and what was being done then; the first line says it all."""
    recovery = past.found
    if recovery is None or recovery.state is None:
        return ["a new region: nothing was recorded yet"]
    if past.present is not None and past.present.ended_cleanly:
        return ["ended on purpose"]
    said, intent = last_words(region), read_intent(region)
    lines = [printable(telling(said)) or "running, or crashed: no end was recorded"]
    if intent is not None:
        lines += ["", *_intent_lines(intent, recovery.state.sequence, past)]
    lines += _said_lines(said)
    lines += [""] * bool(recovery.damages)
    return lines + [f"DAMAGE at log {damage_text(one.position, one.size, one.reason)}"
                    for one in recovery.damages]


def last_words(region: Medium) -> str:
    """What a life that nobody has followed yet has said, or its kernel: in the crash slot, or in
    the file beside the region."""
    slot = read_crash_slot(region)
    said = "" if slot is None else "the crash slot is torn" if slot.is_torn else slot.text
    if not said and isinstance(region, RegionFile) and not region.is_device:
        with contextlib.suppress(OSError), open(region.path + ".crash", "rb") as file:
            said = file.read(LAST_WORDS_MAX).decode("utf-8", "replace")
    return "" if said == RECOVERING else said.strip()


def _intent_lines(intent: Intent, sequence: int, past: Past) -> list[str]:
    if intent.phase == SWEEP:
        domids = ", ".join(str(domid) for (domid,) in struct.iter_unpack("<H", intent.payload))
        return [f"Domains were being looked after: {domids or 'none'}."]
    lines = list(_entries(intent.payload, past)) if intent.phase == EXECUTE else []
    return [_phase_line(intent.phase, sequence > intent.sequence, lines), *lines]


def _entries(payload: bytes, past: Past) -> Iterator[str]:
    """The requests that an intent names."""
    present = past.present
    domids = {one.epoch: domid for domid, one in
              domains_of(present.items if present is not None else {}).items()}
    for entry in read_entries(payload):
        if isinstance(entry, RingEntry):
            stream = present.streams.get(entry.epoch) if present is not None else None
            is_done = stream is not None and stream.after > entry.position
            ring = (f"dom{domids.get(entry.epoch, '?')} conn {entry.epoch} at stream position "
                    f"{entry.position}")
            yield f"{ring}: its request was answered" if is_done else (
                f"{SURE}{ring}: its request is in its ring's page, not in the region: the next "
                "life will tell")
        elif isinstance(entry, HashEntry):
            yield f"{MAYBE}a socket: a long request, known by {entry.name}"
        else:
            yield from _socket(entry.data)


def _socket(data: bytes) -> Iterator[str]:
    offset = 0
    try:
        while (taken := wire.take(data, offset)) is not None:
            request, offset = taken
            yield f"{MAYBE}a socket: {_request(request)}"
    except wire.FrameError as error:
        yield f"{MAYBE}a socket: no request: {error}"


def _request(request: Request) -> str:
    within = f" in transaction {request.tx_id}" if request.tx_id else ""
    return f"{request_words(request.type, request.payload)} (request {request.req_id}{within})"


# -- of both


def _phase_line(phase: int, is_recorded: bool, requests: list[str]) -> str:
    """`requests`: the lines about them."""
    if phase == EXECUTE and is_recorded:
        return "A turn had reached its commit point: its requests are in the log."
    is_under_way = any(line.startswith(SURE) for line in requests)
    return {EXECUTE: "A turn was under way, and had not reached its commit point." if is_under_way
                     else "The last turn changed nothing: it was under way, or was answered.",
            SWEEP: "Domains were being looked after.",
            IDLE: "Idle work was being done: nobody's request.",
            WAIT: "Nothing was being executed."}.get(
                phase, f"Something unknown was being done (phase {phase}).")


def _said_lines(cause: str) -> list[str]:
    return ["", *(f"| {printable(line)}" for line in cause.strip().splitlines())] if cause else []
