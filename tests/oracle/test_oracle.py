# SPDX-License-Identifier: Apache-2.0
"""The kit itself: what is compared with must work before anything is compared with it.

Properties: C xenstored and oxenstored serve real clients and a ring guest, and notice a domain's
death; fetch() is idempotent, complains in one line, and survives a concurrent one; our server's
process helper leaves nothing behind, and tells when the server ended by itself.
Method: the real servers; and a false apt-get and dpkg on PATH, so that nothing is downloaded.
Cannot show: that a real download works; `python -m tests.oracle.oracle fetch` in an empty
XDG_CACHE_HOME does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracle import oracle, packages
from tests.oracle.guest import RingConnection, SimXen
from tests.oracle.ours import CHECKOUT, OurServer, ServerError
from tests.oracle.xsclient import SocketConnection, XenstoreError

DOMID = 7
FETCH = [sys.executable, "-m", "tests.oracle.oracle", "fetch"]


# -- the peers


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_peer_serves_real_clients(kind: str) -> None:
    with oracle.running(kind) as directory:
        socket_path = directory / "socket"
        assert oracle.run_client(socket_path, "test-xenstore", "-i", "5").returncode == 0
        written = oracle.run_client(socket_path, "xenstore-write", "/a/key", "value")
        assert (written.returncode, written.stderr) == (0, "")
        assert '/a/key = "value"' in oracle.run_client(socket_path, "xenstore-ls", "-f").stdout


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_peer_serves_a_ring_guest_until_its_death(kind: str) -> None:
    with oracle.running(kind) as directory, SocketConnection(directory / "socket") as dom0, \
            SocketConnection(directory / "socket") as watcher:
        sim = SimXen(directory / "sim")
        watcher.watch("@introduceDomain", "introduced")
        watcher.watch("@releaseDomain", "released")
        watcher.events()

        sim.create_domain(DOMID)
        dom0.introduce(DOMID)
        assert watcher.next_event() == ("@introduceDomain", "introduced")
        assert dom0.is_introduced(DOMID)
        home = f"/local/domain/{DOMID}"
        dom0.mkdir(home)
        dom0.set_perms(home, f"n{DOMID}")

        with RingConnection(sim, DOMID) as guest:
            guest.write("data/long", b"x" * 1900)  # longer than the ring
            assert dom0.read(f"{home}/data/long") == b"x" * 1900
            assert guest.read("data/long") == b"x" * 1900
            guest.watch("device", "token")
            assert guest.next_event() == ("device", "token")
            dom0.write(f"{home}/device/vif/0/state", "1")
            assert guest.next_event() == ("device/vif/0/state", "token")
            with pytest.raises(XenstoreError, match="EACCES"):
                guest.introduce(9)

            sim.set_state(DOMID, "shutdown")
            assert watcher.next_event() == ("@releaseDomain", "released")
            assert dom0.is_introduced(DOMID)
            sim.destroy_domain(DOMID)
            assert watcher.next_event() == ("@releaseDomain", "released")
            assert not dom0.is_introduced(DOMID)
        sim.close()


def test_start_refuses_a_directory_of_others(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(oracle.OracleError, match="not made by this program"):
        oracle.start("c", tmp_path)
    assert (tmp_path / "precious").exists()


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.oracle.oracle"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], cwd=CHECKOUT, capture_output=True, text=True,
                              timeout=30)

    directory = str(tmp_path / "c")
    try:
        assert run("start", "c", directory).returncode == 0
        assert run("client", directory, "xenstore-write", "/k", "v").returncode == 0
        assert run("client", directory, "xenstore-read", "/k").stdout == "v\n"
    finally:
        assert run("stop", directory).returncode == 0
    assert not oracle.can_connect(tmp_path / "c" / "socket")
    unknown = run("client", directory, "no-such-program")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("oracle: no-such-program: no such program")
    assert run("client").returncode == 2


# -- fetch


class FalseDebian:
    """An empty cache, and an apt-get and a dpkg that obey scripts."""

    def __init__(self, directory: Path) -> None:
        self.bin, self.calls = directory / "bin", directory / "calls"
        self.cache = directory / "cache" / "xenstore-oracle"
        self.bin.mkdir()
        self.environment = dict(os.environ, XDG_CACHE_HOME=str(directory / "cache"),
                                PATH=f"{self.bin}:{os.environ['PATH']}")
        programs = " ".join(f"usr/lib/xen-{packages.XEN_VERSION}/bin/{name}"
                            for name in packages.PROGRAMS_CHECKED)
        headers = packages.package_root() / "usr/include"
        self.script("dpkg", f'mkdir -p "$3/usr/lib/xen-{packages.XEN_VERSION}/bin"\n'
                    f'for f in {programs}; do cp /bin/true "$3/$f"; done\n'
                    f'ln -sfn {headers} "$3/usr/include"')

    def script(self, name: str, text: str) -> None:
        """Make `name` a shell script that records its arguments."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{text}\n')
        path.chmod(0o755)

    def fetch(self) -> subprocess.CompletedProcess[str]:
        """Run fetch to its end."""
        return subprocess.run(FETCH, cwd=CHECKOUT, env=self.environment, capture_output=True,
                              text=True, timeout=60)

    def called(self, start: str) -> int:
        """How many calls began with `start`."""
        text = self.calls.read_text() if self.calls.exists() else ""
        return sum(line.startswith(start) for line in text.splitlines())


