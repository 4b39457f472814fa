# SPDX-License-Identifier: Apache-2.0
"""A crash on purpose is answered, then had; its cause is recorded, the next life serves all that
there was, and no request is blamed for it (X1), unless it was asked for inside of the request (X2).
Method: the real process, and the same as in the image (imaged.py), once for each kind.

Cannot show: what needs the image's C and its kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import drill
from app.control import COMMANDS
from app.drill import Drill
from app.errors import Einval
from tests.app.world import house
from tests.oracle.guest import RingConnection, SimXen
from tests.oracle.ours import CHECKOUT, OurServer
from tests.oracle.xsclient import (
    Connection,
    ConnectionClosed,
    MessageType,
    NoReply,
    SocketConnection,
    XenstoreError,
    strings,
)

pytestmark = pytest.mark.slow

WAIT_S = 20.0
CAUSES = {
    "exception": "RuntimeError: a drill",
    "exit": "SystemExit: 3",
    "memory": "MemoryError",
    "loop": "no progress in its time: File",
    "abort": "Fatal Python error: Aborted",
    "page-fault": "Fatal Python error: Segmentation fault",
    "null": "Fatal Python error: Segmentation fault",
    "stack-overflow": "Fatal Python error: Segmentation fault",
    "divide": "Fatal Python error: Floating",
}


@pytest.fixture
def server() -> Iterator[OurServer]:
    """With drills."""
    server = OurServer(arguments=["--drill", "--watchdog", "1", "--region-size", "1M"])
    server.start()
    yield server
    server.discard()


def die(server: OurServer, client: Connection, *words: str) -> None:
    """Order a drill, which is answered; then the process ends by itself."""
    assert client.control("crash", *words) == "OK"
    wait_for_death(server)


def wait_for_death(server: OurServer) -> None:
    """Forget the process, so that it can be started again."""
    assert server._process is not None
    assert server._process.wait(WAIT_S) != 0
    server._process = None


def xsdump_info(server: OurServer) -> str:
    """What the region says."""
    return subprocess.run(["tools/xsdump", server.region_path, "info"], cwd=CHECKOUT, check=True,
                          capture_output=True, text=True).stdout


def test_every_kind_that_linux_has(server: OurServer) -> None:
    """One after the other, on the same region."""
    with SocketConnection(server.socket_path) as client:
        kinds = client.control("crash").split()
        client.write("/kept", "value")
    assert set(kinds) == set(CAUSES)
    crash_file = Path(f"{server.region_path}.crash")
    for kind in kinds:
        with SocketConnection(server.socket_path) as client:
            client.write(f"/before/{kind}", kind)
            die(server, client, kind)
        assert CAUSES[kind].split(":")[0] in crash_file.read_text() or kind == "loop"
        server.start()
        said = server.log.split("the last life ended by: ")[-1].splitlines()[0]
        assert said.startswith(CAUSES[kind]), said
        with SocketConnection(server.socket_path) as client:
            assert client.read("/kept") == b"value"
            assert client.read(f"/before/{kind}") == kind.encode()
    shown = xsdump_info(server)
    assert "suspect" not in shown and "poison" not in shown, shown
    assert f"last death      {CAUSES[kinds[-1]]}" in shown


def test_as_often_as_one_likes(server: OurServer) -> None:
    """The same request again and again is no poison."""
    for number in range(5):
        with SocketConnection(server.socket_path) as client:
            assert client.read("/count") == b"%d" % number if number else True
            client.write("/count", number + 1)
            die(server, client, "exception")
        server.start()
    assert "EIO" not in server.log and "suspect" not in xsdump_info(server)


def test_on_domain_0s_ring_it_is_answered_once(tmp_path: Path) -> None:
    """The answer is published before the crash, and not again after it."""
    (tmp_path / "sim").mkdir()
    sim = SimXen(tmp_path / "sim")
    server = OurServer(sim=sim.directory, arguments=["--drill", "--region-size", "1M"])
    server.start()
    try:
        ring = RingConnection(sim, 0)
        die(server, ring, "abort")
        server.start()
        with pytest.raises(NoReply):
            ring.receive_reply(12345, timeout_s=0.3)
        assert ring.read("/tool/xenstored") == b""
        assert "suspect" not in xsdump_info(server)
    finally:
        server.discard()
        sim.close()


@pytest.mark.parametrize("kind", ["exception", "exit", "abort"])
def test_now_it_is_the_requests_fault(server: OurServer, kind: str) -> None:
    """Unanswered; after two deaths EIO, and others live."""
    for _ in range(2):
        with SocketConnection(server.socket_path) as client:
            client.send(MessageType.CONTROL, strings("crash", kind, "now"))
            with pytest.raises(ConnectionClosed):
                client.receive(WAIT_S)
        wait_for_death(server)
        server.start()
    assert "suspect         socket." in xsdump_info(server)
    with SocketConnection(server.socket_path) as client:
        with pytest.raises(XenstoreError, match="EIO"):
            client.control("crash", kind, "now")
        assert client.read("/tool/xenstored") == b""
        die(server, client, kind)  # as a drill it is another request


@pytest.mark.parametrize("words", [
    ("other",), ("EXCEPTION",), ("exception", "later"), ("now",), ("exception", "now", "now"),
    ("heap",), ("wild-write", "1", "2"), ("double-fault",), ("",), ("exception", "1", "2")])
def test_what_is_not_here_is_refused(server: OurServer, words: tuple[str, ...]) -> None:
    with SocketConnection(server.socket_path) as client:
        with pytest.raises(XenstoreError, match="EINVAL"):
            client.control("crash", *words)
        assert client.read("/tool/xenstored") == b""


def test_without_the_option_there_is_no_such_command() -> None:
    with OurServer(arguments=["--region-size", "1M"]) as server, \
            SocketConnection(server.socket_path) as client:
        for words in ([], ["exception"], ["exception", "now"]):
            with pytest.raises(XenstoreError, match="EINVAL"):
                client.control("crash", *words)
        assert "crash" not in client.control("help") and "crash" not in COMMANDS


def test_a_guest_may_not() -> None:
    world = house()
    world.services.kinds = ["exception"]
    for words in ("", " exception", " exception now"):
        world.run([("g1", "", f"CONTROL crash{words}", "EACCES")])
    assert not world.services.calls
    assert world.ask("d0", "CONTROL crash") == b"exception\n\0"
    assert world.ask("d0", "CONTROL crash exception now") == "OK"
    assert world.services.calls == [("order_drill", "exception", "now")]
    assert b"crash\t[<kind> [now]]\n" in world.ask("d0", "CONTROL help")  # type: ignore[operator]


# -- what only the image has


class FakeModule:
    """_drill that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.calls.append((name, *arguments))


