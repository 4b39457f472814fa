# SPDX-License-Identifier: Apache-2.0
"""The loop, and THE ORDER of a turn. Everything that this server promises follows from it:

  1 wait     for readable sockets, or for nothing while work is left
  2 peek     take bytes from ready connections; make room in the log for the largest turn
  3 execute  requests in memory, round robin, bounded: packets wait in outboxes
  4 append   ONE record with all effects of the turn: the commit point
  5 publish  outboxes to sockets
  6 tidy     carry a share of the log; when all is quiet, hash and seal

O1. No packet of a turn leaves before step 4 is done; no request is executed again after it.
O2. The log is never touched between a change in memory and its record, but by that record.
O3. Each step is a method: a test can stand between any two.
Single-threaded on epoll. Python's cyclic collector is off: nothing here makes cycles (a test
counts them)."""

from __future__ import annotations

import os
import select
import signal
from collections import deque

from app import wire
from app.client import Client
from app.codec import SERVER, START
from app.effects import Effect
from app.journal import Journal
from app.services import Console
from app.sockets import Listener, SocketConnection
from app.store import Store
from app.wire import FrameError, Request

REQUESTS_PER_CONNECTION = 32  # in one turn
REQUESTS_PER_TURN = 256
ACCEPTS_PER_TURN = 64
QUIET_S = 0.02  # how long nothing must have happened before hashing begins

_READ = select.EPOLLIN | select.EPOLLRDHUP


