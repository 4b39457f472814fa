# SPDX-License-Identifier: Apache-2.0
"""Why a life has ended, and what was under way when the log ends: lines for people.

Knows nothing of how they are shown. Change with: FORMAT.md sections 5, 10 and 11."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from app import wire
from app.lastwords import telling
from app.quarantine import EXECUTE, IDLE, SWEEP, WAIT
from persist.crash import read_crash_slot
from persist.intent import Intent, read_intent
from persist.region import Medium
from tools.dump.past import Begun, Past
from tools.dump.text import operation, printable, text, when

_RING = struct.Struct("<BQQ")  # 1, epoch, position
_SOCKET = struct.Struct("<BH")  # 0, size; the bytes follow
_HASH = struct.Struct("<B8s")  # 2, what a socket's request is known by
SHOWN = 80  # bytes of a request


def ending_lines(begun: Begun) -> list[str]:
    """Why the life before has ended, and what this one has found: the first line says it all."""
    life = begun.life
    if begun.is_clean:
        lines = ["nothing was there before" if life.number == 1 else "ended on purpose"]
    elif life.cause:
        lines = [telling(life.cause), "", *life.cause.strip().splitlines()]
    else:
        lines = ["it said nothing of its end: killed, or out of power"]
    lines += ["", f"The region was found: {life.outcome}."]
    lines += [f"DAMAGE at log position {position:#x}, {size} bytes: {reason}"
              for position, size, reason in life.damages]
    return [printable(line) for line in lines]


def present_lines(region: Medium, past: Past) -> list[str]:
    """How the log ends, and what was being done then."""
    found = past.found
    if found is None or found.state is None:
        return ["a new region: nothing was recorded yet"]
    if past.present is not None and past.present.ended_cleanly:
        return ["ended on purpose"]
    lines = ["running, or crashed: no end was recorded"]
    intent = read_intent(region)
    if intent is not None:
        lines += ["", *_intent_lines(intent, found.state.sequence, past)]
    slot = read_crash_slot(region)
    if slot is not None and slot.is_torn:
        lines += ["", "The kernel's crash slot is torn."]
    elif slot is not None and slot.text:
        lines += ["", f"The kernel, {when(slot.time_us)} in restart {slot.restart}:",
                  *slot.text.splitlines()]
    lines += [""] * bool(found.damages)
    lines += [f"DAMAGE at log position {one.position:#x}, {one.size} bytes: {one.reason}"
              for one in found.damages]
    return [printable(line) for line in lines]


def _intent_lines(intent: Intent, sequence: int, past: Past) -> list[str]:
    if intent.phase == WAIT:
        return ["Nothing was being executed."]
    if intent.phase == IDLE:
        return ["Idle work was being done: nobody's request."]
    if intent.phase == SWEEP:
        domids = ", ".join(str(domid) for (domid,) in struct.iter_unpack("<H", intent.payload))
        return [f"Domains were being looked after: {domids or 'none'}."]
    if intent.phase != EXECUTE:
        return [f"Something unknown was being done (phase {intent.phase})."]
    head = ("A turn was under way, and had not reached its commit point. It was to execute:"
            if sequence <= intent.sequence else
            f"The last turn reached its commit point, record {sequence}. It was to execute:")
    return [head,
            *(f"  {line}" for line in _requests(intent.payload, past))]


def _requests(payload: bytes, past: Past) -> Iterator[str]:
    """The requests that an intent names."""
    domids = {value[1]: key.split(".")[1] for key, value in past.state.items.items()
              if key.startswith("domain.") and isinstance(value, tuple) and len(value) > 1}
    offset = 0
    while offset < len(payload):
        if payload[offset] == 1:
            _, epoch, position = _RING.unpack_from(payload, offset)
            yield (f"the ring of domain {domids.get(epoch, '?')}, connection {epoch}: what begins "
                   f"at position {position}")
            offset += _RING.size
        elif payload[offset] == 2:
            known_by = _HASH.unpack_from(payload, offset)[1].hex()
            yield f"a socket: a long request, known by {known_by}"
            offset += _HASH.size
        else:
            _, size = _SOCKET.unpack_from(payload, offset)
            offset += _SOCKET.size
            yield from _socket(payload[offset:offset + size])
            offset += size


def _socket(data: bytes) -> Iterator[str]:
    offset = 0
    try:
        while (taken := wire.take(data, offset)) is not None:
            request, offset = taken
            said = text(request.payload.rstrip(b"\0").replace(b"\0", b" ")[:SHOWN])
            within = f" in transaction {request.tx_id}" if request.tx_id else ""
            yield f"a socket: {operation(request.type)} {said} (request {request.req_id}{within})"
    except wire.FrameError as error:
        yield f"a socket: no request: {error}"
