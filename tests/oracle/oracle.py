# SPDX-License-Identifier: Apache-2.0
"""Debian's xenstore servers and clients on a machine without Xen. Command and module.

A directory that start() has made holds socket, pid, log and the simulated Xen directory sim/.
Knows nothing of our own server: that is ours.py. README.md is the manual."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.oracle.packages import (
    OracleError,
    fetch,
    library_path,
    package_root,
    program_path,
    shim_path,
)

__all__ = ["OracleError", "can_connect", "client_command", "fetch", "placement_prefix",
           "run_client", "running", "start", "stop"]

KINDS = ("c", "ox")
BIG = 100_000_000
C_BIG_QUOTAS = (
    "-E", str(BIG), "-W", str(BIG), "-t", "1000000", "-Q", "memory=2000000000",
    "-Q", "transaction-nodes=1000000", "-Q", "outstanding=1000000",
)
OX_BIG_QUOTAS = {
    "quota-maxentity": BIG, "quota-maxwatch": BIG, "quota-transaction": 1_000_000,
    "quota-maxrequests": 1_000_000, "quota-maxoutstanding": 10_000_000,
    "quota-maxwatchevents": 10_000_000, "quota-maxsize": 4096,
}
SOCKET_PATH_MAX = 107  # bytes, of a unix socket
POLL_S = 0.01
REAL_TIME_PRIORITY = "5"

EXAMPLES = """examples:
  python -m tests.oracle.oracle fetch
  python -m tests.oracle.oracle start c /tmp/c
  python -m tests.oracle.oracle client /tmp/c xenstore-ls -f
  python -m tests.oracle.oracle client --socket run/socket test-xenstore -i 100
  python -m tests.oracle.oracle stop /tmp/c

exit codes: 0 done, 1 could not (one line says why), 2 wrong arguments;
client: the program's own
"""


# -- servers


def start(kind: str, directory: str | Path, big_quotas: bool = False, access_log: bool = False,
          cpu: int | None = None, fifo: bool = False, timeout_s: float = 10.0) -> int:
    """Start server `kind` ("c" or "ox") in a fresh `directory`; return its pid.

    An existing directory is emptied, but only if it was made by this function. Returns when the
    server takes connections. Raises OracleError."""
    directory = Path(directory).resolve()
    shim = shim_path()
    make_directory(directory)
    command, environment = server_command(kind, directory, big_quotas, access_log)
    environment["LD_PRELOAD"], environment["LD_LIBRARY_PATH"] = str(shim), library_path()
    # env comes last: taskset and chrt are the system's and must not load the shim.
    loader = ["env"] + [f"{name}={environment.pop(name)}"
                        for name in ("LD_PRELOAD", "LD_LIBRARY_PATH")]
    with open(directory / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            placement_prefix(cpu, fifo) + loader + command, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, env=environment, cwd=directory, start_new_session=True)
    (directory / "pid").write_text(f"{process.pid}\n")
    deadline = time.monotonic() + timeout_s
    while not can_connect(directory / "socket"):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(directory)
            raise OracleError(f"{kind} did not start:\n" + (directory / "log").read_text())
        time.sleep(POLL_S)
    return process.pid


def make_directory(directory: Path) -> None:
    """An empty directory with sim/ in it, marked as ours. Raises OracleError."""
    marker, sim = directory / ".oracle", directory / "sim"
    if len(os.fsencode(sim / "evtchn.sock")) > SOCKET_PATH_MAX:
        raise OracleError(f"{directory}: path too long for a unix socket")
    if marker.exists():
        stop(directory)
        shutil.rmtree(directory)
    elif directory.exists() and any(directory.iterdir()):
        raise OracleError(f"{directory} is not empty and was not made by this program")
    sim.mkdir(parents=True)
    marker.touch()


def server_command(kind: str, directory: Path, big_quotas: bool,
                   access_log: bool) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of a server, but for the shim. Raises OracleError."""
    environment = dict(
        os.environ, SIMXEN_DIR=str(directory / "sim"), SIMXEN_RUNDIR=str(directory),
        XENSTORED_RUNDIR=str(directory), XENSTORED_ROOTDIR=str(directory))
    if kind == "c":
        command = [program_path("xenstored"), "-N", *(C_BIG_QUOTAS if big_quotas else ())]
        if access_log:
            command += ["-T", str(directory / "access.log")]
    elif kind == "ox":
        command = [program_path("oxenstored"), "--no-fork", "--config-file",
                   str(oxenstored_config(directory, big_quotas))]
        if not access_log:
            command.append("--no-access-log")
    else:
        raise OracleError(f"{kind}: unknown server, use {' or '.join(KINDS)}")
    return command, environment


