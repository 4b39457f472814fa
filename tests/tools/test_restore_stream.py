# SPDX-License-Identifier: Apache-2.0
"""xsdump restore --stream: C xenstored goes on from it, guests on rings included; what C xenstored
writes of the same state is the same, byte for byte; what a stream says is the state.

Method: Debian's C xenstored 4.17 with a simulated Xen, started with -U on our stream; the stream
that it writes itself at a live update; a reader of our own (migration.py); two recorded streams.
Cannot show: that a server reads version 2 (Debian has none), and event channels of a real Xen."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain import LEAVING, Known
from app.perms import from_wire
from app.quota import DEFAULTS
from app.replay import Replay
from app.tree import Node
from persist.recover import recover
from tests.crash.world import ArrayMedium
from tests.oracle import oracle
from tests.oracle.guest import RingConnection, SimXen, add_guest
from tests.oracle.ours import OurServer
from tests.oracle.packages import library_path, program_path, shim_path
from tests.oracle.xsclient import PORT_GUEST_BASE, Event, SocketConnection
from tests.tools import migration
from tests.tools.in_process import dump
from tests.tools.migration import read
from tests.tools.test_xsdump import changes, left_by_crash
from tools.dump.state import State
from tools.dump.stream import Receiver, encode

STREAMS = Path(__file__).resolve().parent / "streams"
LISTENER = 200  # descriptor in the server that is started: one that is used by nobody here
NO_TARGET = 0x7FF4


def wire(perms: migration.Perms) -> bytes:
    """Permissions as GET_PERMS answers, ignored entries in upper case."""
    return b"".join(b"%b%d\0" % ((letter.upper() if flags else letter).encode(), domid)
                    for letter, flags, domid in perms)


# -- what it says


def sample_state(stream: migration.Stream) -> State:
    """The state that a recorded stream is of; epochs are its ids of connections."""
    state = State()
    for ordinal, (path, (value, perms)) in enumerate(stream.nodes.items()):
        if path.startswith(b"/"):
            state.apply([(path, Node(value, from_wire(wire(perms)), ordinal))])
        else:
            state.apply([(f"special.{path.decode()}", wire(perms))])
    for number, (kind, domid, target, port, *_) in stream.connections.items():
        if kind == 0:
            state.apply([(f"domain.{domid}", tuple(Known(
                1, number, 2, 0, port, -1 if target == NO_TARGET else target)))])
    for ordinal, (number, path, token, depth) in enumerate(stream.watches):
        if stream.connections[number][0] == 0:
            hidden = b"" if path[:1] in b"/@" else b"/local/domain/%d/" % (
                stream.connections[number][1])
            state.apply([(f"watch.{number}.{ordinal}", (
                hidden + path, token, len(hidden), -1 if depth is None else depth))])
    return state


@pytest.mark.parametrize("name", ["v1-xen-4.17.bin", "v2-xen-master.bin"])
def test_as_c_writes_it(name: str) -> None:
    """Of the state of a recorded stream, every record that we write is in it, in that order, byte
    for byte; but for ids of connections, and what the log does not know: unique ids."""
    recorded = read((STREAMS / name).read_bytes())
    ours = read(encode(sample_state(recorded), {}, Receiver(
        recorded.version, *recorded.descriptors)))
    assert ours.version == recorded.version and ours.descriptors == recorded.descriptors
    assert ours.quotas == recorded.quotas  # by name: in what order, is nobody's concern
    for kind in (1, 5, 0):
        assert ours.bodies(kind) == recorded.bodies(kind), migration.NAMES[kind]
    rings = [one for one in recorded.bodies(2) if one[4:6] == b"\0\0"]
    assert [one[8:24] for one in ours.bodies(2)] == [one[8:24] for one in rings]
    of_rings = [body for body in recorded.bodies(3)
                if recorded.connections[int.from_bytes(body[:4], "little")][0] == 0]
    assert [body[4:] for body in ours.bodies(3)] == [body[4:] for body in of_rings]
    for domid, said in ours.domains.items():
        assert recorded.domains[domid] == said
    order = [kind for kind, _ in ours.records]
    left = iter([kind for kind, _ in recorded.records])
    assert all(kind in left for kind in order)


def full_state() -> State:
    """Everything that a stream has a word for, and what it leaves out."""
    state = State()
    state.apply([
        (b"/", Node(b"", from_wire(b"n0\0"), 0)), (b"/z", Node(b"1\0\xff", from_wire(b"n0\0"), 1)),
        (b"/a", Node(b"", from_wire(b"b5\0r6\0N7\0"), 2)),
        (b"/z/b", Node(b"x" * 4000, from_wire(b"n5\0"), 3)),
        ("domain.0", tuple(Known(1, 1, 2, 0, 3))), ("domain.5", tuple(Known(1, 9, 2, 77, 12, 6))),
        ("domain.6", tuple(Known(1, 8, 1, 1, 13))), ("domain.7", tuple(Known(1, 4, 2, error=1))),
        ("domain.8", tuple(Known(1, 5, LEAVING))), ("domain.9", tuple(Known(1))),
        ("watch.9.30", (b"/local/domain/5/dev", b"t2", 16, -1)),
        ("watch.9.4", (b"/a", b"t1", 0, 2)),
        ("watch.4.5", (b"/gone", b"t", 0, -1)), ("tx.9.3", (-1, 0)), ("tx.9.3.0", (1,)),
        ("quota.nodes", 5), ("quota.5.nodes", 7), ("domain.5.features", 4),
        ("special.@introduceDomain", b"n0\0r6\0")])
    return state


def test_it_says_the_state() -> None:
    state = full_state()
    for version in (1, 2):
        said = read(encode(state, {9: b"partial"}, Receiver(version, 3, 4, {6: 1006})))
        assert said.version == version and said.descriptors == (3, 4)
        assert {path: (value, wire(perms)) for path, (value, perms) in said.nodes.items()} == {
            b"@introduceDomain": (b"", b"n0\0r6\0"), b"@releaseDomain": (b"", b"n0\0r32757\0"),
            b"/": (b"", b"n0\0"), b"/z": (b"1\0\xff", b"n0\0"), b"/a": (b"", b"b5\0r6\0N7\0"),
            b"/z/b": (b"x" * 4000, b"n5\0")}
        assert [path for path in said.nodes if path[:1] == b"/"] == [b"/", b"/z", b"/z/b", b"/a"]
        assert said.connections == {1: (0, 0, NO_TARGET, 3, b"", b"", 0),
                                    2: (0, 6, NO_TARGET, 1006, b"", b"", 0),
                                    3: (0, 5, 6, 12, b"partial", b"", 0)}
        assert said.watches == [(3, b"/a", b"t1", 2 if version == 2 else None),
                                (3, b"dev", b"t2", None)]
    assert said.quotas == {**DEFAULTS, "nodes": 5}
    assert said.domains == {0: (14, said.quotas), 5: (4, {**DEFAULTS, "nodes": 7}),
                            6: (14, said.quotas)}


def test_every_moment(tmp_path: Path) -> None:
    """By the command: the stream of a moment says what tree --at says."""
    path = tmp_path / "region"
    path.write_bytes(left_by_crash().medium.bytes)
    for one in changes(path)[::9]:
        at = f"{one['sequence']}.{one['step']}"
        code, text = dump(path, "restore", "--stream", str(tmp_path / at), "--at", at)
        assert code == 0, text
        said = read((tmp_path / at).read_bytes())
        told = dump(path, "tree", "--at", at)[1].splitlines()
        assert [line.partition(" = ")[0] for line in told] == [
            node.decode() for node in said.nodes if node[:1] == b"/"]
    code, text = dump(path, "restore", "--stream", str(tmp_path / "end"))
    assert "1 quotas that were set" in text
    replay = Replay()
    recover(ArrayMedium(path.read_bytes()), replay.apply)
    assert {node: (value, wire(perms)) for node, (value, perms) in read(
        (tmp_path / "end").read_bytes()).nodes.items() if node[:1] == b"/"} == {
            node: (one.value, one.perms.wire) for node, one in replay.nodes.items()}


# -- C xenstored


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A short directory with a simulated Xen in it."""
    oracle.fetch()
    (tmp_path / "sim").mkdir()
    yield tmp_path


