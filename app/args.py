# SPDX-License-Identifier: Apache-2.0
"""Arguments of requests, and how a handler is described. Raises Einval for what is malformed.

Knows nothing of what the arguments mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from app.client import Client
from app.errors import Einval, XsError
from app.perms import DOMID_MAX
from app.transaction import Overlay
from app.tree import Tree

if TYPE_CHECKING:
    from app.store import Store

View = Tree | Overlay
Answer = bytes | type[XsError]  # an error that is returned, not raised, may come with effects
Handler = Callable[["Store", Client, View, bytes], Answer]


class Op(NamedTuple):
    """How a message type is served. `uses_tx`: its tx_id counts, else it is ignored."""

    handler: Handler
    uses_tx: bool
    privileged: bool


def strings(payload: bytes, least: int, most: int) -> list[bytes]:
    """The NUL-terminated strings of a payload. Raises Einval for another number of them."""
    parts = payload.split(b"\0")
    if parts.pop() or not least <= len(parts) <= most:
        raise Einval
    return parts


def number(text: bytes, most: int) -> int:
    """A decimal number of a client. Raises Einval."""
    if not text.isdigit() or int(text) > most:
        raise Einval
    return int(text)


def domid_of(text: bytes) -> int:
    """A domid of a client. Raises Einval for junk and for more than 16 bits."""
    return number(text, DOMID_MAX)
