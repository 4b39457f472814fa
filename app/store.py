# SPDX-License-Identifier: Apache-2.0
"""State + request -> state, packets and effects. The only place where state changes.

B1. handle() is one step: it succeeds with all its effects, or answers an error and has none.
B2. Events go into outboxes before the reply of the request that caused them; a WATCH's own first
    event goes behind its OK. (C xenstored's order.)
B3. No clock, no randomness, no I/O: the same requests give the same state and the same packets.
B4. A durable client's watches and transactions are items: whatever changes them is an effect.
Knows nothing of sockets, rings and logs. Change with: journal.py, which restores this state."""

from __future__ import annotations

from typing import cast

from app import domain, wire
from app import path as paths
from app.client import Client
from app.control import Services
from app.effects import Cut, Effect, Item, Put
from app.errors import Eacces, Enomem, Enospc, Enosys, XsError
from app.host import Host
from app.isolation import Isolation
from app.items import Items, item_bytes
from app.ops import OPS
from app.path import Path
from app.perms import READ, from_wire
from app.quota import Quotas
from app.tree import Node, Space, Tree
from app.watch import Watch, WatchTable
from app.wire import Request

LOOKS_PER_STEP = 64  # at domains' states, so that nobody waits long for all of them
KEPT_ITEM_BYTES = 128  # what removing an item may take in a record, and as much to spare
ERROR_COMM = 1  # the ring's error word for a connection that let too much pile up


