# SPDX-License-Identifier: Apache-2.0
"""A state as a fresh region, from which a server starts.

F1. It is a log as a server writes it: a life that begins (and says whose state this is), turns of
    the server's own that put every node and item, and an end on purpose. So nothing else in the
    project has to know that there are such regions.
F2. No connection comes along: rings have gone on since, and sockets end with their server. Domains
    stay known by their identities, so that one which is gone takes along what it owned.
F3. No number is given twice: ordinals, ids of transactions, connections, lives and poison go on
    behind the highest that is known, also when the state is of a moment before they were given.
Change with: FORMAT.md, codec.py, and domain.py (what there is to know of a domain)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app import codec
from app.codec import Life
from app.domain import LEAVING, Known
from app.effects import Effect, Item, Put, SetItem
from app.items import group_of, item_bytes
from app.path import ROOT, Path
from app.perms import from_wire
from app.tree import Node, node_bytes
from persist import layout
from persist.log import Log, format_region
from persist.record import Kind
from persist.region import Medium
from tools.dump.items import domains_of
from tools.dump.state import State

KEPT = {"quota", "boot", "special", "next"}  # kinds of items that are nobody's connection
LOST_PARENT = b"n0\0"  # permissions of a node that is only known from what is below it
RECORD_BYTES_MAX = 64 << 10


class TooLargeError(Exception):
    """The state does not fit; `least` is the smallest region that takes it."""

    def __init__(self, least: int) -> None:
        super().__init__(f"the state takes a region of at least {least} bytes")
        self.least = least


class Fresh(NamedTuple):
    """What a region is to hold. `effects`: parents first. `left_out`: items by kind."""

    effects: list[Effect]
    generation: int
    life: int
    left_out: Counter[str]

    @property
    def bytes(self) -> int:
        """An upper bound of what it takes in a log."""
        return sum(_effect_bytes(one) for one in self.effects)


def mend(state: State) -> list[Path]:
    """Make the nodes that are only known from what is below them, for domain 0 only; which."""
    made = state.orphans()
    state.apply((path, Node(b"", from_wire(LOST_PARENT), 0)) for path in made)
    return sorted(made)


def prepare(state: State, present: dict[str, Item], generation: int, life: int) -> Fresh:
    """What a fresh region needs to hold `state`. `present` and `generation` are the newest that is
    known; `life` is the last one's number."""
    items: dict[str, Item] = {}
    left_out: Counter[str] = Counter()
    for key, value in state.items.items():
        kind, _ = group_of(key)
        if kind in KEPT or key.endswith(".features"):
            items[key] = value
        elif kind != "domain":
            left_out[kind] += key.count(".") < 3  # of a transaction, not its requests
    for domid, one in domains_of(state.items).items():
        left_out["connection"] += one.epoch != 0
        if domid:  # domain 0 is always there
            items[f"domain.{domid}"] = tuple(_forget_connection(one))
    numbers = _numbers((state.items, present, {"next.life": life + 1}))
    items |= {**numbers, "next.life": numbers["next.life"] + 1}  # the region has a life, too
    nodes = [(path, state.nodes[path]) for path in state.below(ROOT)]
    effects: list[Effect] = [Put(path, None, node, fires=False) for path, node in nodes]
    effects += [SetItem(key, None, value, 0) for key, value in sorted(items.items())]
    highest = max((node.ordinal for _, node in nodes), default=0)
    return Fresh(effects, max(generation, highest), numbers["next.life"], +left_out)


def _forget_connection(one: Known) -> Known:
    """What is known of a domain that has no connection; what it owned is still being removed if it
    was (F2)."""
    return Known(one.identity, state=LEAVING if one.state == LEAVING else 0,
                 is_shutdown=one.is_shutdown)


def _numbers(known: Iterable[dict[str, Item]]) -> dict[str, int]:
    """The items "next.NAME": as high as any says, and beyond all that is seen in use (F3)."""
    found: dict[str, int] = {}
    for items in known:
        for key, value in items.items():
            kind, _, rest = key.partition(".")
            if kind == "next" and isinstance(value, int):
                found[key] = max(found.get(key, 0), value)
            elif kind == "tx":
                epoch, tx_id = map(int, rest.split(".")[:2])
                found["next.epoch"] = max(found.get("next.epoch", 0), epoch + 1)
                found["next.tx"] = max(found.get("next.tx", 0), tx_id + 1)
        for one in domains_of(items).values():
            if one.epoch:
                found["next.epoch"] = max(found.get("next.epoch", 0), one.epoch + 1)
    return found


def write(medium: Medium, fresh: Fresh, origin: str, time_us: int) -> None:
    """Make `medium`, which is all zero, a region that holds it. Raises TooLargeError."""
    size = layout.log_size(medium.size)
    if fresh.bytes > size // 2:  # more than a server would admit
        raise TooLargeError(layout.LOG_OFFSET + 2 * fresh.bytes + layout.PAGE_SIZE)
    log, state = Log(medium, format_region(medium)), State()
    log.append(Kind.LIFE, codec.encode_life(Life(
        time_us, fresh.life, fresh.generation, 0, origin, [], "")))
    for batch in _batches(fresh.effects, min(RECORD_BYTES_MAX, log.record_size_max // 2)):
        state.apply((one.path, one.after) if isinstance(one, Put) else (one.key, one.after)
                    for one in batch if isinstance(one, (Put, SetItem)))
        log.append(Kind.TURN, codec.encode_turn(
            time_us, fresh.generation, state.digest, [(codec.SERVER, codec.START, batch)]))
    log.append(Kind.END, b"")


def _batches(effects: list[Effect], limit: int) -> Iterator[list[Effect]]:
    batch: list[Effect] = []
    size = 0
    for one in effects:
        if batch and size + _effect_bytes(one) > limit:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += _effect_bytes(one)
    if batch:
        yield batch


def _effect_bytes(one: Effect) -> int:
    if isinstance(one, Put):
        return node_bytes(one.path, one.after)
    assert isinstance(one, SetItem)
    return item_bytes(one.key, one.after)
