# SPDX-License-Identifier: Apache-2.0
"""The loop, and THE ORDER of a turn. Everything that this server promises follows from it:

  1 wait     for readable sockets, event-channel ports, a deadline; not while work is left
  2 peek     look at what came; make room in the log for the largest turn; name what is to be run
  3 execute  requests in memory, round robin, bounded: packets wait in outboxes
  4 append   ONE record with all effects of the turn, and where every ring that moved stands then:
             the commit point. A turn without effects goes to a turn slot instead
  5 publish  outboxes to sockets and rings: bytes, rsp_prod, req_cons, notification
  6 tidy     carry a share of the log; when all is quiet, hash and seal

O1. No packet of a turn leaves before step 4 is done; no request is executed again after it.
O2. The log is never touched between a change in memory and its record, but by that record.
O3. Each step is a method: a test can stand between any two.
Single-threaded on epoll. Python's cyclic collector is off: nothing here makes cycles (a test
counts them). Who is served is in execute.py, what is special to rings in rings.py."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Iterable

from app.channel import Channel
from app.client import Client
from app.codec import SERVER, START
from app.death import Waiting
from app.effects import Effect
from app.execute import Connection, Executor, Step
from app.guests import Guests
from app.intents import Intents
from app.journal import Journal, Start
from app.lastwords import LastWords
from app.lines import ARRIVALS
from app.quarantine import WAIT
from app.rings import RETRY_S, Rings
from app.services import Console
from app.sockets import OWED_BYTES_MAX, Listener, Poll, SocketConnection, Stream, pid_of
from app.store import Store
from persist.intent import Intent

ACCEPTS_PER_TURN = 64
OWED_MAX = (OWED_BYTES_MAX, 256 << 20)  # bytes that wait for a socket that does not read; for all
OWED_TURNS = 16  # how often that is looked at
QUIET_S = 0.02  # how long nothing must have happened before hashing begins

_READ = select.EPOLLIN | select.EPOLLRDHUP


class Server:
    """Serves `store` on `listener`, on `channel` and on the rings of `guests`, durably through
    `journal`."""

    def __init__(self, store: Store, journal: Journal, listener: Listener | None,
                 console: Console, guests: Guests | None = None,
                 last_words: LastWords | None = None, channel: Channel | None = None,
                 owed_max: tuple[int, int] = OWED_MAX) -> None:
        self.connections: dict[int, SocketConnection] = {}
        self.is_stopping = False
        self.intents = Intents(store, journal, console)
        self._executor = Executor(store, console, self.intents, journal.turn_bytes_max)
        self.rings = (Rings(store, journal, guests, console, self._executor.enqueue)
                      if guests is not None else None)
        if self.rings is not None:
            self._executor.add_rings(self.rings)
        self._last_words = last_words
        self._store = store
        self._journal = journal
        self._listener = listener
        self._console = console
        self._poll = select.epoll()
        self._channel = channel
        self._listener_fd = self._ports_fd = -1
        if listener is not None:
            self._listener_fd = listener.sock.fileno()
            self._poll.register(self._listener_fd, select.EPOLLIN)
        if guests is not None:
            self._ports_fd = guests.machine.fileno()
            self._poll.register(self._ports_fd, select.EPOLLIN)
        self._next_conn_id = 1
        self._owed_max = owed_max  # bytes, of one socket and of all
        self._owing: set[SocketConnection] = set()  # those that do not take what they are sent
        self._turns = 0
        self._is_quiet = False
        self._has_idle_work = True
        self._owes_carrying = False
        self._wakeup: tuple[int, int] | None = None

    def catch_signals(self) -> None:
        """Let SIGTERM and SIGINT end the server cleanly, between two turns. The image has neither
        pipes nor anybody who could send them."""
        try:
            self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            return
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._poll.register(self._wakeup[0], select.EPOLLIN)

    def resume(self, start: Start, intent: Intent | None = None, cause: str | None = "",
               began_ns: int = 0) -> None:
        """Go on with the rings of the lives before, and blame whom the last one's `intent` names
        (see Intents.blame); from now on clients come. `began_ns`: when this start began, by
        time.perf_counter_ns(). Raises RegionError and PathError."""
        waiting: dict[int, Waiting] = {}
        if self.rings is not None:
            for ring in self.rings.resume(start):
                self._executor.enqueue(ring)
                waiting[ring.conn_id] = ring.standing()
        took_us = (time.perf_counter_ns() - began_ns) // 1000 if began_ns else 0
        self.change(self.intents.blame(intent, start, cause, waiting, took_us))
        if self._channel is not None:
            self._channel.watch(self._poll)

    def run(self) -> None:
        """Serve until a signal asks to stop; then end cleanly."""
        if self._last_words is not None:
            self._last_words.begin_serving()
        drill = self._console.drill
        while not self.is_stopping:
            self.turn()
            if self._last_words is not None:
                self._last_words.alive()
            if drill is not None and drill.due is not None:
                self.intents.name(WAIT)  # no request is to blame
                drill.carry_out()
        self.end()

    def end(self) -> None:
        """Say in the log that the end was meant, and let go of everything."""
        self._journal.end()
        for conn in list(self.connections.values()):
            self._close(conn)
        if self._listener is not None:
            self._listener.close()
        if self._channel is not None:
            self._channel.close()
        self._poll.close()

    def turn(self, timeout_s: float | None = None) -> bool:
        """One turn; whether anything came. `timeout_s` overrides how long step 1 may wait."""
        ready = self.wait(timeout_s)
        self.peek(ready)
        steps, clients = self.execute()
        appended = self.append(steps, clients)
        appended += self.publish(clients)
        is_idle = not (ready or clients or steps)
        self.tidy(appended, is_idle)
        return not is_idle

    # -- 1

    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        """Ready file descriptors, lines of the channel, and their events."""
        if timeout_s is None:
            if self._executor.has_work or self._owes_carrying or (
                    self._is_quiet and self._has_idle_work) or (
                    self.rings is not None and self.rings.has_work):
                timeout_s = 0
            else:
                timeout_s = QUIET_S if self._has_idle_work else -1
                if self._executor.held or self.rings is not None or self._channel is not None:
                    timeout_s = self._shorten(timeout_s)
        ready = self._poll.poll(timeout_s)
        return ready if self._channel is None else self._channel.exchange(ready)

    def _shorten(self, timeout_s: float) -> float:
        """How long to wait with deadlines of held guests, of a host without VIRQ, of a channel."""
        waits = [timeout_s] if timeout_s >= 0 else []
        if self._channel is not None and (wait_s := self._channel.wait_s()) >= 0:
            waits.append(wait_s)
        if self._executor.held:
            waits.append(self._executor.release_held())
        if self._store.unsure:
            waits.append(RETRY_S)
        if self.rings is not None and self.rings.guests.machine.poll_interval_s is not None:
            waits.append(self.rings.poll_wait_s(time.monotonic()))
        return min(waits, default=-1)

    # -- 2

    def peek(self, ready: list[tuple[int, int]]) -> None:
        """Take in what has arrived, and reserve room in the log for what may come of it."""
        for fd, events in ready:
            conn = self.connections.get(fd)
            if conn is None:
                self._peek_other(fd)
                continue
            if events & select.EPOLLOUT:
                self._flush(conn)
            elif not conn.is_queued:
                if conn.receive():
                    self._executor.enqueue(conn)
                else:
                    self._close(conn)
        if self._executor.held:
            self._executor.release_held()
        if self._store.unsure and self.rings is not None:
            self.rings.look_unsure(time.monotonic())
        self._journal.prepare()

    def _peek_other(self, fd: int) -> None:
        if fd == self._ports_fd and self.rings is not None:
            self.rings.take_events()
        elif fd == self._listener_fd and self._listener is not None:
            for _ in range(ACCEPTS_PER_TURN):
                sock = self._listener.accept()
                if sock is None:
                    break
                self._add(sock, self._poll, pid_of(sock))
        elif fd == ARRIVALS and self._channel is not None:
            while (line := self._channel.accept()) is not None:
                self._add(line, self._channel.lines, line.pid)
        elif self._wakeup is not None and fd == self._wakeup[0]:
            os.read(fd, 64)

    def _add(self, sock: Stream, poll: Poll, pid: int) -> None:
        conn = SocketConnection(self._next_conn_id, sock, poll, pid, self._owed_max[0])
        self._next_conn_id += 1
        self.connections[conn.fd] = conn
        self._store.clients.add(conn)
        poll.register(conn.fd, _READ)

    # -- 3

    def execute(self) -> tuple[list[Step], list[Connection]]:
        """Execute queued requests in memory. Returns the steps that changed something, and the
        connections that executed anything."""
        return self._executor.execute()

    # -- 4

    def append(self, steps: list[Step], clients: Iterable[Client]) -> int:
        """THE COMMIT POINT: one record for the whole turn. Returns its bytes in the log."""
        store, journal = self._store, self._journal
        if self.rings is None:
            if not steps:
                return 0
            self._has_idle_work = True
            return journal.commit(steps)
        if store.ended:
            effects = self.intents.forget_ended(store.ended)
            if effects:
                steps.append((SERVER, START, effects))
            journal.streams.end(store.ended)
        streams = self.rings.entries(dict.fromkeys([*clients, *store.heard])
                                     if store.heard else clients)
        if not steps and (not streams or journal.commit_slot(streams)):
            return 0
        self._has_idle_work = self._has_idle_work or bool(steps)
        return journal.commit(steps, streams)

    # -- 5

    def publish(self, clients: list[Connection]) -> int:
        """Send what the turn has to say, to those who asked and to those who watch. Returns the
        bytes that had to be appended for what is owed still."""
        store, rings, appended = self._store, self.rings, 0
        everyone: Iterable[Client] = clients
        if store.heard:
            everyone = dict.fromkeys([*clients, *store.heard])
            store.heard.clear()
        if rings is not None:
            rings.settle()
            appended = rings.publish_all(everyone)
        for conn in everyone:
            if type(conn) is SocketConnection and conn.outbox:
                self._publish(conn)
        while self._executor.broken:
            self._close(self._executor.broken.pop())
        self._turns += 1
        if self._owing and self._turns % OWED_TURNS == 0:
            self._bound_owed()
        if self._channel is not None:
            self._channel.flush()
        return appended

    def _bound_owed(self) -> None:
        """Who is owed most pays, where all together are owed too much."""
        owed = {conn: conn.owed() for conn in self._owing}
        total = sum(owed.values())
        while total > self._owed_max[1]:
            worst = max(owed, key=owed.__getitem__)
            total -= owed.pop(worst)
            self._console.warn(f"connection {worst.conn_id} (pid {worst.pid}) closed: it does not "
                               "read, and too much waits for those who do not")
            self._close(worst)

    def _publish(self, conn: SocketConnection) -> None:
        owed = bool(conn.unsent)
        if not conn.publish():
            self._close(conn)
        elif conn.unsent and not owed:
            self._owing.add(conn)
            conn.poll.modify(conn.fd, select.EPOLLOUT)

    def _flush(self, conn: SocketConnection) -> None:
        if not conn.flush():
            self._close(conn)
        elif not conn.unsent:
            self._owing.discard(conn)
            conn.poll.modify(conn.fd, _READ)
            if conn.inbox:
                self._executor.enqueue(conn)

    def _close(self, conn: SocketConnection) -> None:
        if conn.sock.fileno() < 0:
            return
        del self.connections[conn.fd]
        self._owing.discard(conn)
        conn.poll.unregister(conn.fd)
        conn.sock.close()
        self._store.disconnect(conn)

    # -- 6

    def tidy(self, appended: int, is_idle: bool) -> None:
        """Carry what is due; when nothing has happened for a while, hash, verify and seal."""
        if appended or self._owes_carrying:
            self._owes_carrying = self._journal.after_turn(appended)
            if self._journal.has_lost:
                self._tell_lost()
        if not is_idle:
            self._is_quiet = False
        elif self._is_quiet and self._has_idle_work:
            self._has_idle_work = self._work_idly()
            if self._journal.verdict is not None:
                self._console.verdict(self._journal.verdict)
                self._journal.verdict = None
        else:
            self._is_quiet = True

    def _work_idly(self) -> bool:
        """Hash and seal a little; whether there is more. What has ended lives is left out."""
        quarantine = self.intents.quarantine
        if quarantine.is_poison_work("idle"):
            return False
        self.intents.name_idle()
        has_more = self._journal.idle()
        if not has_more:
            quarantine.passed_work("idle")
            self.change(self._store.take_effects())
        return has_more

    def _tell_lost(self) -> None:
        for damage in self._journal.take_lost():
            self._console.error(f"log at position {damage.position:#x}, {damage.size} bytes: "
                                f"{damage.reason}")

    def change(self, effects: list[Effect]) -> None:
        """Record changes of the server's own, outside of any request."""
        if effects:
            self._journal.commit([(SERVER, START, effects)])
        self._journal.prepare()

    def _stop(self, number: int, frame: object) -> None:
        self._console.info(f"{signal.Signals(number).name}: ending")
        self.is_stopping = True
