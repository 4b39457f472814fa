# SPDX-License-Identifier: Apache-2.0
"""What a ring is owed is counted to the byte and bounded: equal events are coalesced, one who goes
beyond its limit is refused, and when all together are owed too much whoever has not read for the
longest time pays; and requests longer than the ring are taken in parts. Method: clients on pages
in memory, a guest that reads or does not; random histories in which the ledger is compared with a
count of all bytes.

Cannot show: the order of the turn's steps (tests/crash), real guests (tests/rings)."""

from __future__ import annotations

import random

import pytest

from app import wire
from app.client import Client
from app.guests import (
    OWED_BY_GUEST_LEAST,
    OWED_BY_GUEST_MAX,
    OWED_BY_PRIVILEGED_LEAST,
    Guests,
    Ledger,
    RingClient,
)
from ring import layout
from ring.connection import Ring
from ring.host import DomainState, HostError, OwnRing
from ring.page import Page
from tests.ring.pages import WRAP, ring_page

TOTAL = 256 << 10  # the ledger's: a guest may be owed 64 KiB, domain 0 128 KiB


class Rings:
    """A ledger with some clients, each on a page of its own."""

    def __init__(self, total: int = TOTAL, domids: tuple[int, ...] = (1, 2, 3, 0)) -> None:
        self.overrun: list[Client] = []
        self.ledger = Ledger(4 * total, self.overrun)
        assert self.ledger.total_max == total
        self.clients: dict[int, RingClient] = {}
        for domid in domids:
            client = self.clients[domid] = RingClient(domid, 10 + domid, self.ledger)
            client.ring = Ring(ring_page(WRAP - 100, WRAP - 100), WRAP - 100, WRAP - 100)
            client.consumed = WRAP - 100

    def count(self) -> int:
        """All bytes that guests are owed, one by one."""
        return sum(len(client.unsent) + sum(map(len, client.outbox))
                   for client in self.clients.values() if not client.privileged)


def read_all(client: RingClient) -> bytes:
    """The guest takes what is in its ring."""
    assert client.ring is not None
    page = client.ring.page
    prod, cons = page.load(layout.RSP_PROD), page.load(layout.RSP_CONS)
    data = b"".join(page.copy_out(layout.RSP_OFFSET + (cons + number) % layout.RING_SIZE, 1)
                    for number in range((prod - cons) % WRAP))
    page.store(layout.RSP_CONS, prod)
    return data


def send(client: RingClient, data: bytes) -> None:
    """The guest puts bytes into its ring."""
    assert client.ring is not None
    page = client.ring.page
    prod = page.load(layout.REQ_PROD)
    for number, value in enumerate(data):
        page.copy_in(layout.REQ_OFFSET + (prod + number) % layout.RING_SIZE, bytes([value]))
    page.store(layout.REQ_PROD, (prod + len(data)) % WRAP)


def event(number: int, size: int = 100) -> bytes:
    """An event of `size` bytes, header included."""
    packet = wire.event(b"/p%d" % number, b"t" * (size - wire.HEADER_SIZE - 4 - len(str(number))))
    assert packet is not None and len(packet) == size
    return packet


