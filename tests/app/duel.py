# SPDX-License-Identifier: Apache-2.0
"""The store and the model of tests/model.py side by side: the same requests, compared one by one.

A script is a list of steps (who, type, tx, payload). tx is 0 for none, OLDEST or NEWEST for one of
the caller's own that are open (none: 0), OTHERS for somebody else's, else a number as it is sent:
so a script stays sensible when steps are taken out of it. A difference is raised as an
AssertionError that names the step and ends in the one command that plays the script again:

  .venv/bin/python -m tests.app.duel SCRIPT

Some steps are no requests: domains begin, end, shut down, and the server looks at them.

After each step are compared: the reply, the events of each client in their order, all nodes with
values, permissions and the order of children, for whom each client acts; and Store.check() is
None."""

from __future__ import annotations

import ast
import base64
import sys
import zlib

from app import wire
from app.path import Path
from tests.app.world import World
from tests.model import SPECIALS, Item, Model, perms_bytes

Step = tuple[str, int, int, bytes]
OLDEST, NEWEST, OTHERS = -1, -2, -3
QUOTAS = {"nodes": 6, "watches": 4, "transactions": 2, "node-permissions": 3}
SOCKETS = ("d0", "d0b")
DOMAINS = (1, 2, 3, 7)  # those that exist at the start; 9 is one that may begin
# Types of steps that are no requests. The payload of all but the first are domids as text.
DISCONNECT = -1  # a socket goes, and another comes in its place
BEGIN, END, SHUT_DOWN, LOOK = -2, -3, -4, -5


