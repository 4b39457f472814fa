# SPDX-License-Identifier: Apache-2.0
"""The adapter to the simulated Xen directory does what the directory's specification says (numbers
refer to tests/oracle/README.md): states, identities, pages, events in both directions, news of
changes with and without inotify. Method: files and sockets as the other side makes them.

Cannot show: Xen; that a notification arrives while the guest is slow in the middle of a system
call."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ring import layout
from ring.host import DomainState, HostError
from ring.sim import PORT_GUEST_BASE, PORT_VIRQ_DOM_EXC, PORTS_PER_CALL, SimHost


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SimHost]:
    """A host on an empty directory."""
    one = SimHost(str(tmp_path))
    yield one
    one.close()


def put(path: Path, text: str) -> None:
    """Write a file beside, and rename it into its place."""
    scratch = path.with_name("." + path.name)
    scratch.write_text(text)
    scratch.rename(path)


def guest_socket(directory: Path, domid: int) -> socket.socket:
    """The guest's end of its event channel (3)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(str(directory / f"guest.{domid}"))
    return sock


def drain(sock: socket.socket) -> int:
    """How many datagrams wait."""
    count = 0
    try:
        while sock.recv(16):
            count += 1
    except BlockingIOError:
        pass
    return count


def raise_ports(directory: Path, *datagrams: bytes) -> None:
    """Send to the server's event channel device (2)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for datagram in datagrams:
            sock.sendto(datagram, str(directory / "evtchn.sock"))


# -- 4: states


@pytest.mark.parametrize("text, is_shutdown", [
    ("running", False), ("running\n", False), ("shutdown", True), ("crashed\n", True),
    ("dying", None), ("dead", None), ("", None), ("\n", None), ("RUNNING", None),
    ("running2", None), ("running x", None), ("x" * 10000, None), ("\xff\xfe", None)])
def test_states(tmp_path: Path, host: SimHost, text: str, is_shutdown: bool | None) -> None:
    (tmp_path / "state.5").write_bytes(text.encode("latin-1"))
    state = host.look(5)
    assert (state.is_shutdown if state is not None else None) is is_shutdown
    assert host.look(6) is None


def test_numbers_that_no_domain_has(tmp_path: Path, host: SimHost) -> None:
    for domid in (0, 0x7FF0, 0x7FF5, 65535):
        (tmp_path / f"state.{domid}").write_text("running")
        assert host.look(domid) is None
    (tmp_path / "state.32751").write_text("running")
    assert host.look(32751) == DomainState(0, False)


def test_it_is_asked_anew_each_time(tmp_path: Path, host: SimHost) -> None:
    for text, state in (("running", DomainState(0, False)), ("shutdown", DomainState(0, True)),
                        ("dying", None)):
        put(tmp_path / "state.5", text)
        assert host.look(5) == state
    (tmp_path / "state.5").unlink()
    assert host.look(5) is None


def test_a_file_that_cannot_be_read_is_no_answer(tmp_path: Path, host: SimHost) -> None:
    """Neither yes nor no."""
    (tmp_path / "state.5").mkdir()
    with pytest.raises(HostError, match=r"state\.5"):
        host.look(5)


# -- 1: pages and identities


def test_a_domain_is_told_from_the_next_by_its_ring_file(tmp_path: Path, host: SimHost) -> None:
    put(tmp_path / "state.5", "running")
    assert host.look(5) == DomainState(0, False), "not known yet"
    host.map_page(5, 1).close()
    first = host.look(5)
    assert first is not None and first.identity == (tmp_path / "ring.5").stat().st_ino
    put(tmp_path / "state.5", "running")  # the same domain
    assert host.look(5) == first
    keep = open(tmp_path / "ring.5", "rb")  # else the file system may use its number again
    put(tmp_path / "ring.5", "\0" * layout.PAGE_SIZE)
    second = host.look(5)
    assert second is not None and second.identity not in (0, first.identity)
    keep.close()


@pytest.mark.parametrize("size", [None, 0, 100, layout.PAGE_SIZE])
def test_a_page_is_made_if_need_be_and_never_cut(tmp_path: Path, host: SimHost,
                                                 size: int | None) -> None:
    """Whoever needs it first creates it, zero-filled; what is in it stays."""
    path = tmp_path / "ring.5"
    before = b"a" * (size or 0)
    if size is not None:
        path.write_bytes(before)
    page = host.map_page(5, 0xFFFF)
    assert path.read_bytes() == before + bytes(layout.PAGE_SIZE - len(before))
    page.store(layout.RSP_PROD, 77)
    other = SimHost.map_page(host, 5, 0)
    assert other.load(layout.RSP_PROD) == 77
    page.close()
    other.close()
    assert path.stat().st_size == layout.PAGE_SIZE


def test_a_page_that_cannot_be_mapped(tmp_path: Path, host: SimHost) -> None:
    (tmp_path / "ring.5").mkdir()
    with pytest.raises(HostError, match=r"ring\.5"):
        host.map_page(5, 1)


def test_the_own_ring_is_that_of_domain_0(tmp_path: Path, host: SimHost) -> None:
    own = host.own_ring()
    assert own is not None
    own.page.store(layout.REQ_PROD, 9)
    assert (tmp_path / "ring.0").read_bytes()[layout.REQ_PROD] == 9
    assert own.identity == (tmp_path / "ring.0").stat().st_ino
    assert host.bind(0, own.remote_port) == PORT_GUEST_BASE
    own.page.close()


# -- 2: events to the server


def test_events_arrive_by_their_ports(tmp_path: Path, host: SimHost) -> None:
    """Those without meaning too: whoever knows the ports ignores them. Datagrams of another size
    are none."""
    assert host.pending() == [] and host.virq_port == PORT_VIRQ_DOM_EXC == 1
    port = host.bind(5, 12345)
    assert port == PORT_GUEST_BASE + 5, "whatever remote port INTRODUCE names"
    assert not select.select([host.fileno()], [], [], 0)[0]
    raise_ports(tmp_path, struct.pack("<I", port), b"", b"123", b"12345678", b"123456789",
                struct.pack("<I", 1), struct.pack("<I", 0xFFFFFFFF), struct.pack("<I", port))
    assert select.select([host.fileno()], [], [], 0)[0]
    assert host.pending() == [port, 1, 0xFFFFFFFF, port]
    assert host.pending() == []
    host.unbind(port)


def test_no_flood_keeps_the_server_from_its_work(tmp_path: Path, host: SimHost) -> None:
    """A bounded number of ports per call, and none is lost."""
    count = taken = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        while count < 3 * PORTS_PER_CALL:
            try:
                sock.sendto(struct.pack("<I", 1005), str(tmp_path / "evtchn.sock"))
                count += 1
            except BlockingIOError:  # a sender facing a full queue must wait
                taken += len(host.pending())
    while ports := host.pending():
        assert len(ports) <= PORTS_PER_CALL
        taken += len(ports)
    assert taken == count


# -- 3: notifications to guests


def test_a_notification_is_one_datagram(tmp_path: Path, host: SimHost) -> None:
    with guest_socket(tmp_path, 5) as guest, guest_socket(tmp_path, 6) as other:
        host.notify(PORT_GUEST_BASE + 5)
        host.notify(PORT_GUEST_BASE + 5)
        assert (drain(guest), drain(other)) == (2, 0)


def test_nobody_there_and_full_queues_are_no_errors(tmp_path: Path, host: SimHost) -> None:
    """Dropped without waiting; and others are still told, whatever one leaves unread."""
    host.notify(PORT_GUEST_BASE + 5)  # nothing is bound
    guest_socket(tmp_path, 5).close()
    host.notify(PORT_GUEST_BASE + 5)  # the file is there, and nobody behind it
    (tmp_path / "guest.6").write_text("no socket")
    host.notify(PORT_GUEST_BASE + 6)
    with guest_socket(tmp_path, 7) as full, guest_socket(tmp_path, 8) as other:
        for _ in range(3000):
            host.notify(PORT_GUEST_BASE + 7)
        host.notify(PORT_GUEST_BASE + 8)
        assert drain(other) == 1
        assert 0 < drain(full) < 3000
        host.notify(PORT_GUEST_BASE + 7)
        assert drain(full) == 1


def test_many_slow_guests_cannot_silence_one(tmp_path: Path, host: SimHost) -> None:
    """S3: what others have not taken counts against the sender's socket, not against them."""
    slow = [guest_socket(tmp_path, domid) for domid in range(10, 50)]
    with guest_socket(tmp_path, 5) as guest:
        for domid in list(range(10, 50)) * 300:
            host.notify(PORT_GUEST_BASE + domid)
        host.notify(PORT_GUEST_BASE + 5)
        assert drain(guest) == 1
    for one in slow:
        one.close()


