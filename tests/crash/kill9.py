# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the real server process under load, and an exact check of what was acknowledged.

  python -m tests.crash.kill9 [--kills 1000] [--clients 4] [--seed N] [--region-size 1M]
                              [--region FILE] [--channel]

Each client owns a key space and does what it likes there: writes, transactions of several nodes,
removals. It remembers the last acknowledged state of its keys, and the request that was under way
when the server died. After the restart its keys must be as acknowledged, or as that one request
would have left them, whole; nothing else. Every reply must be that of its request, whole. With
--channel, clients come by way of tools/xsmux; killed is the server, or xsmux, or both. Prints
progress and the counts; exit code 1 on a loss.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from app import wire

HEADER = wire.HEADER
START_TIMEOUT_S = 20.0
Keys = dict[str, bytes]


class Gone(Exception):
    """The server closed the connection, or is not there."""


class Client:
    """A client with its own key space below /k/NUMBER."""

    def __init__(self, number: int, socket_path: str, seed: int) -> None:
        self.number = number
        self.acknowledged: Keys = {}
        self.under_way: Keys | None = None  # what the request in flight would leave
        self.operations = 0
        self.problem: str | None = None  # what went wrong under load
        self._socket_path = socket_path
        self._chance = random.Random(f"{seed}:{number}")
        self._sock: socket.socket | None = None
        self._counter = 0
        self._req_id = 0

    def connect(self) -> None:
        """A new connection, that is served: a multiplexer keeps one that is not for the next life,
        and then nobody would tell this client of a death."""
        if self._sock is not None:
            self._sock.close()
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(START_TIMEOUT_S)
        self._sock.connect(self._socket_path)
        self.request(wire.XS_GET_DOMAIN_PATH, b"0\0")

    def request(self, kind: int, payload: bytes, tx_id: int = 0) -> bytes:
        """One request; returns the payload. Raises Gone, or AssertionError for an error reply."""
        assert self._sock is not None
        self._req_id += 1
        try:
            self._sock.sendall(HEADER.pack(kind, self._req_id, tx_id, len(payload)) + payload)
            head = self._receive(HEADER.size)
            answered, req_id, its_tx, length = HEADER.unpack(head)
            assert answered in (kind, wire.XS_ERROR) and (req_id, its_tx) == (
                self._req_id, tx_id), f"request {kind} {self._req_id} {tx_id} got {head!r}"
            body = self._receive(length)
        except (ConnectionError, struct.error) as error:
            raise Gone from error
        if answered == wire.XS_ERROR:
            raise AssertionError(f"{wire.TYPE_NAMES[kind]} {payload!r}: {body!r}")
        return body

    def _receive(self, size: int) -> bytes:
        assert self._sock is not None
        data = b""
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            if not more:
                raise Gone
            data += more
        return data

    def path(self, key: str) -> bytes:
        """The node of a key."""
        return f"/k/{self.number}/{key}".encode()

    def work(self) -> None:
        """Change things until the server is gone."""
        try:
            while True:
                self._change()
                self.operations += 1
        except Gone:
            pass
        except (AssertionError, TimeoutError) as error:
            self.problem = f"client {self.number}: {type(error).__name__} {error}"

    def _change(self) -> None:
        chance = self._chance
        self._counter += 1
        after = dict(self.acknowledged)
        key = f"{chance.randrange(6)}/{chance.randrange(4)}"
        value = b"%d" % self._counter + b"." * chance.choice((0, 20, 1500))
        kind = chance.randrange(10)
        if kind < 6:
            after[key] = value
            self._do(after, wire.XS_WRITE, self.path(key) + b"\0" + value)
        elif kind < 7:
            group = key.split("/")[0]
            after = {name: kept for name, kept in after.items()
                     if not name.startswith(group + "/")}
            self._ensure_parent(group)
            self._do(after, wire.XS_RM, self.path(group) + b"\0")
        else:
            tx_id = int(self.request(wire.XS_TRANSACTION_START, b"\0").rstrip(b"\0"))
            for other in range(chance.randrange(2, 6)):
                name = f"{other}/{chance.randrange(4)}"
                after[name] = value
                self.request(wire.XS_WRITE, self.path(name) + b"\0" + value, tx_id)
            self._do(after, wire.XS_TRANSACTION_END, b"T\0", tx_id)

    def _ensure_parent(self, group: str) -> None:
        if not any(name.startswith(group + "/") for name in self.acknowledged):
            self.request(wire.XS_MKDIR, self.path(group) + b"\0")

    def _do(self, after: Keys, kind: int, payload: bytes, tx_id: int = 0) -> None:
        self.under_way = after
        self.request(kind, payload, tx_id)
        self.acknowledged, self.under_way = after, None

    def check(self) -> str | None:
        """Compare the server's state of this key space; adopt it. None, or what is wrong."""
        if self.problem is not None:
            return self.problem
        found: Keys = {}
        for group in self._list(f"/k/{self.number}".encode()):
            for name in self._list(f"/k/{self.number}/{group}".encode()):
                key = f"{group}/{name}"
                found[key] = self.request(wire.XS_READ, self.path(key) + b"\0")
        allowed = [self.acknowledged]
        if self.under_way is not None:
            allowed.append(self.under_way)
        if found not in allowed:
            return (f"client {self.number}: found {_short(found)}, acknowledged "
                    f"{_short(self.acknowledged)}, under way {_short(self.under_way or {})}")
        self.acknowledged, self.under_way = found, None
        return None

    def _list(self, path: bytes) -> list[str]:
        try:
            body = self.request(wire.XS_DIRECTORY, path + b"\0")
        except AssertionError as error:
            if "ENOENT" in str(error):
                return []
            raise
        return [name.decode() for name in body.split(b"\0")[:-1]]