def test_the_images_own_module_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions by their kinds; and a wild write with its numbers."""
    module = FakeModule()
    monkeypatch.setattr(drill, "_drill", module)
    one = Drill("/no/such/device")
    for kind in drill.IN_C:
        one.order([kind, "now"])
    assert module.calls == [(name,) for name, _ in drill.IN_C.values()] == [
        ("page_fault",), ("null",), ("general_protection",), ("illegal_instruction",),
        ("stack_overflow",), ("divide",), ("loop",), ("corrupt_heap",)]
    module.calls.clear()
    for words in (["wild-write"], ["wild-write", "now"], ["wild-write", "1"],
                  ["wild-write", "x", "1"], ["wild-write", "1", "-1"], ["wild-write", "\xb2", "1"],
                  ["wild-write", "1", "2", "3"], ["null", "1", "2"]):
        with pytest.raises(Einval):
            one.order(words)
    assert one.due is None and not module.calls
    one.order(["wild-write", "0x4000", "16"])
    assert not module.calls, "not before the turn is over"
    one.carry_out()
    one.carry_out()
    assert module.calls == [("wild_write", 0x4000, 16)]


def test_the_kernel_says_what_it_can_have(tmp_path: Path) -> None:
    """Its kinds are the lines of the device; one is asked for by name, when the turn is over."""
    device = tmp_path / "drill"
    device.write_bytes(b"double-fault\nkernel-panic\n")
    one = Drill(str(device))
    assert {"double-fault", "kernel-panic"} <= set(one.kinds)
    assert not {"double-fault", "kernel-panic"} & set(Drill("/no/such/device").kinds)
    with pytest.raises(Einval):
        one.order(["machine-check"])
    one.order(["double-fault"])
    assert device.read_bytes() == b"double-fault\nkernel-panic\n"
    one.carry_out()
    assert device.read_bytes() == b"double-fault"


def test_memory_has_a_bound_outside_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine has free, it keeps half of."""
    monkeypatch.setattr(drill, "free_memory", lambda: 8 << 20)
    one = Drill("/no/such/device")
    one.order(["memory"])
    with pytest.raises(MemoryError) as caught:
        one.carry_out()
    taken = caught.traceback[-1].frame.f_locals["taken"]
    assert sum(map(len, taken)) == 4 << 20