def start_c(place: Path) -> subprocess.Popen[bytes]:
    """C xenstored on place/state_dump, as after a live update; it listens at place/socket."""
    environment = dict(
        os.environ, SIMXEN_DIR=str(place / "sim"), SIMXEN_RUNDIR=str(place),
        XENSTORED_RUNDIR=str(place), XENSTORED_ROOTDIR=str(place))
    with socket.socket(socket.AF_UNIX) as listener, open(place / "log", "w") as log:
        listener.bind(str(place / "socket"))
        listener.listen(10)
        os.dup2(listener.fileno(), LISTENER)
        try:
            return subprocess.Popen(
                ["env", f"LD_PRELOAD={shim_path()}", f"LD_LIBRARY_PATH={library_path()}",
                 program_path("xenstored"), "-N", "-U"], env=environment, cwd=place,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[LISTENER])
        finally:
            os.close(LISTENER)


def ask_for_stream(place: Path) -> bytes:
    """What C xenstored itself writes at a live update, to a program that only keeps it."""
    keeper = place / "keeper"
    keeper.write_text("#!/bin/sh\nunset LD_PRELOAD LD_LIBRARY_PATH\n"
                      f"cp {place}/state_dump {place}/kept.part\nmv {place}/kept.part "
                      f"{place}/kept\n")
    keeper.chmod(0o755)
    with SocketConnection(place / "socket") as dom0:
        dom0.control("live-update", "-f", str(keeper))
        dom0.send(0, b"live-update\0-s\0-t\x0060\0")
        deadline = time.monotonic() + 20
        while not (place / "kept").exists():
            assert time.monotonic() < deadline, (place / "log").read_text()
            time.sleep(0.02)
    return (place / "kept").read_bytes()


