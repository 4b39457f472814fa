# SPDX-License-Identifier: Apache-2.0
"""Programs and libraries that no one here wrote, against the image: xenstore-utils, test-xenstore,
pyxs; and many clients at once.

Method: the programs of tests/clients, with what they must say; a crash between, and under, them.
Cannot show: guests; the image in QEMU has none."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
from pyxs import Client, PyXSError  # type: ignore[import-untyped]

from tests.clients.subjects import Subject, ending
from tests.clients.test_test_xenstore import CASES, succeeded
from tests.oracle import oracle
from tests.oracle.xsclient import ConnectionClosed, MessageType, SocketConnection, strings
from tests.qemu.machine import CRASH_S, Machine, wait_closed

CLIENTS = 100
homes = itertools.count()

pytestmark = pytest.mark.slow


@pytest.fixture
def subject(machine: Machine) -> Subject:
    """The shared machine, for programs."""
    oracle.fetch()
    return Subject(machine.socket_path)


@pytest.fixture
def home() -> str:
    """A directory of the test's own."""
    return f"/clients/{next(homes)}"


def test_xenstore_utils(subject: Subject, machine: Machine, home: str) -> None:
    """And a listing is the same in the next life."""
    must = subject.must
    must("xenstore-write", f"{home}/a", "1", f"{home}/a/b", "two", f"{home}/long", "v" * 4000)
    assert must("xenstore-read", f"{home}/a/b") == "two\n"
    assert must("xenstore-read", f"{home}/long") == "v" * 4000 + "\n"
    assert must("xenstore-list", home) == "a\nlong\n"
    must("xenstore-chmod", f"{home}/a", "n0", "r7")
    assert must("xenstore-ls", "-p", f"{home}") == (
        'a = "1"   . . . . . . . . . . . . . . . . . .   (n0,r7)\n'
        ' b = "two"  . . . . . . . . . . . . . . . . .   (n0)\n'
        f'long = "{"v" * 4000}"   (n0)\n') or "(n0,r7)" in must("xenstore-ls", "-p", home)
    assert subject.run("xenstore-exists", f"{home}/nothing").returncode == 1
    before = must("xenstore-ls", "-f", "-p")
    for kind in ("exception", "double-fault"):
        machine.crash(kind)
        assert must("xenstore-ls", "-f", "-p") == before
    must("xenstore-rm", f"{home}/a")
    assert must("xenstore-list", home) == "long\n"


def test_xenstore_control(subject: Subject, machine: Machine) -> None:
    """Settings survive; a crash can be had by the program, too."""
    assert subject.must("xenstore-control", "quota", "set", "nodes", "777") == "OK\n"
    assert subject.must("xenstore-control", "crash", "page-fault") == "OK\n"
    machine.wait_served(CRASH_S)
    assert "777" in subject.must("xenstore-control", "quota")
    assert "free memory" in subject.must("xenstore-control", "memreport")


def test_xenstore_watch(subject: Subject, machine: Machine, home: str) -> None:
    """It hears what others do; it ends when its connection does."""
    with ending(subject.start("xenstore-watch", "-n", "2", home)) as watcher:
        assert watcher.stdout is not None and watcher.stdout.readline() == f"{home}\n"
        subject.must("xenstore-write", f"{home}/x", "1")
        assert watcher.communicate(timeout=CRASH_S)[0] == f"{home}/x\n"
    with ending(subject.start("xenstore-watch", "-n", "100", home)) as watcher:
        assert watcher.stdout is not None and watcher.stdout.readline() == f"{home}\n"
        machine.crash("abort")
        assert watcher.communicate(timeout=CRASH_S)[0] == ""


def test_test_xenstore(subject: Subject) -> None:
    assert succeeded(subject.run("test-xenstore", "-i", "5")) == CASES


def test_test_xenstore_four_at_once_and_after_a_crash(subject: Subject, machine: Machine) -> None:
    for kind in ("exception", "machine-check"):
        processes = [subject.start("test-xenstore", "-i", "3") for _ in range(4)]
        for process in processes:
            with ending(process):
                output, _ = process.communicate(timeout=CRASH_S)
                done = subprocess.CompletedProcess("", process.returncode, output, "")
                assert succeeded(done) == CASES
        machine.crash(kind)


