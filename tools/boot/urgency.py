# SPDX-License-Identifier: Apache-2.0
"""A process of dom0 that comes before all others there, and never waits for a disk.

U1. What it starts is ordinary again.
U2. What is not urgent it does nearly as others do: whoever has waited for the rescue comes first.
Whatever of it the system refuses is left out: it is then slower, and no less right."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

PRIORITY = 10
NICE = -5  # while it is patient
MCL_CURRENT, MCL_FUTURE = 1, 2  # linux/include/uapi/asm-generic/mman.h


def be_first() -> None:
    """From now on."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    _schedule(os.SCHED_RR, PRIORITY)
    ctypes.CDLL(None).mlockall(MCL_CURRENT | MCL_FUTURE)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Not first, for a while, if this process is."""
    is_first = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
    if is_first:
        _schedule(os.SCHED_OTHER, 0)
    try:
        yield
    finally:
        if is_first:
            _schedule(os.SCHED_RR, PRIORITY)


def _schedule(policy: int, priority: int) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
