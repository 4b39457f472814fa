# SPDX-License-Identifier: Apache-2.0
"""Why a life ended, and what was under way at the end of the log: the lines for people.

Method: intents, causes and damage as a server would leave them behind."""

from __future__ import annotations

import struct

import pytest

from app import wire
from app.codec import Life
from app.death import RECOVERING, SOCKET, Death, Underway
from app.quarantine import EXECUTE, IDLE, SWEEP, WAIT, ring_entry, socket_entry
from persist import layout
from persist.intent import write_intent
from tests.crash.world import ArrayMedium
from tests.tools.synthetic import Host
from tools.dump.ending import ending_lines, present_lines
from tools.dump.past import Begun, read_past

TRACE = 'Traceback (most recent call last):\n  File "x", line 1, in f\nValueError: \x1b[31mred'


def host_with(phase: int, payload: bytes, behind: int = 0) -> list[str]:
    """What is said of a log that ends so; `behind`: records that came after the intent."""
    host = Host(ArrayMedium(layout.REGION_SIZE_MIN))
    host.write(3, "/a", b"1")
    sequence = host.journal.log.sequence
    write_intent(host.medium, phase, sequence - behind, payload)
    past = read_past(host.medium)
    for _ in past.walk():
        pass
    return present_lines(host.medium, past)


def packet(kind: int, payload: bytes, tx_id: int = 0) -> bytes:
    return struct.pack("<IIII", kind, 9, tx_id, len(payload)) + payload


def test_what_was_to_be_executed() -> None:
    """Every request of sockets, rings by their place, long ones by what they are known by."""
    requests = packet(wire.XS_WRITE, b"/a\0\xff</script>", 4) + packet(wire.XS_RM, b"/b\0")
    long = packet(wire.XS_WRITE, b"/c\0" + bytes(4000))
    lines = host_with(EXECUTE, ring_entry(7, 4096) + socket_entry(requests, 500)
                      + socket_entry(long, 100))
    assert lines[2] == "A turn was under way, and had not reached its commit point."
    assert lines[3] == ("in flight: dom? conn 7 at stream position 4096: its request is in its "
                        "ring's page, not in the region: the next life will tell")
    assert lines[4] == ("in flight, or answered: a socket: WRITE /a \\xff</script> "
                        "(request 9 in transaction 4)")
    assert lines[5] == "in flight, or answered: a socket: RM /b (request 9)"
    assert lines[6].startswith("in flight, or answered: a socket: a long request, known by ")
    lines = host_with(EXECUTE, socket_entry(requests, 500), behind=1)
    assert lines[2] == "A turn had reached its commit point: its requests are in the log."


@pytest.mark.parametrize(("phase", "payload", "words"), [
    (SWEEP, struct.pack("<HH", 3, 5), "Domains were being looked after: 3, 5."),
    (IDLE, b"", "Idle work was being done: nobody's request."),
    (WAIT, b"", "Nothing was being executed."),
    (9, b"", "Something unknown was being done (phase 9).")])
def test_what_else_was_done(phase: int, payload: bytes, words: str) -> None:
    assert host_with(phase, payload)[2:] == [words]


def begun(cause: str, is_clean: bool = False, number: int = 2) -> Begun:
    damages = [(0x40, 64, "records 2 to 3 do not verify")]
    return Begun(5 if number > 1 else 1, Life(0, number, 0, 0, "corrupt", damages, cause), is_clean)


def test_why_a_life_ended() -> None:
    """The line that tells first, then all that was said; nothing that moves a terminal."""
    lines = ending_lines(begun(TRACE), None)
    assert lines[0] == "ValueError: ?[31mred" and lines[2:5] == [
        "| Traceback (most recent call last):", '|   File "x", line 1, in f',
        "| ValueError: ?[31mred"]
    assert lines[-1] == "DAMAGE at log position 0x40, 64 bytes: records 2 to 3 do not verify"
    assert ending_lines(begun(""), None)[0].startswith("it said nothing of its end")
    assert ending_lines(begun("", True), None)[0] == "ended on purpose"
    assert ending_lines(begun("", True, 1), None)[0] == "nothing was there before"


def test_what_the_next_life_has_found() -> None:
    """What was in flight, as it stood in the rings; how the next life came up."""
    request = Underway(7, 12, 4096, wire.XS_READ, 9, b"/a\0")
    found = Death(1, EXECUTE, False, 20, 1500, 2, (request, request._replace(domid=SOCKET)))
    assert ending_lines(begun(""), found)[2:7] == [
        "A turn was under way, and had not reached its commit point.",
        "in flight: dom7 conn 12 at stream position 4096: READ /a (request 9)",
        "in flight, or answered: a socket: READ /a (request 9)", "and 2 more",
        "The next life replayed 20 records in 1.5 ms."]
    assert ending_lines(begun(""), found._replace(phase=RECOVERING))[2:4] == [
        "It had not begun to serve.", "The next life replayed 20 records in 1.5 ms."]


def test_nothing_yet() -> None:
    medium = ArrayMedium(layout.REGION_SIZE_MIN)
    assert present_lines(medium, read_past(medium)) == ["a new region: nothing was recorded yet"]
