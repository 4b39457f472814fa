# SPDX-License-Identifier: Apache-2.0
"""ring/linux.py on a real host. `probe.py look`: domains and rings, beside a xenstored that serves
them. `probe.py take DOMID PORT`: after its death, the VIRQ and a guest's ring and port are to be
had, by one life and by the next; the guest's requests are answered, its events are told."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys

from ring import layout
from ring.connection import Ring
from ring.host import HostError
from ring.linux import LinuxHost, identity_of
from ring.page import Page

HEADER = struct.Struct("<IIII")  # type, req_id, tx_id, len
XS_ERROR = 16
ANSWERS = 2  # errors, to a guest that then waits half a minute for an event
QUIET_WAITS = 400  # of 100 ms each: then there is no guest


def verdict(name: str, is_ok: bool, text: object = "") -> None:
    """One line for whoever reads the console."""
    print(f"\nVERDICT {name} {'ok' if is_ok else 'FAILED'} {text}", flush=True)


def said(*command: str) -> str:
    """What a program of dom0 says."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120,
                          check=True).stdout.strip()


def is_ring(page: Page) -> bool:
    """Whether a page looks like a ring that has been used."""
    used = [(page.load(prod) - page.load(cons)) & 0xFFFFFFFF for prod, cons in (
        (layout.REQ_PROD, layout.REQ_CONS), (layout.RSP_PROD, layout.RSP_CONS))]
    return max(used) <= layout.RING_SIZE and page.load(layout.REQ_CONS) > 0


def refusal(call: object, *arguments: int) -> str:
    """The text of the HostError that a call ends in; nothing if it does not."""
    assert callable(call)
    try:
        call(*arguments)
    except HostError as error:
        return str(error)
    return ""


def look_at_rings(host: LinuxHost, domid: int, port: int) -> None:
    """Pages and ports, dom0's and a guest's."""
    own = host.own_ring()
    verdict("own-ring", own is not None and own.remote_port > 0 and own.identity > 0
            and is_ring(own.page), own and own.remote_port)
    page = host.map_page(domid, 0)
    verdict("guest-ring", is_ring(page), page.load(layout.REQ_CONS))
    page.close()
    host.map_page(domid, 0).close()
    text = refusal(host.map_page, 999, 0)
    verdict("no-such-ring", "grant 1 of domain 999" in text, text)
    for name, arguments in (("port-taken", (domid, port)), ("no-such-port", (999, 1))):
        text = refusal(host.bind, *arguments)
        verdict(name, "binding port" in text, text)


def look_at_domains(host: LinuxHost, domid: int) -> None:
    """States and changes, of domains that xl makes and destroys."""
    uuid = said("xenstore-read", f"/local/domain/{domid}/vm").removeprefix("/vm/")
    state = host.look(domid)
    verdict("identity", state is not None and not state.is_shutdown and state.identity
            == identity_of(bytes.fromhex(uuid.replace("-", ""))), f"{state} of {uuid}")
    verdict("no-such-domain", host.look(999) is None)
    first = host.changed(), host.changed()
    verdict("nothing-changed", first == (None, set()), first)
    said("xl", "create", "-e", "/tmp/second.cfg")
    second = int(said("xl", "domid", "second"))
    born = host.changed()
    verdict("birth", born == {second} and host.look(second) is not None, born)
    said("xl", "destroy", "second")
    died = host.changed()
    verdict("death", died == {second} and host.look(second) is None, died)
    verdict("still-there", host.look(domid) == state and host.changed() == set())


def look() -> None:
    """Beside another server, which has the VIRQ and the guest's port."""
    domid = int(said("xl", "domid", "guest"))
    port = int(said("xenstore-read", f"/local/domain/{domid}/store/port"))
    host = LinuxHost()
    verdict("virq-taken", (host.virq_port, host.poll_interval_s) == (0, 1.0), host.virq_port)
    look_at_rings(host, domid, port)
    look_at_domains(host, domid)
    before = len(os.listdir("/proc/self/fd"))
    host.close()
    verdict("closed", len(os.listdir("/proc/self/fd")) < before)


def serve(host: LinuxHost, domid: int, port: int) -> tuple[int, int]:
    """Answer ANSWERS requests with an error; how many, and how many events told of them.

    Waits by the clock as well: Linux tells nobody of the rest of a request that is half there."""
    page = host.map_page(domid, 0)
    ring = Ring(page, page.load(layout.REQ_CONS), page.load(layout.RSP_PROD))
    local = host.bind(domid, port)
    answered = events = waits = 0
    raised = select.poll()
    raised.register(host.fileno(), select.POLLIN)
    while answered < ANSWERS and waits < QUIET_WAITS:
        data = ring.requests.peek()
        _, req_id, tx_id, size = HEADER.unpack(data[:HEADER.size].ljust(HEADER.size, b"\xff"))
        if len(data) >= HEADER.size + size:
            ring.responses.put(HEADER.pack(XS_ERROR, req_id, tx_id, 4) + b"EIO\0")
            ring.requests.advance(ring.requests.position + HEADER.size + size)
            host.notify(local)
            answered += 1
        elif raised.poll(100):
            events += host.pending().count(local)
        else:
            waits += 1
    if raised.poll(1000):
        events += host.pending().count(local)  # binding alone has raised it
    host.unbind(local)
    page.close()
    return answered, events


def take(domid: int, port: int) -> None:
    """Two lives, one after the other."""
    for life in ("first", "second"):
        host = LinuxHost()
        verdict(f"virq-of-the-{life}-life", host.virq_port > 0 and host.poll_interval_s is None,
                host.virq_port)
        answered, events = serve(host, domid, port)
        verdict(f"ring-of-the-{life}-life", answered == ANSWERS and events > 0,
                f"{answered} requests answered, {events} events")
        host.close()


if __name__ == "__main__":
    if sys.argv[1] == "look":
        look()
    else:
        take(*map(int, sys.argv[2:]))
    verdict(f"{sys.argv[1]}-ends", True)