def oxenstored_config(directory: Path, big_quotas: bool) -> Path:
    """Debian's configuration with our pid and log paths, and raised quotas on demand."""
    text = (package_root() / "etc/xen/oxenstored.conf").read_text()
    settings: dict[str, object] = {
        "pid-file": directory / "oxenstored.pid",
        "xenstored-log-file": directory / "xenstored.log",
        "access-log-file": directory / "access.log",
    }
    if big_quotas:
        settings.update(OX_BIG_QUOTAS)
    for name, value in settings.items():
        line = f"{name} = {value}"
        text, count = re.subn(rf"(?m)^#?\s*{re.escape(name)}\s*=.*$", line, text)
        if not count:
            text += line + "\n"
    path = directory / "oxenstored.conf"
    path.write_text(text)
    return path


def stop(directory: str | Path, timeout_s: float = 5.0) -> None:
    """Stop the server started in `directory`; harmless if it is not running."""
    pid_file = Path(directory) / "pid"
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + timeout_s
        if is_server_alive(pid, Path(directory)):
            os.kill(pid, number)
        while is_server_alive(pid, Path(directory)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    pid_file.unlink(missing_ok=True)


def is_server_alive(pid: int, directory: Path) -> bool:
    """Whether `pid` is still the server of `directory`: not gone, not dead but unreaped, and no
    other process that has got the same number since."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            return False
        return os.path.realpath(f"/proc/{pid}/cwd") == str(directory.resolve())
    except OSError:
        return False


@contextlib.contextmanager
def running(kind: str, big_quotas: bool = False) -> Iterator[Path]:
    """A server in a temporary directory, which is the value: socket, log, sim/."""
    fetch()
    with tempfile.TemporaryDirectory(prefix=f"oracle-{kind}-") as temporary:
        directory = Path(temporary) / kind
        start(kind, directory, big_quotas=big_quotas)
        try:
            yield directory
        finally:
            stop(directory)


def can_connect(path: str | Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def placement_prefix(cpu: int | None = None, fifo: bool = False) -> list[str]:
    """Command prefix that pins to one CPU and/or runs with real-time priority."""
    prefix = ["chrt", "-f", REAL_TIME_PRIORITY] if fifo else []
    return prefix + (["taskset", "-c", str(cpu)] if cpu is not None else [])


# -- clients


def client_command(socket_path: str | Path, program: str,
                   arguments: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Command line and environment that run one of Debian's clients against a socket."""
    path = Path(socket_path).resolve()
    environment = dict(os.environ, LD_LIBRARY_PATH=library_path(), XENSTORED_PATH=str(path),
                       XENSTORED_RUNDIR=str(path.parent))
    return [program_path(program), *arguments], environment


def run_client(socket_path: str | Path, program: str, *arguments: str,
               timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
    """Run one of Debian's clients to its end. Raises subprocess.TimeoutExpired."""
    command, environment = client_command(socket_path, program, arguments)
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, encoding="latin-1", timeout=timeout_s)


# -- command line


def parse(arguments: list[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line, and the parser for further complaints."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.oracle.oracle", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run Debian's xenstore servers and clients on a machine without Xen.")
    commands = parser.add_subparsers(dest="action", required=True)
    commands.add_parser("fetch", help="download, extract and compile into the cache directory")
    starter = commands.add_parser("start", help="start a server in DIR")
    starter.add_argument("kind", choices=KINDS)
    starter.add_argument("directory", metavar="DIR")
    starter.add_argument("--big-quotas", action="store_true",
                         help="quotas out of the way, for measurements")
    starter.add_argument("--access-log", action="store_true", help="write DIR/access.log")
    starter.add_argument("--cpu", type=int, help="pin the server to this CPU")
    starter.add_argument("--fifo", action="store_true", help="real-time priority (needs root)")
    stopper = commands.add_parser("stop", help="stop the server of DIR")
    stopper.add_argument("directory", metavar="DIR")
    client = commands.add_parser("client", help="run one of Debian's xenstore clients")
    client.add_argument("--socket", help="socket of any server, instead of DIR")
    client.add_argument("words", nargs=argparse.REMAINDER, metavar="[DIR] PROGRAM [ARGUMENT...]")
    return parser, parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """The command; returns the exit code. `client` does not return."""
    parser, options = parse(arguments)
    try:
        if options.action == "fetch":
            fetch()
        elif options.action == "start":
            fetch()
            start(options.kind, options.directory, options.big_quotas, options.access_log,
                  options.cpu, options.fifo)
        elif options.action == "stop":
            stop(options.directory)
        else:
            words = list(options.words)
            if not options.socket and words:
                options.socket = Path(words.pop(0)) / "socket"
            if not words:
                parser.error("client: no program named")
            command, environment = client_command(options.socket, words[0], words[1:])
            os.execve(command[0], command, environment)
    except OracleError as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
