# SPDX-License-Identifier: Apache-2.0
"""The servers under test, alike: ours, ours killed again and again, ours behind a channel, and C
xenstored.

J1. What is expected of ours is expected of C xenstored too, by the same line of a test, unless the
    test says why not.
Knows nothing of the programs."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.oracle import oracle
from tests.oracle.ours import OurServer

POLL_S = 0.01
WAIT_S = 10.0


class Subject:
    """A running server that programs are run against."""

    name = "c"

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return oracle.run_client(self.socket_path, program, *arguments)

    def must(self, program: str, *arguments: str) -> str:
        """Run a program that must succeed, without a complaint; its output."""
        done = self.run(program, *arguments)
        assert (done.returncode, done.stderr) == (0, ""), (program, arguments, done)
        return done.stdout

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a program; its output is a pipe. Who starts it ends it (ending())."""
        command, environment = oracle.client_command(self.socket_path, program, arguments)
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class Ours(Subject):
    """Our server."""

    name = "tardigrade"

    def __init__(self, server: OurServer) -> None:
        super().__init__(server.socket_path)
        self.server = server

    def crash(self) -> None:
        """kill -9, and the next life."""
        self.server.kill9()
        self.server.restart()


class OursReborn(Ours):
    """Our server, killed and restarted after every single program."""

    name = "tardigrade-reborn"

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = super().run(program, *arguments)
        self.crash()
        return done


class OursFar(Ours):
    """Our server with nothing but a byte channel, as in the image; tools/xsmux has the socket."""

    name = "tardigrade-channel"


@contextlib.contextmanager
def running(name: str) -> Iterator[Subject]:
    """A new server of that name."""
    if name == Subject.name:
        with oracle.running("c") as directory:
            yield Subject(directory / "socket")
    else:
        oracle.fetch()  # the programs
        kind = {one.name: one for one in (Ours, OursReborn, OursFar)}[name]
        with OurServer(has_channel=kind is OursFar) as server:
            yield kind(server)


@contextlib.contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Whatever happens, the process is gone afterwards."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Poll until something is true; AssertionError if it does not become so in time."""
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, f"not within {WAIT_S:g} s: {what}"
        time.sleep(POLL_S)
