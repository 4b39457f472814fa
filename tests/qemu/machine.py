# SPDX-License-Identifier: Apache-2.0
"""The image in QEMU, run by tools/xsqemu, for tests and measurements.

    with Machine() as machine:
        machine.connect().write("/a", "1")
        machine.crash("double-fault")
        machine.kill_qemu()
        machine.start()

Q1. Whatever was started is ended, by its pid, and what it made is removed: socket, memory, console.
    Others run QEMU on this host too.
Q2. A machine that ends although nobody has asked it to is an error, at the latest in close().
Q3. Each wait has an end, which is generous: the processor is emulated, and shared.
Knows nothing of what the server does, but its command line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from app.replay import Replay
from tests.oracle.ours import RAM_DIRECTORY, has_room
from tests.oracle.xsclient import ConnectionClosed, MessageType, NoReply, SocketConnection, strings
from tools.dump.past import read_past
from tools.xsqemu import IMAGE, REGION_ADDRESS

CHECKOUT = Path(__file__).resolve().parents[2]
MEMORY_SIZE, REGION_SIZE = 64 << 20, 16 << 20  # xsqemu's defaults
START_S = 60.0  # power-on to the first reply; 1 s is promised, where nobody else is at work
CRASH_S = 60.0  # from one life to the next
END_S = 30.0
POLL_S = 0.005
TAIL_LINES = 60
KERNEL_WORDS = ("log=debug", "drill=on")


class MachineError(Exception):
    """The machine did not do what it was told; the text holds the end of its console."""


def build() -> None:
    """Make sure that the image is the one of this tree; one build at a time."""
    (CHECKOUT / "build").mkdir(exist_ok=True)
    with open(CHECKOUT / "build" / "qemu-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "image"], cwd=CHECKOUT, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise MachineError(f"make image: exit code {done.returncode}\n{done.stdout[-3000:]}")


class MemoryRegion:
    """The region within a machine's memory, for reading beside it. As much of a RegionFile as
    tools/xsdump.py looks at."""

    def __init__(self, memory_path: Path, size: int) -> None:
        self.size = size
        self._path = memory_path

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes."""
        assert offset >= 0 and offset + size <= self.size
        with open(self._path, "rb") as file:
            return os.pread(file.fileno(), size, REGION_ADDRESS + offset)

    def close(self) -> None:
        """There is nothing to close."""


