# SPDX-License-Identifier: Apache-2.0
"""`crashes.py KIND COUNT`: have the server crash over dom0's ring (/dev/xen/xenbus), so often.

Each time a value is written that was never there; the crash is asked for, which is answered; then
at once the value is read back. That request waits in the ring while the server is dead: how long
its answer takes is the outage. The last line says how many went well, and the outages in ms.
A life is given LIFE_S: those that die at once, many in a row, are started again ever later."""

from __future__ import annotations

import os
import struct
import sys
import time
from typing import NamedTuple

HEADER = struct.Struct("<IIII")  # type, req_id, tx_id, len
XS_CONTROL, XS_READ, XS_WRITE, XS_ERROR = 0, 2, 11, 16
PATH = "/tool/crashes"
OUTAGE_MAX_S = 60.0
LIFE_S = 0.15  # image/kernel/crash.c: QUICK_NS


class Reply(NamedTuple):
    """An answer: its type, and the payload."""

    kind: int
    payload: bytes


def ask(fd: int, kind: int, *strings: str, value: str = "") -> Reply:
    """One request. An error is an answer, too."""
    payload = b"".join(one.encode() + b"\0" for one in strings) + value.encode()
    data = HEADER.pack(kind, 0, 0, len(payload)) + payload
    while data:
        data = data[os.write(fd, data):]
    kind, _, _, size = HEADER.unpack(take(fd, HEADER.size))
    return Reply(kind, take(fd, size))


def take(fd: int, size: int) -> bytes:
    """So many bytes from the kernel."""
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


def crash(fd: int, kind: str, number: int) -> tuple[str, float]:
    """One crash; a complaint or "", and the outage in seconds."""
    value = f"{os.getpid()}.{number}"
    if (reply := ask(fd, XS_WRITE, PATH, value=value)).kind != XS_WRITE:
        return f"write: {reply.payload!r}", 0.0
    reply = ask(fd, XS_CONTROL, "crash", *kind.split(","))
    if reply.kind != XS_CONTROL:
        return f"crash {kind}: {reply.payload!r}", 0.0
    began_s = time.monotonic()
    reply = ask(fd, XS_READ, PATH)
    outage_s = time.monotonic() - began_s
    if reply != Reply(XS_READ, value.encode()):
        return f"read: {reply} instead of {value}", outage_s
    if outage_s > OUTAGE_MAX_S:
        return f"{outage_s:.1f} s without an answer", outage_s
    return "", outage_s


def main(kind: str, count: int) -> int:
    """Crash after crash, until one does not go well."""
    fd = os.open("/dev/xen/xenbus", os.O_RDWR)
    outages: list[float] = []
    complaint = ""
    while len(outages) < count and not complaint:
        complaint, outage_s = crash(fd, kind, len(outages))
        if complaint:
            print(complaint)
        else:
            outages.append(outage_s * 1000)
            time.sleep(LIFE_S)
    outages.sort()
    said = f"{len(outages)} of {count}"
    if outages:
        said += (f"; outages: least {outages[0]:.0f} ms, median {outages[len(outages) // 2]:.0f} "
                 f"ms, worst {outages[-1]:.0f} ms")
    print(f"{said}{'; ' if complaint else ''}{complaint}")
    return 1 if complaint else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
