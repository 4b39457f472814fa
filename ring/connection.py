# SPDX-License-Identifier: Apache-2.0
"""One guest's ring: both queues, the words beside them, and how a connection begins.

C1. reset() makes a ring that has seen nothing. It is repeated if we die inside: so it must be
    over, and logged, before the guest may be answered on it.
C2. A ring that broke the rules is told so in the error word and is not touched any more.
C3. Feature bits are only ever added while a guest runs.
Knows nothing of logs. Change with: delivery.py."""

from __future__ import annotations

from ring import layout
from ring.page import Page
from ring.queue import RequestQueue, ResponseQueue


class Ring:
    """A mapped ring that stands at two 64-bit stream positions."""

    __slots__ = ("page", "requests", "responses")

    def __init__(self, page: Page, consumed: int, sent: int) -> None:
        self.page = page
        self.requests = RequestQueue(page, consumed)
        self.responses = ResponseQueue(page, sent)

    def reset(self, features: int) -> None:
        """Begin anew: both queues empty, at position 0.

        The producer and consumer of a direction differ for a moment: the guest, which is only being
        introduced, does not look before the connection word says so."""
        store = self.page.store
        for offset in (layout.REQ_CONS, layout.REQ_PROD, layout.RSP_CONS, layout.RSP_PROD):
            store(offset, 0)
        store(layout.ERROR, layout.ERROR_NONE)
        store(layout.SERVER_FEATURES, features)
        store(layout.CONNECTION, layout.CONNECTED)
        self.requests.position = 0
        self.responses.position = 0

    def offer(self, features: int) -> None:
        """Say what the server can do."""
        before = self.page.load(layout.SERVER_FEATURES)
        if before | features != before:
            self.page.store(layout.SERVER_FEATURES, before | features)

    def fail(self, code: int) -> None:
        """Tell the guest that it is not listened to any more, and why."""
        self.page.store(layout.ERROR, code)
