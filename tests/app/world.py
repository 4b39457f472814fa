# SPDX-License-Identifier: Apache-2.0
"""A store in a box: who asks what, what is answered, and everything that anybody hears of it.

Tests are tables of rows (who, tx, request, answer, events). After each row *all* packets of *all*
clients are compared, so an event too many fails as well as a missing one, and so does an event
on the wrong side of the reply: events come before the reply of the request that caused them, only
a WATCH's own first event comes behind it.

  who      "d0" is domain 0 (privileged), "g1" "g2" "g3" are guests; "d0b" is a second socket;
           "r7" is the connection that INTRODUCE 7 has made, which is durable, as rings are
  tx       "" none, a letter: the one that a START row with the answer "=letter" opened, or a number
  request  "WRITE /a value": a name of the protocol (START, END for transactions) and arguments,
           each of which gets its NUL, but not WRITE's value; or (type, payload) as it is sent
  answer   bytes: the payload; "OK": b"OK\\0"; "ENOENT" and the like: the error; "=t" see above
  events   "g1 /a tok, d0 /a tok": who hears of which path under which token, in this order

Knows no sockets, rings or logs: everything is in process, and every domain can be acted."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from app import wire
from app.client import Client
from app.effects import Effect
from app.errors import Einval
from app.host import Domain
from app.store import Store
from app.tree import Space
from app.wire import Request

TYPES = {name: value for value, name in wire.TYPE_NAMES.items()}
TYPES["START"], TYPES["END"] = wire.XS_TRANSACTION_START, wire.XS_TRANSACTION_END
WIDE = (1 << 28, 1 << 32, 1 << 26)  # of log, heap and step: more than any test needs
REQ_ID = 77

Asked = str | tuple[int, bytes]
Answer = str | bytes


class Row(NamedTuple):
    """One request and all that must come of it."""

    who: str
    tx: str | int
    request: Asked
    answer: Answer
    events: str = ""


class RingClient(Client):
    """A client whose watches and transactions are items."""

    is_durable = True


class FakeHost:
    """A hypervisor whose domains are those of a set."""

    def __init__(self, domains: Iterable[int]) -> None:
        self.domains = set(domains)
        self.identities: dict[int, int] = {}  # others than 1
        self.shut_down: set[int] = set()
        self.attached: dict[int, Client] = {}

    def look(self, domid: int) -> Domain | None:
        """Whether the test wants the domain to be there, and who it is."""
        if domid not in self.domains:
            return None
        return Domain(self.identities.get(domid, 1), domid in self.shut_down)

    def attach(self, domid: int, epoch: int, gfn: int, port: int) -> Client:
        """A durable client without any ring."""
        self.attached[domid] = RingClient(epoch, domid, privileged=False)
        return self.attached[domid]

    def detach(self, client: Client) -> None:
        """It is not served any more."""
        del self.attached[client.domid]


class FakeServices:
    """Remembers what CONTROL asked for. Files below /bad cannot be opened."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.kinds: list[str] = []  # of drills

    def log_requests(self, on: bool) -> None:
        """CONTROL log."""
        self.calls.append(("log_requests", str(on)))

    def log_to(self, path: str) -> None:
        """CONTROL logfile."""
        if path.startswith("/bad"):
            raise Einval
        self.calls.append(("log_to", path))

    def write_file(self, path: str, text: str) -> None:
        """CONTROL memreport FILE."""
        if path.startswith("/bad"):
            raise Einval
        self.calls.append(("write_file", path))

    def warn(self, text: str) -> None:
        """A client does what it should not."""
        self.calls.append(("warn", text))

    def say(self, text: str) -> None:
        """CONTROL print."""
        self.calls.append(("say", text))

    def report(self) -> str:
        """The process's part of CONTROL memreport."""
        return "process: fake\n"

    def drills(self) -> list[str]:
        """The kinds of crash that CONTROL crash lists."""
        return self.kinds

    def order_drill(self, words: list[str]) -> None:
        """CONTROL crash KIND."""
        if words[0] not in self.kinds:
            raise Einval
        self.calls.append(("order_drill", *words))