def test_test_xenstore_that_meets_a_crash(subject: Subject, machine: Machine) -> None:
    """That run fails, and says so; the next is good."""
    with ending(subject.start("test-xenstore", "-i", "1000000", "-t", "ta rmw")) as process:
        with machine.connect() as client:
            while "xenstore-test" not in client.directory("/local/domain/0"):
                pass
        machine.crash("kernel-page-fault")
        output, _ = process.communicate(timeout=CRASH_S)
    with pytest.raises(AssertionError):
        succeeded(subprocess.CompletedProcess("", process.returncode, output, ""))
    assert machine.control("check") == "OK"
    assert succeeded(subject.run("test-xenstore", "-i", "3")) == CASES


# -- pyxs


@pytest.fixture
def pyxs_client(machine: Machine) -> Iterator[Client]:
    with Client(unix_socket_path=str(machine.socket_path)) as client:
        yield client


def test_pyxs(pyxs_client: Client, home: str) -> None:
    path = home.encode()
    pyxs_client[path + b"/a"] = b"x" * 4000
    assert pyxs_client[path + b"/a"] == b"x" * 4000
    pyxs_client.mkdir(path + b"/dir/sub")
    assert pyxs_client.list(path + b"/dir") == [b"sub"]
    pyxs_client.transaction()
    pyxs_client.write(path + b"/t", b"1")
    assert pyxs_client.commit()
    assert pyxs_client.read(path + b"/t") == b"1"
    with pyxs_client.monitor() as monitor:
        monitor.watch(path + b"/w", b"token")
        assert next(monitor.wait())[0] == path + b"/w"
        pyxs_client.write(path + b"/w/x", b"1")
        assert next(monitor.wait())[0] == path + b"/w/x"


def test_pyxs_notices_a_crash(machine: Machine, pyxs_client: Client, home: str) -> None:
    """A transaction that was open is gone, what was committed is not."""
    path = home.encode()
    pyxs_client.write(path + b"/a", b"1")
    pyxs_client.transaction()
    pyxs_client.write(path + b"/a", b"2")
    machine.crash("illegal-instruction")
    with pytest.raises((PyXSError, OSError)):
        pyxs_client.commit()
    with Client(unix_socket_path=str(machine.socket_path)) as again:
        assert again.read(path + b"/a") == b"1"


# -- many


def test_a_hundred_clients(machine: Machine, home: str) -> None:
    """All connected, each with a watch, a transaction and a node; all come back after a crash."""
    for life in range(2):
        clients = [machine.connect() for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            client.watch(f"{home}/{number}", number)
            assert client.next_event(CRASH_S).token == str(number)
        for number, client in enumerate(clients):
            tx_id = client.transaction_start()
            client.write(f"{home}/{number}", life, tx_id)
            client.transaction_end(tx_id)
        for number, client in enumerate(clients):
            assert client.next_event(CRASH_S).path == f"{home}/{number}"
            assert client.read(f"{home}/{(number + 7) % CLIENTS}") == b"%d" % life
        machine.crash("exception")
        for client in clients:
            wait_closed(client, machine)
            client.close()
    with machine.connect() as client:
        assert len(client.directory(home)) == CLIENTS
        assert {client.read(f"{home}/{number}") for number in range(CLIENTS)} == {b"1"}


def test_clients_that_come_while_it_is_down(machine: Machine, home: str) -> None:
    """They wait, and are served by the next life: none is refused, none has to come twice, as
    long as nothing of theirs was executed by the life that died."""
    with machine.connect() as client:
        client.write(f"{home}/x", "there")
        client.control("crash", "exception")
    answers: list[bytes] = []

    def ask() -> None:
        for _ in range(5):
            try:
                with SocketConnection(machine.socket_path) as one:
                    answers.append(one.read(f"{home}/x"))
                    return
            except ConnectionClosed:
                pass  # it came before the life had ended

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CRASH_S)
    assert answers == [b"there"] * 20


def test_watchers_that_do_not_read_cost_only_themselves(
        make_machine: Callable[..., Machine]) -> None:
    """P9: in 64 MiB a few clients that watch everything and never read do not end the life; who
    writes is served on, and what was written is there."""
    machine = make_machine()
    machine.start()
    stuck = [machine.connect() for _ in range(8)]
    for number, one in enumerate(stuck):
        one.send(MessageType.WATCH, strings("/", f"token-{number}-" + "t" * 500))
    with machine.connect() as writer:
        for number in range(6000):
            writer.write(f"/stuck/{number % 50}/" + "p" * 300 + str(number), "")
            if number % 50 == 49:
                writer.rm("/stuck")
        assert writer.read("/tool") == b""
    assert "life 0 ends" not in machine.console()
    for one in stuck:
        one.close()
