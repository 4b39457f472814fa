# SPDX-License-Identifier: Apache-2.0
"""P6: a request that kills the server twice is answered EIO; its neighbours, and a request that was
merely under way at a kill -9, are not. Method: the real process (poisoned.py) started again after
each death, on a ring and on a socket, by every way to die. Cannot show: the kernel's ways."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracle.guest import RingConnection, SimXen
from tests.oracle.ours import OurServer, ServerError
from tests.oracle.xsclient import (
    ConnectionClosed,
    MessageType,
    NoReply,
    SocketConnection,
    XenstoreError,
    strings,
)

LIVES_MAX = 6
WAIT_S = 15.0


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimXen]:
    (tmp_path / "sim").mkdir()
    sim = SimXen(tmp_path / "sim")
    yield sim
    sim.close()


@pytest.fixture
def server(sim: SimXen) -> Iterator[OurServer]:
    server = OurServer(sim=sim.directory, module="tests.crash.poisoned",
                       arguments=["--watchdog", "1"])
    server.start()
    yield server
    server.discard()


def introduce(server: OurServer, sim: SimXen, *domids: int) -> list[RingConnection]:
    """Guests with a home and a node in it."""
    with SocketConnection(server.socket_path) as dom0:
        for domid in domids:
            sim.create_domain(domid)
            home = f"/local/domain/{domid}"
            dom0.write(f"{home}/name", f"guest {domid}")
            for path in (home, f"{home}/name"):
                dom0.set_perms(path, f"n{domid}")
            dom0.introduce(domid)
    return [RingConnection(sim, domid) for domid in domids]


def wait_for_death(server: OurServer) -> None:
    """Until the process has ended by itself; then forget it, so that it can be started again."""
    assert server._process is not None
    server._process.wait(WAIT_S)
    server._process = None


def revive(server: OurServer) -> int:
    """Start the server as often as it dies before it answers; how many deaths that were."""
    deaths = 0
    while server._process is None or server._process.poll() is not None:
        deaths += server._process is not None
        assert deaths < LIVES_MAX, server.log
        server._process = None
        with contextlib.suppress(ServerError):
            server.start()
    return deaths


def serve_until(server: OurServer, guest: RingConnection, req_id: int) -> tuple[bytes, int]:
    """Start the server whenever it is dead, until the guest has its answer: (error or payload,
    deaths)."""
    deaths = 0
    while True:
        deaths += revive(server)
        try:
            reply = guest.receive_reply(req_id, timeout_s=0.1)
        except NoReply:
            continue
        return (reply.error or "").encode() or reply.payload, deaths


@pytest.mark.parametrize("kind", ["raise", *(pytest.param(kind, marks=pytest.mark.slow) for kind in
                                            ("segv", "abort", "loop", "memory"))])
def test_a_poison_request_on_a_ring(server: OurServer, sim: SimXen, kind: str) -> None:
    poisoner, neighbour = introduce(server, sim, 5, 6)
    req_id = poisoner.send(MessageType.READ, strings(f"/poison/{kind}"))
    asked = neighbour.send(MessageType.READ, strings("name"))
    answer, deaths = serve_until(server, poisoner, req_id)
    assert (answer, deaths) == (b"EIO", 2)
    assert serve_until(server, neighbour, asked) == (b"guest 6", 0)
    assert poisoner.read("name") == b"guest 5"  # the connection goes on
    assert "is answered EIO: domain 5, READ" in server.log
    assert server.log.count("the last life ended by") == 2
    shown = subprocess.run(["tools/xsdump", server.region_path, "info"], capture_output=True,
                           text=True, check=True).stdout
    assert f"/poison/{kind}" in shown, shown


@pytest.mark.slow
def test_among_many_only_the_culprit_pays(server: OurServer, sim: SimXen) -> None:
    """All are named in the first dead intent, pipelined ones too; only one kills again."""
    server_guests = introduce(server, sim, *range(5, 15))
    server.kill9()
    asked = {}
    for guest in server_guests:
        asked[guest] = [guest.send(MessageType.READ, strings("name")) for _ in range(3)]
    culprit = server_guests[4]
    bad = culprit.send(MessageType.READ, strings("/poison/raise"))
    behind = culprit.send(MessageType.READ, strings("name"))
    answer, deaths = serve_until(server, culprit, bad)
    assert answer == b"EIO" and deaths in (2, 3)
    assert serve_until(server, culprit, behind) == (b"guest 9", 0)
    for guest in server_guests:
        for req_id in asked[guest] if guest is not culprit else ():
            assert serve_until(server, guest, req_id) == (b"guest %d" % guest.domid, 0)


def test_a_connection_that_goes_on_is_muted(server: OurServer, sim: SimXen) -> None:
    poisoner, neighbour = introduce(server, sim, 5, 6)
    for number in range(3):
        req_id = poisoner.send(MessageType.READ, strings(f"/poison/raise{number}"))
        if number < 2:
            assert serve_until(server, poisoner, req_id) == (b"EIO", 2)
    deadline = time.monotonic() + WAIT_S
    while poisoner.get_field(2072) == 0:
        assert time.monotonic() < deadline, server.log
        revive(server)
    assert poisoner.get_field(2072) == 1
    assert neighbour.read("name") == b"guest 6"


@pytest.mark.parametrize("kind", ["raise", "segv", "raise" + "0" * 4000])
def test_a_poison_request_on_a_socket(server: OurServer, kind: str) -> None:
    """The client comes back with the same request, also with one longer than what an intent holds;
    others with theirs in between."""
    for _ in range(2):
        with SocketConnection(server.socket_path) as client:
            client.send(MessageType.READ, strings(f"/poison/{kind}"))
            with pytest.raises(ConnectionClosed):
                client.receive(WAIT_S)
        wait_for_death(server)
        server.start()
        with SocketConnection(server.socket_path) as other:
            assert other.read("/tool/xenstored") == b""
    for _ in range(3):  # again and again, also after it has been answered so, and after a restart
        for _ in range(2):
            with SocketConnection(server.socket_path) as client:
                with pytest.raises(XenstoreError, match="EIO"):
                    client.read(f"/poison/{kind}")
                assert client.read("/tool/xenstored") == b""
        server.kill9()
        server.start()


def test_kill_9_is_nobodys_fault(server: OurServer, sim: SimXen, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is being executed at three kills is executed all the same in the end."""
    flag = tmp_path / "flag"
    flag.touch()
    monkeypatch.setenv("POISON_FLAG", str(flag))
    (guest,) = introduce(server, sim, 5)
    server.restart()
    req_id = guest.send(MessageType.READ, strings("/poison/stop"))
    for number in range(3):
        wait_until_stopped(server)
        server.kill9()
        if number == 2:
            flag.unlink()
        with contextlib.suppress(ServerError):
            server.start(timeout_s=0.1)
    assert serve_until(server, guest, req_id)[0] == b"EACCES"  # as for any path it cannot see
    assert "EIO" not in server.log


def wait_until_stopped(server: OurServer) -> None:
    """Until the process is stopped by itself."""
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, server.log


def test_nothing_is_left_of_a_clean_end(server: OurServer) -> None:
    words = Path(f"{server.region_path}.crash")
    assert words.exists()
    server.stop()
    assert not words.exists()
    assert not os.path.exists(server.socket_path)