def nul(*parts: str | bytes | int) -> bytes:
    """Each part with a NUL behind it."""
    return b"".join((part if isinstance(part, bytes) else str(part).encode("latin-1")) + b"\0"
                    for part in parts)


def parse_request(request: Asked) -> tuple[int, bytes]:
    """Type and payload of a row's request."""
    if not isinstance(request, str):
        return request
    name, *arguments = request.split(" ")
    if name == "WRITE":
        path, value = [*arguments, ""][:2]
        return TYPES[name], nul(path) + value.encode("latin-1")
    return TYPES[name], nul(*arguments) or b"\0"


class Packet(NamedTuple):
    """One packet to a client."""

    kind: int
    req_id: int
    tx_id: int
    payload: bytes

    @classmethod
    def parse(cls, data: bytes) -> Packet:
        """The packet of one element of an outbox."""
        kind, req_id, tx_id, length = struct.unpack_from("<IIII", data)
        assert length == len(data) - 16, "the length field is wrong"
        return cls(kind, req_id, tx_id, data[16:])

    @property
    def answer(self) -> Answer:
        """A reply as a row writes it: the error's name, "OK", or bytes."""
        if self.kind == wire.XS_ERROR:
            assert self.payload.endswith(b"\0"), self.payload
            return self.payload[:-1].decode("ascii")
        return "OK" if self.payload == b"OK\0" else self.payload


def event(path: str, token: str) -> Packet:
    """The packet of an event."""
    return Packet(wire.XS_WATCH_EVENT, 0, 0, nul(path, token))


def text_of(found: dict[str, list[Packet]]) -> str:
    """Events as a row writes them, by client."""
    texts = []
    for who, packets in found.items():
        for packet in packets:
            assert packet[:3] == (wire.XS_WATCH_EVENT, 0, 0), packet
            texts.append(f"{who} " + " ".join(packet.payload.decode("latin-1").split("\0")[:-1]))
    return ", ".join(texts)