def test_limits_follow_from_the_total() -> None:
    for total, guest, privileged in ((1 << 12, OWED_BY_GUEST_LEAST, OWED_BY_PRIVILEGED_LEAST),
                                     (TOTAL, TOTAL // 4, TOTAL // 2),
                                     (1 << 30, OWED_BY_GUEST_MAX, 1 << 29)):
        ledger = Ledger(4 * total, [])
        assert RingClient(5, 1, ledger).owed_max == ledger.guest_max == guest
        assert RingClient(0, 2, ledger).owed_max == ledger.privileged_max == privileged


def test_equal_events_wait_twice_only_while_little_is_owed() -> None:
    """Every change is told as long as the guest reads; specials always are."""
    rings = Rings()
    client, (one, other) = rings.clients[1], (event(1), event(2))
    half = client.owed_max // 2
    for _ in range(half // 100 + 1):
        assert client.queue_event(one, False)
    assert client.owed > half
    assert client.queue_event(one, False), "the first of its kind since then"
    assert not client.queue_event(one, False) and client.queue_event(other, False)
    assert not client.queue_event(other, False)
    assert client.queue_event(one, True) and client.queue_event(one, True)
    assert client.owed == rings.ledger.total == rings.count()
    client.drain()
    while client.unsent:
        client.publish()
        read_all(client)
    assert client.owed == rings.ledger.total == 0
    assert client.queue_event(one, False) and client.queue_event(one, False)


def test_one_who_is_owed_too_much_is_refused_and_named() -> None:
    rings = Rings()
    client = rings.clients[1]
    number = 0
    while client.owed + 100 <= client.owed_max:
        number += 1
        assert client.queue_event(event(number), False)
    owed = client.owed
    assert not client.queue_event(event(number + 1), False)
    assert owed > 0 and not client.queue_event(event(number + 2), False), "once is enough"
    assert rings.overrun == [client] and client.owed == rings.ledger.total == rings.count() == 0
    client.error = layout.ERROR_COMM
    client.stop()
    assert client.owed == rings.ledger.total == rings.count() == 0
    assert client.ring is not None and client.ring.page.load(layout.ERROR) == layout.ERROR_COMM
    assert not client.queue_event(event(1), False) and not client.publish()
    assert not client.has_moved() and not client.is_ready()


def test_when_all_are_owed_too_much_the_guest_that_is_owed_most_pays() -> None:
    """And never domain 0 while a guest is owed anything."""
    rings = Rings(total=40 << 10, domids=(1, 2, 3, 4, 5, 6, 0))
    zero, number = rings.clients[0], 0
    while zero.owed + 100 <= zero.owed_max:
        number += 1
        zero.queue_event(event(number), False)
    most = rings.clients[4]
    for count in range(140):
        for domid in (1, 2, 3, 4, 5, 6) if count < 100 else (4, 1, 2, 3, 5, 6):
            if not rings.overrun and (domid == 4 or count % 2):
                number += 1
                rings.clients[domid].queue_event(event(number), False)
    assert rings.overrun == [most] and most.is_ending and most.owed == 0
    assert not most.outbox and not most.queue_event(event(1), False)
    assert zero.owed > 0 and rings.ledger.total == rings.count() <= rings.ledger.total_max


def test_of_those_who_do_not_read_the_one_who_read_longest_ago_pays() -> None:
    """However little it is owed: whoever reads now and then is no hostile guest."""
    rings = Rings(total=80 << 10, domids=(1, 2, 3, 4, 5, 6, 7, 8))
    for domid in (3, 1, 2):  # each is owed more than its ring takes
        client = rings.clients[domid]
        for number in range(12 * (domid + 1)):
            client.queue_event(event(number), False)
        client.drain()
        client.publish()
    read_all(rings.clients[3])
    rings.clients[3].publish()
    assert list(rings.ledger.debtors) == [rings.clients[domid] for domid in (1, 2, 3)]
    number = 100
    while not rings.overrun:
        number += 1
        for domid in (4, 5, 6, 7, 8):
            if not rings.overrun:
                rings.clients[domid].queue_event(event(number), False)
    assert rings.overrun == [rings.clients[1]]
    assert rings.ledger.total == rings.count() <= rings.ledger.total_max


def test_the_one_who_asks_for_the_last_byte_may_be_the_one_who_pays() -> None:
    rings = Rings(total=60 << 10, domids=(1, 2, 3, 4, 5))
    number = 0
    while not rings.overrun:
        number += 1
        for domid in (1, 2, 3, 4, 5):
            if not rings.overrun and (domid == 1 or number % 9):
                rings.clients[domid].queue_event(event(1000 * domid + number), False)
    (debtor,) = rings.overrun
    assert debtor is rings.clients[1] and debtor.is_ending
    debtor.error = layout.ERROR_COMM
    debtor.stop()
    assert rings.ledger.total == rings.count() > 0


@pytest.mark.parametrize("seed", range(12))
def test_the_ledger_is_the_sum_of_all_bytes(seed: int) -> None:
    """Events, replies, turns, readers fast and slow, connections that end and begin anew; and what
    each guest reads is what it was sent."""
    chance = random.Random(seed)
    rings = Rings(total=64 << 10, domids=(1, 2, 3, 4, 5, 0))
    sent = dict.fromkeys(rings.clients, b"")
    got = dict(sent)
    for number in range(1500):
        domid = chance.choice([1, 1, 2, 2, 3, 4, 5, 0])
        client, packet = rings.clients[domid], event(chance.randrange(50), chance.choice([60, 400]))
        what = chance.random()
        if what < 0.6:
            client.queue_event(packet, chance.random() < 0.2)
        elif what < 0.7 and client.is_ready():
            client.outbox.append(packet)  # a reply is not asked for
            stream = client.drain()
            sent[domid] += stream.data
        elif what < 0.9:
            if client.has_moved():
                sent[domid] += client.drain().data
            client.publish()
            if domid != 1:
                got[domid] += read_all(client)
        if rings.ledger.is_over:
            rings.ledger.relieve()  # as the next turn does
        while rings.overrun:
            late = rings.overrun.pop()
            assert isinstance(late, RingClient)
            late.begin(14)  # as if it were introduced again
            late.consumed = 0
            sent[late.domid] = got[late.domid] = b""
        if not client.outbox:
            assert client.owed == len(client.unsent), number
        replies = sum(map(len, client.outbox)) + len(client.unsent) - client.owed
        assert replies == 0 and rings.ledger.total == rings.count(), number
        assert sent[domid].startswith(got[domid]), number
        assert rings.ledger.total <= rings.ledger.total_max + 400
    assert any(got.values())


def test_requests_are_left_alone_while_much_is_owed() -> None:
    """R3: at a quarter of the limit; and who is congested is known by the same."""
    rings = Rings()
    client, number = rings.clients[1], 0
    while client.owed <= client.owed_max // 4:
        assert client.is_ready() and not client.is_congested()
        number += 1
        client.queue_event(event(number), False)
    assert not client.is_ready() and client.is_congested()
    client.drain()
    while client.owed > client.owed_max // 4:
        client.publish()
        read_all(client)
    assert client.is_ready() and not client.is_congested()


# -- requests


def test_a_request_longer_than_the_ring_is_taken_in_parts() -> None:
    """R1: each part is recorded with the turn that takes it, and the whole is one request."""
    client = Rings().clients[1]
    assert client.ring is not None
    payload = bytes(range(256)) * 16
    data = wire.HEADER.pack(wire.XS_WRITE, 7, 0, len(payload)) + payload
    start = client.consumed
    taken = None
    for offset in range(0, len(data), layout.RING_SIZE):
        part = data[offset:offset + layout.RING_SIZE]
        send(client, part)
        waiting = client.waiting()
        assert waiting == data[:offset + len(part)]
        taken = wire.take(waiting, 0)
        if taken is None:
            assert not client.leave(waiting, 0, is_part=True) and client.has_moved()
            stream = client.drain()
            assert stream.input == waiting and stream.after == start + len(waiting)
            assert client.publish()
    assert taken == ((wire.XS_WRITE, 7, 0, payload), len(data))
    assert not client.leave(data, len(data), is_part=False)
    assert client.input == b"" and client.consumed == start + len(data)
    assert client.drain()[1:3] == (start + 4096, start + len(data))


def test_several_requests_behind_a_kept_part() -> None:
    client = Rings().clients[1]
    first = wire.HEADER.pack(wire.XS_WRITE, 1, 0, 1200) + bytes(1200)
    second = wire.HEADER.pack(wire.XS_READ, 2, 0, 3) + b"/a\0"
    start = client.consumed
    send(client, (first + second)[:1024])
    assert not client.leave(client.waiting(), 0, is_part=True)
    client.drain()
    client.publish()
    send(client, (first + second)[1024:] + second[:5])
    waiting = client.waiting()
    assert waiting == first + second + second[:5]
    assert client.leave(waiting, len(first + second), is_part=True)
    assert client.consumed == start + len(first + second)
    client.drain()
    assert client.publish() and client.waiting() == second[:5]
    assert client.leave(second[:5], 0, is_part=True) and not client.has_moved()  # once more
    assert not client.leave(second[:5], 0, is_part=True) and client.input == second[:5]


# -- the host


class Machine:
    """A machine that can refuse, and counts what is open. Implements ring.host.Host in part."""

    virq_port = 1

    def __init__(self) -> None:
        self.refuses: set[str] = set()
        self.bound: dict[int, tuple[int, int]] = {}
        self.mapped: list[int] = []
        self.ports = 100

    def _try(self, what: str) -> None:
        if what in self.refuses:
            raise HostError(f"no {what}")

    def map_page(self, domid: int, gfn: int) -> Page:
        """Counted until it is closed."""
        self._try("map")
        self.mapped.append(domid)
        return Page(bytearray(layout.PAGE_SIZE), lambda: self.mapped.remove(domid))

    def bind(self, domid: int, remote_port: int) -> int:
        """A remote port that is bound is refused, as Xen does."""
        self._try("bind")
        if (domid, remote_port) in self.bound.values():
            raise HostError("bound already")
        self.ports += 1
        self.bound[self.ports] = domid, remote_port
        return self.ports

    def unbind(self, port: int) -> None:
        """It must have been bound."""
        del self.bound[port]

    def look(self, domid: int) -> DomainState | None:
        """Everybody is there."""
        self._try("look")
        return DomainState(1, False)


def hosted() -> tuple[Machine, Guests]:
    """Guests on a machine."""
    machine = Machine()
    return machine, Guests(machine)  # type: ignore[arg-type]


def test_attaching_stores_nothing_and_detaching_leaves_nothing() -> None:
    machine, guests = hosted()
    client = guests.attach(7, 1, 5, 20)
    assert isinstance(client, RingClient) and client.ring is not None
    assert client.ring.page.copy_out(0, layout.PAGE_SIZE) == bytes(layout.PAGE_SIZE)
    assert guests.by_port == {client.port: client} and guests.by_domid == {7: client}
    client.queue_event(event(1), False)
    guests.detach(client)
    assert not (machine.bound or machine.mapped or guests.by_port or guests.by_domid)
    assert guests.ledger.total == 0 and not guests.ledger.members


@pytest.mark.parametrize("port", [20, 21])
def test_attaching_again_replaces_the_old_connection(port: int) -> None:
    """Its port is let go first: the same remote port can be bound only once."""
    machine, guests = hosted()
    old = guests.attach(7, 1, 5, 20)
    new = guests.attach(7, 2, 5, port)
    assert guests.by_domid == {7: new} and list(guests.by_port.values()) == [new]
    assert list(machine.bound.values()) == [(7, port)] and machine.mapped == [7]
    assert isinstance(old, RingClient) and old.ring is None and old.port == 0


@pytest.mark.parametrize("refused", ["map", "bind"])
def test_a_machine_that_refuses_leaves_all_as_it_was(refused: str) -> None:
    """N1: the old connection is served on, whatever was refused."""
    from app.errors import Einval
    machine, guests = hosted()
    old = guests.attach(7, 1, 5, 20)
    assert isinstance(old, RingClient)
    if refused == "map":
        machine.refuses.add("map")
        with pytest.raises(Einval):
            guests.attach(7, 2, 5, 21)
    else:
        guests.attach(8, 3, 5, 30)
        with pytest.raises(Einval):
            machine.bound[1] = 7, 21  # somebody else has it
            guests.attach(7, 2, 5, 21)
        del machine.bound[1]
    assert guests.by_domid[7] is old and guests.by_port[old.port] is old
    assert (7, 20) in machine.bound.values() and machine.mapped.count(7) == 1
    assert old.ring is not None


def test_what_cannot_be_told_is_no_verdict() -> None:
    from app.errors import Enomem
    machine, guests = hosted()
    assert guests.look(7) == (1, False)
    machine.refuses.add("look")
    with pytest.raises(Enomem):
        guests.look(7)


def test_domain_0_stands_where_its_page_says() -> None:
    machine, guests = hosted()
    page = ring_page(WRAP - 3, 77)
    client = guests.own(9, OwnRing(page, 40))
    assert client.privileged and client.ring is not None and client.consumed == WRAP - 3
    assert client.ring.responses.position == 77 and list(machine.bound.values()) == [(0, 40)]