def test_c_xenstored_goes_on(place: Path) -> None:
    """Our server dies; C xenstored has the same tree, and guest 5 goes on with its ring: values,
    a watch with a relative path, its rights. Then C writes the stream of that state itself."""
    sim = SimXen(place / "sim")
    with OurServer(sim=place / "sim") as server:
        with SocketConnection(server.socket_path) as dom0:
            for domid in (5, 6):
                add_guest(sim, dom0, domid, "r7")
            dom0.set_target(5, 6)
            guest = RingConnection(sim, 5)
            guest.write("data/x", b"1\0\xff")
            guest.write("data/a", "x" * 1500)
            guest.watch("data", "token")
            guest.events()
            dom0.set_perms("@introduceDomain", "n0", "r5")
        before = oracle.run_client(server.socket_path, "xenstore-ls", "-fp").stdout
        server.kill9()
        words = [f"--port={domid}={PORT_GUEST_BASE + domid}" for domid in (0, 5, 6)]
        code, text = dump(server.region_path, "restore", "--stream", str(place / "state_dump"),
                          f"--descriptors={LISTENER},-1", *words)
    assert code == 0 and "3 connections of rings, 1 watches" in text, text
    ours = read((place / "state_dump").read_bytes())
    process = start_c(place)
    try:
        deadline = time.monotonic() + 20
        while (place / "state_dump").exists():  # it is removed when it was read
            assert process.poll() is None and time.monotonic() < deadline, (
                (place / "log").read_text())
            time.sleep(0.02)
        assert oracle.run_client(place / "socket", "xenstore-ls", "-fp").stdout == before
        assert guest.read("data/x") == b"1\0\xff"
        guest.take_queued_events()  # C tells each watch once after a live update
        with SocketConnection(place / "socket") as dom0:
            dom0.write("/local/domain/5/data/x", "2")
        assert guest.next_event() == Event("data/x", "token")
        guest.write("data/x", b"1\0\xff")
        guest.write("/local/domain/6/by-target", "")  # 5 acts for 6
        guest.rm("/local/domain/6/by-target")
        guest.events()
        theirs = read(ask_for_stream(place))
    finally:
        process.kill()
        process.wait()
        guest.close()
        sim.close()
    assert theirs.bodies(5) == ours.bodies(5)
    assert [one[8:20] for one in theirs.bodies(2) if one[4:6] == b"\0\0"] == [
        one[8:20] for one in ours.bodies(2)]
    assert [one[4:] for one in theirs.bodies(3)] == [one[4:] for one in ours.bodies(3)]
