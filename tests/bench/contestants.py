# SPDX-License-Identifier: Apache-2.0
"""The servers that are compared, behind one interface: start, where it listens, stop.

V1. A contestant that was started here is stopped here, and leaves no file behind.
V2. Contestants differ in nothing but themselves: same CPU, same priority, files in memory.
Knows nothing of plans and results."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

from tests.bench.plans import DOMID_MAX
from tests.oracle import oracle
from tests.oracle.ours import OurServer, ServerError
from tests.oracle.packages import OracleError

OURS = "tardigrade"
REFERENCES = ("c", "ox")
OUR_BIG_QUOTAS = tuple(f"{name}={oracle.BIG}" for name in (
    "nodes", "watches", "transactions", "outstanding", "memory", "transaction-nodes"))
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.01

SPECS = """  tardigrade                  this server
  c, ox                       Debian's C xenstored and oxenstored
  NAME=SOCKET:PID             a running server
  NAME=cmd:'SHELL COMMAND'    a server started here: {dir} is replaced; it must listen on
                              {dir}/socket and stay in the foreground; {dir}/sim is a simulated
                              Xen directory"""


class ContestantError(Exception):
    """A server could not be started, or failed; the text says how."""


class Contestant(Protocol):
    """One server."""

    name: str
    can_restart: bool

    @property
    def socket_path(self) -> str:
        """Where it listens."""

    @property
    def sim_path(self) -> str:
        """Its simulated Xen directory; empty if that is not known."""

    @property
    def pid(self) -> int:
        """Whose CPU time counts."""

    def start(self, has_domains: bool) -> None:
        """Start in a new state. Raises ContestantError."""

    def stop(self) -> None:
        """Stop, and remove all files; harmless if it is not running. Raises ContestantError."""


class Ours:
    """This server, with quotas out of the way."""

    name = OURS
    can_restart = True

    def __init__(self, work_dir: Path, cpu: int | None, fifo: bool) -> None:
        self._directory = work_dir / self.name
        self._cpu, self._fifo = cpu, fifo
        self._server: OurServer | None = None

    @property
    def socket_path(self) -> str:
        assert self._server is not None
        return str(self._server.socket_path)

    @property
    def sim_path(self) -> str:
        return str(self._directory / "sim")

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def start(self, has_domains: bool) -> None:
        sim = Path(self.sim_path)
        sim.mkdir(parents=True)
        if has_domains:
            make_domains(sim)
        arguments = [word for quota in OUR_BIG_QUOTAS for word in ("--quota", quota)]
        self._server = OurServer(self._directory, sim=sim, arguments=arguments, cpu=self._cpu,
                                 fifo=self._fifo)
        try:
            self._server.start()
        except ServerError as error:
            raise ContestantError(str(error)) from error

    def stop(self) -> None:
        server, self._server = self._server, None
        try:
            if server is not None:
                server.close()
        except ServerError as error:
            raise ContestantError(str(error)) from error
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)


class Reference:
    """C xenstored or oxenstored, with quotas out of the way."""

    can_restart = True

    def __init__(self, name: str, work_dir: Path, cpu: int | None, fifo: bool) -> None:
        self.name = name
        self.pid = 0
        self._directory = work_dir / name
        self._cpu, self._fifo = cpu, fifo

    @property
    def socket_path(self) -> str:
        return str(self._directory / "socket")

    @property
    def sim_path(self) -> str:
        return str(self._directory / "sim")

    def start(self, has_domains: bool) -> None:
        try:
            self.pid = oracle.start(self.name, self._directory, big_quotas=True, cpu=self._cpu,
                                    fifo=self._fifo)
        except OracleError as error:
            raise ContestantError(str(error)) from error
        if has_domains:
            make_domains(Path(self.sim_path))

    def stop(self) -> None:
        oracle.stop(self._directory)
        shutil.rmtree(self._directory, ignore_errors=True)


class Given:
    """A server that somebody else has started. Who compares it pins it to the servers' CPU."""

    can_restart = False
    sim_path = ""

    def __init__(self, name: str, socket_path: str, pid: int) -> None:
        self.name, self.socket_path, self.pid = name, socket_path, pid

    def start(self, has_domains: bool) -> None:
        if not oracle.can_connect(self.socket_path):
            raise ContestantError(f"{self.name}: nobody listens on {self.socket_path}")

    def stop(self) -> None:
        pass


class Command:
    """Any other server, started by a shell command."""

    can_restart = True

    def __init__(self, name: str, command: str, work_dir: Path, cpu: int | None,
                 fifo: bool) -> None:
        self.name = name
        self._command = command
        self._directory = work_dir / name
        self._prefix = oracle.placement_prefix(cpu, fifo)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> str:
        return str(self._directory / "socket")

    @property
    def sim_path(self) -> str:
        return str(self._directory / "sim")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, has_domains: bool) -> None:
        sim = Path(self.sim_path)
        sim.mkdir(parents=True)
        if has_domains:
            make_domains(sim)
        command = self._command.replace("{dir}", shlex.quote(str(self._directory)))
        with open(self._directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                [*self._prefix, "sh", "-c", f"exec {command}"], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not oracle.can_connect(self.socket_path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (self._directory / "log").read_text(errors="replace")
                self.stop()
                raise ContestantError(f"{self.name} did not start:\n{text}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def make(spec: str, work_dir: Path, cpu: int | None, fifo: bool) -> Contestant:
    """The contestant of an argument. Raises ValueError with one clear line."""
    name, _, rest = spec.partition("=")
    if not rest and name == OURS:
        return Ours(work_dir, cpu, fifo)
    if not rest and name in REFERENCES:
        return Reference(name, work_dir, cpu, fifo)
    if name.isidentifier() and rest.startswith("cmd:"):
        return Command(name, rest.removeprefix("cmd:"), work_dir, cpu, fifo)
    socket_path, _, pid = rest.rpartition(":")
    if name.isidentifier() and socket_path and pid.isdecimal():
        return Given(name, socket_path, int(pid))
    raise ValueError(f"{spec}: expected tardigrade, c, ox, NAME=SOCKET:PID or NAME=cmd:'...'")


def make_domains(sim: Path) -> None:
    """Let every domid that a workload may use exist."""
    for domid in range(1, DOMID_MAX + 1):
        (sim / f"state.{domid}").write_text("running\n")
