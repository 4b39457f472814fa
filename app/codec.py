# SPDX-License-Identifier: Apache-2.0
"""Payloads of records <-> what they say. One place for the grammar of FORMAT.md section 5.

Y1. Decoding is total for what encoding makes; anything else raises, which is our mistake, since
    only payloads whose checksum holds get here.
Knows nothing of positions and of the log. Change with: FORMAT.md, and layout.VERSION."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]
from mmh3 import mmh3_x64_128_uintdigest

from app.client import Client
from app.effects import Cut, Effect, Item, Put, SetItem
from app.path import Path
from app.perms import from_wire
from app.tree import Node
from app.wire import Request

DIGEST_MASK = 0xFFFFFFFFFFFFFFFF

_pack = msgpack.Packer(autoreset=True).pack


class SealMark(NamedTuple):
    """A sealed commit. `sequence`: of the last record whose changes it holds; `start`: the
    position from which on the log rebuilds that state; `parent`: oid, empty for the first."""

    time_s: int
    tree: bytes
    commit: bytes
    parent: bytes
    sequence: int
    start: int


class Stream(NamedTuple):
    """Where a ring's two streams stand, in 64-bit positions: requests consumed up to `before` the
    turn and `after` it; replies and events published up to `sent` when this was written, and
    `data`, which begins at `start`; all from `sent` on is owed. `input`: consumed, but not a
    whole request yet. `epoch`: of the connection."""

    epoch: int
    before: int
    after: int
    sent: int
    start: int
    data: bytes
    input: bytes


class Step(NamedTuple):
    """One request that changed something, as read back. An effect is (path, node), (path, None)
    for a removed subtree, or (key, value) of an item, with a str for the key."""

    conn_id: int
    domid: int
    pid: int
    type: int
    req_id: int
    effects: list[tuple[Any, Any]]


class Turn(NamedTuple):
    """Payload of a TURN record. `generation` and `digest` are those after the turn."""

    time_us: int
    generation: int
    digest: int
    steps: list[Step]
    streams: list[Stream]


class Carry(NamedTuple):
    """Payload of a CARRY record: live state appended again."""

    generation: int
    digest: int
    nodes: list[tuple[Path, Node]]
    items: list[tuple[str, Item]]
    seal: SealMark | None
    streams: list[Stream]


class Life(NamedTuple):
    """Payload of a LIFE record: a start of the server, and what its recovery found."""

    time_us: int
    number: int
    generation: int
    digest: int
    outcome: str
    damages: list[tuple[int, int, str]]
    cause: str  # what the life before said of its end; empty if nothing


SERVER = Client(0, 0, privileged=True)  # the author of the server's own changes
START = Request(0xFFFF, 0, 0, b"")  # no type of the protocol: the server's own doing


def node_digest(path: Path, node: Node) -> int:
    """What a node adds to the state digest (FORMAT.md section 6)."""
    digest: int = mmh3_x64_128_uintdigest(
        path + b"\0" + node.perms.wire + b"\0" + node.value, node.ordinal & 0xFFFFFFFF)
    return digest


def nodes_digest(nodes: Iterable[tuple[Path, Node]]) -> int:
    """The sum of node_digest() over many nodes, without a call for each."""
    return sum([mmh3_x64_128_uintdigest(path + b"\0" + node.perms.wire + b"\0" + node.value,
                                        node.ordinal & 0xFFFFFFFF) for path, node in nodes])


def item_digest(key: str, value: Item) -> int:
    """What an item adds to the state digest."""
    digest: int = mmh3_x64_128_uintdigest(_pack([key, value]), 1)
    return digest


def encode_turn(time_us: int, generation: int, digest: int,
                steps: list[tuple[Client, Request, list[Effect]]],
                streams: Sequence[Stream] = ()) -> bytes:
    """The payload of a TURN record."""
    said: Any
    if len(steps) == 1 and len(steps[0][2]) == 1:  # by far the most turns: no comprehensions
        client, request, (effect,) = steps[0]
        said = ((client.conn_id, client.domid, client.pid, request[0], request[1],
                 (encode_effect(effect),)),)
    else:
        said = [(client.conn_id, client.domid, client.pid, request[0], request[1],
                 [encode_effect(effect) for effect in effects])
                for client, request, effects in steps]
    packed: bytes = _pack((time_us, generation, digest, said, streams))
    return packed


def encode_slot(time_us: int, streams: Sequence[Stream]) -> bytes:
    """The payload of a turn that only moved rings."""
    packed: bytes = _pack((time_us, streams))
    return packed


def encode_effect(effect: Effect) -> tuple[Any, ...] | bytes:
    """One effect: put (path, value, perms, ordinal), cut path, item (key, value)."""
    if type(effect) is Put:
        node = effect.after
        return effect.path, node.value, node.perms.wire, node.ordinal
    if type(effect) is Cut:
        return effect.path
    assert isinstance(effect, SetItem)
    return effect.key, effect.after


def encode_carry(carry: Carry) -> bytes:
    """The payload of a CARRY record."""
    packed: bytes = _pack([carry.generation, carry.digest,
                           [(path, node.value, node.perms.wire, node.ordinal)
                            for path, node in carry.nodes], carry.items, carry.seal,
                           carry.streams])
    return packed


def encode_life(life: Life) -> bytes:
    """The payload of a LIFE record."""
    packed: bytes = _pack(life)
    return packed


def encode_seal(seal: SealMark) -> bytes:
    """The payload of a SEAL record."""
    packed: bytes = _pack(seal)
    return packed


def decode_turn(payload: bytes, position: int) -> Turn:
    """Read a TURN record; its nodes note `position`."""
    time_us, generation, digest, steps, streams = unpack(payload)
    return Turn(time_us, generation, digest, [
        Step(conn_id, domid, pid, type_, req_id,
             [_effect(effect, position) for effect in effects])
        for conn_id, domid, pid, type_, req_id, effects in steps],
        [Stream(*stream) for stream in streams])


def decode_carry(payload: bytes, position: int) -> Carry:
    """Read a CARRY record; its nodes note `position`."""
    generation, digest, nodes, items, seal, streams = unpack(payload)
    return Carry(generation, digest, [_node(node, position) for node in nodes],
                 [(key, item(value)) for key, value in items],
                 SealMark(*seal) if seal is not None else None,
                 [Stream(*stream) for stream in streams])


def decode_slot(payload: bytes) -> list[Stream]:
    """Read a turn slot."""
    return [Stream(*stream) for stream in unpack(payload)[1]]


def decode_life(payload: bytes) -> Life:
    """Read a LIFE record."""
    life = Life(*unpack(payload))
    return life._replace(damages=[(position, size, reason)
                                  for position, size, reason in life.damages])


def decode_seal(payload: bytes) -> SealMark:
    """Read a SEAL record."""
    return SealMark(*unpack(payload))


def unpack(payload: bytes) -> list[Any]:
    """A payload's fields, as FORMAT.md names them."""
    unpacked: list[Any] = msgpack.unpackb(payload)
    return unpacked


def _node(fields: list[Any], position: int) -> tuple[Path, Node]:
    path, value, wire, ordinal = fields
    return path, Node(value, from_wire(wire), ordinal, position)


def item(value: Any) -> Item:
    """An item's value as read back."""
    return tuple([item(one) for one in value]) if isinstance(value, list) else value


def _effect(effect: Any, position: int) -> tuple[Any, Any]:
    if isinstance(effect, bytes):
        return effect, None
    if len(effect) == 4:
        return _node(effect, position)
    return effect[0], item(effect[1])
