# SPDX-License-Identifier: Apache-2.0
"""State + request -> state, packets and effects. The only place where state changes.

B1. handle() is one step: it succeeds with all its effects, or answers an error and has none.
B2. Events go into outboxes before the reply of the request that caused them; a WATCH's own first
    event goes behind its OK. (C xenstored's order.)
B3. No clock, no randomness, no I/O: the same requests give the same state and the same packets.
Knows nothing of sockets, rings and logs. Change with: journal.py, which restores this state."""

from __future__ import annotations

from app import path as paths
from app import wire
from app.client import Client
from app.control import Services
from app.effects import Cut, Effect, Put
from app.errors import Eacces, Eagain, Ebusy, Einval, Enoent, Enomem, Enospc, Enosys, XsError
from app.host import Host
from app.items import Items
from app.ops import OPS, Op
from app.path import Path
from app.perms import READ, from_wire
from app.quota import Quotas
from app.transaction import TOLD_MAX, Overlay, Transaction, digest_answer
from app.tree import Node, Space, Tree
from app.watch import Watch, WatchTable
from app.wire import Request

TX_ID_BLOCK = 1024  # ids set aside by one durable change
TX_ID_MASK = 0xFFFFFFFF


class Store:
    """The whole state of the server, and what happens to it."""

    def __init__(self, space: Space, host: Host, services: Services) -> None:
        self.effects: list[Effect] = []
        self.tree = Tree(space, self.effects)
        self.items = Items(self.tree)
        self.quotas = Quotas(self.items)
        self.watches = WatchTable()
        self.clients: set[Client] = set()
        self.heard: set[Client] = set()  # clients with new events in their outboxes
        self.host = host
        self.services = services
        self._space = space
        self._next_tx_id = 0
        self._first_event: Watch | None = None

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
        self._next_tx_id = self.items.number("next.tx", 0)

    # -- one step

    def handle(self, client: Client, request: Request) -> list[Effect]:
        """Execute one request: packets go to outboxes; returns the effects."""
        op = OPS.get(request[0])
        try:
            if op is None:
                raise Enosys
            if op.privileged and not client.privileged:
                raise Eacces
            if request[2] and op.uses_tx:
                payload = self._handle_in_transaction(client, op, request)
            else:
                payload = op.handler(self, client, self.tree, request[3])
        except XsError as error:
            assert not self.effects, f"{type(error).__name__} after a change"
            client.outbox.append(wire.error(request, error.name))
            return []
        if not self.effects:
            client.outbox.append(wire.reply(request, payload))
            if self._first_event is not None:
                self._send_first_event()
            return []
        effects = self.take_effects()
        if self.watches.by_path:
            for effect in effects:
                self._fire_effect(effect)
        client.outbox.append(wire.reply(request, payload))
        return effects

    def take_effects(self) -> list[Effect]:
        """The effects of the step that has just ended."""
        effects = self.effects[:]
        self.effects.clear()
        return effects

    def disconnect(self, client: Client) -> None:
        """Forget a client: its watches and open transactions end with it."""
        self.drop_watches(client)
        client.transactions.clear()
        client.take_outbox()
        self.clients.discard(client)
        self.heard.discard(client)

    # -- transactions

    def start_transaction(self, client: Client) -> int:
        """A new transaction's id. Ids are set aside in blocks, durably, before the first of them
        is used: so none is ever given out again, in no life."""
        while True:
            if self._next_tx_id >= self.items.number("next.tx", 0):
                self.items.put("next.tx", self._next_tx_id + TX_ID_BLOCK)
            self._next_tx_id += 1
            tx_id = self._next_tx_id & TX_ID_MASK
            if tx_id and tx_id not in client.transactions:
                limit = None if client.privileged else (
                    self.quotas.limit("transaction-nodes", client.domid))
                client.transactions[tx_id] = Transaction(tx_id, self.tree, limit)
                return tx_id

    def _handle_in_transaction(self, client: Client, op: Op, request: Request) -> bytes:
        tx = client.transactions.get(request.tx_id)
        if tx is None:
            raise Enoent
        if request.type == wire.XS_TRANSACTION_START:
            raise Ebusy
        if request.type == wire.XS_TRANSACTION_END:
            if request.payload not in (b"T\0", b"F\0"):
                raise Einval
            del client.transactions[request.tx_id]
            if request.payload == b"T\0":
                self._commit(client, tx)
            return wire.OK
        if len(tx.told) >= TOLD_MAX:
            tx.overlay.poison()
            raise Enospc
        if not client.privileged:
            self._limit_transaction(client, tx)
        answer, seen = _run(self, client, op, tx.overlay, request.type, request.payload)
        tx.remember(request.type, request.payload, seen)
        if isinstance(answer, bytes):
            return answer
        raise answer

    def _limit_transaction(self, client: Client, tx: Transaction) -> None:
        """Raise Enomem if the transactions have become too large for the domain's memory."""
        try:
            self.check_memory(client, self.tree.owned_size(client.domid))
        except XsError:
            tx.overlay.poison()
            raise

    def _commit(self, client: Client, tx: Transaction) -> None:
        overlay = tx.overlay
        if overlay.poisoned:
            raise Enomem
        if tx.base_changes != self.tree.changes:
            overlay = self._run_again(client, tx)
        if overlay.step_bytes() > self._space.step_bytes:
            raise Enospc
        for path, exact, before, after in overlay.apply():
            self._fire(path, exact, before, after)

    def _run_again(self, client: Client, tx: Transaction) -> Overlay:
        """The conflict rule: run the transaction's requests now; any other answer is EAGAIN.

        A quota that has been used up meanwhile is told as such: another try would not help."""
        overlay = Overlay(self.tree, tx.overlay.touch_limit)
        for told in tx.told:
            answer, seen = _run(self, client, OPS[told.type], overlay, told.type, told.payload)
            if seen != told.answer:
                raise answer if answer in (Enospc, Enomem) else Eagain
        return overlay

    # -- watches

    def add_watch(self, watch: Watch) -> None:
        """Register, with the first event due behind the reply."""
        watch.client.watches[watch.path, watch.token] = watch
        self.watches.add(watch)
        self._first_event = watch

    def drop_watches(self, client: Client) -> None:
        """Forget all watches of a client."""
        for watch in client.watches.values():
            self.watches.remove(watch)
        client.watches.clear()

    def _send_first_event(self) -> None:
        watch, self._first_event = self._first_event, None
        if watch is not None:
            packet = watch.event(watch.path)
            if packet is not None:
                # Always, even if an equal one waits: it answers this WATCH.
                watch.client.queue_event(packet, is_special=True)

    def _fire_effect(self, effect: Effect) -> None:
        if isinstance(effect, Put):
            if effect.fires:
                self._fire(effect.path, False, effect.before, effect.after)
        elif isinstance(effect, Cut) and effect.fires:
            by_path = self.watches.by_path
            watched = [pair for pair in effect.removed[:-1] if pair[0] in by_path]
            gone = dict(effect.removed) if watched else {}  # once, however many watches hear
            for path, node in watched:
                self._fire(path, True, node, None, gone.get(paths.parent(path)))
            self._fire(effect.path, False, effect.removed[-1][1], None)

    def _fire(self, path: Path, exact: bool, before: Node | None, after: Node | None,
              gone_parent: Node | None = None) -> None:
        """Tell the watches of `path` (exact: only those on itself) that it was changed."""
        for watch in self.watches.exact(path) if exact else self.watches.matching(path):
            client = watch.client
            if client.privileged or self._may_hear(client, path, before, after, gone_parent):
                packet = watch.event(path)
                if packet is not None and client.queue_event(packet, is_special=False):
                    self.heard.add(client)

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
        return domid == 0 or self.host.exists(domid)

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
                f"live bytes: {self.tree.bytes} of {self._space.log_bytes}\n"
                f"clients: {len(self.clients)}\nwatches: {watches}\n"
                f"open transactions: {open_tx}\n")

    def check(self) -> str | None:
        """Compare the indices with the nodes; None, or the first difference. O(nodes)."""
        return self.tree.check()


def _run(store: Store, client: Client, op: Op, overlay: Overlay, type_: int,
         payload: bytes) -> tuple[bytes | type[XsError], bytes]:
    """One request inside a transaction: its answer, and what of it a commit must find again.

    An error is returned as its type: the exception itself holds frames, and would be a cycle."""
    overlay.observed.clear()
    try:
        answer = op.handler(store, client, overlay, payload)
    except XsError as error:
        return type(error), digest_answer(b"!", error.name, overlay.observed)
    told = answer.partition(b"\0")[2] if type_ == wire.XS_DIRECTORY_PART else answer
    return answer, digest_answer(b"=", told, overlay.observed)
