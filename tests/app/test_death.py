# SPDX-License-Identifier: Apache-2.0
"""What the item of a death says, from an intent and the rings as they are found. Method: intents
and requests that are made up here.

Cannot show: that they are what a life leaves behind (tests/crash/test_death.py)."""

from __future__ import annotations

import pytest

from app import wire
from app.death import (
    KEY,
    PAYLOAD_KEPT,
    RECOVERING,
    REQUESTS_KEPT,
    SOCKET,
    Death,
    Underway,
    Waiting,
    describe,
    pack,
    unpack,
)
from app.intents import Intents
from app.quarantine import EXECUTE, SWEEP, ring_entry, socket_entry
from app.services import Console
from app.wire import XS_READ, XS_WRITE
from persist import layout
from persist.intent import PAYLOAD_MAX, Intent
from tests.crash.world import ArrayMedium, Life

DEATH = Death(4, EXECUTE, False, 100, 2000, 0, ())


def packet(kind: int, req_id: int, payload: bytes) -> bytes:
    """One request."""
    return wire.HEADER.pack(kind, req_id, 0, len(payload)) + payload


def described(payload: bytes, waiting: dict[int, Waiting], phase: int = EXECUTE) -> Death:
    """By an intent; it comes back out of the log as it went in."""
    found = describe(DEATH, Intent(phase, 9, payload), waiting)
    assert unpack(pack(found)) == found
    return found


def test_of_a_ring_the_request_that_is_still_to_be_answered() -> None:
    """What has been answered since was not under way, nor is what stands there now."""
    data = packet(XS_READ, 7, b"/a\0") + packet(XS_WRITE, 8, b"/b\0x")
    waiting = {3: Waiting(5, 1000, data), 4: Waiting(6, 2000, data), 6: Waiting(9, 0, b"")}
    payload = (ring_entry(3, 1000) + ring_entry(4, 1980) + ring_entry(5, 0) + ring_entry(6, 0))
    found = described(payload, waiting)
    assert found.requests == (Underway(5, 3, 1000, XS_READ, 7, b"/a\0"),) and found.more == 0


def test_of_sockets_all_that_was_named() -> None:
    """Of each the first; half a request is none, one that does not fit has no bytes."""
    payload = b"".join(socket_entry(data, PAYLOAD_MAX) for data in [
        packet(XS_READ, 7, b"/a\0") + packet(XS_READ, 8, b"/b\0"),
        packet(XS_WRITE, 9, b"/c\0" + bytes(100)), packet(XS_WRITE, 1, bytes(9))[:-1],
        packet(XS_WRITE, 2, bytes(PAYLOAD_MAX))])
    assert described(payload, {}).requests == (
        Underway(SOCKET, 0, 0, XS_READ, 7, b"/a\0"),
        Underway(SOCKET, 0, 0, XS_WRITE, 9, (b"/c\0" + bytes(100))[:PAYLOAD_KEPT]))


def test_a_few_are_named_and_the_others_counted() -> None:
    data = packet(XS_READ, 7, b"/a\0")
    waiting = {epoch: Waiting(epoch, 0, data) for epoch in range(REQUESTS_KEPT + 3)}
    found = described(b"".join(ring_entry(epoch, 0) for epoch in waiting), waiting)
    assert [one.domid for one in found.requests] == list(range(REQUESTS_KEPT))
    assert found.more == 3


def test_other_work_names_no_requests() -> None:
    data = packet(XS_READ, 7, b"/a\0")
    assert described(ring_entry(3, 0), {3: Waiting(5, 0, data)}, SWEEP) == DEATH
    assert describe(DEATH, None, {3: Waiting(5, 0, data)}) == DEATH


@pytest.mark.parametrize("sequence, cause, expected", [
    (1000, "", (EXECUTE, False, 1)), (1000, "a signal", (EXECUTE, False, 1)),
    (0, "", (EXECUTE, True, 1)), (1000, None, (RECOVERING, False, 0))])
def test_the_life_that_ended(sequence: int, cause: str | None,
                             expected: tuple[int, bool, int]) -> None:
    """A death while recovering names nobody: the intent is that of a life before."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    life.turn((XS_WRITE, 0, b"/a\0x"))
    after = Life(ArrayMedium(bytes(life.medium.bytes)))
    intent = Intent(EXECUTE, sequence, socket_entry(packet(XS_READ, 7, b"/a\0"), PAYLOAD_MAX))
    intents = Intents(after.store, after.journal, Console("error"))
    intents.blame(intent, after.start._replace(ended_cleanly=True), cause, {}, 5)
    assert KEY not in after.store.items.values
    intents.blame(intent, after.start, cause, {}, 5)
    death = unpack(after.store.items.values[KEY])
    assert (death.phase, death.is_recorded, len(death.requests)) == expected
    assert (death.life, death.records, death.took_us) == (1, after.start.records, 5)


def test_the_first_life_has_none_before() -> None:
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    Intents(life.store, life.journal, Console("error")).blame(None, life.start, "", {}, 5)
    assert KEY not in life.store.items.values
