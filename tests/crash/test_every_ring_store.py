# SPDX-License-Identifier: Apache-2.0
"""P1-P4 on rings: a crash at every store of region and ring pages, for every sequence of up to
three operations, in executing, publishing, and recovery itself.

Method: tests/crash/ring_sweep.py. Each run: all sequences of one operation, and shares of those
of two and three, drawn with a fixed seed. `make test`: all of two, a third of the images of each,
in turn, and a share of the recoveries. `make test-all`: everything, but that recoveries are crashed
only where a sequence of two is in its second operation (in the first it is the sequence of one),
and that of sequences of three every 23rd image's are. On all processors.
Cannot show: what needs more than three operations (test_ring_scenarios.py), real kills
(test_kill9_rings.py)."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

import pytest

from tests.crash.counts import tell
from tests.crash.ring_letters import BELOW_WRAP, DOM0, LETTERS, ONE
from tests.crash.ring_sweep import (
    ALL,
    NONE,
    Counts,
    begin,
    compare,
    die,
    images_of,
    plan_of,
    seen,
    sweep,
)
from tests.crash.ring_world import life, lives

SEED = 3
ALWAYS: list[Sequence[str]] = [  # of two operations: those that have most to do with each other
    ("commit", "start"), ("tx-write", "commit"), ("two-write", "commit"), ("watch", "write"),
    ("introduce-again", "introduce-again"), ("release", "introduce-again"),
    ("break-ring", "introduce-again"), ("replace", "introduce-again"), ("set-target", "die")]
Work = tuple[Sequence[str], slice, slice]


def one(work: Work) -> Counts:
    """For a worker process."""
    return sweep(*work)


def run(what: str, works: Iterable[Work], workers: int = 1) -> Counts:
    """Sweep many sequences; the counts are told at the end of the run."""
    begin()  # before the workers are forked
    if workers == 1:
        total = sum(map(one, works), Counts())
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
            total = sum(pool.map(one, works, chunksize=4), Counts())
    tell(f"rings, {what}: {total.text()}")
    return total


def drawn(length: int, count: int) -> list[Sequence[str]]:
    """So many of all sequences of a length, always the same."""
    sequences: list[Sequence[str]] = list(product(LETTERS, repeat=length))
    return random.Random(SEED).sample(sequences, count)


def test_one_operation() -> None:
    """Every operation by itself."""
    total = run("one operation", (((letter,), ALL, slice(None, None, 9)) for letter in LETTERS))
    assert total.images > 700 and total.second_images > 1500


@pytest.mark.slow
def test_a_share_of_two_and_three_operations() -> None:
    """For every run."""
    run("two operations, a share", ((letters, ALL, NONE) for letters in [*ALWAYS, *drawn(2, 40)]))
    run("three operations, a share", ((letters, slice(None, None, 2), slice(0, None, 40))
                                      for letters in drawn(3, 15)))


@pytest.mark.slow
def test_two_operations() -> None:
    """Every sequence, a third of the images of each."""
    total = run("two operations", ((letters, slice(number % 3, None, 3), NONE)
                                   for number, letters in enumerate(product(LETTERS, repeat=2))))
    assert total.images > 12_000


@pytest.mark.slow
def test_more_of_three_operations() -> None:
    """Another share, with some crashes during recovery."""
    run("three operations, a larger share", ((letters, slice(None, None, 2), slice(0, None, 40))
                                             for letters in drawn(3, 60)))
    run("one operation, more recoveries", (((letter,), slice(4, None, 9), ALL)
                                           for letter in LETTERS))


@pytest.mark.full
def test_all_of_up_to_two_operations() -> None:
    """Every image, and every recovery."""
    run("one operation, all", (((letter,), ALL, ALL) for letter in LETTERS), os.cpu_count() or 1)
    works: list[Work] = []
    for first in LETTERS:
        count = len(images_of(begin(), plan_of((first,)), is_start=False)[0])
        works += [((first, letter), ALL, slice(count, None)) for letter in LETTERS]
    run("two operations, all", works, os.cpu_count() or 1)


@pytest.mark.full
def test_all_of_three_operations() -> None:
    """Every image, and a share of the recoveries."""
    run("three operations, all", ((letters, ALL, slice(0, None, 23))
                                  for letters in product(LETTERS, repeat=3)), os.cpu_count() or 1)


def test_killed_behind_every_turn() -> None:
    """One life per turn, for whole sequences: what is owed, half sent, half received, and open
    transactions go through many lives."""
    count = 0
    for letters in [*((letter,) for letter in LETTERS), *ALWAYS, *drawn(2, 80),
                    *drawn(3, 80)]:
        plan = plan_of(letters)
        taken, world = lives(plan.image, plan.steps)
        compare(seen(life(plan.image, plan.steps)), world)
        count += taken
    tell(f"rings: {count} lives of one turn each")
    assert count > 800


def test_the_alphabet_crosses_the_wrap() -> None:
    """What guest 1 and domain 0 ask and hear takes their indices across 2^32."""
    crossed = 0
    for letter, steps in LETTERS.items():
        world = life(begin(), steps)
        for domid in (DOM0, ONE):
            before, after = begin().outside.guests[domid], world.guests[domid]
            assert before.req_prod == before.rsp_cons == BELOW_WRAP
            if after.next_req_id > before.next_req_id and after.is_connected and (
                    len(after.received) == len(before.received)):
                assert after.req_prod < BELOW_WRAP and after.rsp_cons < BELOW_WRAP, letter
                crossed += 1
    assert crossed > len(LETTERS) // 2


@pytest.mark.parametrize("letters", [("write-big", "write"), ("introduce-again", "commit")])
def test_images_are_what_a_death_leaves(letters: Sequence[str]) -> None:
    """The images that a life keeps are byte for byte those of really dying at their points; so are
    those of its recovery. (Not for letters that two guests hear of: the server publishes to them
    in the order of a set, which is another in each life.)"""
    plan = plan_of(letters)
    kept, _ = images_of(plan.image, plan, is_start=False)
    assert len(kept) > 20
    for image in kept:
        left = die(plan.image, plan, image.point)
        assert left[:2] == image[:2] and left.is_recovering == image.is_recovering
    for image in images_of(kept[9], plan, is_start=True)[0]:
        assert die(kept[9], plan, image.point)[:2] == image[:2]
