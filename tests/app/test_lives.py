# SPDX-License-Identifier: Apache-2.0
"""A ring does not notice that the server has died between two of its requests: its watches, in
their order, and its open transactions go on. Method: two worlds that are asked the same; one dies
at random moments and is born again from its nodes and items (rebirth.py), the other lives on.
Whatever is answered to rings and to domain 0's sockets, every event of every ring, and the outcome
of every commit are the same, and so are the trees.

Cannot show: quotas that are used up by others while a transaction is open: a new life counts them
anew; generations of DIRECTORY_PART; the log (tests/crash)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from app import wire
from app.path import Path
from tests.app.rebirth import reborn
from tests.app.world import Asked, Packet, World, nul

RINGS = ("r1", "r2", "r3")
PATHS = ["/s", "/s/a", "/s/b", "/s/a/x", "/s/a/y", "/s/a/x/z", "/s/c", "/own", "a", "a/b",
         "@releaseDomain", "/none/x"]
PERMS = ["n0", "b0", "b1", "n1 b2", "n2 r1 r3", "n0 b3", "r0 n1", "n0 r9"]


def shared() -> World:
    """Three rings, of which the third acts for the first, and some nodes."""
    world = World(guests=())
    for domid in (1, 2, 3):
        assert world.ask("d0", f"INTRODUCE {domid} 1 1") == "OK"
        world.put(f"/local/domain/{domid}", "", f"n{domid}", "r2")
    assert world.ask("d0", "SET_TARGET 3 1") == "OK"
    for path, perms in (("/s", "b0"), ("/s/a", "n1 b2"), ("/s/a/x", "b0"), ("/own", "n1")):
        world.put(path, "first", *perms.split(" "))
    return world


def random_request(chance: random.Random) -> str:
    """What a transaction is made of."""
    path = chance.choice(PATHS)
    return chance.choice([
        f"READ {path}", f"DIRECTORY {path}", f"GET_PERMS {path}", f"DIRECTORY_PART {path} 0",
        f"WRITE {path} {chance.choice(['', 'v', 'w'])}", f"WRITE {path} v", f"MKDIR {path}",
        f"RM {path}", f"SET_PERMS {path} {chance.choice(PERMS)}"])


class Twins:
    """A world that lives on, and one that dies now and then."""

    def __init__(self) -> None:
        self.alive, self.mortal = shared(), shared()
        self.open: dict[str, str] = {}  # transaction's name -> whose
        self.outcomes: Counter[object] = Counter()

    def ask(self, who: str, request: Asked, tx: str = "") -> object:
        """The same to both; what is answered, which must be the same."""
        seen = [self._seen(world, world.packets(who, request, tx))
                for world in (self.alive, self.mortal)]
        assert seen[0] == seen[1], (who, request, tx)
        assert self.alive.tree() == self.mortal.tree(), (who, request, tx)
        return self.alive.reply.answer

    def _seen(self, world: World, found: dict[str, list[Packet]]) -> dict[str, list[object]]:
        """Without what may differ: ids, and events of sockets, whose watches are gone."""
        seen: dict[str, list[object]] = {}
        for name, packets in found.items():
            for packet in packets:
                shown: object = packet.payload
                if packet.kind == wire.XS_TRANSACTION_START:
                    shown = packet.payload[:-1].isdigit()
                elif packet.kind == wire.XS_DIRECTORY_PART:
                    shown = packet.payload.partition(b"\0")[2]
                if name in RINGS or packet.kind != wire.XS_WATCH_EVENT:
                    seen.setdefault(name, []).append((packet.kind, shown))
        return seen

    def start(self, who: str, name: str) -> None:
        """Open a transaction."""
        if self.ask(who, "START") == "ENOSPC":
            return
        for world in (self.alive, self.mortal):
            world.transactions[name] = int(world.reply.payload[:-1])
        self.open[name] = who

    def end(self, name: str, letter: str = "T") -> object:
        """Commit it, or not."""
        answer = self.ask(self.open.pop(name), f"END {letter}", name)
        self.outcomes[answer] += 1
        return answer

    def die(self) -> None:
        """And be born again."""
        self.mortal, orphans = reborn(self.mortal)
        assert orphans == [] and self.mortal.store.check() is None


@pytest.mark.parametrize("seed", range(25))
def test_random_histories(seed: int) -> None:
    """Several transactions are open at any time; others change what they use."""
    chance, twins = random.Random(seed), Twins()
    for number in range(250):
        what = chance.random()
        if what < 0.1 and len(twins.open) < 4:
            twins.start(chance.choice(RINGS), f"t{number}")
        elif what < 0.6 and twins.open:
            name = chance.choice(list(twins.open))
            twins.ask(twins.open[name], random_request(chance), name)
        elif what < 0.7 and twins.open:
            twins.end(chance.choice(list(twins.open)), chance.choice("TTTTF"))
        elif what < 0.78:
            who = chance.choice(RINGS)
            kind = chance.choice([wire.XS_WATCH] * 4 + [wire.XS_UNWATCH])
            twins.ask(who, (kind, nul(chance.choice(PATHS), chance.choice(["t", "u"]), *(
                chance.choice([[], ["1"]]) if kind == wire.XS_WATCH else []))))
        elif what < 0.9:
            twins.ask(chance.choice([*RINGS, "d0"]), random_request(chance))
        else:
            twins.die()
    for name in list(twins.open):
        twins.end(name)
    assert twins.outcomes["OK"] > 3, twins.outcomes


@pytest.mark.parametrize("seed", range(60))
def test_a_transaction_that_dies_after_each_of_its_requests(seed: int) -> None:
    """X4 at its sharpest: everything it was told was told by another life. Others write or not."""
    chance, twins = random.Random(1000 + seed), Twins()
    twins.start(chance.choice(RINGS), "t")
    others = chance.choice([0.0, 0.0, 0.15])
    for _ in range(chance.randrange(1, 15)):
        twins.die()
        twins.ask(twins.open["t"], random_request(chance), "t")
        if chance.random() < others:
            twins.ask(chance.choice(["d0", *RINGS]), random_request(chance))
    twins.die()
    twins.end("t")


def test_histories_are_no_idle_ones() -> None:
    """All outcomes there are, over the seeds of the tests above."""
    outcomes: Counter[object] = Counter()
    for seed in range(60):
        chance, twins = random.Random(1000 + seed), Twins()
        twins.start(chance.choice(RINGS), "t")
        for _ in range(8):
            twins.ask(twins.open["t"], random_request(chance), "t")
        twins.ask(chance.choice(["d0", *RINGS]), random_request(chance))
        twins.die()
        outcomes[twins.end("t")] += 1
    assert outcomes["OK"] > 10 and outcomes["EAGAIN"] > 2, outcomes


# -- by hand


def test_it_remembers_its_own_writes() -> None:
    """P3: one that forgot them would answer ENOENT, which clients do not retry."""
    twins = Twins()
    twins.start("r1", "t")
    for request in ("WRITE /s/new/deep v", "RM /s/a", "SET_PERMS /own n1 r2", "MKDIR /s/b"):
        assert twins.ask("r1", request, "t") == "OK"
    twins.die()
    assert twins.ask("r1", "READ /s/new/deep", "t") == b"v"
    assert twins.ask("r1", "DIRECTORY /s", "t") == b"new\0b\0"
    assert twins.ask("r1", "READ /s/a/x", "t") == "ENOENT"
    assert twins.ask("r1", "READ /s/a/x") == b"first"
    assert twins.ask("r1", "GET_PERMS /own", "t") == b"n1\0r2\0"
    twins.die()
    assert twins.end("t") == "OK"
    assert twins.ask("d0", "DIRECTORY /s") == b"new\0b\0"


def test_what_it_has_read_stays_as_it_was_read() -> None:
    twins = Twins()
    twins.start("r1", "t")
    assert twins.ask("r1", "READ /own", "t") == b"first"
    assert twins.ask("r1", "DIRECTORY /s", "t") == b"a\0"
    for request in ("WRITE /own second", "MKDIR /s/z"):
        twins.ask("d0", request)
    twins.die()
    assert twins.ask("r1", "READ /own", "t") == b"first"
    assert twins.ask("r1", "DIRECTORY /s", "t") == b"a\0"
    assert twins.end("t") == "EAGAIN"


def test_special_permissions_stay_as_they_were_read() -> None:
    twins = Twins()
    twins.start("r1", "t")
    shown = twins.ask("r1", "GET_PERMS @releaseDomain", "t")
    twins.ask("d0", "SET_PERMS @releaseDomain n0 r1")
    twins.die()
    assert twins.ask("r1", "GET_PERMS @releaseDomain", "t") == shown
    assert twins.end("t") == "EAGAIN"


def test_one_that_has_failed_stays_failed() -> None:
    """A create beyond a quota."""
    twins = Twins()
    twins.ask("d0", "SET_QUOTA nodes 3")
    twins.start("r1", "t")
    for name in "opqr":
        answer = twins.ask("r1", f"WRITE /s/{name} v", "t")
    assert answer == "ENOSPC"
    twins.die()
    assert twins.end("t") == "ENOMEM"


def test_the_limit_of_nodes_counts_those_of_before() -> None:
    twins = Twins()
    twins.ask("d0", "SET_QUOTA transaction-nodes 5")
    twins.start("r1", "t")
    for number in range(4):
        assert twins.ask("r1", f"READ /s/{number}", "t") == "ENOENT"
        twins.die()
    assert twins.ask("r1", "READ /s/another", "t") == "ENOSPC"
    twins.die()
    assert twins.end("t") == "ENOMEM"


def test_one_that_has_failed_for_memory_stays_failed() -> None:
    """A request that is refused before it is executed has failed the transaction all the same."""
    twins = Twins()
    twins.ask("d0", "SET_QUOTA memory 3000")
    twins.start("r1", "t")
    answer: object = "OK"
    while answer == "OK":
        answer = twins.ask("r1", "WRITE /own " + "v" * 200, "t")
    assert answer == "ENOMEM"
    twins.die()
    assert twins.end("t") == "ENOMEM"


# -- watches


def test_watches_come_back_in_their_order() -> None:
    """Across clients, with tokens, depths and relative spelling; UNWATCH finds them."""
    twins = Twins()
    for who, path, token, *depth in (("r2", "/s", "a"), ("r1", "/s/a", "b"), ("r2", "/s/a", "c"),
                                     ("r1", "/s", "d", "1"), ("r2", "/s", "e", "0"),
                                     ("r1", "own", "f"), ("r1", "@releaseDomain", "g", "1")):
        twins.ask(who, (wire.XS_WATCH, nul(path, token, *depth)))
    order = [one.token for one in twins.alive.store.watches.matching(Path(b"/s/a"))]
    twins.die()
    assert [one.token for one in twins.mortal.store.watches.matching(
        Path(b"/s/a"))] == order == [b"a", b"b", b"c", b"d"]
    twins.ask("d0", "WRITE /s/a v")
    twins.ask("d0", "WRITE /s/a/q v")
    twins.ask("r1", "WRITE own v")
    assert twins.ask("r1", "WATCH /local/domain/1/own f") == "EEXIST"
    assert twins.ask("r1", "UNWATCH /local/domain/1/own f") == "OK"
    twins.die()
    twins.ask("r1", "WRITE own v")
    twins.ask("r2", "WATCH /s/a z")
    twins.die()
    twins.ask("d0", "WRITE /s/a v")
    twins.alive.host.domains.discard(3)
    twins.mortal.host.domains.discard(3)
    assert twins.alive.look(3) == twins.mortal.look(3) == "r1 @releaseDomain/3 g"


def test_what_belongs_to_a_connection_goes_with_it_in_any_life() -> None:
    """RESET_WATCHES, END, a new connection, death: no item of it is left."""
    twins = Twins()
    for who in RINGS:
        twins.ask(who, "WATCH /s t")
        twins.start(who, who)
        twins.ask(who, "WRITE /s/x v", who)
        twins.ask(who, "READ /s/x", who)
    twins.die()
    twins.ask("r1", "RESET_WATCHES")
    twins.ask("d0", "INTRODUCE 2 1 1")
    twins.end("r3", "F")
    twins.ask("r3", "UNWATCH /s t")
    left = [key for world in (twins.alive, twins.mortal) for key in world.store.items.values
            if key.startswith(("watch.", "tx."))]
    assert left == []


def test_items_of_a_connection_that_nobody_has_are_named_and_dropped() -> None:
    """A crash between two records of a beginning."""
    world = shared()
    world.ask("r1", "WATCH /s t")
    world.start("r1")
    world.ask("r1", "READ /s", "t")
    epoch = world.clients["r1"].conn_id
    known = world.store.domains[1]
    world.store.items.put("domain.1", tuple(known._replace(epoch=99)))
    after, orphans = reborn(world)
    assert len(orphans) == 3 and all(key.split(".")[1] == str(epoch) for key in orphans)
    assert not after.clients["r1"].watches and not after.clients["r1"].transactions
    assert len(after.store.drop_items(orphans)) == 3
    assert reborn(after)[1] == []


def test_ids_of_a_life_before_are_not_given_again() -> None:
    """Neither to the ring that has it open nor to anybody."""
    world, seen = shared(), set()
    for _ in range(6):
        for who in ("r1", "d0", "r2"):
            world.ask(who, "START")
            tx_id = int(world.reply.payload[:-1])
            assert tx_id not in seen
            seen.add(tx_id)
        world, _ = reborn(world)
    assert set(world.clients["r1"].transactions) | set(world.clients["r2"].transactions) < seen


def test_ordinals_go_on_behind_those_of_watches() -> None:
    """H4: a watch of this life is behind all of the lives before."""
    world = shared()
    world.ask("r2", "WATCH /s late")
    after, _ = reborn(world)
    after.ask("r1", "WATCH /s later")
    for life in (after, reborn(after)[0]):
        assert [one.token for one in life.store.watches.exact(Path(b"/s"))] == [b"late", b"later"]
