# SPDX-License-Identifier: Apache-2.0
"""The small durable state beside the tree: named items. Quotas, domains, next ids, specials.

I1. Whatever must come back after a crash and is no node is an item, and changes only by put().
I2. What answers may depend on counts as a change for open transactions; the bookkeeping of
    connections (watches, transactions, next ids) does not: note() instead of put().
Keys: "quota.NAME", "quota.DOMID.NAME", "domain.DOMID", "domain.DOMID.features", "special.@NAME",
"watch.EPOCH.ORDINAL", "tx.EPOCH.TX_ID", "tx.EPOCH.TX_ID.NUMBER", "suspect.WHAT", "last.death",
"next.NAME".
Knows nothing of what the values mean."""

from __future__ import annotations

from app.effects import Item, SetItem, value_bytes
from app.tree import Tree

ITEM_OVERHEAD = 48  # bytes in the log beyond key and value, at most


def item_bytes(key: str, value: Item) -> int:
    """An upper bound of what one item takes in the log."""
    return len(key) + value_bytes(value) + ITEM_OVERHEAD


def group_of(key: str) -> tuple[str, str]:
    """What belongs together: kind, and the number behind it if there is one. ("watch", "5") for
    "watch.5.17", ("quota", "") for "quota.nodes"."""
    kind, _, rest = key.partition(".")
    number, _, _ = rest.partition(".")
    return kind, number if number.isdigit() else ""


def grouped(values: dict[str, Item]) -> dict[tuple[str, str], dict[str, Item]]:
    """All items by group."""
    groups: dict[tuple[str, str], dict[str, Item]] = {}
    for key, value in values.items():
        groups.setdefault(group_of(key), {})[key] = value
    return groups


class Items:
    """Key -> value. The tree has the account of the current step: its effects, its changes."""

    def __init__(self, tree: Tree) -> None:
        self.values: dict[str, Item] = {}
        self.groups: dict[tuple[str, str], dict[str, Item]] = {}
        self._sizes: dict[str, int] = {}
        self._tree = tree

    def get(self, key: str) -> Item:
        """The value, or None."""
        return self.values.get(key)

    def number(self, key: str, default: int) -> int:
        """The value of an item that holds a number."""
        value = self.values.get(key)
        return value if isinstance(value, int) else default

    def put(self, key: str, value: Item) -> None:
        """Change an item, as part of the current step. None removes it."""
        if self.note(key, value):
            self._tree.changes += 1

    def note(self, key: str, value: Item) -> bool:
        """As put(), for what no answer depends on (I2). Whether anything changed."""
        before = self.values.get(key)
        if before == value:
            return False
        self.restore(key, value)
        self._tree.effects.append(SetItem(key, before, value, self._sizes.get(key, 0)))
        return True

    def restore(self, key: str, value: Item) -> None:
        """Change an item without an effect: for replay."""
        before, group = self.values.pop(key, None), group_of(key)
        if before is not None:
            self._tree.space.items_bytes -= len(key) + self._sizes.pop(key) + ITEM_OVERHEAD
            del self.groups[group][key]
        if value is not None:
            self.values[key] = value
            self.groups.setdefault(group, {})[key] = value
            size = self._sizes[key] = value_bytes(value)
            self._tree.space.items_bytes += len(key) + size + ITEM_OVERHEAD
        elif not self.groups.get(group, True):
            del self.groups[group]