# -- news of changes


def test_changes_are_told_once_by_domid(tmp_path: Path, host: SimHost) -> None:
    host.changed()  # its own socket
    assert host.changed() == set()
    put(tmp_path / "state.5", "running")
    put(tmp_path / "ring.17", "")
    (tmp_path / "guest.6").write_text("")
    (tmp_path / "state.x").write_text("")
    (tmp_path / "state").write_text("")
    (tmp_path / "nonsense.9").write_text("")
    assert host.changed() == {5, 17}
    assert host.changed() == set()
    (tmp_path / "state.5").write_text("shutdown")  # in its place, too
    assert host.changed() == {5}
    (tmp_path / "state.5").unlink()
    (tmp_path / "ring.17").rename(tmp_path / "ring.18")
    assert host.changed() == {5, 17, 18}


def test_more_than_inotify_keeps_means_that_any_may_have_changed(tmp_path: Path,
                                                                 host: SimHost) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 1 << 16:
        pytest.skip(f"{limit} events would be needed")
    one, two = tmp_path / "state.5", tmp_path / "state.6"
    one.write_text("running")
    for _ in range(limit // 4 + 1):  # two events each
        os.rename(one, two)
        os.rename(two, one)
    assert host.changed() is None
    one.unlink()
    assert host.changed() == {5}, "and then it is told again"


@pytest.mark.parametrize("failing", ["inotify_init1", "inotify_add_watch"])
def test_without_inotify_any_may_have_changed(tmp_path: Path, failing: str,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    real = ctypes.CDLL(None)
    calls = {name: getattr(real, name) for name in ("inotify_init1", "inotify_add_watch")}
    calls[failing] = lambda *_: -1
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(**calls))
    host = SimHost(str(tmp_path))
    assert host.changed() is None and host.changed() is None
    host.close()


# -- beginning and ending


def die(host: SimHost) -> None:
    """Without a word: only what the kernel knows of the process is gone."""
    os.close(host._lock)
    host._lock = os.open("/dev/null", os.O_RDONLY)  # for whoever closes it


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    first = SimHost(str(tmp_path))
    die(first)
    second = SimHost(str(tmp_path))
    raise_ports(tmp_path, struct.pack("<I", 1))
    assert (first.pending(), second.pending()) == ([], [1])
    second.close()
    (tmp_path / "evtchn.sock").write_text("no socket at all")
    SimHost(str(tmp_path)).close()


def test_a_second_server_takes_nothing_away(tmp_path: Path, host: SimHost) -> None:
    """S4: it is refused before it has touched anything, as often as it tries; after the first's
    end it is welcome."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(HostError, match="another server serves this simulated") as caught:
            SimHost(str(tmp_path))
        assert str(tmp_path) in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before
    raise_ports(tmp_path, struct.pack("<I", 7))
    assert host.pending() == [7]
    host.close()
    SimHost(str(tmp_path)).close()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """One clear line, and the longest that fits is served."""
    name = "x" * (107 - len(f"{tmp_path}//evtchn.sock"))
    for directory in (tmp_path / name, tmp_path / (name + "x")):
        directory.mkdir()
    SimHost(str(tmp_path / name)).close()
    with pytest.raises(HostError, match="longer than the 107 bytes of a unix socket's path"):
        SimHost(str(tmp_path / (name + "x")))
    assert os.listdir(tmp_path / (name + "x")) == []


def test_closing_removes_its_own_socket_only(tmp_path: Path) -> None:
    first = SimHost(str(tmp_path))
    die(first)
    second = SimHost(str(tmp_path))
    first.close()
    assert (tmp_path / "evtchn.sock").exists(), "that was another's"
    second.close()
    assert not (tmp_path / "evtchn.sock").exists()
    second.close()  # again: nothing
    third = SimHost(str(tmp_path))
    (tmp_path / "evtchn.sock").unlink()
    third.close()


def test_closing_gives_all_descriptors_back(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        host = SimHost(str(tmp_path))
        host.map_page(5, 1).close()
        host.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_directory_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match=f"{name}: cannot open: ") as caught:
        SimHost(str(tmp_path / name))
    assert "\n" not in str(caught.value)
