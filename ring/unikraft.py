# SPDX-License-Identifier: Apache-2.0
"""Xen as Unikraft shows it to Python: the builtin module _unikraft of image/unikraft, in the shape
of Linux's devices, so that everything that is done with them is linux.py's.

V1. A descriptor stands for a device and nothing else; there are no files behind them.
V2. A grant is mapped when its page is asked for, as in linux.py; before it is only remembered.
V3. A port that read() has told is unmasked already: _unikraft.pending() does that first (X1).
V4. Dom0's port for its own ring is told on the command line, or looked for: then it is the only one
    of dom0's ports that Xen lets us bind.
V5. Poll is what waits, instead of an epoll: of all descriptors only that of the event channels can
    become ready, because there is nothing else to wait for in a machine without sockets.
Knows nothing of what the ports are for. Change with: linux.py, image/unikraft/module.c."""

from __future__ import annotations

import array
import errno
import os
import select
import struct
from typing import Any

from ring.layout import GREF_XENSTORE
from ring.linux import (
    BIND_INTERDOMAIN,
    EVTCHN_WORD,
    IOCTL_EVTCHN_BIND_INTERDOMAIN,
    IOCTL_EVTCHN_BIND_VIRQ,
    IOCTL_EVTCHN_NOTIFY,
    IOCTL_EVTCHN_UNBIND,
    IOCTL_GNTDEV_MAP_GRANT_REF,
    IOCTL_PRIVCMD_HYPERCALL,
    IOCTL_XENBUS_BACKEND_EVTCHN,
    MAP_GRANT_REF,
    PRIVCMD_HYPERCALL,
    Devices,
    LinuxHost,
)

EVENT_OPTION = "--event"  # init-xenstore-domain's: dom0's port for its own ring
EVENT_FIND = "find"  # ours, where nobody could tell it: tools/xsboot handover
DOM0 = 0
PORTS_TRIED = 4096
FD_BASE = 1 << 20  # beyond all real descriptors
NAMES = ("evtchn", "gntdev", "privcmd", "xenbus_backend")
EVTCHN_FD = FD_BASE + NAMES.index("evtchn")
_INDEX = struct.Struct("=Q")
_INDEX_OFFSET = 8  # of `index` in MAP_GRANT_REF

event_port: int | str | None = None  # of dom0's own ring; set once, before the snapshot


def take_event(words: list[str]) -> list[str]:
    """The command line without `--event PORT`, which is kept here. Raises ValueError."""
    global event_port
    if EVENT_OPTION not in words:
        return words
    place = words.index(EVENT_OPTION)
    port = words[place + 1] if place + 1 < len(words) else ""
    if port != EVENT_FIND and not port.isdecimal():
        raise ValueError(f"{EVENT_OPTION}: expected a port of dom0's, or {EVENT_FIND}")
    event_port = port if port == EVENT_FIND else int(port)
    return words[:place] + words[place + 2:]


class UnikraftDevices(Devices):
    """`machine`: the module _unikraft, or what tests put in its place."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine
        self._wanted: dict[int, tuple[int, int]] = {}  # index -> domid, grant reference
        self._next_index = 0

    def open(self, name: str, flags: int = 0) -> int:
        if name not in NAMES or (name == "xenbus_backend" and event_port is None):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return FD_BASE + NAMES.index(name)

    def ioctl(self, fd: int, request: int, argument: bytearray | int = 0) -> int:
        if request == IOCTL_XENBUS_BACKEND_EVTCHN:
            assert event_port is not None
            return event_port if isinstance(event_port, int) else self._find_port()
        assert isinstance(argument, bytearray)
        if request == IOCTL_EVTCHN_NOTIFY:
            return int(self._machine.notify(*EVTCHN_WORD.unpack(argument)))
        if request == IOCTL_EVTCHN_BIND_INTERDOMAIN:
            return int(self._machine.bind(*BIND_INTERDOMAIN.unpack(argument)))
        if request == IOCTL_EVTCHN_BIND_VIRQ:
            return int(self._machine.bind_virq(*EVTCHN_WORD.unpack(argument)))
        if request == IOCTL_EVTCHN_UNBIND:
            return int(self._machine.unbind(*EVTCHN_WORD.unpack(argument)))
        if request == IOCTL_PRIVCMD_HYPERCALL:
            return int(self._machine.hypercall(*PRIVCMD_HYPERCALL.unpack(argument)))
        if request == IOCTL_GNTDEV_MAP_GRANT_REF:
            self._want(argument)
        return 0

    def _find_port(self) -> int:
        """V4. It is closed again: the host is going to bind it. That raises it, so nothing is
        missed."""
        for port in range(1, PORTS_TRIED):
            try:
                local_port = self._machine.bind(DOM0, port)
            except OSError:
                continue
            self._machine.unbind(local_port)
            return port
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def _want(self, argument: bytearray) -> None:
        _, _, _, domid, reference = MAP_GRANT_REF.unpack(argument)
        self._next_index += 1
        self._wanted[self._next_index] = domid, reference
        _INDEX.pack_into(argument, _INDEX_OFFSET, self._next_index)

    def map(self, fd: int, size: int, offset: int) -> Any:
        domid, reference = self._wanted.pop(offset, (DOM0, GREF_XENSTORE))
        return self._machine.map_grant(domid, reference)

    def unmap(self, mapped: Any) -> None:
        self._machine.unmap_grant(mapped)
        mapped.release()

    def read(self, fd: int, size: int) -> bytes:
        ports = self._machine.pending()
        if not ports:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return array.array("I", ports).tobytes()

    def write(self, fd: int, data: bytes) -> None:
        pass  # V3

    def close(self, fd: int) -> None:
        pass  # V1


def host() -> LinuxHost:
    """The host of this machine. Raises HostError, or ModuleNotFoundError elsewhere."""
    import _unikraft  # type: ignore[import-not-found]

    return LinuxHost(UnikraftDevices(_unikraft))


class Poll:
    """V5. Has as much of an epoll as the server uses."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine
        self._is_watched = False

    def register(self, fd: int, events: int) -> None:
        """Tell of these events from now on."""
        self._is_watched = self._is_watched or fd == EVTCHN_FD

    def modify(self, fd: int, events: int) -> None:
        """Tell of these instead."""

    def unregister(self, fd: int) -> None:
        """Tell of nothing."""
        self._is_watched = self._is_watched and fd != EVTCHN_FD

    def poll(self, timeout_s: float = -1) -> list[tuple[int, int]]:
        """Wait for the event channels, and for no longer than `timeout_s`."""
        is_raised = self._machine.wait(timeout_s)
        return [(EVTCHN_FD, select.EPOLLIN)] if is_raised and self._is_watched else []

    def close(self) -> None:
        """Let go of it."""
