# SPDX-License-Identifier: Apache-2.0
"""What is known of the end of a life: said by itself, by a kernel, by what it was about to do.

E1. One place for it: whoever tells of a death tells it by death_text().
Knows nothing of git."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from app.codec import Life
from app.lastwords import RECOVERING, telling
from app.quarantine import EXECUTE, IDLE, SWEEP, WAIT, parse_entries
from persist.crash import read_crash_slot
from persist.intent import Intent, read_intent
from persist.region import Medium, RegionFile
from tools.dump.text import printable

_PHASES = {EXECUTE: "requests were being executed", SWEEP: "domains were being looked after",
           IDLE: "idle work was being done", WAIT: "nothing was being done yet"}
NAMED_MAX = 20


class Death(NamedTuple):
    """`cause`: what was said of it, by the life itself or a kernel; empty if nothing. `intent`:
    what was about to be done; None if that is not known, or not any more."""

    cause: str
    intent: Intent | None


def recorded_death(life: Life) -> Death:
    """Of the life before `life`, as that has recorded it."""
    return Death(life.cause, None)


def last_death(region: Medium) -> Death:
    """Of the newest life, if it is dead and no other has begun: what the crash slot, the file
    beside the region and the intent say."""
    slot = read_crash_slot(region)
    cause = "" if slot is None else "the crash slot is torn" if slot.is_torn else slot.text
    if not cause and isinstance(region, RegionFile) and not region.is_device:
        with contextlib.suppress(OSError), open(region.path + ".crash", "rb") as file:
            cause = file.read(1 << 16).decode("utf-8", "replace")
    return Death("" if cause == RECOVERING else cause.strip(), read_intent(region))


def death_text(life: int, death: Death) -> str:
    """All of it: one line that tells, then what was in flight, then the cause at length."""
    line = printable(telling(death.cause)) or "nothing was said (SIGKILL says nothing)"
    lines = [f"life {life} ended by: {line}", ""]
    if death.intent is not None:
        lines += _in_flight(death.intent)
    lines += [f"| {printable(one)}" for one in death.cause.splitlines()]
    return "\n".join(lines).rstrip("\n") + "\n"


def _in_flight(intent: Intent) -> list[str]:
    phase = _PHASES.get(intent.phase, f"phase {intent.phase}")
    lines = [f"Behind record {intent.sequence} {phase}."]
    if intent.phase == EXECUTE:
        rings, names = parse_entries(intent.payload)
        lines += [f"In flight: the request at position {position} of connection {epoch}"
                  for epoch, position in rings[:NAMED_MAX]]
        lines += [f"In flight: a socket's request, content {name}" for name in names[:NAMED_MAX]]
        more = len(rings) + len(names) - len(rings[:NAMED_MAX]) - len(names[:NAMED_MAX])
        if more > 0:
            lines.append(f"In flight: {more} more")
    return [*lines, ""]
