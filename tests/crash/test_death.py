# SPDX-License-Identifier: Apache-2.0
"""P8: what was under way when a life ended is in the log, one entry for each death. Method: the
real process (poisoned.py), deaths while a guest's and a socket's request are executed, or
recorded already, and a clean end, which leaves none."""

from __future__ import annotations

from pathlib import Path

from app.death import KEY, SOCKET, Death, Underway, unpack
from app.quarantine import EXECUTE
from persist.find import open_source
from tests.crash.test_poison import introduce, revive, serve_until, server, sim, wait_for_death
from tests.oracle.guest import SimXen
from tests.oracle.ours import OurServer
from tests.oracle.xsclient import MessageType, SocketConnection, strings
from tools.dump.past import Change, read_past

__all__ = ["server", "sim"]  # fixtures


def deaths(region: Path) -> list[Death]:
    """All that the log remembers, oldest first."""
    source = open_source(str(region))
    try:
        return [unpack(one.after) for event in read_past(source).walk()
                if isinstance(event, Change) for one in event.differences if one.key == KEY]
    finally:
        source.close()


def test_a_request_on_a_ring(server: OurServer, sim: SimXen) -> None:
    guest, other = introduce(server, sim, 5, 6)
    assert other.read("name") == b"guest 6"
    req_id = guest.send(MessageType.READ, strings("/poison/raise"))
    assert serve_until(server, guest, req_id) == (b"EIO", 2)
    found = deaths(server.region_path)
    assert [(one.life, one.phase, one.is_recorded) for one in found] == [
        (1, EXECUTE, False), (2, EXECUTE, False)]
    for one in found:
        (request,) = one.requests
        assert request._replace(epoch=0, position=0) == Underway(
            5, 0, 0, MessageType.READ, req_id, strings("/poison/raise"))
        assert request.epoch > 1 and one.records > 0 and one.took_us > 0 and one.more == 0
    assert found[0].requests[0].position == found[1].requests[0].position


def test_requests_on_a_socket(server: OurServer) -> None:
    with SocketConnection(server.socket_path) as client:
        client.send(MessageType.READ, strings("/poison/raise" + "1" * 80))
        wait_for_death(server)
    revive(server)
    with SocketConnection(server.socket_path) as client:
        assert client.write("/answered", "whole") is None
        server.kill9()
    server.start()
    server.restart()
    executing, recorded = deaths(server.region_path)
    assert not executing.is_recorded and recorded.is_recorded
    assert executing.phase == EXECUTE and executing.requests == (
        Underway(SOCKET, 0, 0, MessageType.READ, executing.requests[0].req_id,
                 strings("/poison/raise" + "1" * 80)[:64]),)
    assert [one.payload for one in recorded.requests] == [b"/answered\0whole"]


def test_a_clean_end_is_no_death(server: OurServer) -> None:
    server.stop()
    server.start()
    assert deaths(server.region_path) == []
