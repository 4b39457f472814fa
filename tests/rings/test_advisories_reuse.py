# SPDX-License-Identifier: Apache-2.0
"""Security advisories about numbers of domains that are used again (322, 417, 419, 483; pitfall 8):
what the dead one had must not pass to the next one, whatever the order of events.

Method: domains of a simulated Xen directory die and others get their number, with the server
looking in between, not looking, or dead meanwhile. C xenstored is asked, too, where it can look.
Cannot show: a hypervisor that reuses identities."""

from __future__ import annotations

import pytest

from tests.oracle.xsclient import MessageType as M
from tests.oracle.xsclient import strings
from tests.rings.house import House, house, refused, settled, wait_until

LIVES = 40


@pytest.mark.parametrize("special", ["@introduceDomain", "@releaseDomain", ""])
def test_xsa_322_rights_die_with_their_domain(both: House, special: str) -> None:
    guest = both.guest(7)
    both.dom0.write("/shared", "secret")
    both.dom0.set_perms("/shared", "n0", "b7")
    if special:
        both.dom0.set_perms(special, "n0", "r7")
        guest.watch(special, "t")
        both.guest(8)
        both.destroy(8)
        assert settled(guest).count((special, "t")) == 2
    assert guest.read("/shared") == b"secret"
    both.destroy(7)
    guest = both.guest(7)
    assert refused(guest.read, "/shared") == "EACCES"
    assert refused(guest.write, "/shared", "x") == "EACCES"
    if special:
        guest.watch(special, "t")
        both.guest(8)
        both.destroy(8)
        assert settled(guest) == [(special, "t")]


@pytest.mark.parametrize("is_looking", [True, False])
def test_xsa_322_nodes_die_with_their_owner(both: House, is_looking: bool) -> None:
    """Also where its successor is introduced before anybody has looked. (C xenstored, which has
    nothing here to tell them apart, can only be asked when it looks.)"""
    if not is_looking and not both.is_ours:
        pytest.skip("C 4.17 tells domains apart by looking in between")
    both.public()
    guest = both.guest(7)
    guest.write("/pub/mine", "1")
    guest.write("home", "1")
    both.sim.destroy_domain(7, notify=is_looking)
    if is_looking:
        wait_until(lambda: not both.dom0.is_introduced(7), "the death")
    both.sim.create_domain(7)
    successor = both.connect(7)
    both.dom0.introduce(7)
    for path in ("/pub/mine", "/local/domain/7/home", "/local/domain/7"):
        assert refused(both.dom0.read, path) == "ENOENT"
    assert refused(successor.read, "/pub/mine") == "ENOENT"
    both.check()


def test_xsa_322_while_there_is_no_server(ours: House) -> None:
    ours.public()
    guest = ours.guest(7)
    guest.write("/pub/mine", "1")
    ours.dom0.write("/shared", "secret")
    ours.dom0.set_perms("/shared", "n0", "r7")
    assert ours.server is not None
    ours.server.kill9()
    ours.sim.destroy_domain(7)
    ours.sim.create_domain(7)
    ours.server.restart()
    ours.dom0 = ours.client()
    wait_until(lambda: not ours.dom0.is_introduced(7), "the death")
    assert refused(ours.dom0.read, "/pub/mine") == "ENOENT"
    successor = ours.guest(7)
    assert refused(successor.read, "/shared") == "EACCES"
    ours.check()


