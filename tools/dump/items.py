# SPDX-License-Identifier: Apache-2.0
"""The server's own items: domains, watches, open transactions as they are; and each in words.

Knows nothing of nodes and records. Change with: app/items.py (the keys), and whoever packs the
values: domain.Known, watch.Watch.pack, transaction.Transaction.pack_last."""

from __future__ import annotations

from typing import NamedTuple

from app.domain import CONNECTED, LEAVING, RESETTING, Known
from app.effects import Item
from app.path import Path
from tools.dump.text import request_words, text

STATES = {RESETTING: "being reset", CONNECTED: "connected", LEAVING: "leaving"}
NEVER = "never introduced"


class Watching(NamedTuple):
    """A watch of a ring. `depth` None: all below the path. `hidden`: leading bytes of the path that
    its client did not name, and does not hear."""

    epoch: int
    ordinal: int
    path: bytes
    token: bytes
    depth: int | None
    hidden: int


def domains_of(items: dict[str, Item]) -> dict[int, Known]:
    """The domains that the server knows, by domid."""
    found: dict[int, Known] = {}
    for key, value in items.items():
        kind, _, number = key.partition(".")
        if kind == "domain" and number.isdigit() and isinstance(value, tuple):
            found[int(number)] = Known(*value)  # type: ignore[arg-type]
    return dict(sorted(found.items()))


def watches_of(items: dict[str, Item]) -> list[Watching]:
    """All watches of rings, in the order in which they hear."""
    found = [_watching(key, value) for key, value in items.items()
             if key.startswith("watch.") and isinstance(value, tuple)]
    return sorted(found, key=lambda one: one.ordinal)


def transactions_of(items: dict[str, Item]) -> dict[tuple[int, int], list[str]]:
    """The open transactions of rings, by epoch and tx_id; the requests in each, in words."""
    found: dict[tuple[int, int], dict[int, str]] = {}
    for key, value in items.items():
        if key.startswith("tx."):
            epoch, tx_id, *number = map(int, key.split(".")[1:])
            requests = found.setdefault((epoch, tx_id), {})
            if number:
                requests[number[0]] = item_words(key, value)
    return {key: [requests[number] for number in sorted(requests)]
            for key, requests in sorted(found.items())}


def is_request(key: Path | str) -> bool:
    """Whether this is the item of a request in an open transaction."""
    return isinstance(key, str) and key.startswith("tx.") and key.count(".") == 3


def item_words(key: str, value: Item) -> str:
    """What an item's value says."""
    kind, _, rest = key.partition(".")
    if isinstance(value, tuple):
        if kind == "tx":
            return _told_words(value) if is_request(key) else (
                "open, and has failed" if value[-1] else "open")
        if kind == "watch":
            return watch_words(_watching(key, value))
        if kind == "domain" and rest.isdigit():
            one = Known(*value)  # type: ignore[arg-type]
            return (f"conn {one.epoch}, " if one.epoch else "") + domain_words(one)
    return _plain_words(value)


def watch_words(one: Watching) -> str:
    """What a watch hears of, and by what name."""
    depth = "" if one.depth is None else f" depth {one.depth}"
    return f"{text(one.path)} token {text(one.token)}{depth}"


def state_word(one: Known) -> str:
    """Where a domain's connection stands."""
    return STATES.get(one.state, NEVER) if one.epoch else NEVER


def domain_words(one: Known) -> str:
    """What is known of a domain, but for its connection's number."""
    said = f"{state_word(one)}, identity {one.identity}, gfn {one.gfn:#x}, port {one.port}"
    said += f", target dom{one.target}" if one.target >= 0 else ""
    said += f", MUTED with error {one.error}" if one.error else ""
    return said + (", shut down" if one.is_shutdown else "")


def _told_words(told: tuple[Item, ...]) -> str:
    """A request in a transaction, and the error if it was told one. Of a long answer the log has
    only a digest (transaction.digest_answer)."""
    type_, payload, answer, *_ = told
    assert isinstance(type_, int) and isinstance(payload, bytes) and isinstance(answer, bytes)
    said = request_words(type_, payload)
    if not answer.startswith(b"!"):
        return said
    name = answer[1:].partition(b"\0")[0]
    return f"{said}: {name.decode() if name.isalnum() and name.isupper() else 'an error'}"


def _plain_words(value: Item) -> str:
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_plain_words, value))})"
    return str(value)


def _watching(key: str, value: tuple[Item, ...]) -> Watching:
    _, epoch, ordinal = key.split(".")
    path, token, hidden, depth = value
    assert isinstance(path, bytes) and isinstance(token, bytes)
    assert isinstance(depth, int) and isinstance(hidden, int)
    return Watching(int(epoch), int(ordinal), path, token, None if depth < 0 else depth, hidden)
