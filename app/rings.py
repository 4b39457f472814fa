# SPDX-License-Identifier: Apache-2.0
"""The rings' part of a turn and of a start: what serve.py does for sockets by itself.

L1. A new connection is two records: RESETTING, then its ring's words are stored, then CONNECTED.
    Nothing of the turn is published before the second.
L2. A start places every ring before it publishes on any, publishes before it looks who has died,
    and notifies every ring: notifications of the last life may be lost.
L3. What a slot held at the start is in the log before a slot is written again.
L4. A guest may notify only if we had taken all that it put, or if the ring was full. So both
    indices are looked at again after ours were stored and the guest was notified (that system call
    is a memory barrier): what came in between has no notification of its own.
Knows nothing of sockets. Change with: guests.py, domain.py, ring/delivery.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from app import domain
from app.client import Client
from app.codec import SERVER, START, Stream
from app.domain import CONNECTED, LEAVING, RESETTING
from app.effects import Effect
from app.guests import Guests, RingClient, go_on
from app.host import Domain
from app.intents import DOMAINS_MAX, Intents
from app.journal import Journal
from app.journal import Start as Found
from app.services import Console
from app.store import LOOKS_PER_STEP, Store
from app.wire import Request
from persist.region import RegionError
from ring.host import HostError
from ring.layout import ERROR_RINGIDX
from ring.queue import RingError

RETRY_S = 0.05
ORPHANS_PER_RECORD = 256
RESTORED_PER_RECORD = 64
Step = tuple[Client, Request, list[Effect]]


class Rings:
    """All rings of a machine. `queue` takes a client that may have requests."""

    def __init__(self, store: Store, journal: Journal, guests: Guests, console: Console,
                 queue: Callable[[RingClient], None]) -> None:
        self.guests = guests  # who owes what is bounded by what one record holds
        self._store = store
        self._journal = journal
        self._console = console
        self._queue = queue
        self._to_look: list[int] = []  # domids
        self._broken: list[tuple[RingClient, RingError]] = []
        self._next_poll_s = 0.0
        guests.limit(journal.log.record_size_max, store.overrun)
        journal.streams.owed_bytes = guests.owed_bytes

    @property
    def has_work(self) -> bool:
        """Whether own_steps() has something to do without any event."""
        return bool(self._to_look or self._broken or self._store.leaving
                    or self.guests.ledger.is_over)

    # -- 2 peek

    def take_events(self) -> None:
        """Events have come: publish what is owed, queue whoever may have asked something."""
        machine, by_port = self.guests.machine, self.guests.by_port
        for port in machine.pending():
            if port == machine.virq_port:
                self.look_again()
                continue
            client = by_port.get(port)
            if client is not None and not client.error:
                self.publish(client)

    def look_unsure(self, now_s: float) -> None:
        """Look again at domains of which the machine could not tell, a moment ago."""
        if now_s >= self._next_poll_s:
            self._to_look += self._store.unsure
            self._store.unsure.clear()
            self._next_poll_s = now_s + RETRY_S

    def look_again(self) -> None:
        """Some domain's state may have changed."""
        changed, domains = self.guests.machine.changed(), self._store.domains
        news = domains if changed is None else (
            *changed, *self._store.resumed, *self._store.unsure)
        self._to_look = list({*self._to_look, *(one for one in news if one and one in domains)})
        self._store.resumed.clear()

    def poll_wait_s(self, now_s: float) -> float:
        """Where no event tells of domains: look every now and then. How long until the next."""
        interval_s = self.guests.machine.poll_interval_s
        assert interval_s is not None
        if now_s >= self._next_poll_s:
            self.look_again()
            self._next_poll_s = now_s + interval_s
        return self._next_poll_s - now_s

    # -- 3 execute

    def own_steps(self, room: int, intents: Intents) -> list[Step]:
        """What the server does by itself this turn, in about `room` bytes of the record: broken
        rings, domains whose state has changed, more of those that are leaving."""
        store, ledger = self._store, self.guests.ledger
        steps: list[Step] = []
        while ledger.is_over and room > 0:
            ledger.relieve()
            steps.append((SERVER, START, store.settle()))
            room -= _size(steps[-1])
        while self._broken and room > 0:
            client, error = self._broken.pop()
            if store.rings.get(client.domid) is client and not client.error:
                steps.append((SERVER, START, self.mute(client, error)))
                room -= _size(steps[-1])
        looks = LOOKS_PER_STEP  # the next turn goes on with what is left
        while self._to_look and looks > 0 and room > 0:
            steps.append((SERVER, START, self._look_at_some(intents)))
            looks -= 1 if intents.quarantine.has_suspect_domains else LOOKS_PER_STEP
            room -= _size(steps[-1])
        while store.leaving and room > 0:
            steps.append((SERVER, START, self._sweep(intents)))
            room -= _size(steps[-1])
        return [step for step in steps if step[2]]

    def _look_at_some(self, intents: Intents) -> list[Effect]:
        """A step: look at some domains' states."""
        if intents.quarantine.has_suspect_domains:
            domid = self._to_look.pop()
            return self._with_care(intents, domid, lambda: self._store.look_at([domid]))
        intents.name_domains(self._to_look[-DOMAINS_MAX:])
        return self._store.look_at(self._to_look)

    def _sweep(self, intents: Intents) -> list[Effect]:
        """A step: remove more of a domain that is leaving."""
        domid = next(iter(self._store.leaving))
        if intents.quarantine.has_suspect_domains:
            return self._with_care(intents, domid, lambda: self._store.sweep(domid))
        intents.name_domains([domid])
        return self._store.sweep(domid)

    def _with_care(self, intents: Intents, domid: int,
                   work: Callable[[], list[Effect]]) -> list[Effect]:
        """Looking after domains has ended lives: one at a time, and not at all where that has ended
        the server again and again."""
        store, what = self._store, f"domain.{domid}"
        if intents.quarantine.is_poison_work(what):
            self._console.error(f"domain {domid}: what is left of it is not removed, since that "
                                "has ended the server before")
            store.leaving.discard(domid)
            return []
        intents.name_domains([domid])
        effects = work()
        intents.quarantine.passed_work(what)
        return effects + store.take_effects()

    def mute(self, client: RingClient, error: RingError) -> list[Effect]:
        """A step: ignore a ring from now on."""
        self._console.warn(f"domain {client.domid}: its ring is ignored (error {error.code}): "
                           f"{error}")
        return self._store.mute(client.domid, error.code)

    # -- 4 append

    def entries(self, clients: Iterable[Client]) -> list[Stream]:
        """The turn's entries for the log, of those that have moved."""
        return [client.drain() for client in clients
                if type(client) is RingClient and client.has_moved()]

    # -- 5 publish

    def publish_all(self, clients: Iterable[Client]) -> int:
        """Publish on those of these that are rings; returns the bytes that were appended for what
        only a slot holds and is owed still."""
        owed = []
        for client in clients:
            if type(client) is RingClient:
                self.publish(client)
                if client.unsent:
                    owed.append(client)
        return self._journal.log_owed(owed) if owed else 0

    def settle(self) -> None:
        """Behind the record, before anything is published: mute, and begin connections (L1)."""
        store = self._store
        if not store.muted and not store.resetting:
            return
        for client in store.muted:
            assert isinstance(client, RingClient)
            if client.error:
                client.stop()
                self._notify(client)
        store.muted.clear()
        if store.resetting:
            begun = []
            for domid in dict.fromkeys(store.resetting):
                ring = store.rings.get(domid)
                if isinstance(ring, RingClient) and (
                        domain.must_know(store, domid).state == RESETTING and not ring.error):
                    ring.begin(self._features(domid))
                    self._journal.begin_stream(ring)
                    begun.append(ring)
            store.resetting.clear()
            if begun:
                effects = store.reset_rings([ring.domid for ring in begun])
                self._journal.commit([(SERVER, START, effects)],
                                     [ring.whole_stream() for ring in begun])
            for ring in begun:
                self._notify(ring)
                self._queue(ring)

    def publish(self, client: RingClient) -> None:
        """What is owed, as far as the ring takes it (L4)."""
        try:
            while client.publish():
                self._notify(client)
        except RingError as error:
            self._broken.append((client, error))
        if client.ring is not None and client.ring.requests.has_any():
            self._queue(client)

    def _notify(self, client: RingClient) -> None:
        if client.port:
            self.guests.machine.notify(client.port)

    def _features(self, domid: int) -> int:
        return self._store.items.number(f"domain.{domid}.features", domain.FEATURES)

    # -- a start

    def resume(self, found: Found) -> list[RingClient]:
        """Go on with every ring of the lives before; returns those that may have requests.

        Raises RegionError if domain 0's own ring cannot be had."""
        store, journal = self._store, self._journal
        owner = self._resume_own()
        placed: list[RingClient] = []
        unbelieved: list[RingClient] = []
        for domid, one in list(store.domains.items()):
            if not one.epoch or one.state == LEAVING:
                continue
            if domid == 0:
                client = owner
            else:
                client = self.guests.restore(domid, one, self._is_there(domid, one))
            if client is None:
                continue
            store.rings[domid] = client
            store.clients.add(client)
            domain.set_client_target(store, client, one.target)
            if client.error:
                store.muted.append(client)
            elif one.state == RESETTING:
                store.resetting.append(domid)
            elif domid == 0 and one.epoch not in found.streams:
                journal.begin_stream(client)  # adopted just now
                placed.append(client)
            else:
                stream = found.streams.get(one.epoch)
                if stream is not None and go_on(client, stream, found.last_stamp):
                    journal.begin_stream(client, stream)
                    placed.append(client)
                elif domid == 0:
                    self._adopt_own(client)
                    placed.append(client)
                else:
                    unbelieved.append(client)
        self._record_start(placed, found)
        for client in unbelieved:
            error = RingError(ERROR_RINGIDX, "its indices are not those that were left in it")
            journal.prepare()
            journal.commit([(SERVER, START, self.mute(client, error))])
        store.ended.clear()
        self.settle()
        for client in placed:
            self.publish(client)
            assert client.ring is not None
            client.ring.offer(self._features(client.domid))
            self._notify(client)
        self.guests.machine.changed()
        self._to_look = [domid for domid in store.domains if domid]
        return placed

    def _resume_own(self) -> RingClient | None:
        """Domain 0's connection: the one of the last life, or a new one on its ring."""
        store, guests = self._store, self.guests
        try:
            own = guests.take_own()
            if own is None:
                return None
            one = store.domains.get(0)
            if one is not None and not one.error and not domain.is_other(
                    one, Domain(own.identity, False)):
                if one.identity == 0:  # the xenstore domain does not know dom0's
                    domain.put(store, 0, one._replace(identity=own.identity))
                return guests.own(one.epoch, own)
            epoch = domain.next_epoch(store)
            domain.put(store, 0, domain.Known(own.identity, epoch, CONNECTED, 0, own.remote_port))
            return guests.own(epoch, own)
        except HostError as error:
            raise RegionError(f"domain 0's own ring: {error}") from error

    def _adopt_own(self, client: RingClient) -> None:
        """Domain 0's ring has been served by somebody else: a new connection, as it stands."""
        self._console.warn("domain 0's ring is not as it was left: its watches and transactions "
                           "are dropped")
        client.conn_id = domain.next_epoch(self._store)
        domain.put(self._store, 0, domain.must_know(self._store, 0)._replace(
            epoch=client.conn_id))
        self._journal.begin_stream(client)

    def _is_there(self, domid: int, one: domain.Known) -> bool:
        try:
            state = self.guests.machine.look(domid)
        except HostError:
            return True  # it cannot be told now; the ring will show
        return not domain.is_other(one, Domain(*state) if state is not None else None)

    def _record_start(self, placed: list[RingClient], found: Found) -> None:
        """Record what the start has changed, and what only a slot has held (L3)."""
        store, journal = self._store, self._journal
        effects = store.take_effects()
        orphans = store.resume_clients({client.conn_id: client for client in store.clients
                                        if client.is_durable})
        slot_only = [client for client in placed
                     if client.conn_id not in found.streams
                     or found.streams[client.conn_id].position < 0]
        if effects:
            journal.commit([(SERVER, START, effects)])
        for start in range(0, len(slot_only), RESTORED_PER_RECORD):
            journal.prepare()
            journal.commit([], [client.whole_stream()
                                for client in slot_only[start:start + RESTORED_PER_RECORD]])
        for start in range(0, len(orphans), ORPHANS_PER_RECORD):
            journal.prepare()
            journal.commit([(SERVER, START, store.drop_items(
                orphans[start:start + ORPHANS_PER_RECORD]))])


def _size(step: Step) -> int:
    return sum(effect.log_bytes() for effect in step[2])
