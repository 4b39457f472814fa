# SPDX-License-Identifier: Apache-2.0
"""The lives of the server: the real Store, Journal, Guests and Server on the fake machine, one turn
at a time; the fuse stands between any two steps of a turn, and at every store.

What a start does is app/__main__.recover() without signals and files. Change with it."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Any

from app.guests import Guests, RingClient
from app.journal import open_journal, space_for
from app.serve import Server
from app.services import Console
from app.store import Store
from persist.intent import read_intent
from persist.recover import Outcome
from tests.sim.machine import Died, DyingMedium, Machine
from tests.sim.peer import Violation

HEAP = 1 << 40
REPLY_MAX = 16 + 4096
NORMAL = (Outcome.FRESH, Outcome.CLEAN, Outcome.TORN_TAIL)


class Lines:
    """A stream that keeps the last lines which the server has said."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=40)
        self.alarms: list[str] = []

    def write(self, text: str) -> int:
        """Take a line."""
        self.lines.append(text.rstrip())
        if "CORRUPT" in text or "DAMAGED" in text or "not as it was left" in text:
            self.alarms.append(text.rstrip())
        return len(text)

    def flush(self) -> None:
        """Nothing."""


class _Socket:
    """A listening socket to which nobody comes."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


class _Listener:
    """Stands for app.sockets.Listener."""

    def __init__(self) -> None:
        self.sock = _Socket()

    def accept(self) -> None:
        """Nobody comes."""

    def close(self) -> None:
        """Let go of the descriptor."""
        self.sock.close()


class _Asleep(BaseException):
    """The server waits, in seconds; negative: until something comes."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self.timeout_s = timeout_s


class _Poll:
    """Stands for select.epoll: does not wait, but tells that the server would."""

    def __init__(self) -> None:
        self._real = select.epoll()
        self.register, self.close = self._real.register, self._real.close
        self.is_time_up = False

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        """What is ready. Raises _Asleep."""
        ready, is_time_up = self._real.poll(0), self.is_time_up
        self.is_time_up = False
        if not ready and timeout_s != 0 and not is_time_up:
            raise _Asleep(timeout_s)
        return ready


class _Stepped(Server):
    """A server that may die between any two steps. `fuse` is set before the first turn."""

    fuse: Any = None

    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        self.fuse.step("wait")
        return super().wait(timeout_s)

    def peek(self, ready: list[tuple[int, int]]) -> None:
        self.fuse.step("peek")
        super().peek(ready)

    def execute(self) -> Any:
        self.fuse.step("execute")
        return super().execute()

    def append(self, steps: list[Any], clients: Iterable[Any]) -> int:
        self.fuse.step("append")
        return super().append(steps, clients)

    def publish(self, clients: list[Any]) -> int:
        self.fuse.step("publish")
        return super().publish(clients)

    def tidy(self, appended: int, is_idle: bool) -> None:
        self.fuse.step("tidy")
        super().tidy(appended, is_idle)