class Duel:
    """Both sides."""

    def __init__(self) -> None:
        self.world = World(domains=DOMAINS, guests=())
        self.model = Model(dict.fromkeys(DOMAINS, (1, False)), QUOTAS)
        self.script: list[Step] = []
        self._identity = 1
        for name in SOCKETS:
            self.model.connect(name, 0)
        for name, value in QUOTAS.items():
            assert self.world.ask("d0", f"SET_QUOTA {name} {value}") == "OK"

    def step(self, who: str, kind: int, tx: int, payload: bytes) -> None:
        """One request, or another step. Nothing if it is a client's who is not there."""
        self.script.append((who, kind, tx, payload))
        try:
            if kind == DISCONNECT:
                self._reconnect(who)
            elif kind < 0:
                self._change_domains(kind, [int(one) for one in payload.split()])
            elif who in self.world.clients:
                tx_id = self._tx_id(who, tx)
                # Special permissions inside a transaction are rows of test_transaction.py.
                if not payload.startswith(b"@") or tx_id not in self.model.transactions[who]:
                    self._ask(who, kind, tx_id, payload)
        except Exception as error:
            raise AssertionError(self._explain(error)) from error

    def _tx_id(self, who: str, tx: int) -> int:
        own = list(self.world.clients[who].transactions)
        others = [one for name, client in self.world.clients.items() if name != who
                  for one in client.transactions]
        known = {OLDEST: own[:1], NEWEST: own[-1:], OTHERS: others[:1]}.get(tx, [tx])
        return known[0] if known else 0

    def _ask(self, who: str, kind: int, tx_id: int, payload: bytes) -> None:
        got: dict[str, list[Item]] = {}
        for name, packets in self.world.packets(who, (kind, payload), tx_id).items():
            got[name] = [self._item(one.kind, one.payload) for one in packets]
        problem = self.model.judge(who, kind, tx_id, payload, got)
        assert problem is None, problem
        self._compare()

    def _change_domains(self, kind: int, domids: list[int]) -> None:
        """A domain begins, too, if there is one with its number: that one has ended, then."""
        machine, host = self.model.machine, self.world.host
        if kind == LOOK:
            self._look(domids)
            return
        (domid,) = domids
        if kind == SHUT_DOWN and domid in machine:
            machine[domid] = machine[domid][0], True
            host.shut_down.add(domid)
            return
        if kind == BEGIN and not self._may_begin(domid):
            return
        host.shut_down.discard(domid)
        host.domains.discard(domid)
        machine.pop(domid, None)
        # A commit that fails may have made a domain known, or not: nothing depends on it if one
        # that need not be known is looked at now.
        if domid not in self.model.known:
            self._look([domid])
        if kind == BEGIN:
            self._identity += 1
            machine[domid] = self._identity, False
            host.domains.add(domid)
            host.identities[domid] = self._identity

    def _may_begin(self, domid: int) -> bool:
        """Not while a transaction has named it when it was not there: a commit may find that it
        is, and the view that was shown may say that it is not; both are right."""
        named = b"%d\0" % domid
        return not any(kind == wire.XS_SET_PERMS and named in payload
                       for own in self.model.transactions.values() for tx in own.values()
                       for kind, payload in tx.asked)

    def _look(self, domids: list[int]) -> None:
        sent = self.world.step(self.world.store.look_at(list(reversed(domids))))
        problem = self.model.look(domids, {
            name: [self._item(one.kind, one.payload) for one in packets]
            for name, packets in sent.items()})
        assert problem is None, problem
        self._compare()

    def _compare(self) -> None:
        tree = self.model.tree
        expected = {path: (value, perms_bytes(perms)) for path, (value, perms) in tree.items()
                    if path not in SPECIALS}
        assert self.world.tree() == expected, "the trees differ"
        names: dict[str, str] = {}
        for path in expected:
            above, _, name = path.rpartition("/")
            names[above or "/"] = names.get(above or "/", "") + (name and name + "\0")
        for path, listing in names.items():
            found = self.world.store.tree.listing(Path(path.encode()))
            assert found == listing.encode(), f"the children of {path} differ"
        targets = {name: one.target for name, one in self.model.callers.items()}
        assert targets == {name: client.target for name, client in self.world.clients.items()}, (
            "the clients differ")

    def _item(self, kind: int, payload: bytes) -> Item:
        if kind == wire.XS_WATCH_EVENT:
            path, token, _ = payload.decode("latin-1").split("\0")
            return path, token
        return payload[:-1].decode() if kind == wire.XS_ERROR else payload

    def _reconnect(self, who: str) -> None:
        self.model.disconnect(who)
        self.model.connect(who, 0)
        self.world.store.disconnect(self.world.clients[who])
        self.world.connect(who, 0)

    def _explain(self, error: Exception) -> str:
        who, kind, tx, payload = self.script[-1]
        name = wire.TYPE_NAMES.get(kind, str(kind))
        text = base64.urlsafe_b64encode(zlib.compress(repr(self.script).encode(), 9)).decode()
        return (f"step {len(self.script)}: {who} {name} tx {tx} {payload!r}: "
                f"{type(error).__name__} {error}\n"
                f"replay: .venv/bin/python -m tests.app.duel {text}")


def play(script: list[Step], is_loud: bool = False) -> None:
    """Run a script; raises AssertionError at the first difference."""
    duel = Duel()
    for who, kind, tx, payload in script:
        duel.step(who, kind, tx, payload)
        if is_loud:
            print(who, wire.TYPE_NAMES.get(kind, kind), tx, payload, "->", duel.world.reply.answer)


def problem_of(script: list[Step]) -> str | None:
    """The difference that a script shows, or None."""
    try:
        play(script)
    except AssertionError as error:
        return str(error)
    return None


def shorten(script: list[Step]) -> list[Step]:
    """A script that still shows a difference, and none without any one of its steps."""
    size = len(script)
    while size:
        begin = 0
        while begin < len(script):
            shorter = script[:begin] + script[begin + size:]
            if problem_of(shorter) is not None:
                script = shorter
            else:
                begin += size
        size //= 2
    return script


if __name__ == "__main__":
    play(ast.literal_eval(zlib.decompress(base64.urlsafe_b64decode(sys.argv[1])).decode()), True)
