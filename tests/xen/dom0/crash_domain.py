# SPDX-License-Identifier: Apache-2.0
"""`crash_domain.py DOMID [KIND]`: have Xen shut a domain down as crashed, without a word to it
(SCHEDOP_remote_shutdown); or have it crash by CONTROL. A value is written before, and read back at
once after it: how long that takes is the outage, from the death on."""

from __future__ import annotations

import ctypes
import os
import sys
import time

from crashes import XS_CONTROL, XS_READ, XS_WRITE, Reply, ask

PATH = "/tool/crashes"
SHUTDOWN_CRASH = 3


def shut_down(domid: int) -> bool:
    """By Xen's hand."""
    xen = ctypes.CDLL("libxenctrl.so.4.17", use_errno=True)
    xen.xc_interface_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(xen.xc_interface_open(None, None, 0))
    return bool(xen.xc_domain_shutdown(handle, domid, SHUTDOWN_CRASH) == 0)


def main(domid: int, kind: str) -> int:
    """The exit code."""
    fd = os.open("/dev/xen/xenbus", os.O_RDWR)
    value = str(os.getpid())
    ask(fd, XS_WRITE, PATH, value=value)
    if not (ask(fd, XS_CONTROL, "crash", kind).kind == XS_CONTROL if kind else shut_down(domid)):
        print("it could not be ended")
        return 1
    began_s = time.monotonic()
    reply = ask(fd, XS_READ, PATH)
    print(f"outage {1000 * (time.monotonic() - began_s):.0f} ms")
    return 0 if reply == Reply(XS_READ, value.encode()) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
