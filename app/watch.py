# SPDX-License-Identifier: Apache-2.0
"""Watches by path: which of them a changed path reaches, and what event each gets.

H1. Matching costs a walk over the ancestors of the changed path, however many watches there are.
H2. Of several watches that match, the one registered first hears first.
H3. A watch set by a relative path hears relative paths; matching is on canonical ones.
H4. Ordinals come from the tree's one counter: so the order of H2 survives a crash.
Knows nothing of permissions and connections' queues: the store delivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import wire
from app.path import Path

if TYPE_CHECKING:
    from app.client import Client


class Watch:
    """One registration. `hidden` leading bytes of the path stay out of its events; `depth` is
    how many levels below the path are heard (None: all)."""

    __slots__ = ("client", "depth", "hidden", "ordinal", "path", "token")

    def __init__(self, client: Client, path: Path, token: bytes, hidden: int,
                 depth: int | None, ordinal: int) -> None:
        self.client = client
        self.path = path
        self.token = token
        self.hidden = hidden
        self.depth = depth
        self.ordinal = ordinal

    def hears(self, path: bytes) -> bool:
        """Whether the depth allows `path`, which is the watch's own or below it."""
        if self.depth is None:
            return True
        own = 0 if self.path == b"/" else self.path.count(b"/")
        below = 0 if path == b"/" else path.count(b"/")
        return below - own <= self.depth

    def event(self, path: bytes) -> bytes | None:
        """The packet for `path`; None if it would be too long to send (XSA-324)."""
        return wire.event(path[self.hidden:], self.token)

    def cost(self) -> int:
        """Bytes that the watch counts in its domain's memory quota."""
        return len(self.path) + len(self.token) + 128

    @property
    def key(self) -> str:
        """The item that keeps it, if its client is durable."""
        return f"watch.{self.client.conn_id}.{self.ordinal}"

    def pack(self) -> tuple[bytes, bytes, int, int]:
        """The item's value."""
        return self.path, self.token, self.hidden, -1 if self.depth is None else self.depth


class WatchTable:
    """All watches of all clients."""

    def __init__(self) -> None:
        self.by_path: dict[Path, dict[Watch, None]] = {}

    def add(self, watch: Watch) -> None:
        """Register. Of one path's watches, in the order of their ordinals."""
        self.by_path.setdefault(watch.path, {})[watch] = None

    def remove(self, watch: Watch) -> None:
        """Forget a registered watch."""
        watches = self.by_path[watch.path]
        del watches[watch]
        if not watches:
            del self.by_path[watch.path]

    def matching(self, path: Path) -> list[Watch]:
        """The watches that hear of a change of node `path`, in order of registration."""
        by_path = self.by_path
        found: list[Watch] = []
        one: bytes = path
        while True:
            watches = by_path.get(one)  # type: ignore[call-overload]
            if watches is not None:
                found += watches if one is path else [w for w in watches if w.hears(path)]
            if one == b"/":
                break
            one = one[:one.rfind(b"/")] or b"/"
        if len(found) > 1:
            found.sort(key=_ordinal)
        return found

    def exact(self, path: Path) -> list[Watch]:
        """The watches on node `path` itself, in order of registration."""
        return list(self.by_path.get(path, ()))


def _ordinal(watch: Watch) -> int:
    return watch.ordinal
