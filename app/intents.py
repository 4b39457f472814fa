# SPDX-License-Identifier: Apache-2.0
"""What is about to be done, named before it is done; and who is to blame when a life has ended.

Usually one write per turn names all rings and sockets that the turn may serve. While there are
suspects a turn holds one request, and the write names just that one (quarantine.py).
Knows nothing of how requests are queued and published."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from app import wire
from app.client import Client
from app.death import KEY, RECOVERING, Death, Waiting, describe, pack
from app.effects import Effect
from app.guests import RingClient
from app.journal import Journal, Start
from app.quarantine import (
    EXECUTE,
    IDLE,
    POINTS_RECORDED,
    POINTS_UNEXPLAINED,
    RING_ENTRY_SIZE,
    SWEEP,
    WAIT,
    Quarantine,
    socket_entry,
)
from app.services import Console
from app.sockets import SocketConnection
from app.store import Store
from app.wire import Request
from persist.intent import PAYLOAD_MAX, Intent, write_intent
from persist.recover import Outcome
from ring.layout import ERROR_COMM
from ring.queue import RingError

DOMAINS_MAX = 512  # named in one intent
_DOMID = struct.Struct("<H")


class Intents:
    """Names what is done, and executes requests with care while there are suspects."""

    def __init__(self, store: Store, journal: Journal, console: Console) -> None:
        self.quarantine = Quarantine(store.items)
        self._store = store
        self._console = console
        self._medium = journal.log.medium
        self._log = journal.log
        self._phase = 0

    # -- naming

    def name(self, phase: int, payload: bytes = b"") -> None:
        """Say what is about to be done."""
        self._phase = phase
        write_intent(self._medium, phase, self._log.sequence, payload)

    def name_turn(self, *queues: Iterable[RingClient | SocketConnection]) -> None:
        """Say whose requests a turn may execute. While careful: handle() says it for each."""
        payload = b""
        for queue in queues:
            for conn in queue:
                payload += conn.intent(PAYLOAD_MAX - len(payload))
                if len(payload) > PAYLOAD_MAX - RING_ENTRY_SIZE:
                    break
        self.name(EXECUTE, payload)

    def name_domains(self, domids: Iterable[int]) -> None:
        """Say of which domains the server looks after what is left of them."""
        self.name(SWEEP, b"".join(map(_DOMID.pack, list(domids)[:DOMAINS_MAX])))

    def name_idle(self) -> None:
        """Say that what is done now belongs to nobody's request; once is enough."""
        if self._phase != IDLE:
            self.name(IDLE)

    # -- with care

    def concerns(self, conn: Client) -> bool:
        """Whether the connection's next request is to be executed alone."""
        return self.quarantine.concerns(conn.conn_id if isinstance(conn, RingClient) else 0)

    def handle(self, conn: Client, request: Request) -> list[Effect]:
        """As Store.handle, for the only request of a turn while there are suspects."""
        quarantine = self.quarantine
        self.name(EXECUTE, conn.intent(PAYLOAD_MAX) if isinstance(conn, RingClient) else
                  socket_entry(_packet(request), PAYLOAD_MAX))
        if isinstance(conn, RingClient):
            epoch, position = conn.conn_id, conn.consumed - len(conn.input)
            is_poison = quarantine.is_poison(epoch, position)
        else:
            epoch = position = 0
            is_poison = quarantine.is_socket_poison(request)
        if is_poison:
            effects = self._refuse(conn, epoch, position, request)
        else:
            effects = self._store.handle(conn, request)
        if isinstance(conn, RingClient):
            quarantine.passed(epoch, position + wire.HEADER_SIZE + len(request.payload))
        else:
            quarantine.passed_socket(request)
        return effects + self._store.take_effects()

    def handle_knowing(self, conn: Client, request: Request) -> list[Effect]:
        """As Store.handle, while there are requests that no socket may have executed any more."""
        if isinstance(conn, RingClient) or not self.quarantine.is_socket_poison(request):
            return self._store.handle(conn, request)
        return self._refuse(conn, 0, 0, request) + self._store.take_effects()

    def _refuse(self, conn: Client, epoch: int, position: int, request: Request) -> list[Effect]:
        conn.outbox.append(wire.error(request, b"EIO"))
        name = wire.TYPE_NAMES.get(request.type, str(request.type))
        self._console.error(f"a request that has ended the server before is answered EIO: "
                            f"domain {conn.domid}, {name} {request.payload[:64]!r}")
        if self.quarantine.condemn(conn.domid, epoch, position, request):
            error = RingError(ERROR_COMM, "it sends what ends the server, again and again")
            self._console.warn(f"domain {conn.domid}: its ring is ignored: {error}")
            return self._store.mute(conn.domid, error.code)
        return []

    def forget_ended(self, epochs: Iterable[int]) -> list[Effect]:
        """A step: connections have ended, and what they are suspected of with them."""
        self.quarantine.forget_ended(epochs)
        return self._store.take_effects()

    # -- a start

    def blame(self, intent: Intent | None, start: Start, cause: str | None,
              waiting: dict[int, Waiting], took_us: int) -> list[Effect]:
        """A step: give points for the death of the last life, and remember what was under way.
        `intent` is what it named last; `cause` is what it said of its death, "" if nothing; None if
        it died while recovering, for which nobody is to blame. `waiting`: by epoch."""
        if intent is not None and cause is not None:
            weight = POINTS_RECORDED if cause else POINTS_UNEXPLAINED
            if intent.phase == EXECUTE and start.sequence <= intent.sequence:
                standing = {epoch: (one.position, one.position + len(one.data))
                            for epoch, one in waiting.items()}
                self.quarantine.suspect(intent.payload, standing, weight)
            elif intent.phase == SWEEP and start.sequence <= intent.sequence:
                for (domid,) in _DOMID.iter_unpack(intent.payload):
                    if domid and domid in self._store.domains:
                        self.quarantine.suspect_work(f"domain.{domid}", weight)
            elif intent.phase == IDLE and cause:
                self.quarantine.suspect_work("idle", weight)
        if start.outcome is not Outcome.FRESH and not start.ended_cleanly:
            self._remember(intent, start, cause is None, waiting, took_us)
        self.name(WAIT)
        return self._store.take_effects()

    def _remember(self, intent: Intent | None, start: Start, was_recovering: bool,
                  waiting: dict[int, Waiting], took_us: int) -> None:
        death = Death(start.life - 1,
                      RECOVERING if was_recovering or intent is None else intent.phase,
                      intent is not None and start.sequence > intent.sequence, start.records,
                      took_us, 0, ())
        if not was_recovering:
            death = describe(death, intent, waiting)
        self._store.items.note(KEY, pack(death))


def _packet(request: Request) -> bytes:
    return wire.HEADER.pack(request.type, request.req_id, request.tx_id,
                            len(request.payload)) + request.payload
