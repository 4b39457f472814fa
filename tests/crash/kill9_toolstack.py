# SPDX-License-Identifier: Apache-2.0
"""The toolstacks of tests/crash/kill9_rings.py: domains come and go while the server is killed.

T1. A life of a domain is known to the toolstack that made it; both ledgers together say how often
    @introduceDomain and @releaseDomain are due for each number. The toolstack on domain 0's ring
    hears of each by number, by watches of depth 1, and counts.
T2. The one on the socket loses its connection with the server. What it had asked may have been
    done or not: it looks, and asks again if not.
Change with: kill9_guest.py."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import NamedTuple

from tests.crash.kill9_channel import OK, PATIENCE_S, Channel, Expecting, Wrong, error_payload
from tests.crash.kill9_guest import INBOX_PLACES, Scripted
from tests.oracle.guest import SimXen
from tests.oracle.xsclient import ConnectionClosed, NoReply, SocketConnection, strings
from tests.oracle.xsclient import MessageType as M

RETRY_S = 0.002
RELEASE, INTRODUCE = "@releaseDomain", "@introduceDomain"
Reply = tuple[int, bytes]


class Ledger(NamedTuple):
    """What a toolstack did: the events that are due for each domid; inbox writes to each guest."""

    introduced: Counter[int]
    released: Counter[int]
    sent: Counter[int]
    counts: Counter[str]


class Interrupted(Exception):
    """The server went away in the middle of a request."""


class Toolstack:
    """Makes and ends domains. Subclasses know how to ask."""

    letter = "?"

    def prepare(self, sim: Path, control: Pipe, seed: object, domids: range,
                guests: list[int]) -> None:
        """`domids` are this toolstack's own to make; `guests` have inboxes."""
        self.sim = SimXen(sim)
        self.pipe = control
        self.luck = random.Random(f"{seed}:{self.letter}")
        self.domids = domids
        self.guests = guests
        self.ledger = Ledger(Counter(), Counter(), Counter(), Counter())

    # -- asking; ensure() comes back when it is done, once, however often the server died

    def ensure(self, is_done: Callable[[], bool], kind: int, payload: bytes) -> None:
        """A request that must be answered OK, and may be made again if `is_done` says no."""
        raise NotImplementedError

    def query(self, kind: int, payload: bytes) -> Reply:
        """A request that changes nothing."""
        raise NotImplementedError

    def await_release(self, domid: int) -> None:
        """Until the server knows that a domain is gone, or has shut down."""
        raise NotImplementedError

    def pause(self, most_s: float) -> None:
        """Do nothing for a moment."""
        self.pipe.poll(self.luck.uniform(0, most_s))

    def is_introduced(self, domid: int) -> bool:
        """IS_DOMAIN_INTRODUCED."""
        return self.query(M.IS_DOMAIN_INTRODUCED, strings(domid)) == (
            M.IS_DOMAIN_INTRODUCED, b"T\0")

    def expect(self, kind: int, path: str, error: str) -> None:
        """A request that must be refused."""
        reply = self.query(kind, strings(path))
        if reply != (M.ERROR, error_payload(error)):
            raise Wrong(f"{M(kind).name} {path}: {reply}, and should be {error}")

    # -- doing

    def write_inbox(self, guest: int) -> None:
        """The next write into a guest's inbox, exactly once."""
        number = self.ledger.sent[guest]
        path = f"/local/domain/{guest}/inbox/{self.letter}/{number % INBOX_PLACES}"
        self.ensure(lambda: self.query(M.READ, strings(path)) == (M.READ, b"%d" % number),
                    M.WRITE, strings(path) + b"%d" % number)
        self.ledger.sent[guest] += 1

    def one_life(self, domid: int) -> None:
        """A domain from its making to its end."""
        luck, ledger = self.luck, self.ledger
        self.sim.create_domain(domid)
        self.introduce(domid)
        home = f"/local/domain/{domid}"
        self.ensure(lambda: False, M.MKDIR, strings(home))
        self.ensure(lambda: False, M.SET_PERMS, strings(home, f"n{domid}"))
        child = Expecting(Channel(self.sim.directory, domid))
        try:
            self.work(child, domid)
            if luck.random() < 0.3:
                target = luck.choice(self.guests)
                self.ensure(lambda: False, M.SET_TARGET, strings(domid, target))
                child.ask(M.GET_PERMS, strings(f"/local/domain/{target}"), strings(f"n{target}"))
                child.settle()
            if luck.random() < 0.3:
                self.ensure(lambda: False, M.INTRODUCE, strings(domid, 1, 1000 + domid))
                child.ask(M.WRITE, strings("data/watched") + b"x", OK)  # nobody watches any more
                child.settle()
                ledger.counts["introduced anew"] += 1
            if luck.random() < 0.3:
                self.shut_down(domid)
            if luck.random() < 0.5:
                child.ask(M.WRITE, strings("data/last") + b"x" * 1500, OK)
                child.channel.move()  # and it dies in the middle of this
            self.pause(0.06)
            self.end(domid)
        finally:
            child.close()

    def introduce(self, domid: int) -> None:
        """INTRODUCE of a domain that is not known."""
        self.ensure(lambda: self.is_introduced(domid), M.INTRODUCE,
                    strings(domid, 1, 1000 + domid))
        self.ledger.introduced[domid] += 1

    def work(self, child: Expecting, domid: int) -> None:
        """The domain does something itself, on its own ring."""
        faults = child.channel.faults()
        if faults:
            raise Wrong(f"just introduced, {faults}")
        for number in range(self.luck.randrange(1, 6)):
            child.ask(M.WRITE, strings(f"data/{number}") + b"d" * 700, OK)
            child.ask(M.MKDIR, strings(f"/shared/{domid}/{number}"), OK)
        child.ask(M.WATCH, strings("data/watched", "t"), OK,
                  after=(child.event("data/watched", "t"),))
        child.ask(M.WRITE, strings("data/watched") + b"x", OK,
                  before=(child.event("data/watched", "t"),))
        child.settle()

    def shut_down(self, domid: int) -> None:
        """A shutdown that is seen, and taken back."""

    def end(self, domid: int) -> None:
        """The domain dies, or is released first. Sometimes nobody looks before the next one."""
        counts, luck = self.ledger.counts, self.luck
        if luck.random() < 0.25:
            self.ensure(lambda: not self.is_introduced(domid), M.RELEASE, strings(domid))
            counts["released"] += 1
            self.sim.destroy_domain(domid)
        else:
            self.sim.destroy_domain(domid, notify=False)
            counts["deaths" if self.sim.raise_virq() else "deaths while it was down"] += 1
        self.ledger.released[domid] += 1
        if luck.random() < 0.3:
            counts["numbers used again at once"] += 1
            return
        self.await_release(domid)
        for path in (f"/local/domain/{domid}", f"/shared/{domid}"):
            self.expect(M.READ, path, "ENOENT")


