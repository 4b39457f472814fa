# SPDX-License-Identifier: Apache-2.0
"""Step 3 of a turn: whose requests are executed, how many, and with what care.

K1. The privileged are served first, the others in turn, each a bounded number of requests; all
    together stay within what one record holds.
K2. A guest waits while it has no credit (fairness.py), and all guests wait while domain 0 has not
    read what their writes have caused; their requests stay in their rings.
K3. A suspect's request is executed alone (quarantine.py).
Knows nothing of publishing. The order of a turn is in serve.py."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from app import wire
from app.client import Client
from app.codec import SERVER, START
from app.effects import Effect
from app.fairness import Credits
from app.guests import Ledger, RingClient
from app.intents import Intents
from app.rings import Rings
from app.services import Console
from app.sockets import SocketConnection
from app.store import Store
from app.wire import FrameError, Request
from ring.layout import ERROR_PROTO
from ring.queue import RingError

REQUESTS_PER_CONNECTION = 32  # in one turn
REQUESTS_PER_TURN = 256
PRIVILEGED_SHARE = 192  # of them, while others wait

Step = tuple[Client, Request, list[Effect]]
Connection = SocketConnection | RingClient


class Executor:
    """The queues of connections that may have requests. `room`: bytes that a turn may fill of its
    record."""

    def __init__(self, store: Store, console: Console, intents: Intents, room: int) -> None:
        self.rings: Rings | None = None
        self._ledger = Ledger(0, [])  # of nobody, until there are rings
        self.broken: list[SocketConnection] = []  # to be closed after their replies went out
        self.held: list[RingClient] = []  # until somebody has read, or credit is back
        self._store = store
        self._console = console
        self._intents = intents
        self._room = room
        self._queue: deque[Connection] = deque()  # the privileged
        self._guest_queue: deque[RingClient] = deque()
        self._credits = Credits()
        self._plainly: Callable[[Client, Request], list[Effect]] = store.handle
        self._handle: Callable[[Client, Request], list[Effect]] = store.handle
        self._is_odd_turn = False  # while careful: suspects and the others take turns

    def add_rings(self, rings: Rings) -> None:
        """Rings are served, too."""
        self.rings, self._ledger = rings, rings.guests.ledger

    @property
    def has_work(self) -> bool:
        """Whether anybody may have a request that can be executed now."""
        return bool(self._queue or self._guest_queue)

    def enqueue(self, conn: Connection) -> None:
        """A connection may have requests."""
        if not conn.is_queued:
            conn.is_queued = True
            self._queue_of(conn).append(conn)

    def _is_own_congested(self) -> bool:
        """Whether domain 0 must read before guests may cause it more events (K2)."""
        if self.rings is None:
            return False
        own = self.rings.guests.by_domid.get(0)
        return own is not None and own.is_congested()

    def _hold(self, conn: RingClient) -> bool:
        """Whether a guest has to wait: for domain 0 to read, or for credit."""
        return self._is_own_congested() or (
            bool(self._credits.spent)
            and self._credits.wait_s(conn.domid, time.monotonic()) > 0)

    def release_held(self) -> float:
        """Queue again those that need not wait any more; how long until the next may be due."""
        now_s, wait_s, held = time.monotonic(), 1.0, self.held
        self.held = []
        for conn in held:
            if self._hold(conn):
                self.held.append(conn)
                wait_s = min(wait_s, self._credits.wait_s(conn.domid, now_s) or 1.0)
            else:
                self._guest_queue.append(conn)
        return wait_s

    def execute(self) -> tuple[list[Step], list[Connection]]:
        """Execute queued requests in memory. Returns the steps that changed something, and the
        connections that executed anything."""
        room, self._ledger.fresh = self._room, 0
        steps: list[Step] = []
        clients: list[Connection] = []
        if self.rings is not None and self.rings.has_work:
            steps = self.rings.own_steps(room, self._intents)
            room -= sum(effect.log_bytes() for _, _, effects in steps for effect in effects)
        if self._queue or self._guest_queue:
            if self._intents.quarantine.has_socket_poison:
                self._handle = self._plainly = self._intents.handle_knowing
            if self._intents.quarantine.is_careful:
                self._execute_carefully(room, steps, clients)
            else:
                self._execute_queues(room, steps, clients)
            conflicts = self._store.isolation.conflicts
            if conflicts:
                for guilty in conflicts:
                    self._credits.charge(guilty, time.monotonic())
                conflicts.clear()
        return steps, clients

    def _execute_queues(self, room: int, steps: list[Step], clients: list[Connection]) -> None:
        """The privileged first, then the others."""
        self._intents.name_turn(self._queue, self._guest_queue)
        if not self._guest_queue:
            self._execute_queue(self._queue, REQUESTS_PER_TURN, room, steps, clients)
            return
        done = used = 0
        if self._queue:
            done, used = self._execute_queue(self._queue, PRIVILEGED_SHARE, room, steps, clients)
        self._execute_queue(self._guest_queue, REQUESTS_PER_TURN - done, room - used, steps,
                            clients)

    def _execute_carefully(self, room: int, steps: list[Step], clients: list[Connection]) -> None:
        """While there are suspects: in one turn a suspect's request alone, in the next the rest."""
        suspects = [conn for queue in (self._queue, self._guest_queue) for conn in queue
                    if self._intents.concerns(conn)]
        self._is_odd_turn = not self._is_odd_turn
        for conn in suspects:
            self._queue_of(conn).remove(conn)
        if suspects and (self._is_odd_turn or not (self._queue or self._guest_queue)):
            alone: deque[Connection] = deque([suspects.pop(0)])
            self._handle = self._intents.handle
            self._execute_queue(alone, 1, room, steps, clients)
            self._handle = self._plainly
            suspects += alone
        else:
            self._execute_queues(room, steps, clients)
        for conn in suspects:
            self._queue_of(conn).append(conn)

    def _queue_of(self, conn: Connection) -> deque[Any]:
        return self._queue if conn.privileged else self._guest_queue

    def _execute_queue(self, queue: deque[Any], left: int, room: int, steps: list[Step],
                       clients: list[Connection]) -> tuple[int, int]:
        """Serve a queue in turn; returns how many requests, and their bytes in the record."""
        total = total_used = 0
        ledger = self._ledger
        for _ in range(len(queue)):
            if total >= left or total_used + ledger.fresh >= room:
                break
            conn = queue.popleft()
            if not conn.is_ready():
                conn.is_queued = False  # gone, or owed bytes: whoever sends them queues it again
                continue
            if not conn.privileged and self._hold(conn):
                self.held.append(conn)
                continue
            done, used, has_more = self._execute_some(
                conn, min(left - total, REQUESTS_PER_CONNECTION), room - total_used, steps)
            clients.append(conn)
            total += done
            total_used += used
            conn.is_queued = has_more
            if has_more:
                queue.append(conn)
        return total, total_used

    def _execute_some(self, conn: Connection, most: int, room: int,
                      steps: list[Step]) -> tuple[int, int, bool]:
        """Requests of one connection: how many, their bytes in the record, whether more wait. A
        ring's replies are part of the record too."""
        done = used = offset = 0
        handle, ledger, is_ring = self._handle, self._ledger, type(conn) is RingClient
        try:
            data = conn.waiting()
            taken = wire.take(data, 0) if data else None
            while taken is not None:
                request, offset = taken
                if self._console.logs_requests:
                    self._console.log_request(conn, request)
                effects = handle(conn, request)
                done += 1
                if effects:
                    steps.append((conn, request, effects))
                    used += (effects[0].log_bytes() if len(effects) == 1
                             else sum(effect.log_bytes() for effect in effects))
                if is_ring:
                    if conn.error:
                        return done, used, False
                    used += len(conn.outbox[-1])
                if offset == len(data) or done >= most or used + ledger.fresh >= room or (
                        is_ring and self._must_pause(conn, used)):
                    break
                taken = wire.take(data, offset)
        except (FrameError, RingError) as error:
            self._break(conn, offset, error, steps)
            return done, used, False
        if is_ring and not done:
            used = len(data)  # if it is taken out, as a part of a request
        return done, used, conn.leave(data, offset, is_part=taken is None)

    def _must_pause(self, conn: Connection, used: int) -> bool:
        """Whether a ring is owed much with what it has been answered now, or domain 0 is."""
        assert isinstance(conn, RingClient)
        return used + conn.owed > conn.owed_max // 4 or (
            not conn.privileged and self._is_own_congested())

    def _break(self, conn: Connection, offset: int, error: FrameError | RingError,
               steps: list[Step]) -> None:
        """A connection's bytes cannot be read on, behind the requests that were executed."""
        if isinstance(conn, SocketConnection):
            self._console.warn(f"connection {conn.conn_id} (pid {conn.pid}) closed: {error}")
            conn.inbox = b""
            self.broken.append(conn)
            return
        assert self.rings is not None
        conn.took(offset)
        fault = error if isinstance(error, RingError) else RingError(ERROR_PROTO, str(error))
        steps.append((SERVER, START, self.rings.mute(conn, fault)))
