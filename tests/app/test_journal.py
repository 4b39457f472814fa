# SPDX-License-Identifier: Apache-2.0
"""U1-U4: what a new life finds, what never comes again, and the bounds that admission rests on.

Method: lives on an array, one after the other. Crashes in between stores: tests/crash."""

from __future__ import annotations

import random

from app import codec, wire
from app.client import Client
from app.codec import Carry
from app.effects import Cut, Item, Put, SetItem, value_bytes
from app.items import item_bytes
from app.path import Path
from app.perms import from_wire
from app.streams import ENTRY_BYTES
from app.tree import Node, node_bytes
from app.wire import Request
from persist import layout, record
from tests.crash.world import ArrayMedium, Life


def next_life(life: Life) -> Life:
    """The life after a crash."""
    return Life(ArrayMedium(bytes(life.medium.bytes)))


def payload(packet: bytes) -> bytes:
    """A packet's payload."""
    return packet[wire.HEADER_SIZE:]


def test_everything_durable_comes_back() -> None:
    """Nodes with values, permissions and order; quotas; special permissions; features."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    for name in (b"/z", b"/a", b"/m", b"/a/9", b"/a/1"):
        life.turn((wire.XS_WRITE, 0, name + b"\0value of " + name))
    life.turn((wire.XS_SET_PERMS, 0, b"/a\0b0\0r5\0n6\0"), (wire.XS_RM, 0, b"/z\0"),
              (wire.XS_WRITE, 0, b"/z\0new"), (wire.XS_SET_QUOTA, 0, b"watches\x0055\0"),
              (wire.XS_SET_QUOTA, 0, b"0\0nodes\x0066\0"),
              (wire.XS_SET_PERMS, 0, b"@releaseDomain\0n0\0"))
    after = next_life(life)
    assert after.state() == life.state()
    (listing,) = after.turn((wire.XS_DIRECTORY, 0, b"/\0"))
    assert payload(listing) == b"tool\0a\0m\0z\0"
    (perms,) = after.turn((wire.XS_GET_PERMS, 0, b"@releaseDomain\0"))
    assert payload(perms) == b"n0\0"
    (quota,) = after.turn((wire.XS_GET_QUOTA, 0, b"0\0nodes\0"))
    assert payload(quota) == b"66\0"


def test_transaction_ids_never_come_again() -> None:
    """Over many lives, each of which dies in the middle of some transactions."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    seen: set[int] = set()
    chance = random.Random(1)
    for _ in range(20):
        for _ in range(chance.randrange(1, 1500)):
            (packet,) = life.turn((wire.XS_TRANSACTION_START, 0, b"\0"))
            tx_id = int(payload(packet).rstrip(b"\0"))
            assert tx_id not in seen
            seen.add(tx_id)
            if chance.random() < 0.9:
                life.turn((wire.XS_TRANSACTION_END, tx_id, b"F\0"))
        life = next_life(life)


def test_listing_generations_never_lie() -> None:
    """Two parts with the same generation are of the same listing, whichever lives they come
    from: else a client could put halves of two listings together."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    shown: dict[bytes, bytes] = {}
    chance = random.Random(2)
    for step in range(600):
        name = b"/d/%d" % chance.randrange(6)
        kind = chance.randrange(8)
        if kind < 4:
            life.turn((wire.XS_WRITE, 0, name + b"\0x"))
        elif kind < 6:
            life.turn((wire.XS_RM, 0, name + b"\0"))
        elif kind == 6 and step % 3 == 0:
            life.turn((wire.XS_RM, 0, b"/d\0"), (wire.XS_MKDIR, 0, b"/d\0"))
        elif step % 5 == 0:
            life = next_life(life)
        (packet,) = life.turn((wire.XS_DIRECTORY_PART, 0, b"/d\x000\0"))
        if wire.HEADER.unpack_from(packet)[0] == wire.XS_ERROR:
            continue
        generation, _, names = payload(packet).partition(b"\0")
        assert shown.setdefault(generation, names) == names


ITEM_VALUES: list[Item] = [
    1, 1 << 32, -1, "s" * 40, b"n0\0", b"v" * 300, (1, 1 << 62, 0, 1 << 40, 3, -1, 0, 1),
    (b"/path", b"token" * 800, 14, -1), (11, b"p" * 4000, b"=OK\0", (0, (), (b"/a", 1, (), None)))]


def test_admission_never_underestimates() -> None:
    """The bounds of nodes, items and effects hold for what is really written."""
    chance = random.Random(3)
    for _ in range(300):
        path = Path(b"/" + b"p" * chance.choice([1, 30, 250, 300, 3000]))
        perms = from_wire(b"n0\0" + b"r32757\0" * chance.choice([0, 1, 5, 600]))
        node = Node(b"v" * chance.choice([0, 1, 31, 255, 256, 4000]), perms,
                    chance.choice([1, 200, 1 << 20, 1 << 40]))
        carry = Carry(1 << 40, 1 << 63, [(path, node)] * 32, [], None, [])
        written = record.record_size(len(codec.encode_carry(carry)))
        assert written <= 32 * node_bytes(path, node)
        key = f"quota.{chance.randrange(1 << 16)}.nodes"
        value = chance.choice(ITEM_VALUES)
        empty = len(codec.encode_carry(carry._replace(nodes=[])))
        item = len(codec.encode_carry(carry._replace(nodes=[], items=[(key, value)]))) - empty
        assert item <= item_bytes(key, value)
        client, request = Client(1 << 31, 32767, False, 1 << 22), Request(11, 1 << 31, 0, b"")
        for effect in (Put(path, None, node, True), Cut(path, [(path, node)], True),
                       SetItem(key, None, value, value_bytes(value)),
                           SetItem(key, value, None, 0)):
            turn = codec.encode_turn(1 << 52, 1 << 40, 1 << 63, [(client, request, [effect])] * 32,
                                     [])
            assert len(turn) - 64 <= 32 * effect.log_bytes()


def test_a_turn_always_fits_a_record() -> None:
    """The most that a turn may hold, with the largest possible step behind it, and all that rings
    may be owed (Rings.__init__). Cannot show: where each of very many rings has an entry."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    log = life.journal.log
    budget = life.journal.turn_bytes_max
    step = life.store.tree.space.step_bytes
    owed = log.record_size_max // 4
    assert budget + step + 256 * 64 < log.record_size_max
    assert budget + step + owed + 50 * ENTRY_BYTES < log.record_size_max


def test_steps_are_told_apart_in_the_history() -> None:
    """P8: who asked what is in the record."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    life.turn((wire.XS_WRITE, 0, b"/a\0x"), (wire.XS_RM, 0, b"/a\0"))
    from persist.reader import LogReader
    reader, position, turns = LogReader(life.medium), 0, []
    while (one := reader.record_at(position)) is not None:
        if one.kind == record.Kind.TURN:
            turns.append(codec.decode_turn(one.payload, one.position))
        position += one.size
    steps = turns[-1].steps
    assert [(step.conn_id, step.domid, step.type) for step in steps] == [
        (1, 0, wire.XS_WRITE), (1, 0, wire.XS_RM)]
    assert steps[0].effects[0][0] == b"/a" and steps[1].effects == [(b"/a", None)]
