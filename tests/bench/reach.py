# SPDX-License-Identifier: Apache-2.0
"""How far back a region reaches: what a host with many guests writes, until the log is full of it.

  python -m tests.bench.reach [--guests 100] [--size 64]

Store and journal are the real ones, on a simulated clock; requests are those of xl (by socket), of
a guest's drivers (by ring: streams and transactions are logged with them) and of the drivers
behind them (domain 0's ring), with one disk and one network card, as on a Xen host with xl.
Reads are left out: they are not in the log. After each event the server is idle, and seals.
Cannot show: what else a toolstack keeps in the store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from app import codec, wire
from app.client import Client
from app.codec import Stream
from app.host import NoHost
from app.journal import open_journal, space_for
from app.services import Console
from app.store import Store
from app.wire import Request
from persist.record import Kind, Record
from tests.crash.world import ArrayMedium
from tools.dump.past import read_past

DAY_S = 86_400
LAPS = 1.3  # of the log that are written: then it is full of history
DAYS_MAX = 400
FRONT = ("backend-id", "backend", "handle", "mac", "mtu")
BACK = ("frontend-id", "frontend", "online", "script", "mac", "bridge", "handle", "type", "mode",
        "params", "physical-device", "device-type", "bootable", "hotplug-status")
OWN = ("vm", "name", "domid", "memory/static-max", "memory/target", "cpu/0/availability",
       "cpu/1/availability", "control/shutdown", "control/feature-poweroff",
       "control/feature-reboot", "control/feature-suspend", "control/sysrq", "store/port",
       "store/ring-ref", "console/backend", "console/backend-id", "console/tty", "console/port",
       "console/ring-ref", "console/limit", "console/type", "data", "drivers", "attr", "error",
       "device/suspend/event-channel", "hvmloader/generation-id-address", "platform/acpi")
FEATURES = ("feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6", "feature-rx-copy",
            "feature-split-event-channels", "multi-queue-max-queues", "feature-ctrl-ring",
            "sectors", "sector-size", "physical-sector-size", "info")
RINGS = ("ring-ref", "event-channel-tx", "event-channel-rx", "request-rx-copy", "protocol")
DEVICES = ("vbd/51712", "vif/0")


class Ring(Client):
    """A guest's connection as the log sees it: a stream of its own, owed nothing."""

    is_durable = True

    def __init__(self, epoch: int, domid: int) -> None:
        super().__init__(epoch, domid, privileged=True)
        self.consumed = self.published = 0

    def whole_stream(self) -> Stream:
        """As journal.begin_stream() needs it."""
        return Stream(self.conn_id, self.consumed, self.consumed, self.published, self.published,
                      b"", b"")

    def moved(self, request: Request, answers: bytes) -> Stream:
        """One request was consumed, and answered."""
        before, sent = self.consumed, self.published
        self.consumed += wire.HEADER_SIZE + len(request.payload)
        self.published += len(answers)
        return Stream(self.conn_id, before, self.consumed, sent, sent, answers, b"")


class Host:
    """A host's server, and its clock."""

    def __init__(self, size: int) -> None:
        self.medium = ArrayMedium(size)
        self.now_us = 1_700_000_000_000_000
        self.store = Store(space_for(self.medium, 1 << 40), NoHost(), Console("error"))
        self.journal, _ = open_journal(self.medium, self.store, lambda: self.now_us, lambda: None)
        self.xl = Client(1, 0, privileged=True)
        self.store.clients.add(self.xl)
        self.domain_0 = self.ring(0)

    def ring(self, domid: int) -> Ring:
        """A ring, introduced."""
        one = Ring(1000 + domid, domid)
        self.store.clients.add(one)
        self.journal.begin_stream(one)
        return one

    def ask(self, client: Client, kind: int, payload: str, tx_id: int = 0) -> bytes:
        """One request in a turn of its own; returns the answer."""
        request = Request(kind, 7, tx_id, payload.encode())
        self.now_us += 200
        self.journal.prepare()
        effects = self.store.handle(client, request)
        answer, said = client.outbox[-1], client.take_outbox()
        streams = [client.moved(request, said)] if isinstance(client, Ring) else []
        if effects:
            self.journal.after_turn(self.journal.commit([(client, request, effects)], streams))
        elif streams:
            self.journal.commit_slot(streams)
        return answer

    def write(self, client: Client, paths: Iterable[str], value: str, is_one: bool = True) -> None:
        """Nodes, in one transaction or one by one."""
        tx_id = 0
        if is_one:
            answer = self.ask(client, wire.XS_TRANSACTION_START, "\0")
            tx_id = int(answer[wire.HEADER_SIZE:].rstrip(b"\0"))
        for path in paths:
            self.ask(client, wire.XS_WRITE, f"{path}\0{value}", tx_id)
        if is_one:
            assert self.ask(client, wire.XS_TRANSACTION_END, "T\0", tx_id).endswith(b"OK\0")

    def rest(self) -> None:
        """Nothing to do: hash, and seal."""
        while self.journal.idle():
            pass


