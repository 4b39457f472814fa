# SPDX-License-Identifier: Apache-2.0
"""Limits of the unprivileged: names, defaults, global values and those of single domains.

Q1. A limit of N means that N are allowed and N + 1 are not (the peers are off by one, each in
    its own way); 0 means no limit.
Q2. Values live in the items, so that they survive like everything else.
Source of names and defaults: C xenstored. Knows nothing of how usage is counted."""

from __future__ import annotations

from app.items import Items

UNLIMITED = 1 << 62
KEPT_MAX = 1 << 15  # limits that were looked up already
RECORD_HEADER = 24  # of C xenstored's node record, which node-size counts
RECORD_PERM = 8  # per permission entry, likewise

DEFAULTS = {
    "nodes": 1000,
    "watches": 128,
    "transactions": 10,
    "outstanding": 20,
    "memory": 2621440,
    "soft-memory": 2097152,
    "transaction-nodes": 1024,
    "node-permissions": 5,
    "path-max": 2048,
    "node-size": 2048,
}
MEANINGS = {
    "nodes": "Nodes per domain",
    "watches": "Watches per domain",
    "transactions": "Transactions per domain",
    "outstanding": "Outstanding requests per domain",
    "memory": "Total Xenstore memory per domain (error level)",
    "soft-memory": "Total Xenstore memory per domain (warning level)",
    "transaction-nodes": "Max. number of accessed nodes per transaction",
    "node-permissions": "Max. number of permissions per node",
    "path-max": "Max. length of a node path",
    "node-size": "Max. size of a node",
}
assert DEFAULTS.keys() == MEANINGS.keys()


class Quotas:
    """All limits. Names are those of DEFAULTS; anything else is the caller's to refuse."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._limits: dict[tuple[str, int], int] = {}  # as limit() found them; see put()

    def value(self, name: str, domid: int | None = None) -> int:
        """The value as set, 0 for no limit: the domain's own if it has one, else the global."""
        if domid is not None:
            own = self._items.get(f"quota.{domid}.{name}")
            if isinstance(own, int):
                return own
        return self._items.number(f"quota.{name}", DEFAULTS[name])

    def limit(self, name: str, domid: int) -> int:
        """The value to compare with: UNLIMITED where there is no limit."""
        limit = self._limits.get((name, domid))
        if limit is None:
            if len(self._limits) >= KEPT_MAX:
                self._limits.clear()
            limit = self._limits[name, domid] = self.value(name, domid) or UNLIMITED
        return limit

    def put(self, name: str, value: int, domid: int | None = None) -> None:
        """Set a global value or a domain's own."""
        self._limits.clear()
        self._items.put(f"quota.{name}" if domid is None else f"quota.{domid}.{name}", value)

    def forget(self, domid: int) -> None:
        """Drop a domain's own values."""
        self._limits.clear()
        for name in DEFAULTS:
            self._items.put(f"quota.{domid}.{name}", None)
