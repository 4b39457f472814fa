# SPDX-License-Identifier: Apache-2.0
"""Guests on their rings: one connection's bytes on their way, and what a slow reader costs.

R1. A request's bytes stay in the ring until it is executed and logged. If it is not whole yet, the
    ring is looked at once more; then what is there is consumed, and logged first. It cannot be
    left there: Linux notifies us of more only if we had consumed all that it had put before.
R2. Between two turns memory, log and page agree: consumed, sent, owed.
R3. What is owed to one guest is bounded: requests of one that is owed much are left in its ring,
    equal events are coalesced, and at the limit the guest is muted. What is owed to all together is
    bounded too, and whoever has not read for the longest time pays.
R4. Those whose writes congest a privileged reader wait for it; nobody waits for a guest.
R5. How many rings there are is bounded: one event to all of them must fit a record.
Knows nothing of what requests mean. Change with: ring/delivery.py, streams.py."""

from __future__ import annotations

from app import wire
from app.client import Client
from app.codec import Stream
from app.death import Waiting
from app.domain import Known
from app.errors import Einval, Enomem, Enospc
from app.host import Domain
from app.quarantine import RING_ENTRY_SIZE, ring_entry
from app.replay import FoundStream, Stamp
from app.wire import FrameError
from ring import layout
from ring.connection import Ring
from ring.delivery import Logged, stand
from ring.host import Host, HostError, OwnRing
from ring.index import position_of
from ring.layout import RING_SIZE
from ring.queue import RingError

HEARER_BYTES = 56  # of a ring's entry in a turn's record, beyond what it is told
OWED_BY_GUEST_MAX = 256 << 10
OWED_BY_GUEST_LEAST = 16 << 10
OWED_BY_PRIVILEGED_LEAST = 48 << 10
_new_stream = tuple.__new__  # half the cost of a NamedTuple's own


