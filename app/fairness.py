# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: guests that make others' transactions fail wait a moment (XSA-206).

W1. Each guest may cause CREDIT_MAX conflicts at once; a credit comes back every REFILL_S. Without
    credit its requests stay in its ring. So a transaction that is tried again gets through in
    bounded time, whatever guests write meanwhile; and a guest that hurts nobody never waits.
W2. Domain 0 is never held back.
The clock is passed in. Knows nothing of rings."""

from __future__ import annotations

CREDIT_MAX = 5.0
REFILL_S = 0.05


class Credits:
    """Credit per domain; only those that have spent some are listed."""

    def __init__(self) -> None:
        self.spent: dict[int, tuple[float, float]] = {}  # domid -> credit, at what time

    def charge(self, guilty: set[int], now_s: float) -> None:
        """These domains have made a commit fail."""
        for domid in guilty:
            if domid != 0:
                self.spent[domid] = (max(self._credit(domid, now_s) - 1.0, 0.0), now_s)

    def wait_s(self, domid: int, now_s: float) -> float:
        """How long the domain is to wait before its next request; 0 almost always."""
        if domid not in self.spent:
            return 0.0
        credit = self._credit(domid, now_s)
        if credit >= CREDIT_MAX:
            del self.spent[domid]
        return max(0.0, (1.0 - credit) * REFILL_S) if credit < 1.0 else 0.0

    def _credit(self, domid: int, now_s: float) -> float:
        credit, since_s = self.spent.get(domid, (CREDIT_MAX, now_s))
        return min(CREDIT_MAX, credit + (now_s - since_s) / REFILL_S)