class Lives:
    """One server after the other on one machine and region."""

    def __init__(self, machine: Machine, medium: DyingMedium) -> None:
        self.machine = machine
        self.medium = medium
        self.said = Lines()
        self.number = 0
        self.server: _Stepped | None = None
        self._time_us = 1_700_000_000_000_000
        self._has_served = True  # the last life got so far
        self._listener: _Listener | None = None
        self._poll: _Poll | None = None
        self._wakes_s = 0.0  # the server sleeps until then, or until something comes

    def start(self) -> bool:
        """A new life; whether it got through its recovery."""
        self.machine.begin_life()
        self.number += 1
        intent, cause = read_intent(self.medium), "" if self._has_served else None
        self._has_served = False
        self._listener = _Listener()
        self.guests = Guests(self.machine)
        try:
            console = Console("warning", self.said)  # type: ignore[arg-type]
            self.store = Store(space_for(self.medium, HEAP), self.guests, console)
            self.journal, start = open_journal(self.medium, self.store, self._clock,
                                               self._keep_damaged)
            if start.outcome not in NORMAL or start.damages:
                raise Violation(f"life {self.number}: {start.outcome}, {start.damages}")
            server = _Stepped(self.store, self.journal,
                              self._listener,  # type: ignore[arg-type]
                              console, self.guests)
            server.fuse = self.machine.fuse
            server._poll.close()
            server._poll = self._poll = _Poll()  # type: ignore[assignment]
            self._wakes_s = 0.0
            server._poll.register(self.machine.fileno(), select.EPOLLIN)
            server.resume(start, intent, cause)
            server.change(self.store.take_effects())
        except Died:
            self._end()
            return False
        self.server, self._has_served = server, True
        return True

    def turn(self, now_s: float) -> bool:
        """One turn, unless the server sleeps; whether it is still alive."""
        assert self.server is not None and self._poll is not None
        if now_s < self._wakes_s and not self.machine.has_raised:
            return True
        self._poll.is_time_up = now_s >= self._wakes_s > 0
        self._wakes_s = 0.0
        try:
            self.server.turn()
        except _Asleep as one:
            self._wakes_s = now_s + one.timeout_s if one.timeout_s >= 0 else inf
        except Died:
            self._end()
            return False
        return True

    def kill(self) -> None:
        """Between two turns."""
        self._end()

    def _end(self) -> None:
        self.machine.end_life()
        if self._poll is not None:
            self._poll.close()
        self.server = self._poll = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _clock(self) -> int:
        self._time_us += 1000
        return self._time_us

    def _keep_damaged(self) -> None:
        raise Violation(f"life {self.number} found damage")

    # -- what must hold between two turns

    def check(self) -> None:
        """Bounds and agreements. Raises Violation."""
        if self.said.alarms:
            raise Violation(f"the server says: {self.said.alarms}")
        ledger, total = self.guests.ledger, 0
        for client in ledger.members:
            total += 0 if client.privileged else client.owed
            if client.owed > client.owed_max:
                raise Violation(f"domain {client.domid} is owed {client.owed} bytes")
            problem = self._client_problem(client)
            if problem is not None:
                raise Violation(f"domain {client.domid}: {problem}")
        # Of the unprivileged: events of all together, and one reply of each.
        most = ledger.total_max + REPLY_MAX * len(ledger.members)
        if ledger.total != total or total > most:
            raise Violation(f"the ledger says {ledger.total}, all are owed {total}, at most {most}")
        if self.journal.live_bytes() > self.journal.log.size * 3 // 4:
            raise Violation(f"{self.journal.live_bytes()} bytes are live in a log of "
                            f"{self.journal.log.size}")

    def check_deeply(self) -> None:
        """The same, and every index of the store."""
        self.check()
        problem = self.store.check()
        if problem is not None:
            raise Violation(problem)

    def _client_problem(self, client: RingClient) -> str | None:
        if client.outbox:
            return f"{len(client.outbox)} packets in its outbox between two turns"
        if client.owed != len(client.unsent) + len(client.input):
            return f"owed {client.owed} bytes, {len(client.unsent)} unsent"
        ring = client.ring
        assert self.server is not None and self.server.rings is not None
        if any(client is one for one, _ in self.server.rings._broken):
            return None  # it will be muted next
        if ring is not None and not client.error and ring.requests.position != client.consumed:
            return f"consumed {client.consumed}, told {ring.requests.position}"
        return None

    def check_empty(self) -> None:
        """All domains are gone: what has the server kept of them? Raises Violation."""
        self.check_deeply()
        store = self.store
        kept = [key for key in store.items.values
                if key.split(".")[0] in ("watch", "tx", "domain", "suspect", "quota")
                and not key.startswith(("domain.0", f"watch.{store.rings[0].conn_id}."))]
        leaks = {
            "known domains": set(store.domains) - {0}, "rings": set(store.rings) - {0},
            "items": kept, "mapped pages": self.machine.mapped - {0},
            "clients": [one for one in store.clients if one.domid],
            "members of the ledger": [one for one in self.guests.ledger.members if one.domid],
            "ports": [one for one in self.guests.by_port.values() if one.domid],
            "watches": [watch for watches in store.watches.by_path.values() for watch in watches
                        if watch.client.domid],
            "targets": store.actors, "leaving": store.leaving,
            "owners": set(store.tree.owned) - {0}, "rights": set(store.tree.granted),
            "streams": len(self.journal.streams._notes) - 1,
        }
        found = {name: value for name, value in leaks.items() if value}
        if found:
            raise Violation(f"all domains are gone, but there are still {found}")
