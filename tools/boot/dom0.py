# SPDX-License-Identifier: Apache-2.0
"""Dom0's kernel and its xenstore: the port of its ring, and whether anybody answers there.

D1. Nothing here waits longer than it was told to.
Sources: linux/drivers/xen/xenbus/xenbus_dev_backend.c and xenbus_dev_frontend.c."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time
from collections.abc import Callable

from app.wire import HEADER, XS_ERROR, XS_READ, XS_WRITE
from ring.linux import IOCTL_XENBUS_BACKEND_EVTCHN, ioctl_number
from tools.boot.failure import BootError

BACKEND = "/dev/xen/xenbus_backend"
FRONTEND = "/dev/xen/xenbus"
IOCTL_XENBUS_BACKEND_SETUP = ioctl_number("B", 1, 0)
LOOK_S = 0.1
DOMID_PATH = "/tool/xenstored/domid"


def port_of_ring() -> int:
    """Of dom0, for whoever serves it. Raises BootError."""
    return _backend(IOCTL_XENBUS_BACKEND_EVTCHN, 0, "dom0's kernel knows of no xenstore")


def set_up(domid: int) -> int:
    """Have dom0's kernel offer its ring to a domain; the port. Possible once after its boot, and
    only if no xenstore has served it by then. Raises BootError."""
    return _backend(IOCTL_XENBUS_BACKEND_SETUP, domid, "SETUP")


def _backend(request: int, argument: int, what: str) -> int:
    try:
        fd = os.open(BACKEND, os.O_RDWR | os.O_CLOEXEC)
        try:
            return fcntl.ioctl(fd, request, argument)
        finally:
            os.close(fd)
    except OSError as error:
        why = ("this kernel has already had a xenstore" if error.errno == errno.EEXIST
               else error.strerror)
        raise BootError(f"{BACKEND}: {what}: {why}") from error


def wait_for_answer(within_s: float, has_ended: Callable[[], bool]) -> None:
    """Until whoever serves dom0's ring has answered one request. Raises BootError, at once if it
    has ended."""
    _ask(XS_READ, b"domid\0", within_s, has_ended)


def write(path: str, value: str, within_s: float) -> None:
    """XS_WRITE over dom0's ring. Raises BootError."""
    kind, payload = _ask(XS_WRITE, path.encode() + b"\0" + value.encode(), within_s)
    if kind == XS_ERROR:
        raise BootError(f"{path}: {payload.rstrip(bytes(1)).decode('ascii', 'replace')}")


def _ask(kind: int, payload: bytes, within_s: float,
         has_ended: Callable[[], bool] = lambda: False) -> tuple[int, bytes]:
    """One request, one answer."""
    end_s = time.monotonic() + within_s
    try:
        fd = os.open(FRONTEND, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(fd, HEADER.pack(kind, 0, 0, len(payload)) + payload)
            head = _take(fd, HEADER.size, end_s, has_ended)
            found, _, _, size = HEADER.unpack(head)
            return found, _take(fd, size, end_s, has_ended)
        finally:
            os.close(fd)
    except OSError as error:
        raise BootError(f"{FRONTEND}: {error.strerror}") from error


def _take(fd: int, size: int, end_s: float, has_ended: Callable[[], bool]) -> bytes:
    data = b""
    while len(data) < size:
        if select.select([fd], [], [], LOOK_S)[0]:
            data += os.read(fd, size - len(data))
        elif has_ended():
            raise BootError("the domain has ended before it has answered; xl dmesg says why, with "
                            "Xen's guest_loglvl=all")
        elif time.monotonic() > end_s:
            raise BootError(f"{FRONTEND}: no answer in time")
    return data