class Machine:
    """One machine with its files, switched on by `with` or start(). `kernel` are words for the
    kernel, `arguments` the server's, `options` are xsqemu's own."""

    def __init__(self, *, kernel: Sequence[str] = KERNEL_WORDS,
                 arguments: Sequence[str] = ("--drill",), options: Sequence[str] = (),
                 image: Path = IMAGE, region_size: int = REGION_SIZE) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tq-"))
        self.socket_path = self.directory / "socket"
        self.console_path = self.directory / "console"
        self.monitor_path = self.directory / "qmp"
        where = RAM_DIRECTORY if has_room(RAM_DIRECTORY) else self.directory
        self.memory_path = where / f"tardigrade-test-{secrets.token_hex(8)}.memory"
        self.region = MemoryRegion(self.memory_path, region_size)
        self.command = [
            sys.executable, "-m", "tools.xsqemu", "--socket", str(self.socket_path),
            "--memory-file", str(self.memory_path), "--image", str(image),
            "--region-size", f"{region_size >> 10}K", "--qemu-option=-qmp",
            f"--qemu-option=unix:{self.monitor_path},server=on,wait=off",
            *(f"--kernel={word}" for word in kernel), *options, "--", *arguments]
        self.given_tx_ids: set[int] = set()  # to the writers of load.py, in all lives
        self._process: subprocess.Popen[bytes] | None = None
        self._qemu_pid = 0

    def __enter__(self) -> Machine:
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

    # -- power

    @property
    def is_running(self) -> bool:
        """Whether it was started, and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = START_S) -> float:
        """Switch on, and wait for the first reply; seconds from the spawn of QEMU to it."""
        self.spawn()
        took_s = self.wait_served(timeout_s)
        if not self._qemu_pid:
            self.find_qemu()
        return took_s

    def spawn(self) -> None:
        """Switch on. A machine that ends at once is no error here."""
        assert self._process is None, "it runs already"
        with open(self.console_path, "ab") as console:
            self._process = subprocess.Popen(
                self.command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=console,
                stderr=console, start_new_session=True)
        self._qemu_pid = 0

    def wait_served(self, timeout_s: float = START_S) -> float:
        """Wait for a reply; seconds from the spawn of QEMU to it. A client that is there before
        the server waits in the multiplexer, so that the moment is exact."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with SocketConnection(self.socket_path) as client:
                    client.request(MessageType.GET_DOMAIN_PATH, b"0\0",
                                   timeout_s=min(1.0, timeout_s))
                    return time.clock_gettime(time.CLOCK_BOOTTIME) - self.qemu_began_s()
            except (OSError, ConnectionClosed, NoReply):
                if not self.is_running:
                    raise self.error("it ended before it served") from None
                if time.monotonic() > deadline:
                    raise self.error(f"no reply within {timeout_s:g} s") from None
                time.sleep(POLL_S)

    def qemu_began_s(self) -> float:
        """When QEMU was spawned, since this host's boot; good to 10 ms."""
        fields = Path(f"/proc/{self.find_qemu()}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")

    def find_qemu(self) -> int:
        """QEMU's process id."""
        assert self._process is not None, "not started"
        pid = self._process.pid
        deadline = time.monotonic() + END_S
        while not self._qemu_pid:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            self._qemu_pid = next(map(int, children), 0)
            if not self._qemu_pid:
                if time.monotonic() > deadline:
                    raise self.error("there is no QEMU")
                time.sleep(POLL_S)
        return self._qemu_pid

    def wait_end(self, timeout_s: float = END_S) -> int:
        """Wait until xsqemu has ended by itself; its exit code."""
        assert self._process is not None, "not started"
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.error(f"it has not ended within {timeout_s:g} s") from None
        self._process = None
        return code

    def kill_qemu(self) -> None:
        """The power fails: kill -9 of QEMU. xsqemu notices, and ends. The memory's file stays."""
        os.kill(self.find_qemu(), signal.SIGKILL)
        code = self.wait_end()
        if code != 3:
            raise self.error(f"xsqemu ended with {code}, not 3, when QEMU was killed")

    def kill_xsqemu(self) -> None:
        """kill -9 of xsqemu itself."""
        assert self._process is not None, "not started"
        self.find_qemu()
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Switch off: SIGTERM for xsqemu. The memory's file stays."""
        assert self._process is not None, "not started"
        if not self.is_running:
            raise self.error(f"it had ended with {self._process.returncode} by itself")
        self._process.terminate()
        code = self.wait_end()
        if code:
            raise self.error(f"xsqemu ended with {code} after SIGTERM")

    def close(self) -> None:
        """Switch off if running, and remove everything."""
        try:
            if self._process is not None:
                self.stop()
        finally:
            self.discard()

    def discard(self) -> None:
        """Kill if running, and remove everything, whatever state the machine is in."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        self.memory_path.unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- what it says

    def console(self, since: int = 0) -> str:
        """All that it has said, or what it has said since a mark()."""
        try:
            with open(self.console_path, "rb") as file:
                file.seek(since)
                return file.read().decode("utf-8", "replace").replace("\r", "")
        except FileNotFoundError:
            return ""

    def mark(self) -> int:
        """Where its console ends now."""
        with contextlib.suppress(FileNotFoundError):
            return self.console_path.stat().st_size
        return 0

    def wait_said(self, pattern: str, since: int = 0, timeout_s: float = CRASH_S) -> re.Match[str]:
        """Wait until it has said something; the match."""
        deadline = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.console(since), re.M)) is None:
            if time.monotonic() > deadline:
                raise self.error(f"it has not said {pattern!r} within {timeout_s:g} s")
            time.sleep(POLL_S)
        return found

    def tail(self) -> str:
        """The end of its console, and the command that starts such a machine."""
        lines = self.console().splitlines()[-TAIL_LINES:]
        return "\n".join([*lines, f"such a machine: {' '.join(self.command[1:])}"])

    def error(self, text: str) -> MachineError:
        """An error with the end of the console."""
        return MachineError(f"{text}; its console ends:\n{self.tail()}")

    # -- what is done to it

    def connect(self) -> SocketConnection:
        """A client."""
        return SocketConnection(self.socket_path)

    def control(self, *words: object) -> str:
        """CONTROL; the answer."""
        with self.connect() as client:
            payload = client.call(MessageType.CONTROL, strings(*words), timeout_s=CRASH_S)
            return payload.rstrip(b"\0").decode("latin-1")

    def crash(self, *words: object) -> float:
        """CONTROL crash; wait until the connection is closed by that. Seconds from the answer to
        the first reply of the next life."""
        with self.connect() as client:
            client.call(MessageType.CONTROL, strings("crash", *words), timeout_s=CRASH_S)
            began_s = time.monotonic()
            wait_closed(client, self)
        self.wait_served(CRASH_S)
        return time.monotonic() - began_s

    def monitor(self, command: str) -> str:
        """A command of QEMU's own for people, such as "nmi"."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(END_S)
            sock.connect(str(self.monitor_path))
            with sock.makefile("rw", encoding="utf-8") as stream:
                for request in ({"execute": "qmp_capabilities"},
                                {"execute": "human-monitor-command",
                                 "arguments": {"command-line": command}}):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    while not (answer := json.loads(stream.readline())).keys() & {"return",
                                                                                  "error"}:
                        pass
        if answer.get("return"):
            raise self.error(f"monitor: {command}: {answer['return']}")
        return str(answer)

    def patch(self, address: int, change: Callable[[int], int]) -> None:
        """Change one byte of its memory, behind its back."""
        with open(self.memory_path, "r+b") as file:
            before = os.pread(file.fileno(), 1, address)[0]
            os.pwrite(file.fileno(), bytes([change(before)]), address)

    def word(self, address: int) -> int:
        """A 64-bit word of its memory."""
        with open(self.memory_path, "rb") as file:
            return int.from_bytes(os.pread(file.fileno(), 8, address), "little")

    # -- its region

    def replay(self) -> Replay:
        """What the region holds, as recovery would read it."""
        replay = read_past(self.region, is_whole_history=False).present
        assert replay is not None
        return replay

    def cause(self) -> str:
        """Why the last life ended, as the present one has recorded it."""
        life = self.replay().life
        return life.cause if life is not None and life.cause else ""

    def copy_region(self, to: Path) -> Path:
        """The region alone, in a file of its own."""
        with open(self.memory_path, "rb") as file:
            to.write_bytes(os.pread(file.fileno(), self.region.size, REGION_ADDRESS))
        return to


def wait_closed(client: SocketConnection, machine: Machine, timeout_s: float = CRASH_S) -> None:
    """Until the server has closed the connection."""
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            client.receive(0.2)
            if not machine.is_running:
                raise machine.error("it ended")
    except ConnectionClosed:
        return
    raise machine.error(f"a connection was not closed within {timeout_s:g} s")
