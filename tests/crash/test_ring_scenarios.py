# SPDX-License-Identifier: Apache-2.0
"""P2, P4, P7 on rings, where three operations do not reach: slow readers, slot turns that go over
each other, half requests, domains that leave in parts, owed bytes that are carried while the log
crosses its end. Method: tests/crash/ring_sweep.py on the schedules of ring_scenarios.py; each is
looked at for what it is there for. Cannot show: limits of what may be owed (tests/ring)."""

from __future__ import annotations

from collections import Counter

import pytest

from app import codec
from persist.reader import LogReader
from persist.record import Kind
from tests.crash.counts import tell
from tests.crash.ring_letters import TWO
from tests.crash.ring_scenarios import SCENARIOS
from tests.crash.ring_sweep import ALL, compare, plan_of, seen, sweep
from tests.crash.ring_world import RegionOfMemory, World, life, lives

QUICK = ("slots", "together", "leaving", "owed-then-introduce", "gone-far")


def tried(name: str, share: slice, second: slice) -> None:
    """Sweep, and tell."""
    total = sweep((name,), share, second)
    tell(f"rings, {name}: {total.text()}")
    assert total.images > 30


@pytest.mark.parametrize("name", QUICK)
def test_scenario(name: str) -> None:
    """Every image; few recoveries."""
    tried(name, ALL, slice(5, None, 60))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in QUICK])
def test_longer_scenario(name: str) -> None:
    """Every image; few recoveries."""
    tried(name, ALL, slice(5, None, 60))


@pytest.mark.full
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_with_all_recoveries(name: str) -> None:
    """Every image, and every one's recovery."""
    tried(name, ALL, ALL)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "log-wrap"])
def test_killed_behind_every_turn(name: str) -> None:
    """A life for every turn: what is owed goes through many of them."""
    plan = plan_of((name,))
    count, world = lives(plan.image, plan.steps)
    compare(seen(life(plan.image, plan.steps)), world)
    assert count > len(plan.steps)


def played(name: str) -> tuple[World, World]:
    """A scenario without a crash: the world when it begins to serve, and when all is done."""
    plan = plan_of((name,))
    before = World(plan.image, plan.steps, quiet=plan.quiet)
    before.start()
    before.close()
    return before, life(plan.image, plan.steps, plan.quiet)


def carried_since(position: int, world: World) -> tuple[Counter[int], int]:
    """The kinds of the records from `position` on, and how many owed bytes CARRY records hold."""
    log, kinds, owed = world.journal.log, Counter[int](), 0
    reader = LogReader(RegionOfMemory(world.memory))
    while position < log.tail:
        one = reader.record_at(position)
        assert one is not None
        kinds[one.kind] += 1
        if one.kind == Kind.CARRY:
            owed += sum(len(stream.data) for stream in
                        codec.decode_carry(one.payload, position).streams)
        position += one.size
    return kinds, owed


def test_the_log_wraps_and_owed_bytes_are_carried() -> None:
    """log-wrap does what it is there for."""
    before, after = played("log-wrap")
    log = after.journal.log
    begun = before.journal.log
    kinds, owed = carried_since(begun.tail, after)
    assert owed > 1000 and kinds[Kind.SEAL] and kinds[Kind.TURN]
    assert log.tail // log.size > begun.tail // begun.size, "the end of the log is not crossed"
    assert log.superblock.epoch > begun.superblock.epoch, "the start does not move"


def test_a_domain_leaves_in_parts() -> None:
    """leaving: the first turn does not remove all."""
    plan = plan_of(("leaving",))
    world = World(plan.image, plan.steps)
    world.start()
    world.begin_step()
    world.round()
    left = world.store.tree.owned_count(3)
    assert 0 < left < 150 and world.store.leaving
    world.close()


def test_a_slot_is_gone_over_while_bytes_are_owed() -> None:
    """slots: several slot turns of others between those of the slow reader."""
    plan = plan_of(("slots",))
    world = World(plan.image, plan.steps)
    world.start()
    world.play(3)
    sequence = world.journal._slots.sequence
    world.play(7)
    assert world.journal._slots.sequence >= sequence + 4
    assert world.server.rings is not None
    assert world.server.rings.guests.by_domid[TWO].unsent
    world.close()


def test_what_has_gone_far_is_logged_anew() -> None:
    """gone-far: a guest that only reads is logged though a slot would do; else it is not."""
    tails = []
    for plan in (plan_of(("gone-far",)), plan_of(("read", "read"))):
        world = World(plan.image, plan.steps)
        world.start()
        before = world.journal.log.tail
        world.play(2)
        tails.append(world.journal.log.tail > before)
        world.close()
    assert tails == [True, False]