class Server:
    """Serves `store` on `listener`, durably through `journal`."""

    def __init__(self, store: Store, journal: Journal, listener: Listener,
                 console: Console) -> None:
        self.connections: dict[int, SocketConnection] = {}
        self.is_stopping = False
        self._store = store
        self._journal = journal
        self._listener = listener
        self._console = console
        self._poll = select.epoll()
        self._listener_fd = listener.sock.fileno()
        self._poll.register(self._listener_fd, select.EPOLLIN)
        self._next_conn_id = 1
        self._queue: deque[SocketConnection] = deque()
        self._broken: list[SocketConnection] = []  # to be closed after their replies went out
        self._is_quiet = False
        self._has_idle_work = True
        self._owes_carrying = False
        self._wakeup: tuple[int, int] | None = None

    def catch_signals(self) -> None:
        """Let SIGTERM and SIGINT end the server cleanly, between two turns."""
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._poll.register(self._wakeup[0], select.EPOLLIN)

    def run(self) -> None:
        """Serve until a signal asks to stop; then end cleanly."""
        while not self.is_stopping:
            self.turn()
        self.end()

    def end(self) -> None:
        """Say in the log that the end was meant, and let go of everything."""
        self._journal.end()
        for conn in list(self.connections.values()):
            self._close(conn)
        self._listener.close()
        self._poll.close()

    def turn(self, timeout_s: float | None = None) -> bool:
        """One turn; whether anything came. `timeout_s` overrides how long step 1 may wait."""
        ready = self.wait(timeout_s)
        self.peek(ready)
        steps, clients = self.execute()
        appended = self.append(steps)
        self.publish(clients)
        self.tidy(appended, is_idle=not ready and not clients)
        return bool(ready or clients)

    # -- 1

    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        """Ready file descriptors and their events."""
        if timeout_s is None:
            if self._queue or self._owes_carrying or (self._is_quiet and self._has_idle_work):
                timeout_s = 0
            else:
                timeout_s = QUIET_S if self._has_idle_work else -1
        return self._poll.poll(timeout_s)

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
                    conn.is_queued = True
                    self._queue.append(conn)
                else:
                    self._close(conn)
        self._journal.prepare()

    def _peek_other(self, fd: int) -> None:
        if fd == self._listener_fd:
            for _ in range(ACCEPTS_PER_TURN):
                sock = self._listener.accept()
                if sock is None:
                    break
                self.add(sock)
        elif self._wakeup is not None and fd == self._wakeup[0]:
            os.read(fd, 64)

    def add(self, sock: object) -> SocketConnection:
        """Serve one more connected socket."""
        conn = SocketConnection(self._next_conn_id, sock)  # type: ignore[arg-type]
        self._next_conn_id += 1
        self.connections[conn.fd] = conn
        self._store.clients.add(conn)
        self._poll.register(conn.fd, _READ)
        return conn

    # -- 3

    def execute(self) -> tuple[list[tuple[Client, Request, list[Effect]]],
                               list[SocketConnection]]:
        """Execute queued requests in memory. Returns the steps that changed something, and the
        connections that executed anything."""
        steps: list[tuple[Client, Request, list[Effect]]] = []
        clients: list[SocketConnection] = []
        left, room = REQUESTS_PER_TURN, self._journal.turn_bytes_max
        queue = self._queue
        for _ in range(len(queue)):
            if left <= 0 or room <= 0:
                break
            conn = queue.popleft()
            if conn.sock.fileno() < 0 or conn.unsent:
                conn.is_queued = False  # gone, or owed bytes: _flush() queues it again
                continue
            clients.append(conn)
            done, used, has_more = self._execute_some(conn, min(left, REQUESTS_PER_CONNECTION),
                                                      room, steps)
            left -= done
            room -= used
            conn.is_queued = has_more
            if has_more:
                queue.append(conn)
        return steps, clients

    def _execute_some(self, conn: SocketConnection, most: int, room: int,
                      steps: list[tuple[Client, Request, list[Effect]]]
                      ) -> tuple[int, int, bool]:
        """Requests of one connection: how many, their bytes in the record, whether more wait."""
        data, offset, done, used = conn.inbox, 0, 0, 0
        handle = self._store.handle
        try:
            taken = wire.take(data, 0)
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
                if done >= most or used >= room:
                    break
                taken = wire.take(data, offset)
            else:
                conn.inbox = data[offset:] if offset < len(data) else b""
                return done, used, False
        except FrameError as error:
            self._console.warn(f"connection {conn.conn_id} (pid {conn.pid}) closed: {error}")
            conn.inbox = b""
            self._broken.append(conn)
            return done, used, False
        conn.inbox = data[offset:]
        return done, used, bool(conn.inbox)

    # -- 4

    def append(self, steps: list[tuple[Client, Request, list[Effect]]]) -> int:
        """THE COMMIT POINT: one record for the whole turn. Returns its bytes in the log."""
        if not steps:
            return 0
        self._has_idle_work = True
        return self._journal.commit(steps)

    # -- 5

    def publish(self, clients: list[SocketConnection]) -> None:
        """Send what the turn has to say, to those who asked and to those who watch."""
        heard = self._store.heard
        for conn in clients:
            if conn.outbox:
                self._publish(conn)
        if heard:
            for client in list(heard):
                if isinstance(client, SocketConnection) and client.outbox:
                    self._publish(client)
            heard.clear()
        while self._broken:
            self._close(self._broken.pop())

    def _publish(self, conn: SocketConnection) -> None:
        owed = bool(conn.unsent)
        if not conn.publish():
            self._close(conn)
        elif conn.unsent and not owed:
            self._poll.modify(conn.fd, select.EPOLLOUT)

    def _flush(self, conn: SocketConnection) -> None:
        if not conn.flush():
            self._close(conn)
        elif not conn.unsent:
            self._poll.modify(conn.fd, _READ)
            if conn.inbox and not conn.is_queued:
                conn.is_queued = True
                self._queue.append(conn)

    def _close(self, conn: SocketConnection) -> None:
        if conn.sock.fileno() < 0:
            return
        del self.connections[conn.fd]
        self._poll.unregister(conn.fd)
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
        elif self._is_quiet:
            self._has_idle_work = self._journal.idle()
            if self._journal.verdict is not None:
                self._console.verdict(self._journal.verdict)
                self._journal.verdict = None
        else:
            self._is_quiet = True

    def _tell_lost(self) -> None:
        for damage in self._journal.take_lost():
            self._console.error(f"log at position {damage.position:#x}, {damage.size} bytes: "
                                f"{damage.reason}")

    def change(self, effects: list[Effect]) -> None:
        """Record changes of the server's own, outside of any request."""
        if effects:
            self._journal.prepare()
            self._journal.commit([(SERVER, START, effects)])

    def _stop(self, number: int, frame: object) -> None:
        self._console.info(f"{signal.Signals(number).name}: ending")
        self.is_stopping = True
