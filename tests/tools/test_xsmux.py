# SPDX-License-Identifier: Apache-2.0
"""tools/xsmux as a command: what it refuses, what it leaves behind, and both ways to a channel.

Method: the real process; the server's end of the channel is app/lines.py, played by hand. Cannot
show: a real server (tests/clients/test_channel.py), QEMU (tests/qemu)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.lines import Lines
from tools.xsmux import Mux

COMMAND = str(Path(__file__).resolve().parents[2] / "tools" / "xsmux")
TIMEOUT_S = 20
POLL_S = 0.005


class Process:
    """xsmux in a directory of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.socket_path, self.channel_path = directory / "socket", directory / "channel"
        self.process = subprocess.Popen(
            [COMMAND, *options, str(self.socket_path), str(self.channel_path)],
            stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.first_line = self.process.stderr.readline()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it: exit code, and what it has said since."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, rest


class Server:
    """The other end of a channel, by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lines = Lines(lambda: os.urandom(16), print)
        self.lines.begin()
        sock.settimeout(TIMEOUT_S)

    def carry(self) -> None:
        """Send what there is, and take something in."""
        self.sock.sendall(self.lines.outgoing)
        self.lines.outgoing.clear()
        data = self.sock.recv(1 << 16)
        assert data, "the channel has ended"
        self.lines.receive(data)

    def answer(self, size: int) -> int:
        """Answer `size` bytes of the next client by the same bytes; returns its pid."""
        while (line := self.lines.accept()) is None:
            self.carry()
        while len(line.received) < size or line.may_send < size:
            self.carry()
        line.send(line.recv(size))
        self.sock.sendall(self.lines.outgoing)
        self.lines.outgoing.clear()
        return line.pid


@pytest.fixture(autouse=True)
def limited(time_limit: None) -> None:
    """Every test here has a time limit."""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """One that listens."""
    one = Process(tmp_path)
    yield one
    one.end(signal.SIGKILL)


def connect(path: Path) -> socket.socket:
    """A client."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT_S)
    sock.connect(str(path))
    return sock


def echoed(server: Server, path: Path) -> int:
    """Somebody is served; the pid that the server was told."""
    with connect(path) as client:
        client.sendall(b"hello")
        pid = server.answer(5)
        assert client.recv(100) == b"hello"
    return pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_end(process: Process, number: int) -> None:
    """Both sockets belong to the owner alone, and are gone afterwards."""
    assert f"XENSTORED_PATH={process.socket_path} " in process.first_line
    for path in (process.socket_path, process.channel_path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert process.end(number) == (0, "")
    assert not process.socket_path.exists() and not process.channel_path.exists()


def test_a_killed_one_is_no_obstacle(process: Process, tmp_path: Path) -> None:
    """Its sockets are stale; the next one takes their place."""
    process.end(signal.SIGKILL)
    assert process.socket_path.exists()
    again = Process(tmp_path)
    try:
        assert "XENSTORED_PATH" in again.first_line
    finally:
        assert again.end()[0] == 0


def test_who_else_listens_is_let_be(process: Process, tmp_path: Path) -> None:
    """Neither socket is taken from a live one, nor a file removed."""
    (tmp_path / "file").write_text("kept")
    for arguments in ([process.socket_path, tmp_path / "other"],
                      [tmp_path / "other", process.channel_path],
                      [tmp_path / "file", tmp_path / "other"],
                      [tmp_path / "other", tmp_path / "missing" / "channel"]):
        done = subprocess.run([COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True,
                              timeout=TIMEOUT_S, check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "other").exists(), "half of it is left behind"
    assert (tmp_path / "file").read_text() == "kept"


def test_help_and_wrong_arguments() -> None:
    """Examples, exit codes."""
    done = subprocess.run([COMMAND, "--help"], stdout=subprocess.PIPE, text=True,
                          timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0 and "examples:" in done.stdout and "exit codes:" in done.stdout
    done = subprocess.run([COMMAND, "one"], stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S,
                          check=False)
    assert done.returncode == 2


def test_servers_come_and_go(process: Process) -> None:
    """The server connects; one after the other is served with; pids are told."""
    for _ in range(3):
        server = Server(connect(process.channel_path))
        assert echoed(server, process.socket_path) == os.getpid()
        server.sock.close()


def test_a_server_that_knows_of_nobody_is_asked(process: Process) -> None:
    """The channel was there before, and its server with it: RESET, and it begins."""
    server = Server(connect(process.channel_path))
    server.lines.outgoing.clear()  # its HELLO went to somebody else
    assert echoed(server, process.socket_path) == os.getpid()


def test_the_other_way_round(tmp_path: Path) -> None:
    """--connect: QEMU listens, and may be started later, or again."""
    one = Process(tmp_path, "--connect")
    try:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(one.channel_path))
                listener.listen()
                listener.settimeout(TIMEOUT_S)
                server = Server(listener.accept()[0])
            assert echoed(server, one.socket_path) == os.getpid()
            server.sock.close()
            one.channel_path.unlink()
    finally:
        code, _ = one.end()
    assert code == 0 and not one.socket_path.exists()


def test_within_another_loop(tmp_path: Path) -> None:
    """fileno(), wait_s(), turn(0): nothing blocks, and nothing is there when it is closed."""
    mux = Mux(str(tmp_path / "socket"), str(tmp_path / "channel"))
    server = Server(connect(tmp_path / "channel"))
    client = connect(tmp_path / "socket")
    client.sendall(b"hello")
    server.sock.settimeout(POLL_S)
    line, deadline = None, time.monotonic() + TIMEOUT_S
    while line is None or not line.received:
        assert time.monotonic() < deadline
        mux.turn(0)
        with contextlib.suppress(TimeoutError):
            server.carry()
        line = line or server.lines.accept()
    assert line.recv(10) == b"hello" and mux.wait_s() is None
    mux.close()
    assert client.recv(1) == b"" and server.sock.recv(1 << 16) is not None
    assert not list(tmp_path.iterdir())
    client.close()
    server.sock.close()