class World:
    """A store with its clients. `domains` are those that exist; guests are clients of some.
    `is_paranoid`: the store's own O(nodes) check runs after every request."""

    def __init__(self, domains: Iterable[int] = (1, 2, 3, 7), guests: Iterable[int] = (1, 2, 3),
                 space: tuple[int, int, int] = WIDE, is_paranoid: bool = True) -> None:
        self.host = FakeHost(domains)
        self.services = FakeServices()
        self.store = Store(Space(*space), self.host, self.services)
        self.store.populate()
        self.clients: dict[str, Client] = {}
        self.transactions: dict[str, int] = {"": 0}
        self.effects: list[Effect] = []  # of the last request
        self.reply = Packet(0, 0, 0, b"")  # to the last request
        self.is_paranoid = is_paranoid
        self.connect("d0", 0)
        self.connect("d0b", 0)
        for domid in guests:
            self.connect(f"g{domid}", domid)

    def connect(self, who: str, domid: int) -> Client:
        """One more client; the clients of domain 0 are privileged."""
        client = Client(len(self.clients) + 1, domid, privileged=domid == 0)
        self.clients[who] = client
        self.store.clients.add(client)
        return client

    # -- asking

    def packets(self, who: str, request: Asked, tx: str | int = "") -> dict[str, list[Packet]]:
        """Execute a request; what each client gets of it, in order."""
        kind, payload = parse_request(request)
        tx_id = self.transactions[tx] if isinstance(tx, str) else tx
        self.effects = self.store.handle(self.clients[who], Request(kind, REQ_ID, tx_id, payload))
        found = self._take(repr(request))
        replies = [one for one in found[who] if one.kind != wire.XS_WATCH_EVENT]
        assert len(replies) == 1, f"{request!r}: {len(replies)} replies"
        self.reply = replies[0]
        assert self.reply[1:3] == (REQ_ID, tx_id), f"{request!r}: the reply has other ids"
        assert self.reply.kind in (kind, wire.XS_ERROR), f"{request!r}: another type"
        return found

    def _take(self, what: str) -> dict[str, list[Packet]]:
        """What each client got of a step. Rings that have begun are reset, as rings.py does."""
        rings = {f"r{domid}": client for domid, client in self.host.attached.items()}
        for name in [one for one in self.clients if one.startswith("r") and one not in rings]:
            del self.clients[name]
        self.clients.update(rings)
        found = {}
        for name, client in self.clients.items():
            if client.outbox:
                found[name] = [Packet.parse(data) for data in client.outbox]
                client.take_outbox()
        if self.is_paranoid:
            problem = self.store.check()
            assert problem is None, f"after {what}: {problem}"
        resetting = [domid for domid in dict.fromkeys(self.store.resetting)
                     if domid in self.store.rings]
        self.store.resetting.clear()
        self.store.reset_rings(resetting)
        return found

    def step(self, effects: list[Effect]) -> dict[str, list[Packet]]:
        """A step of the server's own has been done: what each client got of it."""
        self.effects = effects
        return self._take("a step of the server's own")

    def look(self, *domids: int) -> str:
        """The server looks at domains, in this order: who hears of what, as a row writes it."""
        return text_of(self.step(self.store.look_at(list(reversed(domids)))))

    def ask(self, who: str, request: Asked, tx: str | int = "") -> Answer:
        """Execute a request; its answer as in a row. Events are dropped."""
        self.packets(who, request, tx)
        return self.reply.answer

    def start(self, who: str, name: str = "t") -> None:
        """Open the transaction `name`."""
        self.check(Row(who, "", "START", "=" + name))

    def put(self, path: str, value: str = "", *perms: str) -> None:
        """Make a node as domain 0; with permissions if any are given."""
        assert self.ask("d0", f"WRITE {path} {value}") == "OK"
        if perms:
            assert self.ask("d0", " ".join(["SET_PERMS", path, *perms])) == "OK"

    # -- rows

    def check(self, row: Row) -> None:
        """Execute a row and compare everything that everybody got."""
        found = self.packets(row.who, row.request, row.tx)
        answer = self.reply.answer
        if isinstance(row.answer, str) and row.answer.startswith("="):
            assert isinstance(answer, bytes) and answer[:-1].isdigit(), f"{row}: got {answer!r}"
            self.transactions[row.answer[1:]] = int(answer[:-1])
        else:
            assert answer == row.answer, f"{row}: got {answer!r}"
        expected: dict[str, list[Packet]] = {row.who: []}
        for one in row.events.split(", ") if row.events else ():
            who, path, token = one.split(" ")
            expected.setdefault(who, []).append(event(path, token))
        is_behind = parse_request(row.request)[0] == wire.XS_WATCH and answer == "OK"
        expected[row.who].insert(0 if is_behind else len(expected[row.who]), self.reply)
        assert found == expected, f"{row}: got {found}"

    def run(self, rows: Iterable[Any]) -> World:
        """Execute rows (Row, or its fields as a tuple) in order, on one store."""
        for row in rows:
            self.check(Row(*row))
        return self

    def tree(self) -> dict[str, tuple[bytes, bytes]]:
        """Every node: value and permissions. For 'nothing has changed'."""
        return {path.decode(): (node.value, node.perms.wire)
                for path, node in self.store.tree.nodes.items()}


def house() -> World:
    """The world of most tables.

    /pub may be written by g1 and read by g2, /priv is domain 0's own but for /priv/one, which g1
    owns; g1 and g2 have homes, g3 has none; domain 7 exists without being connected."""
    world = World()
    world.put("/pub", "pub", "n0", "b1", "r2")
    world.put("/pub/x", "x")
    world.put("/priv", "secret")
    world.put("/priv/x", "hidden")
    world.put("/priv/one", "1", "n1")
    world.put("/local/domain/1", "", "n1")
    world.put("/local/domain/1/name", "one", "n1")
    world.put("/local/domain/2", "", "n2")
    return world