class RingToolstack(Scripted, Toolstack):
    """On domain 0's own ring, with a script of its own between the lives of domains."""

    letter = "a"

    def start(self) -> None:
        """Watch for what is due (T1)."""
        self.heard: dict[str, Counter[int]] = {RELEASE: Counter(), INTRODUCE: Counter()}
        self.plain = 0
        for path in (RELEASE, INTRODUCE):
            self.ask(M.WATCH, strings(path, "each", 1), OK)
            self.ask(M.WATCH, strings(path, "plain"), OK)
        self.settle()

    def foreign_event(self, path: str, token: str) -> bool:
        name, _, digits = path.partition("/")
        if name not in (RELEASE, INTRODUCE):
            return False
        if token == "plain":
            self.plain += 1
        elif digits:
            self.heard[name][int(digits)] += 1
            self.check_special(name, int(digits))
        return True

    def check_special(self, name: str, domid: int) -> None:
        """As soon as possible: the events of one number alternate."""
        released, introduced = self.heard[RELEASE][domid], self.heard[INTRODUCE][domid]
        if domid not in self.domids and not introduced >= released:
            raise Wrong(f"{released} times {RELEASE}, {introduced} times {INTRODUCE} for {domid}")

    def ensure(self, is_done: Callable[[], bool], kind: int, payload: bytes) -> None:
        reply = self.call(kind, payload)
        if reply != (kind, OK):
            raise Wrong(f"{M(kind).name} {payload[:60]!r}: {reply}")

    def query(self, kind: int, payload: bytes) -> Reply:
        return self.call(kind, payload)

    def pause(self, most_s: float) -> None:
        self.rest(self.luck.uniform(0, most_s))

    def await_release(self, domid: int) -> None:
        due = self.ledger.released[domid]
        self.run_until(lambda: self.heard[RELEASE][domid] >= due)

    def shut_down(self, domid: int) -> None:
        self.sim.set_state(domid, "shutdown")
        self.ledger.released[domid] += 1
        self.await_release(domid)
        self.sim.raise_virq()  # and not once more
        self.sim.set_state(domid, "running")
        self.ensure(lambda: False, M.RESUME, strings(domid))
        self.ledger.counts["shutdowns"] += 1

    def write_inbox(self, guest: int) -> None:
        number = self.ledger.sent[guest]
        path = f"/local/domain/{guest}/inbox/{self.letter}/{number % INBOX_PLACES}"
        self.ask(M.WRITE, strings(path) + b"%d" % number, OK)
        self.ledger.sent[guest] += 1

    def main(self) -> tuple[Ledger, list[int]]:
        """Until told to finish; then what is due must be there."""
        self.start()
        self.begin(self.letter, self.guests)
        while not self.pipe.poll():
            kind = self.luck.random()
            if kind < 0.04:
                self.one_life(self.luck.choice(self.domids))
            elif kind < 0.3:
                self.write_inbox(self.luck.choice(self.guests))
            else:
                self.step()
        self.compare(self.pipe.recv())
        self.sim.close()
        return self.ledger, self.tx_ids

    def compare(self, others: Ledger) -> None:
        """All that is due by both ledgers has come, and nothing else. Raises Wrong."""
        due = {RELEASE: self.ledger.released + others.released,
               INTRODUCE: self.ledger.introduced + others.introduced}
        self.run_until(lambda: all(self.heard[name].total() >= due[name].total() for name in due))
        self.check_all()
        for name, numbers in due.items():
            if self.heard[name] != numbers:
                wrong = {domid: (self.heard[name][domid], numbers[domid])
                         for domid in numbers | self.heard[name]
                         if self.heard[name][domid] != numbers[domid]}
                raise Wrong(f"{name}: (heard, due) for each domid: {wrong}")
        most = 2 + sum(numbers.total() for numbers in due.values())
        if not 4 <= self.plain <= most:
            raise Wrong(f"{self.plain} plain special events, at most {most} are due")


