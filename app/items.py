# SPDX-License-Identifier: Apache-2.0
"""The small durable state beside the tree: named items. Quotas, domains, next ids, specials.

I1. Whatever must come back after a crash and is no node is an item, and changes only by put().
Keys: "quota.NAME", "quota.DOMID.NAME", "domain.DOMID.features", "special.@NAME", "next.NAME".
Knows nothing of what the values mean."""

from __future__ import annotations

from app.effects import Item, SetItem
from app.tree import Tree

ITEM_OVERHEAD = 48  # bytes in the log beyond key and value, at most


def item_bytes(key: str, value: Item) -> int:
    """An upper bound of what one item takes in the log."""
    size = len(value) if isinstance(value, (str, bytes)) else 0
    size += 9 * len(value) if isinstance(value, tuple) else 0
    return len(key) + size + ITEM_OVERHEAD


class Items:
    """Key -> value. The tree has the account of the current step: its effects, its changes."""

    def __init__(self, tree: Tree) -> None:
        self.values: dict[str, Item] = {}
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
        before = self.values.get(key)
        if before != value:
            self.restore(key, value)
            self._tree.changes += 1
            self._tree.effects.append(SetItem(key, before, value))

    def restore(self, key: str, value: Item) -> None:
        """Change an item without an effect: for replay."""
        before = self.values.pop(key, None)
        if before is not None:
            self._tree.space.items_bytes -= item_bytes(key, before)
        if value is not None:
            self.values[key] = value
            self._tree.space.items_bytes += item_bytes(key, value)

    def with_prefix(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`."""
        return [key for key in self.values if key.startswith(prefix)]
