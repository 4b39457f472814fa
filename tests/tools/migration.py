# SPDX-License-Identifier: Apache-2.0
"""A reader of migration streams, for tests: every byte is looked at, nothing is believed.

Knows nothing of tools/dump: written from Xen's docs/designs/xenstore-migration.md, and from streams
of C xenstored (streams/: Xen 4.17, version 1; 4.22, version 2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

WORD, HALF = struct.Struct("<I"), struct.Struct("<H")
NAMES = {0: "end", 1: "global", 2: "connection", 3: "watch", 4: "transaction", 5: "node",
         6: "quota", 7: "domain", 8: "watch_ext"}
Perms = list[tuple[str, int, int]]  # letter, flags, domid


@dataclass
class Stream:
    """What a stream says. `records`: type and body, padding included, in order. Connections by id:
    (kind, domid, target, port, input, output, unique id). Nodes: path -> (value, permissions)."""

    version: int
    records: list[tuple[int, bytes]] = field(default_factory=list)
    descriptors: tuple[int, int] = (-1, -1)
    connections: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    watches: list[tuple[int, bytes, bytes, int | None]] = field(default_factory=list)
    nodes: dict[bytes, tuple[bytes, Perms]] = field(default_factory=dict)
    quotas: dict[str, int] = field(default_factory=dict)
    domains: dict[int, tuple[int, dict[str, int]]] = field(default_factory=dict)

    def bodies(self, kind: int) -> list[bytes]:
        """The bodies of one type of record."""
        return [body for type_, body in self.records if type_ == kind]


class Body:
    """A record's bytes, taken from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        assert self.place + size <= len(self.data), "the record is too short"
        self.place += size
        return self.data[self.place - size:self.place]

    def number(self, size: int, is_signed: bool = False) -> int:
        """The next number."""
        return int.from_bytes(self.take(size), "little", signed=is_signed)

    def text(self, size: int) -> bytes:
        """The next string of `size` bytes, without the NUL that it ends with."""
        data = self.take(size)
        assert data[-1:] == b"\0" and b"\0" not in data[:-1], data
        return data[:-1]

    def names(self, count: int) -> list[str]:
        """The next strings."""
        found = self.data[self.place:].split(b"\0")[:count]
        self.take(sum(len(one) + 1 for one in found))
        return [one.decode() for one in found]

    def end(self) -> None:
        """Nothing but padding is left."""
        rest = self.data[self.place:]
        assert len(rest) < 8 and not any(rest), rest


def read(data: bytes) -> Stream:
    """The whole stream."""
    assert data[:8] == b"xenstore" and data[12:16] == bytes(4)
    stream, place = Stream(int.from_bytes(data[8:12], "big")), 16
    while True:
        kind, size = struct.unpack_from("<II", data, place)
        body = data[place + 8:place + 8 + size]
        assert size % 8 == 0 and len(body) == size
        place += 8 + size
        stream.records.append((kind, body))
        if kind == 0:
            assert size == 0 and place == len(data), "something follows the end"
            return stream
        reader = Body(body)
        READERS[kind](stream, reader)
        reader.end()


def _global(stream: Stream, body: Body) -> None:
    assert len(stream.records) == 1
    stream.descriptors = body.number(4, True), body.number(4, True)


def _connection(stream: Stream, body: Body) -> None:
    number, kind, fields = body.number(4), body.number(2), body.number(2)
    domid, target, port = body.number(2), body.number(2), body.number(4)
    sizes = body.number(2), body.number(2), body.number(4)
    assert number and number not in stream.connections
    data, output = body.take(sizes[0]), body.take(sizes[2])
    body.take(-body.place % 8)
    unique = body.number(8) if fields & 1 else 0
    stream.connections[number] = kind, domid, target, port, data, output, unique


def _watch(stream: Stream, body: Body) -> None:
    number, sizes = body.number(4), (body.number(2), body.number(2))
    assert number in stream.connections
    stream.watches.append((number, body.text(sizes[0]), body.text(sizes[1]), None))


def _watch_ext(stream: Stream, body: Body) -> None:
    assert stream.version > 1
    number, sizes = body.number(4), (body.number(2), body.number(2))
    depth, nothing = body.number(2), body.number(2)
    assert number in stream.connections and nothing == 0
    stream.watches.append((number, body.text(sizes[0]), body.text(sizes[1]), depth))


def _node(stream: Stream, body: Body) -> None:
    assert body.number(4) == body.number(4) == 0, "of a transaction"
    sizes, access, count = (body.number(2), body.number(2)), body.number(2), body.number(2)
    perms = [(chr(body.number(1)), body.number(1), body.number(2)) for _ in range(count)]
    path = body.text(sizes[0])
    assert access == 0 and perms and path not in stream.nodes
    if path.startswith(b"/") and path != b"/":
        assert (path.rpartition(b"/")[0] or b"/") in stream.nodes, "before its parent"
    stream.nodes[path] = body.take(sizes[1]), perms


def _quota(stream: Stream, body: Body) -> None:
    count, others = body.number(2), body.number(2)
    values = [body.number(4) for _ in range(count + others)]
    stream.quotas = dict(zip(body.names(count + others), values, strict=True))


def _domain(stream: Stream, body: Body) -> None:
    domid, count, features = body.number(2), body.number(2), body.number(4)
    values = [body.number(4) for _ in range(count)]
    stream.domains[domid] = features, dict(zip(body.names(count), values, strict=True))


READERS = {1: _global, 2: _connection, 3: _watch, 5: _node, 6: _quota, 7: _domain, 8: _watch_ext}