def create(host: Host, domid: int) -> Ring:
    """xl create, and the guest's boot up to connected devices."""
    home, xl = f"/local/domain/{domid}", host.xl
    host.write(xl, [f"{home}/{name}" for name in OWN], "0123456789")
    host.write(xl, [f"/vm/{domid:036}/{name}" for name in ("name", "uuid", "start_time", "image")],
               "0123456789abcdef")
    host.write(xl, [f"/libxl/{domid}/{name}" for name in ("type", "dm-version")], "pvh")
    for device in DEVICES:
        front, back = f"{home}/device/{device}", f"/local/domain/0/backend/{device}/{domid}"
        for below, names in ((front, FRONT), (back, BACK), (f"/libxl/{domid}/{device}", BACK)):
            host.write(xl, [f"{below}/{name}" for name in names], "x" * 24)
        host.write(xl, [f"{front}/state", f"{back}/state"], "1")
        host.rest()
    guest = host.ring(domid)
    for device in DEVICES:
        front, back = f"{home}/device/{device}", f"/local/domain/0/backend/{device}/{domid}"
        host.ask(guest, wire.XS_WATCH, f"{back}/state\0{front}\0")
        host.write(host.domain_0, [f"{back}/{name}" for name in FEATURES], "1", is_one=False)
        host.write(host.domain_0, [f"{back}/state"], "2", is_one=False)
        host.write(guest, [f"{front}/{name}" for name in RINGS], "123")
        for state in ("3", "4"):
            host.write(guest, [f"{front}/state"], state, is_one=False)
        host.write(host.domain_0, [f"{back}/state"], "4", is_one=False)
        host.rest()
    return guest


def destroy(host: Host, guest: Ring) -> None:
    """The guest has ended, and xl removes what there was of it."""
    domid = guest.domid
    for path in (*(f"/local/domain/0/backend/{device}/{domid}" for device in DEVICES),
                 f"/local/domain/{domid}", f"/libxl/{domid}", f"/vm/{domid:036}"):
        host.ask(host.xl, wire.XS_RM, f"{path}\0")
    host.rest()


def reach(size: int, guests: int, lives_a_day: float, writes_a_minute: float) -> str:
    """A line: what the log holds in the end."""
    host = Host(size)
    log = host.journal.log
    alive = [create(host, domid) for domid in range(1, guests + 1)]
    began_us, next_domid, turn = host.now_us, guests + 1, 0
    writes_a_day = writes_a_minute * 1440 * guests
    events_a_day = writes_a_day + lives_a_day * guests
    lives = 0.0
    while log.tail < LAPS * log.size and host.now_us - began_us < DAYS_MAX * DAY_S * 1e6:
        host.now_us += int(DAY_S * 1e6 / events_a_day)
        turn += 1
        lives += lives_a_day * guests / events_a_day
        if lives >= 1:
            lives -= 1
            destroy(host, alive.pop(0))
            alive.append(create(host, next_domid))
            next_domid += 1
        else:
            guest = alive[turn % guests]
            host.write(guest, [f"/local/domain/{guest.domid}/data/meminfo_free"], str(turn), False)
            host.rest()
    entries = read_past(host.medium).entries
    oldest = next(codec.unpack(one.payload)[0] for one in entries
                  if isinstance(one, Record) and one.kind == Kind.TURN)
    days = (host.now_us - oldest) / 1e6 / DAY_S
    state = f"{len(host.store.tree.nodes)} nodes"
    said = f"{days:.1f} days" if days >= 2 else f"{days * 24:.1f} hours"
    return (f"{guests} guests that live {1 / lives_a_day:g} days, {writes_a_minute:g} writes a "
            f"minute each: {said} back in {size >> 20} MiB ({state})")


def bytes_of(guests: int, size: int) -> str:
    """A line: what one event takes in the log, carrying included."""
    host = Host(size)
    log = host.journal.log
    alive = [create(host, domid) for domid in range(1, guests + 1)]
    said = []
    before = log.tail
    alive.append(create(host, guests + 1))
    said.append(f"create and boot {log.tail - before}")
    before = log.tail
    destroy(host, alive.pop())
    said.append(f"destroy {log.tail - before}")
    before = log.tail
    for number in range(100):
        host.write(alive[number % guests],
                   [f"/local/domain/{number % guests + 1}/data/meminfo_free"], str(number), False)
        host.rest()
    said.append(f"one write {(log.tail - before) // 100}")
    return "bytes of log, seals included: " + ", ".join(said)


def main() -> int:
    """Print all."""
    parser = argparse.ArgumentParser(prog="tests.bench.reach", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guests", type=int, default=100)
    parser.add_argument("--size", type=int, default=64, help="of the region, in MiB")
    options = parser.parse_args()
    print(bytes_of(options.guests, options.size << 20), flush=True)
    for lives_a_day, writes_a_minute in ((1 / 7, 0), (1, 2), (1, 60)):
        print(reach(options.size << 20, options.guests, lives_a_day, writes_a_minute), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
