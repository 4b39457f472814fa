# SPDX-License-Identifier: Apache-2.0
"""One client as the core sees it: who it is, and what belongs to its connection.

K1. An event that waits in the outbox is not queued again, unless it is special: a slow reader
    gets it once, as from C xenstored.
K2. The outbox holds whole packets in the order in which the client must see them; the turn
    publishes them after the commit point, never before.
K3. What belongs to a durable client (a ring) is kept in items under its conn_id, which then is
    an epoch: never given out twice. What belongs to a socket ends with it.
Knows nothing of sockets and rings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import path as paths
from app.path import Path

if TYPE_CHECKING:
    from app.transaction import Transaction
    from app.watch import Watch

NO_TARGET = -1


class Client:
    """A connection's identity, watches, open transactions and packets to be sent."""

    is_durable = False

    __slots__ = ("base", "conn_id", "domid", "error", "outbox", "pid", "privileged",
                 "queued_events", "target", "transactions", "watches")

    def __init__(self, conn_id: int, domid: int, privileged: bool, pid: int = 0) -> None:
        self.conn_id = conn_id
        self.domid = domid
        self.privileged = privileged
        self.pid = pid  # of a socket's peer, for the history; 0 if unknown
        self.target = NO_TARGET
        self.error = 0  # of a ring that is ignored: what its error word says
        self.base = paths.home(domid)
        self.outbox: list[bytes] = []
        self.queued_events: set[bytes] = set()  # those in the outbox (K1)
        self.watches: dict[tuple[Path, bytes], Watch] = {}
        self.transactions: dict[int, Transaction] = {}

    def queue_event(self, packet: bytes, is_special: bool) -> bool:
        """Put an event into the outbox, unless it waits there already; whether it was put."""
        if not is_special:
            if packet in self.queued_events:
                return False
            self.queued_events.add(packet)
        self.outbox.append(packet)
        return True

    def take_outbox(self) -> bytes:
        """All packets of the outbox, joined; it is empty afterwards."""
        outbox = self.outbox
        data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
        outbox.clear()
        if self.queued_events:
            self.queued_events.clear()
        return data
