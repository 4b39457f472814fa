# SPDX-License-Identifier: Apache-2.0
"""`crash_domain.py DOMID WAY`: how a domain ends. `xen`: Xen shuts it down as crashed, without a
word to it (SCHEDOP_remote_shutdown). `watchdog`: it is paused, until its watchdog ends it.
`give-up`: the few facts that its kernel keeps across restarts are damaged, and it crashes. Any
other way is a drill, asked for by CONTROL. A value is written before, and read back at once after
it: how long that takes is the outage, from the death on."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time

from crashes import XS_CONTROL, XS_READ, XS_WRITE, Reply, ask

from tools.boot import frames
from tools.boot.foreign import ForeignMemory
from tools.boot.libxen import Xen
from tools.boot.place import Place

KERNEL_BASE = 0xFFFFFFFF80000000
SHT_SYMTAB = 2
WATCHDOG_MAX_S = 20.0
PATH = "/tool/crashes"
SHUTDOWN_CRASH = 3


def shut_down(domid: int) -> bool:
    """By Xen's hand."""
    xen = ctypes.CDLL("libxenctrl.so.4.17", use_errno=True)
    xen.xc_interface_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(xen.xc_interface_open(None, None, 0))
    return bool(xen.xc_domain_shutdown(handle, domid, SHUTDOWN_CRASH) == 0)


def hang(domid: int) -> bool:
    """Until its watchdog comes."""
    xen = Xen()
    xen.pause(domid)
    end_s = time.monotonic() + WATCHDOG_MAX_S
    while not xen.has_ended(domid):
        if time.monotonic() > end_s:
            xen.unpause(domid)
            return False
        time.sleep(0.001)
    return True


def give_up(fd: int, domid: int) -> bool:
    """The kernel ends itself: what it keeps has another checksum."""
    domain = Xen().domain(domid)
    assert domain is not None
    with open(f"/lab/stub/kernel{'' if domain.is_pvh else '-pv'}.elf", "rb") as file:
        address = symbol(file.read(), b"keep")
    page = Place(0x1000, address & -0x1000)
    with ForeignMemory(domid, page, True, frames.of_domid(domid, page)) as memory:
        memory.write(address % 0x1000, b"damaged!")
    return ask(fd, XS_CONTROL, "crash", "page-fault").kind == XS_CONTROL


def symbol(elf: bytes, name: bytes) -> int:
    """A symbol's physical address in the kernel."""
    sections, = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<HH", elf, 58)
    entries = [struct.unpack_from("<IIQQQQIIQQ", elf, sections + size * index)
               for index in range(count)]
    table = next(entry for entry in entries if entry[1] == SHT_SYMTAB)
    names = entries[table[6]][4]
    for at in range(table[4], table[4] + table[5], 24):
        where, _, value = struct.unpack_from("<IIQ", elf, at)
        if elf[names + where:].startswith(name + b"\0"):
            return int(value - KERNEL_BASE)
    raise LookupError(name)


def main(domid: int, way: str) -> int:
    """The exit code."""
    fd = os.open("/dev/xen/xenbus", os.O_RDWR)
    value = str(os.getpid())
    ask(fd, XS_WRITE, PATH, value=value)
    has_ended = {"xen": lambda: shut_down(domid), "watchdog": lambda: hang(domid),
                 "give-up": lambda: give_up(fd, domid)}.get(
        way, lambda: ask(fd, XS_CONTROL, "crash", way).kind == XS_CONTROL)()
    if not has_ended:
        print("it could not be ended")
        return 1
    began_s = time.monotonic()
    reply = ask(fd, XS_READ, PATH)
    print(f"outage {1000 * (time.monotonic() - began_s):.0f} ms")
    return 0 if reply == Reply(XS_READ, value.encode()) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