class Store:
    """The whole state of the server, and what happens to it."""

    def __init__(self, space: Space, host: Host, services: Services) -> None:
        self.effects: list[Effect] = []
        self.tree = Tree(space, self.effects)
        self.items = Items(self.tree)
        self.quotas = Quotas(self.items)
        self.watches = WatchTable()
        self.clients: set[Client] = set()
        self.heard: dict[Client, None] = {}  # clients with new events in their outboxes
        self.rings: dict[int, Client] = {}  # by domid: those that are introduced, and domain 0's
        self.overrun: list[Client] = []  # those whose next event was more than they may be owed
        self.unsure: set[int] = set()  # domains at which somebody must look again
        self.resumed: set[int] = set()  # whose shutdown counts anew, whether or not it is news
        self.leaving: set[int] = set()  # domains of which the next sweep() removes more
        self.gone: list[int] = []  # for which @releaseDomain is due in this step
        self.came: list[int] = []  # for which @introduceDomain is due in this step
        self.domains: dict[int, domain.Known] = {}  # all that are known, as in the items
        self.actors: dict[int, set[int]] = {}  # target -> the domains that act for it
        self.ended: list[int] = []  # epochs of which no stream is needed any more
        self.resetting: list[int] = []  # domains whose ring's words are to be stored
        self.muted: list[Client] = []  # clients that are to be told so in their rings
        self.host = host
        self.services = services
        self.space = space
        self.isolation = Isolation(self)
        self._first_event: Watch | None = None
        self._author: Client | None = None  # whose request is being executed

    # -- starting

    def populate(self) -> list[Effect]:
        """Make the first nodes of an empty store; returns the effects."""
        for text in (b"/", b"/tool", b"/tool/xenstored"):
            ordinal = self.tree.next_ordinal()
            node = Node(b"", from_wire(b"n0\0"), ordinal)
            if text == b"/":
                self.tree.adopt({paths.ROOT: node}, {})
                self.effects.append(Put(paths.ROOT, None, node, fires=False))
            else:
                self.tree.create(paths.parse(text, b""), node, fires=False)
        return self.take_effects()

    def resume(self) -> None:
        """Go on after items and tree were restored."""
        self.isolation.resume()
        domain.restore(self)

    def resume_clients(self, clients: dict[int, Client]) -> list[str]:
        """Give restored durable clients, by epoch, their watches and transactions back. Returns
        the keys of items of epochs that nobody has any more."""
        orphans: list[str] = []
        ordinals: list[tuple[int, Client, str]] = []
        transactions: dict[tuple[int, int], dict[int, Item]] = {}
        for key, value in list(self.items.values.items()):
            kind, *numbers = key.split(".")
            if kind not in ("watch", "tx"):
                continue
            epoch, number, *rest = map(int, numbers)
            if epoch not in clients:
                orphans.append(key)
            elif kind == "watch":
                ordinals.append((number, clients[epoch], key))
            else:
                transactions.setdefault((epoch, number), {})[rest[0] if rest else -1] = value
        for ordinal, client, key in sorted(ordinals, key=lambda one: one[0]):
            path, token, hidden, depth = cast("tuple[Path, bytes, int, int]",
                                              self.items.get(key))
            watch = Watch(client, path, token, hidden, depth if depth >= 0 else None, ordinal)
            client.watches[path, token] = watch
            self.watches.add(watch)
        for (epoch, tx_id), entries in sorted(transactions.items()):
            if sorted(entries) != list(range(-1, len(entries) - 1)):  # damage has taken some of it
                orphans += [f"tx.{epoch}.{tx_id}" + (f".{number}" if number >= 0 else "")
                            for number in entries]
                continue
            self.isolation.restore(clients[epoch], tx_id, entries)
        return orphans

    def drop_items(self, keys: list[str]) -> list[Effect]:
        """A step: forget items."""
        for key in keys:
            self.items.note(key, None)
        return self.take_effects()

    # -- one step

    def handle(self, client: Client, request: Request) -> list[Effect]:
        """Execute one request: packets go to outboxes; returns the effects."""
        op = OPS.get(request[0])
        self._author = client
        try:
            if op is None:
                raise Enosys
            if op.privileged and not client.privileged:
                raise Eacces
            if request[2] and op.uses_tx:
                answer = self.isolation.handle(client, op, request)
            else:
                answer = op.handler(self, client, self.tree, request[3])
        except XsError as error:
            assert not self.effects, f"{type(error).__name__} after a change"
            client.outbox.append(wire.error(request, error.name))
            return []
        packet = (wire.reply(request, answer) if isinstance(answer, bytes)
                  else wire.error(request, answer.name))
        if not self.effects:
            client.outbox.append(packet)
            if self._first_event is not None:
                self._send_first_event()
            return self.settle() if self.overrun else []
        self._fire_effects()
        client.outbox.append(packet)
        if self._first_event is not None:
            self._send_first_event()
        return self.settle()

    def settle(self) -> list[Effect]:
        """End a step: connections that are owed too much now are muted. Returns its effects."""
        if not self.effects and not self.overrun:
            return []
        while self.overrun:  # of the rings: see guests.Ledger
            client = self.overrun.pop()
            if self.rings.get(client.domid) is client and not client.error:
                self.services.warn(f"domain {client.domid} reads too slowly: it is ignored")
                domain.mute(self, client.domid, ERROR_COMM)
        return self.take_effects()

    # -- steps of the server's own

    def leave(self, domid: int) -> None:
        """Part of a step: a domain is gone or released."""
        if domain.leave(self, domid, self.space.step_bytes // 2):
            self.leaving.discard(domid)
            self.gone.append(domid)
        elif domain.known(self, domid) is not None:
            self.leaving.add(domid)
        else:
            self.leaving.discard(domid)

    def sweep(self, domid: int) -> list[Effect]:
        """A step: remove more of a domain that is LEAVING."""
        self._author = None
        self.leave(domid)
        self._fire_effects()
        return self.settle()

    def mute(self, domid: int, code: int) -> list[Effect]:
        """A step: a ring has broken the rules."""
        domain.mute(self, domid, code)
        return self.settle()

    def look(self, domid: int) -> bool:
        """Part of a step: look at the state of a known domain. Whether @releaseDomain is due for
        its shutdown; that it is gone, leave() tells."""
        one = domain.known(self, domid)
        if one is None or domid == 0 or one.state == domain.LEAVING:
            return False
        try:
            state = self.host.look(domid)
        except Enomem:
            self.unsure.add(domid)  # the machine cannot tell now
            return False
        if domain.is_other(one, state):
            self.leave(domid)
            return False
        assert state is not None
        if one.identity == 0 and state.identity:
            domain.put(self, domid, one._replace(identity=state.identity))
        return domain.shut_down(self, domid, state.is_shutdown)

    def look_at(self, domids: list[int]) -> list[Effect]:
        """A step: look at the state of these domains, from the end of the list, which is shortened
        by those that were looked at: one that is gone may be enough for one step."""
        self._author = None
        room, counted = self.space.step_bytes // 16, 0
        for _ in range(min(len(domids), LOOKS_PER_STEP)):
            domid = domids.pop()
            if self.look(domid):
                self.gone.append(domid)
            room -= sum(effect.log_bytes() for effect in self.effects[counted:])
            counted = len(self.effects)
            if room <= 0:
                break
        self._fire_effects()
        return self.settle()

    def reset_rings(self, domids: list[int]) -> list[Effect]:
        """A step: the ring's words of these have been stored."""
        for domid in domids:
            domain.connected(self, domid)
        return self.take_effects()

    def take_effects(self) -> list[Effect]:
        """The effects of the step that has just ended."""
        effects = self.effects[:]
        self.effects.clear()
        return effects

    def disconnect(self, client: Client) -> None:
        """Forget a client: its watches and open transactions end with it."""
        self.drop_watches(client)
        self.drop_transactions(client)
        client.take_outbox()
        if client.is_durable:
            self.ended.append(client.conn_id)
        self.clients.discard(client)
        self.heard.pop(client, None)

    # -- transactions: isolation.py

    def start_transaction(self, client: Client) -> int:
        """A new transaction's id. Raises Enospc."""
        return self.isolation.start(client)

    def drop_transactions(self, client: Client) -> None:
        """Forget all open transactions of a client."""
        for tx in list(client.transactions.values()):
            self.isolation.close(client, tx)

    # -- watches

    def admit_item(self, client: Client, size: int) -> None:
        """Raise Enospc if a durable client may not keep `size` bytes more, or if dropping all
        that it keeps would not fit one step any more."""
        kept = len(client.watches) + sum(len(tx.told) + 1 for tx in client.transactions.values())
        if kept * KEPT_ITEM_BYTES > self.space.step_bytes // 2:
            raise Enospc
        self.tree.admit(size)

    def add_watch(self, watch: Watch) -> None:
        """Register, with the first event due behind the reply. Raises Enospc."""
        client = watch.client
        if client.is_durable:
            self.admit_item(client, item_bytes(watch.key, watch.pack()))
            self.items.note(watch.key, watch.pack())
        client.watches[watch.path, watch.token] = watch
        self.watches.add(watch)
        self._first_event = watch

    def drop_watch(self, watch: Watch) -> None:
        """Forget a watch."""
        client = watch.client
        del client.watches[watch.path, watch.token]
        self.watches.remove(watch)
        if client.is_durable:
            self.items.note(watch.key, None)

    def drop_watches(self, client: Client) -> None:
        """Forget all watches of a client."""
        for watch in list(client.watches.values()):
            self.drop_watch(watch)

    def _send_first_event(self) -> None:
        watch, self._first_event = self._first_event, None
        if watch is not None:
            packet = watch.event(watch.path)
            if packet is not None:
                # Always, even if an equal one waits: it answers this WATCH.
                watch.client.queue_event(packet, is_special=True)

    def send_event(self, watch: Watch, path: bytes, is_special: bool) -> None:
        """Queue one event for a watch; one that would be too long is dropped (XSA-324)."""
        packet = watch.event(path)
        client = watch.client
        if packet is not None and client.queue_event(packet, is_special):
            self.heard[client] = None

    def _fire_effects(self) -> None:
        """Tell watches of what the step has done, and of the domains that are gone by it."""
        if self.watches.by_path:
            for effect in self.effects:
                self._fire_effect(effect)
            domain.fire_domains(self)
        if self._author is not None and not self._author.privileged:
            self.isolation.note_writers(self._author, self.effects)
        self.gone.clear()
        self.came.clear()

    def _fire_effect(self, effect: Effect) -> None:
        if isinstance(effect, Put):
            if effect.fires:
                self.fire(effect.path, False, effect.before, effect.after)
        elif isinstance(effect, Cut) and effect.fires:
            by_path = self.watches.by_path
            watched = [pair for pair in effect.removed[:-1] if pair[0] in by_path]
            gone = dict(effect.removed) if watched else {}  # once, however many watches hear
            for path, node in watched:
                self.fire(path, True, node, None, gone.get(paths.parent(path)))
            self.fire(effect.path, False, effect.removed[-1][1], None)

    def fire(self, path: Path, exact: bool, before: Node | None, after: Node | None,
              gone_parent: Node | None = None) -> None:
        """Tell the watches of `path` (exact: only those on itself) that it was changed."""
        for watch in self.watches.exact(path) if exact else self.watches.matching(path):
            client = watch.client
            if client.privileged or self._may_hear(client, path, before, after, gone_parent):
                self.send_event(watch, path, is_special=False)

    def _may_hear(self, client: Client, path: Path, before: Node | None, after: Node | None,
                  gone_parent: Node | None) -> bool:
        """Whether the client may read the node, with its old or its new rights, or its parent
        (XSA-115). What was removed is judged by its last rights."""
        parent = self.tree.get(paths.parent(path)) if path != paths.ROOT else None
        return any(node.perms.allows(client.domid, client.target, READ)
                   for node in (before, after, parent or gone_parent) if node is not None)

    # -- questions of handlers

    def is_domain(self, domid: int) -> bool:
        """Whether there is a domain `domid`."""
        return domain.exists(self, domid)

    def check_memory(self, client: Client, node_bytes: int) -> None:
        """Raise Enomem if the client's nodes (`node_bytes`), watches and transactions together
        are more than its domain's memory quota."""
        used = node_bytes + sum(watch.cost() for watch in client.watches.values())
        used += sum(tx.cost for tx in client.transactions.values())
        if used > self.quotas.limit("memory", client.domid):
            raise Enomem

    def usage(self, domid: int) -> dict[str, int]:
        """What a domain uses of its quotas."""
        own = [client for client in self.clients if client.domid == domid]
        return {
            "nodes": self.tree.owned_count(domid),
            "watches": sum(len(client.watches) for client in own),
            "transactions": sum(len(client.transactions) for client in own),
            "outstanding": sum(len(client.outbox) for client in own),
            "memory": self.tree.owned_size(domid),
        }

    def report(self) -> str:
        """Sizes of the state, as text."""
        watches = sum(len(client.watches) for client in self.clients)
        open_tx = sum(len(client.transactions) for client in self.clients)
        return (f"nodes: {len(self.tree.nodes)}\ndirectories: {len(self.tree.dirs)}\n"
                f"live bytes: {self.tree.bytes} of {self.space.log_bytes}\n"
                f"clients: {len(self.clients)}\nwatches: {watches}\n"
                f"open transactions: {open_tx}\n")

    def check(self) -> str | None:
        """Compare the indices with the nodes; None, or the first difference. O(nodes)."""
        return self.tree.check()