class Ledger:
    """What all rings are owed together, and who is owed too much. `record_max`: bytes of a record
    of the log."""

    def __init__(self, record_max: int, overrun: list[Client]) -> None:
        total_max = record_max // 4
        self.rings_max = record_max // 16 // HEARER_BYTES
        self.debtors: dict[RingClient, None] = {}  # owed bytes that do not fit their ring; the one
        # that has not read for the longest time comes first
        self.total = 0
        self.fresh = 0  # bytes of events that this turn has made
        self.total_max = total_max
        self.guest_max = max(min(OWED_BY_GUEST_MAX, total_max // 4), OWED_BY_GUEST_LEAST)
        self.privileged_max = max(record_max // 8, OWED_BY_PRIVILEGED_LEAST)
        self.members: dict[RingClient, None] = {}  # in order of attaching
        self._overrun = overrun

    def is_refused(self, client: RingClient, size: int) -> bool:
        """Account for `size` more bytes of events. True: the client has overrun its limit, and
        they are not to be queued."""
        if client.owed + size > client.owed_max:
            self._overrun.append(client)
            self.drop(client)
            return True
        self.fresh += size
        if not client.privileged:
            self.total += size
            if self.total > self.total_max:
                self._overrun.append(self._pick())
        return False

    @property
    def is_over(self) -> bool:
        """Whether replies have led beyond the limit."""
        return self.total > self.total_max

    def relieve(self) -> None:
        """Let somebody pay who does not read."""
        self._overrun.append(self._pick())

    def _pick(self) -> RingClient:
        debtor = (next(iter(self.debtors)) if self.debtors else
                  max(self.members, key=lambda one: (not one.privileged, one.owed)))
        self.drop(debtor)
        return debtor

    def drop(self, client: RingClient) -> None:
        """A connection ends: nothing is owed to it any more."""
        owed = client.forgive()
        if not client.privileged:
            self.total -= owed
        self.debtors.pop(client, None)

    def note_reading(self, client: RingClient) -> None:
        """Bytes have gone into the client's ring; what is left, if anything, is its debt."""
        self.debtors.pop(client, None)
        client.is_debtor = bool(client.unsent) and not client.privileged
        if client.is_debtor:
            self.debtors[client] = None


class RingClient(Client):
    """One connection on a ring. `consumed`: requests executed up to this stream position, in the
    page too between turns; `input`: consumed, but not a whole request yet; `seen`: where a part of
    a request ended that was looked at once; `unsent`: logged, but not yet in the ring. `ring` is
    None when there is no page (any more); `is_ending`: what was owed is dropped, and the connection
    is about to be muted or begun anew."""

    is_durable = True

    __slots__ = ("consumed", "input", "is_debtor", "is_ending", "is_queued", "ledger", "owed",
                 "owed_max", "port", "remote_port", "ring", "seen", "unsent")

    def __init__(self, domid: int, epoch: int, ledger: Ledger) -> None:
        super().__init__(epoch, domid, privileged=domid == 0)
        self.ledger = ledger
        self.owed_max = ledger.privileged_max if self.privileged else ledger.guest_max
        self.owed = 0  # bytes of `unsent`, and of events in the outbox
        self.ring: Ring | None = None
        self.port = 0
        self.remote_port = 0
        self.consumed = 0
        self.input = b""
        self.unsent = b""
        self.is_queued = False
        self.is_ending = False
        self.is_debtor = False
        self.seen = -1
        ledger.members[self] = None

    # -- events

    def queue_event(self, packet: bytes, is_special: bool) -> bool:
        """Put an event into the outbox. Equal ones are coalesced only if much is owed (R3)."""
        if self.error or self.is_ending:
            return False
        if self.owed > self.owed_max // 2 and not is_special:
            if packet in self.queued_events:
                return False
            self.queued_events.add(packet)
        if self.ledger.is_refused(self, len(packet)):
            return False
        self.owed += len(packet)
        self.outbox.append(packet)
        return True

    def is_congested(self) -> bool:
        """Whether it is owed much."""
        return self.owed - len(self.input) > self.owed_max // 4

    def forgive(self) -> int:
        """All that is owed is dropped, since the connection ends; how many bytes."""
        owed, self.owed = self.owed, 0
        self.outbox.clear()
        self.queued_events.clear()
        self.unsent = self.input = b""
        self.is_ending = True
        self.is_debtor = False
        return owed

    # -- one turn

    def waiting(self) -> bytes:
        """The bytes from which requests are cut. Raises ring.queue.RingError."""
        assert self.ring is not None
        data = self.ring.requests.peek()
        return self.input + data if self.input else data

    def took(self, size: int) -> None:
        """The first `size` bytes of waiting() were whole requests, and are executed."""
        if size:
            self.consumed += size - len(self.input)
            if self.input:
                self._keep_input(b"")

    def leave(self, data: bytes, size: int, is_part: bool) -> bool:
        """The first `size` bytes of `data`, all that waited, are executed; `is_part`: what is left
        is no whole request. Whether to look again: a part that is alone is looked at once more;
        seen again, or filling the ring, it is taken out (R1)."""
        self.took(size)
        if size == len(data):
            return False
        end = self.consumed + len(data) - size - len(self.input)
        if size or not is_part:
            return True
        if self.seen != end and end - self.consumed < RING_SIZE:
            self.seen = end
            return True
        self.consumed = end
        self._keep_input(data)
        return False

    def intent(self, room: int) -> bytes:
        """What an intent of `room` bytes says of it."""
        return (ring_entry(self.conn_id, self.consumed - len(self.input))
                if room >= RING_ENTRY_SIZE else b"")

    def _keep_input(self, data: bytes) -> None:
        """A part of a request is live data too: it counts like what is owed."""
        growth = len(data) - len(self.input)
        self.input = data
        self.owed += growth
        if not self.privileged:
            self.ledger.total += growth

    def has_moved(self) -> bool:
        """Whether the turn has anything to record of this ring."""
        return self.ring is not None and not self.error and not self.is_ending and (
            bool(self.outbox) or self.consumed != self.ring.requests.position)

    def is_ready(self) -> bool:
        """Whether requests may be taken from it: it exists, and is not owed much (R3)."""
        return (self.ring is not None and not self.error and not self.is_ending
                and not self.is_congested())

    def drain(self) -> Stream:
        """The turn's entry for the log; the outbox becomes part of what is unsent."""
        assert self.ring is not None
        data = self.take_outbox() if self.outbox else b""
        sent = self.ring.responses.position
        stream = _new_stream(Stream, (self.conn_id, self.ring.requests.position, self.consumed,
                                      sent, sent + len(self.unsent), data, self.input))
        self.unsent = self.unsent + data if self.unsent else data
        owed = len(self.unsent) + len(self.input)
        if not self.privileged:
            self.ledger.total += owed - self.owed
        self.owed = owed
        return stream

    def take_outbox(self) -> bytes:
        """All packets of the outbox, joined; it is empty afterwards."""
        outbox = self.outbox
        data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
        outbox.clear()
        return data

    def whole_stream(self) -> Stream:
        """Where the streams stand, with all that is owed. Not in the middle of a turn."""
        assert self.ring is not None
        sent = self.ring.responses.position
        return Stream(self.conn_id, self.ring.requests.position, self.consumed, sent, sent,
                      self.unsent, self.input)

    def standing(self) -> Waiting:
        """Where its next request begins, and what waits from there on; nothing, if that is no
        whole request."""
        base = self.consumed - len(self.input)
        try:
            data = self.waiting()
            is_whole = wire.take(data, 0) is not None
        except (FrameError, RingError):
            is_whole = False
        return Waiting(self.domid, base, data if is_whole else b"")

    def publish(self) -> bool:
        """Step 5 for this ring: reply bytes, rsp_prod, req_cons; whether anything moved. After the
        commit point only. Raises ring.queue.RingError."""
        ring = self.ring
        if ring is None or self.error:
            return False
        size = 0
        if self.unsent:
            size = ring.responses.put(self.unsent)
            self.unsent = self.unsent[size:]
            self.owed -= size
            if not self.privileged:
                self.ledger.total -= size
            if not self.unsent and self.queued_events:
                self.queued_events.clear()
            if size and (self.unsent or self.is_debtor):
                self.ledger.note_reading(self)
        if ring.requests.position != self.consumed:
            ring.requests.advance(self.consumed)
            return True
        return size > 0

    def begin(self, features: int) -> None:
        """The ring's words are stored: a connection that has seen nothing."""
        assert self.ring is not None
        self.ring.reset(features)
        self.ledger.drop(self)
        self.is_ending = False
        self.consumed = 0

    def stop(self) -> None:
        """The connection is muted: tell the guest in the error word, and drop what was owed."""
        self.ledger.drop(self)
        if self.ring is not None:
            self.ring.fail(self.error)


class Guests:
    """Implements app.host.Host on a machine with rings, and finds a ring by its port."""

    def __init__(self, machine: Host) -> None:
        self.machine = machine
        self.by_port: dict[int, RingClient] = {}
        self.by_domid: dict[int, RingClient] = {}
        self.ledger = Ledger(1 << 20, [])
        self._own_ring: OwnRing | None = None
        self._has_own = False

    def take_own(self) -> OwnRing | None:
        """Domain 0's ring, mapped once; None where there is none. Raises HostError."""
        if not self._has_own:
            self._own_ring, self._has_own = self.machine.own_ring(), True
        return self._own_ring

    def limit(self, record_max: int, overrun: list[Client]) -> None:
        """The largest record of the log, and the list for those who are owed too much."""
        assert not self.by_domid
        self.ledger = Ledger(record_max, overrun)

    def owed_bytes(self) -> int:
        """What all rings are owed, domain 0's included."""
        own = self.by_domid.get(0)
        return self.ledger.total + (own.owed if own is not None else 0)

    # -- app.host.Host

    def look(self, domid: int) -> Domain | None:
        """The domain's state. Raises Enomem if it cannot be told."""
        try:
            state = self.machine.look(domid)
        except HostError as error:
            raise Enomem from error
        return Domain(*state) if state is not None else None

    def attach(self, domid: int, epoch: int, gfn: int, port: int) -> Client:
        """Map and bind; an older connection of the domain loses its port. Raises Einval, and Enospc
        for one ring too many (R5)."""
        machine = self.machine
        old = self.by_domid.get(domid)
        if old is None and len(self.ledger.members) >= self.ledger.rings_max:
            raise Enospc
        try:
            page = machine.map_page(domid, gfn)
        except HostError as error:
            raise Einval from error
        if old is not None:
            self._release_port(old)
        try:
            local = machine.bind(domid, port)
        except HostError as error:
            page.close()
            if old is not None:
                self._bind_again(old)
            raise Einval from error
        if old is not None:
            self.detach(old)
        client = self._new(domid, epoch)
        client.ring = Ring(page, 0, 0)
        self._take_port(client, local, port)
        return client

    def detach(self, client: Client) -> None:
        """Unmap and unbind."""
        assert isinstance(client, RingClient)
        self._release_port(client)
        self.ledger.drop(client)
        self.ledger.members.pop(client, None)
        if self.by_domid.get(client.domid) is client:
            del self.by_domid[client.domid]
        if client.ring is not None:
            client.ring.page.close()
            client.ring = None

    # -- a new life

    def own(self, epoch: int, own: OwnRing) -> RingClient:
        """Domain 0's connection, standing where its page says. Raises HostError."""
        client = self._new(0, epoch)
        client.ring = Ring(own.page, own.page.load(layout.REQ_CONS),
                           own.page.load(layout.RSP_PROD))
        client.consumed = client.ring.requests.position
        self._take_port(client, self.machine.bind(0, own.remote_port), own.remote_port)
        return client

    def restore(self, domid: int, one: Known, is_there: bool) -> RingClient:
        """A connection of an earlier life: mapped and bound again if the domain is still there.
        Without that, or if the machine refuses, it is ignored until its domain is gone."""
        client = self._new(domid, one.epoch)
        client.error = one.error
        try:
            if is_there:
                client.ring = Ring(self.machine.map_page(domid, one.gfn), 0, 0)
                self._take_port(client, self.machine.bind(domid, one.port), one.port)
        except HostError:
            is_there = False
        if not is_there:
            client.error = client.error or layout.ERROR_COMM
        return client

    def _new(self, domid: int, epoch: int) -> RingClient:
        client = self.by_domid[domid] = RingClient(domid, epoch, self.ledger)
        return client

    def _take_port(self, client: RingClient, local: int, remote: int) -> None:
        client.port, client.remote_port = local, remote
        self.by_port[local] = client

    def _release_port(self, client: RingClient) -> None:
        if client.port:
            del self.by_port[client.port]
            self.machine.unbind(client.port)
            client.port = 0

    def _bind_again(self, client: RingClient) -> None:
        try:
            self._take_port(client, self.machine.bind(client.domid, client.remote_port),
                            client.remote_port)
        except HostError:
            client.port = 0  # the guest has no channel any more: it must be introduced again


def go_on(client: RingClient, found: FoundStream, last_stamp: Stamp) -> bool:
    """Place a restored ring where log, slots and page say that it stands, with what is owed;
    False if the page is not to be believed. Nothing is stored into the page."""
    ring = client.ring
    assert ring is not None
    req_cons = ring.page.load(layout.REQ_CONS)
    standing = stand(Logged(found.before, found.after, found.sent, found.end,
                            found.stamp == last_stamp),
                     req_cons, ring.page.load(layout.RSP_PROD))
    if standing is None or not found.is_whole_from(standing.sent):
        return False
    client.consumed, ring.responses.position = standing
    ring.requests.position = position_of(req_cons, found.before)  # publish() brings it up
    client.input = found.input if standing.consumed == found.after else b""
    if standing.sent < found.end:
        client.unsent = found.owed(standing.sent)
    client.owed = len(client.unsent) + len(client.input)
    if not client.privileged:
        client.ledger.total += client.owed
        client.ledger.note_reading(client)
    return True