@pytest.mark.parametrize("nodes", [10, 900])
def test_xsa_322_a_successor_introduced_while_much_is_being_removed(nodes: int) -> None:
    """The dead one's nodes are more than one step removes, and its successor comes at once: it
    gets nothing of them, and loses nothing of its own."""
    with house("tardigrade", ["--region-size", "1M"]) as it:
        for number in range(nodes // 25 + 1):  # not the guest's: so each node goes by itself
            it.public(f"/pub/{number}")
        guest = it.guest(7)
        for number in range(nodes):
            guest.write(f"/pub/{number // 25}/{'n' * 50}{number}", "1")
        it.sim.destroy_domain(7, notify=False)
        it.sim.create_domain(7)
        successor = it.connect(7)
        wait_until(lambda: refused(it.dom0.introduce, 7) is None, "INTRODUCE is OK")
        it.furnish(7)
        successor.write("x", "1")
        wait_until(lambda: not any(it.dom0.directory(f"/pub/{number}")
                                   for number in range(nodes // 25 + 1)), "its nodes are gone")
        it.sim.raise_virq()
        it.check()
        assert it.dom0.is_introduced(7)
        assert successor.read("x") == b"1"
        assert it.dom0.read("/local/domain/7/x") == b"1"


def test_xsa_417_permissions_before_introduce(both: House) -> None:
    """A toolstack writes the number into permissions before INTRODUCE; the right is for that
    domain, and not for the next one with its number."""
    both.sim.create_domain(7)
    both.dom0.write("/early", "1")
    both.dom0.set_perms("/early", "n0", "r7")
    both.furnish(7)
    guest = both.connect(7)
    both.dom0.introduce(7)
    assert guest.read("/early") == b"1"
    both.destroy(7)
    assert refused(lambda: both.guest(7).read("/early")) == "EACCES"
    # Named before it exists:
    both.dom0.set_perms("/early", "n0", "r9")
    assert refused(lambda: both.guest(9).read("/early")) == "EACCES"
    if both.is_ours:
        both.crash()
        assert refused(both.guests[9].read, "/early") == "EACCES"


@pytest.mark.parametrize("is_looking", [True, False])
def test_xsa_417_named_and_gone_without_an_introduction(ours: House, is_looking: bool) -> None:
    """C 4.17 gives the right to the next one."""
    ours.sim.create_domain(8)
    ours.dom0.write("/early", "1")
    ours.dom0.set_perms("/early", "n0", "r8")
    ours.sim.destroy_domain(8, notify=is_looking)
    ours.dom0.read("/")
    assert refused(lambda: ours.guest(8).read("/early")) == "EACCES"


def test_xsa_419_nodes_outside_the_home_do_not_pile_up(both: House) -> None:
    both.public()
    counts = []
    for life in range(LIVES):
        guest = both.guest(7)
        for number in range(10):
            guest.write(f"/pub/{life}-{number}/x", "1")
        both.destroy(7)
        assert both.dom0.directory("/pub") == []
        if both.is_ours:
            counts.append(both.nodes())
            if life == LIVES // 2:
                both.crash()
    assert not counts or max(counts) == min(counts)


def test_xsa_483_the_whole_quota_for_the_next_one(both: House) -> None:
    """A domain that has used up its nodes, its watches and its transactions."""
    made = []
    for _ in range(3):
        guest = both.guest(7)
        counts = [0, 0, 0]
        while refused(guest.mkdir, f"{counts[0] // 100}/{counts[0]}") is None:
            counts[0] += 1
        while refused(guest.watch, "x", counts[1]) is None:
            counts[1] += 1
        while refused(guest.transaction_start) is None:
            counts[2] += 1
        made.append(counts)
        both.destroy(7)
    assert made[0] == made[1] == made[2] and min(made[0]) > 8
    both.check()


def test_a_domains_own_quota_and_features_die_with_it(ours: House) -> None:
    ours.sim.create_domain(7)
    ours.dom0.call(M.SET_QUOTA, strings(7, "nodes", 5))
    ours.dom0.call(M.SET_FEATURE, strings(7, 2))
    ours.connect(7)
    ours.dom0.introduce(7)
    ours.destroy(7)
    ours.sim.create_domain(7)
    assert ours.dom0.call(M.GET_QUOTA, strings(7, "nodes")) == b"1000\0"
    assert ours.dom0.call(M.GET_FEATURE, strings(7)) == b"14\0"
