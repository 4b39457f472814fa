# SPDX-License-Identifier: Apache-2.0
"""One step of the store: it happens whole or leaves no trace, its effects say all that it changed,
and the same requests always give the same packets. Method: scripts of requests, run twice, and
their effects applied to an empty dict, as a replay would.

What is answered: test_ops*.py. Cannot show: that effects reach the log (journal's tests)."""

from __future__ import annotations

import random

import pytest

from app import wire
from app.effects import Cut, Effect, Put, SetItem
from app.isolation import TX_ID_BLOCK
from tests.app.world import TYPES, Packet, World, house, nul

PATHS = ["/", "/a", "/a/b", "/a/b/c", "/c", "/c/d", "a", "a/b", "/none/x", "/a//b", "@foo"]
WHO = ["d0", "d0b", "g1", "g2", "g3"]


def random_requests(seed: int, count: int) -> list[tuple[str, str, str]]:
    """(who, request, tx) rows; tx is "" or the number of one of the caller's transactions."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        path = rng.choice(PATHS)
        request = rng.choice([
            f"WRITE {path} {rng.choice(['', 'v', 'w' * 50])}", f"MKDIR {path}", f"RM {path}",
            f"READ {path}", f"DIRECTORY {path}", f"SET_PERMS {path} b0 r{rng.randrange(4)}",
            f"SET_PERMS {path} n{rng.randrange(4)}", f"WATCH {path} t", f"UNWATCH {path} t",
            "START", "END T", "END F", "RESET_WATCHES", f"SET_QUOTA nodes {rng.randrange(5, 20)}",
            "SET_PERMS @releaseDomain n0 r1"])
        rows.append((rng.choice(WHO), request, rng.choice(["", "", "last"])))
    return rows


def play(world: World, rows: list[tuple[str, str, str]],
         after: list[list[Effect]] | None = None) -> list[dict[str, list[Packet]]]:
    """Run rows; what everybody got for each. `after` collects the effects."""
    world.put("/a", "", "b0")
    last: dict[str, int] = {}
    got = []
    for who, request, tx in rows:
        got.append(world.packets(who, request, last.get(who, 0) if tx else 0))
        if request == "START" and world.reply.kind != wire.XS_ERROR:
            last[who] = int(world.reply.payload[:-1])
        if after is not None:
            after.append(world.effects)
    return got


@pytest.mark.parametrize("seed", range(5))
def test_the_same_requests_give_the_same_packets(seed: int) -> None:
    """B3: no clock, no randomness, and no order of a set or of addresses."""
    rows = random_requests(seed, 200)
    one, two = World(), World()
    assert play(one, rows) == play(two, rows)
    assert one.tree() == two.tree()


@pytest.mark.parametrize("seed", range(20))
def test_effects_say_all_that_was_changed(seed: int) -> None:
    """F1, F2: applied in order to an empty state they give the state, the order of children too,
    and applying each of them twice changes nothing."""
    world = World()
    nodes: dict[bytes, tuple[bytes, bytes, int]] = {
        path: (node.value, node.perms.wire, node.ordinal)
        for path, node in world.store.tree.nodes.items()}
    items: dict[str, object] = {}
    after: list[list[Effect]] = []
    world.put("/a", "", "b0")  # as play() does first
    nodes[b"/a"] = (b"", b"b0\0", world.store.tree.nodes[b"/a"].ordinal)  # type: ignore[index]
    play(world, random_requests(seed, 300), after)
    for effects in after:
        for effect in [one for one in effects for _ in range(2)]:
            if isinstance(effect, Put):
                nodes[effect.path] = (effect.after.value, effect.after.perms.wire,
                                      effect.after.ordinal)
            elif isinstance(effect, Cut):
                below = effect.path + b"/"
                nodes = {path: node for path, node in nodes.items()
                         if path != effect.path and not path.startswith(below)}
            elif effect.after is None:
                items.pop(effect.key, None)
            else:
                items[effect.key] = effect.after
    assert nodes == {path: (node.value, node.perms.wire, node.ordinal)
                     for path, node in world.store.tree.nodes.items()}
    assert items == world.store.items.values
    for path in nodes:
        children = [one for one in nodes
                    if one != b"/" and (one.rpartition(b"/")[0] or b"/") == path]
        children.sort(key=lambda one: nodes[one][2])
        assert world.store.tree.listing(path) == b"".join(  # type: ignore[arg-type]
            one.rpartition(b"/")[2] + b"\0" for one in children)


@pytest.mark.parametrize("seed", range(10))
def test_a_refused_request_leaves_no_trace(seed: int) -> None:
    """B1. But for ordinals used up, which nobody sees."""
    world = World()
    world.put("/a", "", "b0")
    last: dict[str, int] = {}
    refused = 0
    for who, request, tx in random_requests(seed, 300):
        before, items = world.tree(), dict(world.store.items.values)
        watches = {name: list(client.watches) for name, client in world.clients.items()}
        got = world.packets(who, request, last.get(who, 0) if tx else 0)
        if world.reply.kind == wire.XS_ERROR:
            refused += 1
            assert world.tree() == before and world.store.items.values == items
            assert watches == {name: list(client.watches)
                               for name, client in world.clients.items()}
            assert not world.effects and got == {who: [world.reply]}
        elif request == "START":
            last[who] = int(world.reply.payload[:-1])
    assert refused > 50


def test_events_stand_before_the_reply_of_their_request() -> None:
    """B2, pitfall 1; World compares the order for every row of every table."""
    world = World()
    world.ask("d0", "WATCH /a t")
    got = world.packets("d0", "WRITE /a v")["d0"]
    assert [one.kind for one in got] == [wire.XS_WATCH_EVENT, wire.XS_WRITE]
    got = world.packets("d0", "WATCH /b u")["d0"]
    assert [one.kind for one in got] == [wire.XS_WATCH, wire.XS_WATCH_EVENT]


def test_who_has_new_packets_is_known() -> None:
    """The turn publishes to those in `heard`."""
    world = World()
    world.ask("d0b", "WATCH /a t")
    world.store.heard.clear()
    world.ask("d0", "WRITE /b v")
    assert not world.store.heard
    world.ask("d0", "WRITE /a v")
    assert list(world.store.heard) == [world.clients["d0b"]]


def test_what_was_populated() -> None:
    """The first nodes of an empty store, as C xenstored makes them."""
    world = World()
    assert world.tree() == {"/": (b"", b"n0\0"), "/tool": (b"", b"n0\0"),
                            "/tool/xenstored": (b"", b"n0\0")}


def test_ids_are_set_aside_durably_before_they_are_used() -> None:
    """P3: after a crash nobody gets an id again, for those in use are below the recorded one."""
    world = World()
    blocks = 0
    for _ in range(3 * TX_ID_BLOCK):
        world.start("d0")
        blocks += any(isinstance(one, SetItem) and one.key == "next.tx" for one in world.effects)
        assert world.transactions["t"] <= world.store.items.number("next.tx", 0)
        world.ask("d0", "END F", "t")
    assert blocks == 3
    last = world.transactions["t"]
    again = World()  # the next life
    again.store.items.restore("next.tx", world.store.items.get("next.tx"))
    again.store.resume()
    again.start("d0")
    assert again.transactions["t"] > last


def test_ids_wrap_without_meeting_an_open_one() -> None:
    world = World()
    world.store.items.restore("next.tx", (1 << 32) - 2)
    world.store.resume()
    seen = []
    for number in range(4):
        world.start("d0", f"t{number}")
        seen.append(world.transactions[f"t{number}"])
    assert len(set(seen)) == 4 and all(0 < one < 1 << 32 for one in seen)


def test_a_client_that_is_gone_is_forgotten() -> None:
    world = house()
    client = world.clients["g1"]
    world.run([("g1", "", "WATCH /pub t", "OK", "g1 /pub t"), ("g1", "", "START", "=t"),
               ("g1", "t", "WRITE /pub v", "OK")])
    world.store.disconnect(client)
    del world.clients["g1"]
    world.run([("d0", "", "READ /pub", b"pub"), ("d0", "", "WRITE /pub v", "OK")])
    assert not client.outbox and not client.watches and not client.transactions
    assert client not in world.store.clients | world.store.heard.keys()
    assert not world.store.watches.by_path


# -- a store that is full


def test_a_full_store_refuses_growth_and_nothing_else() -> None:
    """Admission (ENOSPC, also for domain 0): reading, removing, shrinking go on."""
    world = World(space=(20000, 1 << 32, 1 << 22))
    world.put("/small", "v")
    answers = [world.ask("d0", f"WRITE /big{number} {'v' * 3000}") for number in range(10)]
    assert answers.index("ENOSPC") in (5, 6) and set(answers[6:]) == {"ENOSPC"}
    world.run([
        ("d0", "", "WRITE /small " + "v" * 4000, "ENOSPC"),
        ("d0", "", "SET_PERMS /small n0 " + " ".join(["r1"] * 1200), "ENOSPC"),
        ("d0", "", "READ /small", b"v"),
        ("d0", "", "WRITE /small w", "OK"),
        ("d0", "", "WRITE /big0 short", "OK"),
        ("d0", "", "RM /big1", "OK"),
        ("d0", "", f"WRITE /new {'v' * 3000}", "OK"),
    ])


def test_many_small_nodes_are_bounded_by_the_heap() -> None:
    world = World(space=(1 << 26, 50000, 1 << 22), is_paranoid=False)
    answers = [world.ask("d0", f"MKDIR /d{number}") for number in range(300)]
    assert 50 < answers.index("ENOSPC") < 120


def test_one_step_is_bounded() -> None:
    """What one record could not hold is refused, in a transaction at the latest at its commit."""
    world = World(space=(1 << 26, 1 << 32, 10000))
    world.run([
        ("d0", "", "MKDIR " + "/a" * 200, "ENOSPC"),
        ("d0", "", "READ /a", "ENOENT"),
        *(("d0", "", f"WRITE /{number} {'v' * 2000}", "OK") for number in range(8)),
        ("d0", "", "START", "=t"),
        *(("d0", "t", f"WRITE /{number} {'w' * 2000}", "OK") for number in range(4)),
        ("d0", "t", "END T", "OK"),
    ])
    before = world.tree()
    world.run([
        ("d0", "", "START", "=t"),
        *(("d0", "t", f"WRITE /{number} {'x' * 2000}", "OK") for number in range(8)),
        ("d0", "t", "END T", "ENOSPC"),
        ("d0", "t", "END T", "ENOENT"),
    ])
    assert world.tree() == before


def test_no_packet_is_larger_than_a_message() -> None:
    """XSA-72, 324: whatever is asked and watched."""
    world = World()
    for number in range(300):
        world.ask("d0", f"WRITE /d/{'n' * 100}{number} {'v' * 3900}")
    world.ask("d0", (wire.XS_WATCH, nul("/d", "t" * 4000)))
    client = world.clients["d0"]
    for name in TYPES:
        for arguments in ((), ("/d",), ("/d", "0"), ("/d", "x")):
            world.store.handle(client, wire.Request(TYPES[name], 1, 0, nul(*arguments)))
    assert client.outbox
    assert max(map(len, client.outbox)) <= 16 + 4096
