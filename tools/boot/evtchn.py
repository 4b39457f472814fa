# SPDX-License-Identifier: Apache-2.0
"""Dom0's port for its own ring, given to dom0 itself.

Once the domain is gone that has served the ring, the port waits for that domid for ever, and
dom0's kernel, which has bound it to an interrupt of its own, takes no other. So it is closed and
made again under the same number, for a daemon in dom0: Xen's side of it is another one then, and
the kernel's is as it was.

V1. Xen gives out the lowest number that is free. So all below are taken first: until the port is
    closed nothing has changed, and it is made again by the next call.
V2. If another program of dom0 comes between those two, its number is lost until the next boot.
Knows nothing of the ring."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct

from ring.linux import IOCTL_PRIVCMD_HYPERCALL, PRIVCMD_HYPERCALL
from tools.boot.failure import BootError
from tools.boot.foreign import PRIVCMD
from tools.boot.libxen import DOMID_SELF, Xen

HYPERVISOR_EVENT_CHANNEL_OP = 32
EVTCHNOP_CLOSE = 3
PORT = struct.Struct("=I")
PORTS_MAX = 4096  # of dom0 that may be free below it


def take(xen: Xen, port: int) -> None:
    """Raises BootError. Nobody may have bound its other end."""
    if xen.is_connected(port):
        raise BootError(f"port {port} of dom0's ring is served by somebody")
    others = [make(xen)]
    try:
        while others[-1] < port:
            if len(others) == PORTS_MAX:
                raise BootError(f"{PORTS_MAX} ports below {port}, of dom0's ring, are free")
            others.append(make(xen))
        close(port)
        others.append(make(xen))
        if others[-1] != port:
            raise BootError(f"Xen does not give port {port} of dom0's ring again")
        others.pop()
    finally:
        for other in others:
            with contextlib.suppress(BootError):
                close(other)


def make(xen: Xen) -> int:
    """A port of dom0, for dom0. Raises BootError."""
    return xen.call("xc_evtchn_alloc_unbound", DOMID_SELF, DOMID_SELF)


def close(port: int) -> None:
    """EVTCHNOP_close, of a port of dom0. Raises BootError."""
    argument = ctypes.create_string_buffer(PORT.pack(port), PORT.size)
    try:
        fd = os.open(PRIVCMD, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, IOCTL_PRIVCMD_HYPERCALL, PRIVCMD_HYPERCALL.pack(
                HYPERVISOR_EVENT_CHANNEL_OP, EVTCHNOP_CLOSE, ctypes.addressof(argument), 0, 0, 0))
        finally:
            os.close(fd)
    except OSError as error:
        raise BootError(f"port {port} cannot be closed: {error.strerror}") from error
