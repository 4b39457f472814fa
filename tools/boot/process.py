# SPDX-License-Identifier: Apache-2.0
"""Daemons of dom0: how one was started, its end, and starting it again the same way.

Knows nothing of what they do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import NamedTuple

from tools.boot.failure import BootError

WAIT_S = 0.005


class Daemon(NamedTuple):
    """How a process was started."""

    arguments: list[bytes]
    environment: dict[bytes, bytes]
    directory: str = "/"


def describe(pid: int) -> Daemon | None:
    """None: there is no such process, or it is a kernel's."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")[:-1]
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = [entry.partition(b"=") for entry in file.read().split(b"\0") if entry]
        directory = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    if not arguments:
        return None
    return Daemon(arguments, {name: value for name, _, value in pairs}, directory)


def start(daemon: Daemon) -> subprocess.Popen[bytes]:
    """Start it again; that we may be spared when memory is short is not for it. Raises BootError.
    """
    try:
        child = subprocess.Popen(daemon.arguments, env=daemon.environment, cwd=daemon.directory,
                                 stdin=subprocess.DEVNULL, start_new_session=True)
        with contextlib.suppress(OSError), open(f"/proc/{child.pid}/oom_score_adj", "w",
                                                encoding="ascii") as file:
            file.write("0")
        return child
    except OSError as error:
        raise BootError(f"{os.fsdecode(daemon.arguments[0])} cannot be started again: "
                        f"{error.strerror}") from error


def end(pid: int, patience_s: float) -> None:
    """SIGTERM, then SIGKILL. Done when its memory is gone: that goes first, all else may have to
    wait for xenstore."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except OSError:
            return
        end_s = time.monotonic() + patience_s
        while time.monotonic() < end_s:
            if not _has_memory(pid):
                return
            time.sleep(WAIT_S)


def _has_memory(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False
