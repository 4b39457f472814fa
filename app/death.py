# SPDX-License-Identifier: Apache-2.0
"""What was under way when a life ended, as the next one finds it: an item, for people.

M1. It is recorded with the first changes of the next life, so that the log has one for every death
    that it remembers; the item itself is always the last one.
M2. A ring's request is still in its page, since nothing is given back before it is recorded; a
    socket's is in the intent, if it fits there. So both are known without any cost before.
Knows nothing of who is to blame (quarantine.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

from app import wire
from app.effects import Item
from app.quarantine import EXECUTE, RingEntry, SocketEntry, read_entries
from app.wire import FrameError, Request
from persist.intent import Intent

KEY = "last.death"
REQUESTS_KEPT = 8
PAYLOAD_KEPT = 64  # bytes of a request's payload
RECOVERING = 0  # in place of an intent's phase: the life had not begun to serve
SOCKET = -1  # in place of a domid


class Waiting(NamedTuple):
    """A ring as the next life finds it: whose it is, where its next request begins, all that
    waits from there on."""

    domid: int
    position: int
    data: bytes


class Underway(NamedTuple):
    """A request that was next or being executed. `domid` is SOCKET for a socket's, which then has
    no `epoch` and `position`. `payload`: its beginning."""

    domid: int
    epoch: int
    position: int
    type: int
    req_id: int
    payload: bytes


class Death(NamedTuple):
    """`life` ended while doing `phase` (of an intent, quarantine.py). `is_recorded`: what it names
    was already in the log. The next life has replayed `records` in `took_us`, until it stood where
    the dead one had. `more`: requests beyond those kept."""

    life: int
    phase: int
    is_recorded: bool
    records: int
    took_us: int
    more: int
    requests: tuple[Underway, ...]


def pack(death: Death) -> Item:
    """As an item's value."""
    requests: list[Item] = [(one.domid, one.epoch, one.position, one.type, one.req_id, one.payload)
                            for one in death.requests]
    return (death.life, death.phase, int(death.is_recorded), death.records, death.took_us,
            death.more, tuple(requests))


def unpack(value: Item) -> Death:
    """What pack() has packed."""
    assert isinstance(value, tuple)
    life, phase, is_recorded, records, took_us, more, requests = cast("tuple[int, ...]", value)
    return Death(life, phase, bool(is_recorded), records, took_us, more, tuple(
        Underway(*one) for one in cast("tuple[tuple[int, int, int, int, int, bytes], ...]",
                                       requests)))


def underway(intent: Intent, waiting: Mapping[int, Waiting]) -> list[Underway]:
    """The requests that an intent names: of rings those that are still to be answered; of sockets
    all, since nobody knows what was sent to whom. `waiting`: by epoch."""
    found: list[Underway] = []
    if intent.phase != EXECUTE:
        return found
    for entry in read_entries(intent.payload):
        if isinstance(entry, RingEntry):
            ring = waiting.get(entry.epoch)
            if ring is not None and ring.position == entry.position:
                found += [_of(request, ring.domid, entry.epoch, entry.position)
                          for request in _first(ring.data)]
        elif isinstance(entry, SocketEntry):
            found += [_of(request, SOCKET, 0, 0) for request in _first(entry.data)]
    return found


def describe(death: Death, intent: Intent | None, waiting: Mapping[int, Waiting]) -> Death:
    """`death` with the requests that were under way."""
    requests = underway(intent, waiting) if intent is not None else []
    return death._replace(more=max(len(requests) - REQUESTS_KEPT, 0),
                          requests=tuple(requests[:REQUESTS_KEPT]))


def _first(data: bytes) -> list[Request]:
    try:
        taken = wire.take(data, 0)
    except FrameError:
        return []
    return [taken[0]] if taken is not None else []


def _of(request: Request, domid: int, epoch: int, position: int) -> Underway:
    return Underway(domid, epoch, position, request.type, request.req_id,
                    request.payload[:PAYLOAD_KEPT])
