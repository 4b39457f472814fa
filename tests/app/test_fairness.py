# SPDX-License-Identifier: Apache-2.0
"""Who makes others' transactions fail waits, for a bounded time, and nobody else does (XSA-206).
Method: credits on a clock that the test moves; a charging and asking at random against the rule in
words. Who is charged: a guest's writes on a store, in rows.

Cannot show: that a guest that is to wait is left alone (test_serve, tests/rings)."""

from __future__ import annotations

import random

import pytest

from app.fairness import CREDIT_MAX, REFILL_S, Credits
from tests.app.world import World

BURST = int(CREDIT_MAX)


def test_who_hurts_nobody_never_waits() -> None:
    book = Credits()
    book.charge({1}, 0.0)
    assert [book.wait_s(domid, 0.0) for domid in (0, 1, 2)] == [0.0, 0.0, 0.0]


def test_a_burst_is_free_and_then_it_is_one_per_refill() -> None:
    book = Credits()
    for _ in range(BURST - 1):
        book.charge({1}, 10.0)
        assert book.wait_s(1, 10.0) == 0.0
    book.charge({1}, 10.0)
    assert book.wait_s(1, 10.0) == pytest.approx(REFILL_S)
    assert book.wait_s(1, 10.0 + REFILL_S / 2) == pytest.approx(REFILL_S / 2)
    assert book.wait_s(1, 10.0 + REFILL_S * 1.01) == 0.0
    book.charge({1}, 10.0 + REFILL_S * 1.01)
    assert 0 < book.wait_s(1, 10.0 + REFILL_S * 1.01) <= REFILL_S


def test_domain_0_is_never_held_back() -> None:
    book = Credits()
    for _ in range(100):
        book.charge({0, 1}, 0.0)
    assert book.wait_s(0, 0.0) == 0.0 < book.wait_s(1, 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_credit_is_what_was_there_less_what_was_spent(seed: int) -> None:
    """Against the plain sum: credit comes back at one per REFILL_S, and never above the most."""
    chance, book = random.Random(seed), Credits()
    now, plain = 0.0, {1: CREDIT_MAX, 2: CREDIT_MAX}
    for _ in range(400):
        passed = chance.choice([0.0, 0.001, REFILL_S, 3 * REFILL_S, 100 * REFILL_S])
        now += passed
        plain = {domid: min(CREDIT_MAX, left + passed / REFILL_S) for domid, left in plain.items()}
        domid = chance.choice([1, 2])
        if chance.random() < 0.6:
            book.charge({domid}, now)
            plain[domid] = max(plain[domid] - 1, 0.0)
        right = (1.0 - plain[domid]) * REFILL_S if plain[domid] < 1.0 else 0.0
        assert book.wait_s(domid, now) == pytest.approx(right, abs=1e-9)


def test_memory_is_that_of_those_in_debt() -> None:
    book = Credits()
    for domid in range(1, 1000):
        book.charge({domid}, 0.0)
    for domid in range(1, 1000):
        book.wait_s(domid, 1000.0)
    assert not book.spent


# -- who is charged


def conflicts(world: World) -> list[set[int]]:
    """Taken from the store."""
    taken = world.store.isolation.conflicts[:]
    world.store.isolation.conflicts.clear()
    return taken


def shared() -> World:
    """A directory that all may write, with two nodes."""
    world = World()
    for path in ("/s", "/s/a", "/s/b"):
        world.put(path, "", "b0")
    return world


@pytest.mark.parametrize("request_, guilty", [
    ("WRITE /s/a 1", [{1}]), ("RM /s/a", [{1}]), ("RM /s", [{1}]), ("SET_PERMS /s/a b0", []),
    ("WRITE /s/b 1", None), ("WRITE /s/c 1", None), ("READ /s/a", None)])
def test_the_writer_of_what_was_read_is_guilty(request_: str,
                                               guilty: list[set[int]] | None) -> None:
    """Also if it changed what is above it. A commit that succeeds blames nobody."""
    world = shared()
    if request_ == "RM /s":
        world.put("/", "", "b0")
    world.start("d0")
    world.ask("d0", "READ /s/a", "t")
    world.ask("g1", request_)
    answer = world.ask("d0", "END T", "t")
    assert conflicts(world) == (guilty or []) and (answer == "EAGAIN") is bool(guilty)


@pytest.mark.parametrize("read, request_, guilty", [
    ("READ /s/a", "WRITE /s/c 1", []), ("DIRECTORY /s", "WRITE /s/c 1", [{1}]),
    ("DIRECTORY /s", "RM /s/b", [{1}]), ("READ /s/new", "WRITE /s/new 1", [{1}]),
    ("DIRECTORY /s", "WRITE /s/b 1", [])])
def test_only_who_changed_the_answer_is_guilty_and_once(read: str, request_: str,
                                                        guilty: list[set[int]]) -> None:
    """A guest whose commits fail by its own doing makes nobody pay, whatever was written nearby."""
    world = shared()
    world.start("g2", "keeps")  # so nothing is forgotten
    world.start("g3")
    world.ask("g3", read, "t")
    world.ask("g1", request_)
    assert world.ask("g3", "END T", "t") == ("EAGAIN" if guilty else "OK")
    assert conflicts(world) == guilty
    for number in range(3):
        world.start("g3")
        world.ask("g3", read, "t")
        world.ask("g3", "READ /s/a", "t")
        world.ask("g3", f"WRITE /s/a {number}")
        assert world.ask("g3", "END T", "t") == "EAGAIN" and conflicts(world) == []


def test_one_write_is_paid_for_once() -> None:
    """Guest 1 has written above what guest 3 reads, and guest 3 fails by its own doing."""
    world = shared()
    world.start("g2", "keeps")
    world.ask("g1", "WRITE /s 1")
    found = []
    for number in range(3):
        world.start("g3")
        world.ask("g3", "READ /s/a", "t")
        world.ask("g3", f"WRITE /s/a {number}")
        assert world.ask("g3", "END T", "t") == "EAGAIN"
        found += conflicts(world)
    assert found == [{1}]


def test_nobody_is_to_blame_for_own_writes_nor_for_those_of_domain_0() -> None:
    world = shared()
    world.start("g1")
    world.ask("g1", "READ /s/a", "t")
    world.ask("g1", "WRITE /s/a 1")
    assert world.ask("g1", "END T", "t") == "EAGAIN" and conflicts(world) == []
    world.start("g1")
    world.ask("g1", "READ /s/a", "t")
    world.ask("d0", "WRITE /s/a 2")
    assert world.ask("g1", "END T", "t") == "EAGAIN" and conflicts(world) == []


def test_a_commit_is_to_blame_as_a_write_is() -> None:
    world = shared()
    world.start("d0")
    world.ask("d0", "READ /s/a", "t")
    world.start("g2", "u")
    world.ask("g2", "WRITE /s/a 1", "u")
    world.ask("g1", "WRITE /s/b 1")
    assert world.ask("g2", "END T", "u") == "OK"
    assert world.ask("d0", "END T", "t") == "EAGAIN" and conflicts(world) == [{2}]


def test_writes_of_before_the_transactions_are_forgotten() -> None:
    world = shared()
    world.start("d0")
    world.ask("g1", "WRITE /s/a 1")
    world.ask("d0", "END F", "t")
    world.start("d0")
    world.ask("d0", "READ /s/a", "t")
    world.ask("d0b", "WRITE /s/a 2")
    assert world.ask("d0", "END T", "t") == "EAGAIN" and conflicts(world) == []
