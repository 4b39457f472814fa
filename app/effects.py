# SPDX-License-Identifier: Apache-2.0
"""What a step changed, in absolute terms: what the journal records and watches fire for.

F1. An effect says what is there afterwards, never a difference: replaying it twice is harmless.
F2. Effects are listed in the order in which they were made.
Knows nothing of how they are stored or delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from app.path import Path

if TYPE_CHECKING:
    from app.tree import Node

# What an item may hold; None at the top: no such item.
Item: TypeAlias = "int | str | bytes | tuple[Item, ...] | None"


EFFECT_OVERHEAD = 64  # bytes beyond path, value and perms, with the request's own, at most


def value_bytes(value: Item) -> int:
    """An upper bound of what an item's value takes in a record."""
    if type(value) is tuple:
        return 5 + sum([5 + len(one) if type(one) is bytes else value_bytes(one)
                        for one in value])
    if type(value) is bytes:
        return 5 + len(value)
    return 5 + 4 * len(value) if type(value) is str else 9


class Put:
    """Node `path` now is `after`; it was `before` (None: it was not there)."""

    __slots__ = ("after", "before", "fires", "path")

    def __init__(self, path: Path, before: Node | None, after: Node, fires: bool) -> None:
        self.path = path
        self.before = before
        self.after = after
        self.fires = fires  # whether watches hear of it; implicit parents are silent

    def log_bytes(self) -> int:
        """An upper bound of what this takes in a record."""
        return EFFECT_OVERHEAD + len(self.path) + len(self.after.value) + len(self.after.perms.wire)


class Cut:
    """Node `path` and all below it are gone. `removed`: children first, `path` itself last."""

    __slots__ = ("fires", "path", "removed")

    def __init__(self, path: Path, removed: list[tuple[Path, Node]], fires: bool) -> None:
        self.path = path
        self.removed = removed
        self.fires = fires

    def log_bytes(self) -> int:
        """An upper bound of what this takes in a record."""
        return EFFECT_OVERHEAD + len(self.path)


class SetItem:
    """Item `key` of the small state now is `after` (None: it is gone); it was `before`. `size`: an
    upper bound of the bytes of `after` in a record."""

    __slots__ = ("after", "before", "key", "size")

    def __init__(self, key: str, before: Item, after: Item, size: int) -> None:
        self.key = key
        self.before = before
        self.after = after
        self.size = size

    def log_bytes(self) -> int:
        """An upper bound of what this takes in a record."""
        return EFFECT_OVERHEAD + len(self.key) + self.size


Effect = Put | Cut | SetItem
