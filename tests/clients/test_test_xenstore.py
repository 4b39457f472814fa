# SPDX-License-Identifier: Apache-2.0
"""test-xenstore, the test program that comes with Xen: all of its 12 cases.

Properties: every case reports success on our server, alone, all together, in random order, by four
programs at once, after kill -9, and after a kill -9 in the middle of an earlier run.
Method: the program's output is parsed: a case counts only if its line of timings is there. The same
check is shown to fail against a server that lies.
Cannot show: more than the program checks; it ignores watches and permissions."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.subjects import Ours, Subject, ending, wait_until
from tests.oracle import oracle
from tests.oracle.xsclient import MessageType, SocketConnection

PROGRAM = "test-xenstore"
CASES = ["read 1", "read 2000", "write 1", "write 2000", "dir", "rm node", "rm dir", "ta empty",
         "ta empty x", "ta rmw", "ta rmw x", "ta err"]
TIMING = re.compile(r"(.{10}): avg: (\d+) ns \((\d+) ns \.\. (\d+) ns\)")
ITERATIONS = "20"
TREE = "/local/domain/0/xenstore-test"


def succeeded(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The cases that a run reports as successful. AssertionError if anything else is said."""
    assert (done.returncode, done.stderr) == (0, ""), done
    matches = [TIMING.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(matches), done.stdout
    for match in filter(None, matches):
        assert 0 < int(match[3]) <= int(match[2]) <= int(match[4])
    return [match[1].rstrip() for match in matches if match]


def test_it_has_the_cases_that_we_know(subject: Subject) -> None:
    listed = [line.split(":")[0].rstrip() for line in subject.must(PROGRAM, "-l").splitlines()]
    assert listed == CASES
    assert len(CASES) == 12


def test_all_cases(subject: Subject) -> None:
    assert succeeded(subject.run(PROGRAM, "-i", ITERATIONS)) == CASES
    assert subject.run("xenstore-exists", TREE).returncode == 1  # it has tidied up


def test_each_case_alone(ours: Ours) -> None:
    for case in CASES:
        assert succeeded(ours.run(PROGRAM, "-i", "3", "-t", case)) == [case]


def test_random_order(subject: Subject) -> None:
    """It says nothing then; a failure is an exit code and a line."""
    assert subject.must(PROGRAM, "-r", "1") == ""


def test_four_at_once(ours: Ours) -> None:
    processes = [ours.start(PROGRAM, "-i", ITERATIONS) for _ in range(4)]
    for process in processes:
        with ending(process):
            output, _ = process.communicate(timeout=20)
            done = subprocess.CompletedProcess(PROGRAM, process.returncode, output, "")
            assert succeeded(done) == CASES


def test_all_cases_in_every_life(ours: Ours) -> None:
    for _ in range(3):
        assert succeeded(ours.run(PROGRAM, "-i", ITERATIONS)) == CASES
        ours.crash()
    assert succeeded(ours.run(PROGRAM, "-i", ITERATIONS)) == CASES


@pytest.mark.parametrize("case", ["write 2000", "rm dir", "ta rmw"])
def test_killed_in_the_middle(ours: Ours, case: str) -> None:
    """The run that met the crash fails and says so; the store is whole, and the next run good."""
    def is_at_work() -> bool:
        with SocketConnection(ours.socket_path) as client:
            return client.request(MessageType.READ, f"{TREE}\0".encode()).error is None

    with ending(ours.start(PROGRAM, "-i", "1000000", "-t", case)) as process:
        wait_until(is_at_work, "test-xenstore has begun")
        ours.server.kill9()
        output, _ = process.communicate(timeout=20)
    met = subprocess.CompletedProcess(PROGRAM, process.returncode, output, "")
    with pytest.raises(AssertionError):
        succeeded(met)
    ours.server.restart()
    assert ours.must("xenstore-control", "check") == "OK\n"
    assert succeeded(ours.run(PROGRAM, "-i", ITERATIONS)) == CASES


# -- the check can fail


class Liar(threading.Thread):
    """A server that answers every request with the same payload, whatever was asked."""

    def __init__(self, path: Path, payload: bytes) -> None:
        super().__init__(daemon=True)
        self._payload = payload
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def run(self) -> None:
        """Until close()."""
        try:
            while True:
                with self._listener.accept()[0] as client, client.makefile("rb") as requests:
                    while len(header := requests.read(16)) == 16:
                        kind, req_id, tx_id, size = struct.unpack("<IIII", header)
                        requests.read(size)
                        client.sendall(struct.pack("<IIII", kind, req_id, tx_id,
                                                   len(self._payload)) + self._payload)
        except OSError:
            pass  # closed

    def close(self) -> None:
        """End the thread."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join()


@pytest.fixture(params=[b"OK\0", b"1\0"])
def liar(request: pytest.FixtureRequest,
         tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    oracle.fetch()
    path = tmp_path_factory.mktemp("l") / "socket"
    server = Liar(path, request.param)
    server.start()
    yield Subject(path)
    server.close()


def test_a_lying_server_is_found_out(liar: Subject) -> None:
    with pytest.raises(AssertionError):
        assert succeeded(liar.run(PROGRAM, "-i", "1")) == CASES


@pytest.mark.parametrize("case", ["read 1", "read 2000", "dir", "ta err"])
def test_a_lying_server_is_found_out_in_one_case(liar: Subject, case: str) -> None:
    with pytest.raises(AssertionError):
        assert succeeded(liar.run(PROGRAM, "-i", "1", "-t", case)) == [case]


def test_a_lying_server_is_found_out_in_random_order(liar: Subject) -> None:
    done = liar.run(PROGRAM, "-r", "1")
    assert done.returncode == 3 and "failed" in done.stdout


def test_no_server_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        succeeded(Subject(tmp_path / "nobody").run(PROGRAM, "-i", "1"))
