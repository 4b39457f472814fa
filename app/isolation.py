# SPDX-License-Identifier: Apache-2.0
"""Requests inside transactions: executed on their view, kept durable, committed or refused.

D1. An id is never given out again, in no life: ids are set aside in blocks, durably, first.
D2. What a durable client's transaction was told is an item before the answer is sent.
D3. A commit that fails names who is to blame: whose writes changed the one answer that would be
    another now (XSA-206). Each write is blamed once: nobody is made to pay for more than it did.
The conflict rule is in transaction.py. Part of the store: changes its tree and items."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from app import path as paths
from app import wire
from app.args import Op
from app.effects import Cut, Effect, SetItem
from app.errors import Eagain, Ebusy, Einval, Enoent, Enomem, Enospc, XsError
from app.items import item_bytes
from app.ops import OPS
from app.path import Path
from app.transaction import TOLD_MAX, Overlay, Told, Transaction, digest_answer
from app.wire import Request

if TYPE_CHECKING:
    from app.client import Client
    from app.store import Store

TX_ID_BLOCK = 1024  # ids set aside by one durable change
TX_ID_MASK = 0xFFFFFFFF
GUEST_STEP_LEAST = 16 << 10  # bytes of effects that a guest's transaction may have at any rate
START_BYTES = 64  # of the item that an open transaction is
WRITERS_MAX = 4096  # changed paths remembered while transactions are open


class Isolation:
    """The open transactions of all clients of a store."""

    def __init__(self, store: Store) -> None:
        self.conflicts: list[set[int]] = []  # whose writes made a commit fail, per commit
        self._store = store
        self._next_tx_id = 0
        self._open_count = 0
        # Who changed what while transactions were open: nodes, and lists of children.
        self._writers: dict[bytes, int] = {}

    def resume(self) -> None:
        """Go on after items were restored."""
        self._next_tx_id = self._store.items.number("next.tx", 0)

    def restore(self, client: Client, tx_id: int, entries: dict[int, Any]) -> None:
        """An open transaction of a durable client, from its items; START is entry -1."""
        limit, is_poisoned = entries.pop(-1)
        tx = Transaction.unpack(tx_id, self._store.tree, limit if limit >= 0 else None,
                                [entries[number] for number in sorted(entries)])
        if is_poisoned:
            tx.overlay.poison()
        client.transactions[tx_id] = tx
        self._open_count += 1

    def start(self, client: Client) -> int:
        """A new transaction's id (D1). Raises Enospc."""
        store = self._store
        if client.is_durable:
            store.admit_item(client, START_BYTES)
        while True:
            if self._next_tx_id >= store.items.number("next.tx", 0):
                store.items.note("next.tx", self._next_tx_id + TX_ID_BLOCK)
            self._next_tx_id += 1
            tx_id = self._next_tx_id & TX_ID_MASK
            if tx_id and tx_id not in client.transactions:
                break
        limit = None if client.privileged else (
            store.quotas.limit("transaction-nodes", client.domid))
        if client.is_durable:
            store.items.note(f"tx.{client.conn_id}.{tx_id}", (-1 if limit is None else limit, 0))
        client.transactions[tx_id] = Transaction(tx_id, store.tree, limit)
        self._open_count += 1
        return tx_id

    def close(self, client: Client, tx: Transaction) -> None:
        """Forget an open transaction."""
        del client.transactions[tx.tx_id]
        self._open_count -= 1
        if not self._open_count:
            self._writers.clear()
        if client.is_durable:
            key = f"tx.{client.conn_id}.{tx.tx_id}"
            self._store.items.note(key, None)
            for number in range(len(tx.told)):
                self._store.items.note(f"{key}.{number}", None)

    def handle(self, client: Client, op: Op, request: Request) -> bytes | type[XsError]:
        """Execute a request whose tx_id counts: the answer, or the error. Raises an XsError only
        for what is not part of the transaction."""
        tx = client.transactions.get(request.tx_id)
        if tx is None:
            raise Enoent
        if request.type == wire.XS_TRANSACTION_START:
            raise Ebusy
        if request.type == wire.XS_TRANSACTION_END:
            if request.payload not in (b"T\0", b"F\0"):
                raise Einval
            outcome: bytes | type[XsError] = wire.OK
            if request.payload == b"T\0":
                outcome = self._commit(client, tx)
            self.close(client, tx)
            return outcome
        if len(tx.told) >= TOLD_MAX:
            return self._fail(client, tx, Enospc)
        if not client.privileged and self._is_too_large(client):
            return self._fail(client, tx, Enomem)
        answer, seen = _run(self._store, client, op, tx.overlay, request.type, request.payload)
        tx.remember(request.type, request.payload, seen)
        if client.is_durable and not self._keep_told(client, tx):
            return Enospc
        return answer

    def _keep_told(self, client: Client, tx: Transaction) -> bool:
        """Make the request that was just answered durable; False if there is no room: then the
        transaction has failed."""
        key = f"tx.{client.conn_id}.{tx.tx_id}"
        entry = tx.pack_last()
        try:
            self._store.admit_item(client, item_bytes(key, entry) + 8)
        except Enospc:
            tx.told.pop()
            self._fail(client, tx, Enospc)
            return False
        self._store.items.note(f"{key}.{len(tx.told) - 1}", entry)
        return True

    def _fail(self, client: Client, tx: Transaction, error: type[XsError]) -> type[XsError]:
        """The transaction has failed, durably: a request was refused that it has not been told."""
        tx.overlay.poison()
        if client.is_durable:
            limit = tx.overlay.touch_limit
            self._store.items.note(f"tx.{client.conn_id}.{tx.tx_id}",
                                   (-1 if limit is None else limit, 1))
        return error

    def _is_too_large(self, client: Client) -> bool:
        """Whether the transactions have become too large for the domain's memory."""
        try:
            self._store.check_memory(client, self._store.tree.owned_size(client.domid))
        except Enomem:
            return True
        return False

    def _commit(self, client: Client, tx: Transaction) -> bytes | type[XsError]:
        overlay = tx.overlay
        if overlay.poisoned:
            return Enomem
        try:
            if tx.base_changes != self._store.tree.changes:
                overlay = self._run_again(client, tx)
            most = self._store.space.step_bytes
            if not client.privileged:
                most = min(most, max(most // 16, GUEST_STEP_LEAST))  # domain 0 may hear of it all
            if overlay.step_bytes() > most:
                return Enospc
            heard = overlay.apply()
        except XsError as error:
            return type(error)
        for path, exact, before, after in heard:
            self._store.fire(path, exact, before, after)
        return wire.OK

    def _blame(self, client: Client, told: Told) -> None:
        """A request would be answered otherwise now: note which other domains changed its node, the
        list of its children, or what is above it."""
        text = told.payload.partition(b"\0")[0]
        if text.startswith(b"@"):
            return  # a special node: no guest's write changes it
        path = paths.parse(text, client.base)
        keys = [_listing_key(path), path]
        while path != paths.ROOT:
            path = paths.parent(path)
            keys.append(path)
        guilty = {self._writers.pop(key) for key in keys if key in self._writers}
        guilty.discard(client.domid)
        if guilty:
            self.conflicts.append(guilty)

    def note_writers(self, client: Client, effects: Iterable[Effect]) -> None:
        """A guest has changed something: remember it while it may make somebody's commit fail."""
        if client.privileged or not self._open_count:
            return
        if len(self._writers) >= WRITERS_MAX:
            self._writers.clear()  # who is blamed matters little; that memory is bounded does
        for effect in effects:
            if isinstance(effect, SetItem):
                continue
            self._writers[effect.path] = client.domid
            if isinstance(effect, Cut) or effect.before is None:
                self._writers[_listing_key(paths.parent(effect.path))] = client.domid

    def _run_again(self, client: Client, tx: Transaction) -> Overlay:
        """The conflict rule: run the transaction's requests now; any other answer is EAGAIN.

        A quota that has been used up meanwhile is told as such: another try would not help."""
        overlay = Overlay(self._store.tree, tx.overlay.touch_limit)
        for told in tx.told:
            answer, seen = _run(self._store, client, OPS[told.type], overlay, told.type,
                                told.payload)
            if seen != told.answer:
                if answer in (Enospc, Enomem):
                    raise answer
                self._blame(client, told)
                raise Eagain
        return overlay


def _listing_key(path: Path) -> bytes:
    return path + b"/"


def _run(store: Store, client: Client, op: Op, overlay: Overlay, type_: int,
         payload: bytes) -> tuple[bytes | type[XsError], bytes]:
    """One request inside a transaction: its answer, and what of it a commit must find again.

    An error is returned as its type: the exception itself holds frames, and would be a cycle."""
    overlay.observed.clear()
    try:
        answer = op.handler(store, client, overlay, payload)
        assert isinstance(answer, bytes)
    except XsError as error:
        return type(error), digest_answer(b"!", error.name, overlay.observed)
    told = answer.partition(b"\0")[2] if type_ == wire.XS_DIRECTORY_PART else answer
    return answer, digest_answer(b"=", told, overlay.observed)