@pytest.fixture
def debian(tmp_path: Path) -> FalseDebian:
    oracle.fetch()  # the headers of the real packages are used
    return FalseDebian(tmp_path)


def test_fetch_is_silent_when_all_is_there(debian: FalseDebian) -> None:
    debian.script("apt-get", "touch one.deb")
    first = debian.fetch()
    assert first.returncode == 0, first.stderr
    assert first.stderr.startswith("oracle: downloading")
    calls = debian.calls.read_text()
    second = debian.fetch()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert debian.calls.read_text() == calls


def test_two_fetches_at_once_download_once(debian: FalseDebian) -> None:
    debian.script("apt-get", "sleep 0.5; touch one.deb")
    running = [subprocess.Popen(FETCH, cwd=CHECKOUT, env=debian.environment,
                                stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    assert debian.called("apt-get download") == 1


def test_fetch_continues_after_a_death_halfway(debian: FalseDebian) -> None:
    debian.script("apt-get", "touch one.deb; kill -9 $PPID")
    assert debian.fetch().returncode == -signal.SIGKILL
    debian.script("apt-get", "touch one.deb")
    assert debian.fetch().returncode == 0


def test_a_failing_download_is_one_line(debian: FalseDebian) -> None:
    debian.script("apt-get", "echo 'W: noise'; echo 'E: Could not resolve archive'; exit 100")
    done = debian.fetch()
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        "oracle: apt-get download failed: E: Could not resolve archive"]
    assert debian.called("apt-get update") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root updates apt-get's lists")
def test_root_updates_missing_lists_once(debian: FalseDebian) -> None:
    lists = debian.bin / "lists"
    debian.script("apt-get", f'if [ "$1" = update ]; then touch {lists}; exit; fi\n'
                  f'[ -e {lists} ] || {{ echo "E: Unable to locate package x"; exit 100; }}\n'
                  "touch one.deb")
    done = debian.fetch()
    assert done.returncode == 0, done.stderr
    assert debian.called("apt-get update") == 1


def test_missing_lists_that_update_does_not_bring(debian: FalseDebian) -> None:
    debian.script("apt-get", 'if [ "$1" = update ]; then exit; fi\n'
                  'echo "E: Unable to locate package x"; exit 100')
    done = debian.fetch()
    assert done.returncode == 1
    told = done.stderr.splitlines()[1:]
    if os.geteuid() == 0:
        assert told == ["oracle: apt-get download failed: E: Unable to locate package x"]
        assert debian.called("apt-get update") == 1
    else:
        assert told == ["oracle: apt-get's package lists are missing or old; "
                        "run: sudo apt-get update"]


# -- our server's process


@pytest.fixture
def ours() -> Iterator[OurServer]:
    server = OurServer()
    yield server
    server.discard()


def test_ours_comes_back_after_kill9_and_leaves_nothing(ours: OurServer) -> None:
    ours.start()
    with SocketConnection(ours.socket_path) as client:
        client.write("/kept", "1")
    first_pid = ours.pid
    ours.kill9()
    assert not ours.is_answering()
    ours.restart()
    assert ours.pid != first_pid
    with SocketConnection(ours.socket_path) as client:
        assert client.read("/kept") == b"1"
    assert ours.log.count("listening on") == 2
    ours.close()
    assert not ours.directory.exists()
    assert not list(ours.region_path.parent.glob(ours.region_path.name + "*"))


def test_ours_tells_of_an_end_that_nobody_asked_for(ours: OurServer) -> None:
    ours.start()
    os.kill(ours.pid, signal.SIGKILL)
    with pytest.raises(ServerError, match=r"by itself|after SIGTERM"):
        ours.close()


def test_ours_tells_why_it_did_not_start() -> None:
    server = OurServer(arguments=["--quota", "bogus=1"])
    with pytest.raises(ServerError, match="no quota 'bogus'"), server:
        pass
    assert not server.directory.exists()