class ServerProcess:
    """The real server, killed and started again on the same region, or the multiplexer through
    which its clients come."""

    def __init__(self, socket_path: str, arguments: list[str]) -> None:
        self.socket_path = socket_path
        self.log_path = Path(socket_path + ".log")
        self._command = [sys.executable, "-m", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if it does not run, and wait until it listens."""
        if self._process is not None:
            return
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(self.socket_path)
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError("no restart:\n" + self.log_path.read_text()) from None
                time.sleep(0.002)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it with a signal."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


class Victims:
    """What is killed: the server; with a channel the multiplexer, too."""

    def __init__(self, directory: str, arguments: list[str], has_channel: bool) -> None:
        self.socket_path = os.path.join(directory, "socket")
        channel = os.path.join(directory, "channel")
        self._all = [ServerProcess(self.socket_path, [
            "app", "--socket", self.socket_path, *arguments])]
        if has_channel:
            server = ServerProcess(channel, ["app", "--channel", channel, *arguments])
            mux = ServerProcess(self.socket_path, ["tools.xsmux", self.socket_path, channel])
            self._all = [mux, server]

    def start(self) -> None:
        """Start what does not run."""
        for one in self._all:
            one.start()

    def kill(self, chance: random.Random) -> None:
        """Kill the server, mostly; with a channel in one of three cases the other, or both."""
        count = chance.choice((1, 1, 1, 1, 2, 3)) if len(self._all) == 2 else 1
        for number, one in enumerate(reversed(self._all)):
            if count >> number & 1:
                one.kill()

    def end(self) -> None:
        """Kill all."""
        for one in self._all:
            one.kill()

    @property
    def log(self) -> str:
        """What they have said."""
        return "".join(one.log_path.read_text() for one in self._all)


def run(kills: int, clients: int, seed: int, region_size: str, progress: bool,
        region: str | None = None, has_channel: bool = False) -> tuple[int, int]:
    """Kill `kills` times; returns (operations acknowledged, requests under way at a kill).

    The region is a temporary file, or the new file `region`, which is left there.

    Raises AssertionError on the first loss."""
    chance = random.Random(seed)
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    under_way = 0
    with tempfile.TemporaryDirectory(prefix="kill9-", dir=base) as directory:
        region = region or os.path.join(directory, "region")
        server = Victims(directory, ["--region", region, "--region-size", region_size],
                         has_channel)
        workers = [Client(number, server.socket_path, seed) for number in range(clients)]
        try:
            server.start()
            for kill in range(kills):
                threads = [threading.Thread(target=worker.work) for worker in workers]
                for worker in workers:
                    worker.connect()
                for thread in threads:
                    thread.start()
                time.sleep(chance.uniform(0.001, 0.12))
                server.kill(chance)
                for thread in threads:
                    thread.join()
                under_way += sum(worker.under_way is not None for worker in workers)
                server.start()
                for worker in workers:
                    worker.connect()
                    problem = worker.check()
                    assert problem is None, f"seed {seed}, kill {kill}: {problem}"
                log = server.log
                assert "corrupt" not in log and "DAMAGED" not in log, log
                if progress and (kill % 20 == 19 or kills <= 20):
                    print(f"killed {kill + 1} times: {sum(w.operations for w in workers)} "
                          f"operations acknowledged, all there; {under_way} requests were under "
                          "way at a kill", flush=True)
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(server.socket_path)
                probe.sendall(HEADER.pack(wire.XS_CONTROL, 1, 0, 6) + b"check\0")
                answer = probe.recv(4096)
            assert answer[HEADER.size:] == b"OK\0", answer
        finally:
            server.end()
    return sum(worker.operations for worker in workers), under_way


def _short(keys: Keys) -> str:
    return str({key: value[:12] for key, value in sorted(keys.items())})


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--region-size", default="1M")
    parser.add_argument("--region", help="a new file for the region, left there at the end")
    parser.add_argument("--channel", action="store_true", help="by way of tools/xsmux")
    options = parser.parse_args()
    if options.region is not None:
        Path(options.region).unlink(missing_ok=True)
    operations, under_way = run(options.kills, options.clients, options.seed,
                                options.region_size, progress=True, region=options.region,
                                has_channel=options.channel)
    print(f"{options.kills} kills, {operations} operations acknowledged, {under_way} requests "
          "under way at a kill: nothing lost, nothing half done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
