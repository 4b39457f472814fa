# SPDX-License-Identifier: Apache-2.0
"""A client's outbox: whole packets in order, and of equal events that wait only one, so that a
client that does not read is told once (K1). Method: packets by hand, and a store whose client
takes nothing for a while.

Source: protocol reference 2.4 (dedupe), pitfall 5. Cannot show: bytes half sent (connections')."""

from __future__ import annotations

from app import wire
from app.client import Client
from app.wire import Request
from tests.app.world import World, nul


def packet(path: bytes, token: bytes = b"t") -> bytes:
    """An event."""
    data = wire.event(path, token)
    assert data is not None
    return data


def test_equal_events_wait_once() -> None:
    client = Client(1, 5, privileged=False)
    one, two, three = packet(b"/a"), packet(b"/b"), packet(b"/a", b"u")
    assert [client.queue_event(data, is_special=False)
            for data in (one, two, one, three, two, one)] == [True, True, False, True, False, False]
    assert client.take_outbox() == one + two + three
    assert client.outbox == []
    assert client.queue_event(one, is_special=False)  # what was taken is no longer waiting
    assert client.take_outbox() == one
    assert client.take_outbox() == b""


def test_special_events_are_never_dropped() -> None:
    client = Client(1, 5, privileged=False)
    special = packet(b"@releaseDomain")
    assert all(client.queue_event(special, is_special=True) for _ in range(3))
    assert client.take_outbox() == 3 * special


def test_replies_stay_where_they_are() -> None:
    client = Client(1, 0, privileged=True)
    reply = wire.reply(Request(wire.XS_WRITE, 1, 0, b""), wire.OK)
    client.queue_event(packet(b"/a"), is_special=False)
    client.outbox += [reply, reply]
    client.queue_event(packet(b"/a"), is_special=False)
    client.queue_event(packet(b"/b"), is_special=False)
    assert client.take_outbox() == packet(b"/a") + reply + reply + packet(b"/b")


def test_a_client_that_does_not_read_is_told_once() -> None:
    """XSA-326: thousands of writes, one event; and the answer to its own WATCH always comes."""
    world = World()
    client, writer = world.clients["d0b"], world.clients["d0"]
    handle = world.store.handle
    handle(client, Request(wire.XS_WATCH, 1, 0, nul("/a", "t")))
    client.take_outbox()
    for number in range(2000):
        handle(writer, Request(wire.XS_WRITE, 1, 0, nul("/a") + b"%d" % number))
        writer.take_outbox()
    assert client.outbox == [packet(b"/a")]
    handle(writer, Request(wire.XS_WRITE, 1, 0, nul("/a/b")))
    assert client.outbox == [packet(b"/a"), packet(b"/a/b")]
    handle(client, Request(wire.XS_UNWATCH, 2, 0, nul("/a", "t")))
    handle(client, Request(wire.XS_WATCH, 3, 0, nul("/a", "t")))
    assert client.outbox[-1] == packet(b"/a") and len(client.outbox) == 5


def test_relative_paths_start_at_home() -> None:
    assert Client(1, 0, privileged=True).base == b"/local/domain/0"
    assert Client(1, 65535, privileged=False).base == b"/local/domain/65535"
