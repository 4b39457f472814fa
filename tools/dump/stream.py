# SPDX-License-Identifier: Apache-2.0
"""A state as a migration stream: what C xenstored reads at a live update.

X1. Whatever a record depends on comes before it: the connection that another acts for, connections
    before their watches, nodes before their children.
X2. No open transactions: C xenstored neither writes nor reads them. No sockets: they end with their
    server. What a ring was still owed is not in it either: only the ring's page knows.
X3. A ring's port is the domain's own, as the format's document has it and INTRODUCE has named it.
    C xenstored takes it for its own end's, which no log knows: `ports` names that.
Version 1 is Xen 4.17's; version 2, from 4.21 on, adds quotas, features, and how deep watches hear.
Little-endian. Source: Xen's docs/designs/xenstore-migration.md, and streams of both versions.
Knows nothing of regions."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from app.domain import FEATURES, LEAVING, SPECIAL_DEFAULTS, Known
from app.effects import Item
from app.path import ROOT, SPECIALS
from app.perms import Perms, from_wire
from app.quota import DEFAULTS
from tools.dump.items import Watching, domains_of, watches_of
from tools.dump.state import State

MAGIC = b"xenstore"
VERSIONS = (1, 2)
END, GLOBAL, CONNECTION, WATCH, _, NODE, QUOTA, DOMAIN, WATCH_EXTENDED = range(9)
RING = 0  # kind of a connection
NO_TARGET = 0x7FF4  # DOMID_INVALID
IS_IGNORED = 1  # flag of a permission entry that grants nothing
NO_DESCRIPTOR = -1
ALIGNMENT = 8

_HEADER = struct.Struct(">8sII")  # magic, version, flags: none, for little-endian bodies
_RECORD = struct.Struct("<II")  # type, bytes that follow, padding included
_GLOBAL = struct.Struct("<ii")  # descriptors: socket, event channels
# id, kind, fields, domid, target, port; bytes of input, of a half sent reply, of output
_CONNECTION = struct.Struct("<IHHHHIHHI")
_WATCH = struct.Struct("<IHH")  # connection, bytes of path and token
_WATCH_EXTENDED = struct.Struct("<IHHHH")  # the same, depth, nothing
_NODE = struct.Struct("<IIHHHH")  # no connection, no transaction, path, value, access, entries
_ENTRY = struct.Struct("<sBH")  # letter, flags, domid
_QUOTA = struct.Struct("<HH")  # how many for domains, how many global ones
_DOMAIN = struct.Struct("<HHI")  # domid, how many quotas, features


class Receiver(NamedTuple):
    """What a stream has to say of the process that will read it. `ports`: by domid, its own ends of
    event channels."""

    version: int = 1
    socket: int = NO_DESCRIPTOR
    event_channels: int = NO_DESCRIPTOR
    ports: Mapping[int, int] = {}


def rings_of(items: dict[str, Item]) -> dict[int, Known]:
    """The domains whose rings are served, by domid; each behind the one that it acts for (X1)."""
    served = {domid: one for domid, one in domains_of(items).items() if is_served(one)}
    ordered: dict[int, Known] = {}
    for first in served:
        chain, domid = [], first
        while domid in served and domid not in ordered and domid not in chain:
            chain.append(domid)
            domid = served[domid].target
        ordered.update((one, served[one]) for one in reversed(chain))
    return ordered


def is_served(one: Known) -> bool:
    """Whether a domain has a ring that is not ignored."""
    return one.epoch != 0 and one.state != LEAVING and not one.error


def encode(state: State, inputs: Mapping[int, bytes], receiver: Receiver) -> bytes:
    """The stream of a state. `inputs`: by epoch, what was taken out of a ring and is no whole
    request yet."""
    parts = [_HEADER.pack(MAGIC, receiver.version, 0)]
    for kind, body in _records(state, inputs, receiver):
        padding = -len(body) % ALIGNMENT
        parts += [_RECORD.pack(kind, len(body) + padding), body, bytes(padding)]
    return b"".join(parts)


def _records(state: State, inputs: Mapping[int, bytes],
             receiver: Receiver) -> Iterator[tuple[int, bytes]]:
    has_quotas = receiver.version > 1
    rings = rings_of(state.items)
    yield GLOBAL, _GLOBAL.pack(receiver.socket, receiver.event_channels)
    if has_quotas:
        yield QUOTA, _QUOTA.pack(len(DEFAULTS), 0) + _quotas(state.items, None)
    watches: dict[int, list[Watching]] = {}
    for watch in watches_of(state.items):
        watches.setdefault(watch.epoch, []).append(watch)
    for number, (domid, one) in enumerate(rings.items(), 1):
        target = one.target if one.target >= 0 else NO_TARGET
        data = inputs.get(one.epoch, b"")
        yield CONNECTION, _CONNECTION.pack(
            number, RING, 0, domid, target, receiver.ports.get(domid, one.port),
            len(data), 0, 0) + data
        for watch in watches.get(one.epoch, ()):
            yield _watch(number, watch, receiver.version)
    specials = [(NODE, _special(name, state.items)) for name in reversed(SPECIALS)]
    if not has_quotas:
        yield from specials  # where each version of C xenstored has them
    for path in state.below(ROOT):
        node = state.nodes[path]
        yield NODE, _node(path, node.value, node.perms)
    if has_quotas:
        yield from specials
        for domid in rings:
            features = state.items.get(f"domain.{domid}.features")
            yield DOMAIN, _DOMAIN.pack(
                domid, len(DEFAULTS), features if isinstance(features, int) else FEATURES,
            ) + _quotas(state.items, domid)
    yield END, b""


def _watch(number: int, one: Watching, version: int) -> tuple[int, bytes]:
    path, token = one.path[one.hidden:] + b"\0", one.token + b"\0"
    if version > 1 and one.depth is not None:
        return WATCH_EXTENDED, _WATCH_EXTENDED.pack(
            number, len(path), len(token), one.depth, 0) + path + token
    return WATCH, _WATCH.pack(number, len(path), len(token)) + path + token


def _node(path: bytes, value: bytes, perms: Perms) -> bytes:
    entries = [_ENTRY.pack(text[:1].lower(), IS_IGNORED if text[:1].isupper() else 0,
                           int(text[1:])) for text in perms.wire.split(b"\0")[:-1]]
    return b"".join([_NODE.pack(0, 0, len(path) + 1, len(value), 0, len(entries)),
                     *entries, path, b"\0", value])


def _special(name: bytes, items: dict[str, Item]) -> bytes:
    wire = items.get(f"special.{name.decode()}")
    return _node(name, b"", from_wire(wire if isinstance(wire, bytes) else SPECIAL_DEFAULTS[name]))


def _quotas(items: dict[str, Item], domid: int | None) -> bytes:
    """All quotas of a domain, or the global ones: values, then names."""
    values = []
    for name, default in DEFAULTS.items():
        own = items.get(f"quota.{domid}.{name}")
        value = own if isinstance(own, int) else items.get(f"quota.{name}", default)
        values.append(value if isinstance(value, int) else default)
    return struct.pack(f"<{len(values)}I", *values) + b"".join(
        name.encode() + b"\0" for name in DEFAULTS)
