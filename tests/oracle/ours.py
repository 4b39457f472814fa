# SPDX-License-Identifier: Apache-2.0
"""Our own server as a real process, for tests and measurements.

    with OurServer() as server:
        SocketConnection(server.socket_path).write("/a", "1")
        server.kill9()
        server.restart()

A1. Whatever was started is ended, and the files that it made are removed: socket, log, region,
    copies of damaged regions; and the directory, if it was made here.
A2. A server that ends although nobody asked it to is an error, at the latest in close().
A3. With a channel, tools/xsmux has the socket, and outlives the server unless it is killed itself.
Knows nothing of the server but its command line."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.oracle.oracle import POLL_S, can_connect, placement_prefix
from tests.oracle.xsclient import ConnectionClosed, MessageType, NoReply, SocketConnection

CHECKOUT = Path(__file__).resolve().parents[2]
RAM_DIRECTORY = Path("/dev/shm")
ROOM_FOR_REGIONS = 256 << 20  # bytes: a region takes 64 MiB, and others run beside us
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


def has_room(directory: Path) -> bool:
    """Whether a region fits there: a container's /dev/shm may be as small as one region."""
    if not os.access(directory, os.W_OK):
        return False
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize >= ROOM_FOR_REGIONS


class ServerError(Exception):
    """The server did not do what it was told; the text holds the end of its log."""


class OurServer:
    """One server with its files. Not started by the constructor, but by `with` or start()."""

    def __init__(self, directory: str | Path | None = None, *, sim: str | Path | None = None,
                 arguments: Sequence[str] = (), cpu: int | None = None,
                 fifo: bool = False, module: str = "app", has_channel: bool = False) -> None:
        """`directory` gets socket and log: a new temporary one by default. `sim` is a simulated
        Xen directory, which must exist. `arguments` are added to the command line. `module`: what
        is run, app by default. `has_channel`: clients come by way of tools/xsmux."""
        self._owns_directory = directory is None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="tardigrade-")).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket_path = self.directory / "socket"
        self.log_path = self.directory / "log"
        where = RAM_DIRECTORY if has_room(RAM_DIRECTORY) else self.directory
        self.region_path = where / f"tardigrade-test-{secrets.token_hex(8)}.region"
        channel_path = str(self.directory / "channel")
        self._command = [
            *placement_prefix(cpu, fifo), sys.executable, "-m", module,
            *(["--channel", channel_path] if has_channel else ["--socket", str(self.socket_path)]),
            "--region", str(self.region_path),
            "--host", f"sim:{Path(sim).resolve()}" if sim is not None else "none", *arguments]
        self._mux_command = [sys.executable, "-m", "tools.xsmux", str(self.socket_path),
                             channel_path] if has_channel else []
        self._process: subprocess.Popen[bytes] | None = None
        self._mux: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OurServer:
        try:
            self.start()
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    # -- lives

    @property
    def pid(self) -> int:
        """The process id of the present life."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def mux_pid(self) -> int:
        """The process id of the multiplexer."""
        assert self._mux is not None, "not started"
        return self._mux.pid

    @property
    def log(self) -> str:
        """What the server has said in all its lives."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start, and wait until a request is answered. Raises ServerError."""
        assert self._process is None, "started already"
        if self._mux_command and self._mux is None:
            self.start_mux()
        self._process = self._spawn(self._command)
        deadline = time.monotonic() + timeout_s
        while not self.is_answering():
            if self._process.poll() is not None:
                raise self._error(f"ended with {self._process.returncode} at its start")
            if time.monotonic() > deadline:
                raise self._error(f"does not answer after {timeout_s:g} s")
            time.sleep(POLL_S)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=log, start_new_session=True)

    def start_mux(self) -> None:
        """Start the multiplexer, and wait until it listens. Raises ServerError."""
        assert self._mux is None, "started already"
        self._mux = self._spawn(self._mux_command)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not can_connect(self.socket_path):
            if self._mux.poll() is not None or time.monotonic() > deadline:
                raise self._error("the multiplexer does not listen")
            time.sleep(POLL_S)

    def kill_mux(self) -> None:
        """SIGKILL for the multiplexer; the server stays."""
        assert self._mux is not None, "not started"
        self._mux.kill()
        self._mux.wait()
        self._mux = None

    def is_answering(self, timeout_s: float = 1.0) -> bool:
        """Whether the server answers a request."""
        try:
            with SocketConnection(self.socket_path) as connection:
                connection.request(MessageType.GET_DOMAIN_PATH, b"0\0", timeout_s=timeout_s)
        except (OSError, ConnectionClosed, NoReply):
            return False
        return True

    def kill9(self) -> None:
        """The crash: SIGKILL, and wait until the process is gone. The region stays."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def stop(self) -> None:
        """The proper end: SIGTERM. The region stays. Raises ServerError unless it ends well."""
        process = self._running()
        process.terminate()
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise self._error(f"did not end {STOP_TIMEOUT_S:g} s after SIGTERM") from None
        self._process = None
        if code != 0:
            raise self._error(f"ended with {code} after SIGTERM")

    def restart(self) -> None:
        """The next life, from the same region. A server that still runs is stopped first."""
        if self._process is not None:
            self.stop()
        self.start()

    # -- the end

    def close(self) -> None:
        """Stop if running, and remove everything. Raises ServerError if it had ended by itself."""
        try:
            if self._process is not None:
                self.stop()
        finally:
            self.discard()

    def discard(self) -> None:
        """Kill if running, and remove everything, whatever state the server is in."""
        for process in (self._process, self._mux):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._process = self._mux = None
        for path in (self.socket_path, self.log_path, self.directory / "channel",
                     *self.region_path.parent.glob(self.region_path.name + "*")):
            path.unlink(missing_ok=True)
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        if self._process.poll() is not None:
            raise self._error(f"had ended with {self._process.returncode} by itself")
        return self._process

    def _error(self, text: str) -> ServerError:
        return ServerError(f"{' '.join(self._command)}\n{text}; its log ends:\n{self.log[-4000:]}")
