# SPDX-License-Identifier: Apache-2.0
"""The store and the model of tests/model.py side by side: the same requests, compared one by one.

A script is a list of steps (who, type, tx, payload). tx is 0 for none, OLDEST or NEWEST for one of
the caller's own that are open (none: 0), OTHERS for somebody else's, else a number as it is sent:
so a script stays sensible when steps are taken out of it. A difference is raised as an
AssertionError that names the step and ends in the one command that plays the script again:

  .venv/bin/python -m tests.app.duel SCRIPT

After each request are compared: the reply, the events of each client in their order, all nodes
with values, permissions and the order of children; and Store.check() is None."""

from __future__ import annotations

import ast
import base64
import sys
import zlib

from app import wire
from app.client import NO_TARGET
from app.path import Path
from tests.app.world import World
from tests.model import SPECIALS, Item, Model, perms_bytes

Step = tuple[str, int, int, bytes]
OLDEST, NEWEST, OTHERS = -1, -2, -3
QUOTAS = {"nodes": 6, "watches": 4, "transactions": 2, "node-permissions": 3}
DOMIDS = {"d0": 0, "d0b": 0, "g1": 1, "g2": 2, "g3": 3}
DISCONNECT = -1  # as a type: the client goes, and another comes in its place, which acts for the
#                  domain that stands instead of the tx, too (0: for none)


class Duel:
    """Both sides."""

    def __init__(self) -> None:
        self.world = World(domains=(1, 2, 3, 7))
        self.model = Model({1, 2, 3, 7}, QUOTAS)
        self.script: list[Step] = []
        for name, domid in DOMIDS.items():
            self.model.connect(name, domid)
        for name, value in QUOTAS.items():
            assert self.world.ask("d0", f"SET_QUOTA {name} {value}") == "OK"

    def step(self, who: str, kind: int, tx: int, payload: bytes) -> None:
        """One request, or DISCONNECT."""
        self.script.append((who, kind, tx, payload))
        try:
            if kind == DISCONNECT:
                self._reconnect(who, tx)
            else:
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

    def _item(self, kind: int, payload: bytes) -> Item:
        if kind == wire.XS_WATCH_EVENT:
            path, token, _ = payload.decode("latin-1").split("\0")
            return path, token
        return payload[:-1].decode() if kind == wire.XS_ERROR else payload

    def _reconnect(self, who: str, target: int) -> None:
        self.model.disconnect(who)
        self.model.connect(who, DOMIDS[who], target or NO_TARGET)
        self.world.store.disconnect(self.world.clients[who])
        self.world.connect(who, DOMIDS[who]).target = target or NO_TARGET

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
