# SPDX-License-Identifier: Apache-2.0
"""xenconsoled maps a page of every domain that has a console, the xenstore domain's too. As long
as it does, a destroyed domain keeps its domid; and it only lets go when the xenstore tells it to.
So it is ended here, and started again later with its own arguments and environment: no guest
notices more than a console that is silent for a moment.

Knows nothing of why the domid is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from tools.boot import process
from tools.boot.failure import BootError
from tools.boot.process import Daemon

NAME = "xenconsoled"
END_S = 0.3  # for its own end, before it is killed


def end_all(tell: Callable[[str], None]) -> list[Daemon]:
    """End what runs under the name; how each of them was started."""
    found: list[Daemon] = []
    for pid in _pids():
        daemon = process.describe(pid)
        if daemon is None:
            continue
        tell(f"{NAME} (process {pid}) is ended, and started again later")
        process.end(pid, END_S)
        found.append(daemon)
    return found


def start(daemon: Daemon, tell: Callable[[str], None]) -> None:
    """Start one again; that it cannot be is said."""
    try:
        process.start(daemon)
    except BootError as error:
        tell(str(error))


def _pids() -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/comm", encoding="utf-8",
                                                    errors="replace") as file:
                if file.read().strip() == NAME:
                    found.append(int(entry))
    return found
