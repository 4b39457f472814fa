# SPDX-License-Identifier: Apache-2.0
"""A domain's removal that is larger than a step takes several, each of them bounded; until the last
it is LEAVING: nobody, and nobody's successor. And what a new life knows of domains. Method: the
rows of test_domain.py on a world of small steps.

Cannot show: that rings.py goes on with it in every turn (tests/crash, tests/sim)."""

from __future__ import annotations

from app import domain
from app.domain import LEAVING, Known
from tests.app.test_domain import SPECIAL_WATCHES, begin, end, row, world
from tests.app.world import World, text_of

# One step's effects take at most this much.
NARROW = (1 << 28, 1 << 32, 4096)


def large(count: int) -> World:
    """Domain 7 owns `count` nodes and has rights on as many, in a world of small steps."""
    one = world(row("INTRODUCE 7 1 1"), row("INTRODUCE 1 1 1"), space=NARROW)
    one.is_paranoid = False
    for number in range(count):
        one.put(f"/s/own{number:03}", "", "n7")
        one.put(f"/s/may{number:03}", "", "n0", "r7")
    return one


def test_a_large_removal_takes_several_steps() -> None:
    """Each within a step's bytes; LEAVING meanwhile, and told at the very end, once."""
    one = large(100)
    one.run(SPECIAL_WATCHES[1:3])
    one.host.domains.discard(7)
    assert one.look(7) == "" and one.store.leaving == {7}
    steps = [one.effects]
    left = one.store.tree.owned_count(7) + len(one.store.tree.granted[7])
    while one.store.leaving:
        assert one.store.domains[7].state == LEAVING
        heard = text_of(one.step(one.store.sweep(7)))
        steps.append(one.effects)
        now = one.store.tree.owned_count(7) + len(one.store.tree.granted.get(7, ()))
        assert now < left, "no progress"
        left = now
        assert heard == ("" if one.store.leaving else
                         "d0 @releaseDomain r, d0 @releaseDomain/7 d")
    assert len(steps) > 4 and left == 0 and 7 not in one.store.domains
    for effects in steps:
        assert sum(effect.log_bytes() for effect in effects) <= NARROW[2]
    assert one.store.check() is None


def test_a_domain_that_is_leaving_has_no_say_and_no_successor() -> None:
    """Nobody gets its number before its last right is gone."""
    one = large(100)
    end(one, 7)
    assert 7 not in one.store.rings and "r7" not in one.clients
    one.host.shut_down.add(7)
    begin(one, 7)
    assert one.look(7) == ""
    one.run([row("INTRODUCE 7 1 1", "EBUSY"), row("IS_DOMAIN_INTRODUCED 7", b"F\0"),
             row("RELEASE 7", "ENOENT"), row("RESUME 7", "ENOENT"), row("SET_TARGET 7 1", "ENOENT"),
             row("SET_TARGET 1 7", "ENOENT")])
    while one.store.leaving:
        one.step(one.store.sweep(7))
    one.run([row("INTRODUCE 7 1 1"), row("READ /s/may001", "EACCES", who="r7")])


def test_what_a_leaving_domain_is_given_goes_too() -> None:
    one = large(100)
    end(one, 7)
    one.put("/late", "", "n7")
    one.put("/right", "", "n0", "r7")
    while one.store.leaving:
        one.step(one.store.sweep(7))
    assert "/late" not in one.tree() and one.tree()["/right"] == (b"", b"n0\0")


def test_release_of_a_large_domain() -> None:
    """The answer comes at once, the event when it is over."""
    one = large(100)
    one.run([*SPECIAL_WATCHES[1:2], row("RELEASE 7"), row("RELEASE 7", "ENOENT")])
    while one.store.leaving:
        heard = text_of(one.step(one.store.sweep(7)))
    assert heard == "d0 @releaseDomain r" and 7 not in one.store.domains


def test_many_that_end_at_once_are_looked_at_in_steps() -> None:
    """A look takes on no more than fits a step; who is left in the list is due next."""
    one = World(domains=range(1, 60), guests=(), space=NARROW)
    one.is_paranoid = False
    for domid in range(1, 60):
        one.ask("d0", f"INTRODUCE {domid} 1 1")
        one.put(f"/of{domid}", "", f"n{domid}")
    one.host.domains.clear()
    domids, rounds = list(range(1, 60)), 0
    while domids or one.store.leaving:
        effects = (one.store.look_at(domids) if domids
                   else one.store.sweep(next(iter(one.store.leaving))))
        assert sum(effect.log_bytes() for effect in effects) <= NARROW[2]
        rounds += 1
    assert rounds > 3 and not one.store.domains and len(one.tree()) == 3


# -- across lives


def test_a_new_life_knows_them_again() -> None:
    """Everything in Known is an item, and so is the next epoch."""
    one = world(*[row(f"INTRODUCE {domid} {domid} 4") for domid in (3, 7)], row("SET_TARGET 3 7"),
                row("SET_PERMS /tool n0 r1"), row("INTRODUCE 2 1 1"))
    one.host.shut_down.add(7)
    one.look(7)
    one.step(one.store.mute(2, 3))
    after = World(guests=())
    for key, value in one.store.items.values.items():
        after.store.items.restore(key, value)
    after.store.resume()
    assert after.store.domains == one.store.domains
    assert after.store.domains[7].is_shutdown and after.store.domains[3].target == 7
    assert after.store.domains[2].error == 3 and after.store.domains[1] == Known(1)
    used = {known.epoch for known in one.store.domains.values()}
    assert domain.next_epoch(after.store) not in used


def test_a_life_that_ended_in_a_removal_goes_on_with_it() -> None:
    one = large(100)
    end(one, 7)
    after = World(guests=(), space=NARROW)
    for key, value in one.store.items.values.items():
        after.store.items.restore(key, value)
    after.store.resume()
    assert after.store.leaving == {7} and after.store.domains == one.store.domains