class SocketToolstack(Toolstack):
    """On the unix socket, which closes whenever the server dies (T2)."""

    letter = "b"

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._connection: SocketConnection | None = None

    def _request(self, kind: int, payload: bytes) -> Reply:
        """One try. Raises Interrupted."""
        connection = self._connection or self._connect()
        try:
            reply = connection.request(kind, payload, timeout_s=PATIENCE_S)
        except NoReply as error:
            raise Wrong(f"no reply to {M(kind).name} {payload[:60]!r}") from error
        except (ConnectionClosed, OSError) as error:
            connection.close()
            self._connection = None
            self.ledger.counts["connections lost"] += 1
            raise Interrupted from error
        return reply.type, reply.payload

    def _connect(self) -> SocketConnection:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._connection = SocketConnection(self._path)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_S)  # there is nobody who could tell when it is back
            else:
                return self._connection

    def ensure(self, is_done: Callable[[], bool], kind: int, payload: bytes) -> None:
        while True:
            try:
                reply = self._request(kind, payload)
            except Interrupted:
                if is_done():
                    return
                continue
            if reply != (kind, OK):
                raise Wrong(f"{M(kind).name} {payload[:60]!r}: {reply}")
            return

    def query(self, kind: int, payload: bytes) -> Reply:
        while True:
            try:
                return self._request(kind, payload)
            except Interrupted:
                continue

    def await_release(self, domid: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.is_introduced(domid):
            if time.monotonic() > deadline:
                raise Wrong(f"domain {domid} is gone, and introduced all the same")

    def main(self) -> Ledger:
        """Until told to finish."""
        while not self.pipe.poll():
            if self.luck.random() < 0.2:
                self.one_life(self.luck.choice(self.domids))
            else:
                self.write_inbox(self.luck.choice(self.guests))
            self.pause(0.01)
        self.sim.close()
        return self.ledger
