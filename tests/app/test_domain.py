# SPDX-License-Identifier: Apache-2.0
"""The life of domains: who is known, introduced, shut down, gone; what goes with them; who hears of
it. Method: rows on a world whose hypervisor is a set of numbers; after a row, and after a look of
the server, all that everybody was sent is compared. "r7" is the connection that INTRODUCE 7 makes.

Source: reference 2.2, 2.4, 2.5, 9; XSA-322, 325, 417, 419. Cannot show: rings' pages (rings.py),
that a domain's end is noticed (ring/), random histories (test_model.py), removal in several steps
(test_domain_removal.py)."""

from __future__ import annotations

from typing import Any

import pytest

from app import domain
from app.domain import CONNECTED, Known
from app.perms import from_wire
from tests.app.world import WIDE, World, text_of


def world(*rows: Any, space: tuple[int, int, int] = WIDE) -> World:
    """Domains 1, 2, 3, 7 exist, 9 does not; /s may be written by all; then the rows."""
    one = World(guests=(), space=space)
    one.put("/s", "", "b0")
    return one.run(rows)


def row(request: str, answer: str | bytes = "OK", events: str = "", who: str = "d0",
        tx: str = "") -> tuple[str, str, str, str | bytes, str]:
    """What domain 0 asks."""
    return who, tx, request, answer, events


def end(one: World, domid: int) -> str:
    """A domain ends, and the server looks: who hears of what."""
    one.host.domains.discard(domid)
    return one.look(domid)


def begin(one: World, domid: int) -> None:
    """Another domain with this number, or the first."""
    one.host.domains.add(domid)
    one.host.identities[domid] = one.host.identities.get(domid, 1) + 1


# -- beginning

SPECIAL_WATCHES = [
    row("WATCH @introduceDomain i", events="d0 @introduceDomain i"),
    row("WATCH @releaseDomain r", events="d0 @releaseDomain r"),
    row("WATCH @releaseDomain d 1", events="d0 @releaseDomain d"),
    row("WATCH @releaseDomain/7 s", events="d0 @releaseDomain/7 s"),
]


def test_introducing_tells_before_the_ok() -> None:
    world(*SPECIAL_WATCHES,
          row("IS_DOMAIN_INTRODUCED 7", b"F\0"),
          row("INTRODUCE 7 1 1", events="d0 @introduceDomain i"),
          row("IS_DOMAIN_INTRODUCED 7", b"T\0"),
          row("INTRODUCE 9 1 1", "ENOENT"),
          row("IS_DOMAIN_INTRODUCED 9", b"F\0"),
          row("IS_DOMAIN_INTRODUCED 32752", b"T\0"))  # DOMID_SELF


def test_introducing_again_is_silent_and_begins_anew() -> None:
    """Pitfall 12: watches, transactions and the old connection are gone; the target stays."""
    one = world(*SPECIAL_WATCHES, row("INTRODUCE 7 1 1", events="d0 @introduceDomain i"),
                row("INTRODUCE 1 1 1", events="d0 @introduceDomain i"),
                row("SET_TARGET 7 1"),
                row("WATCH /s t", events="r7 /s t", who="r7"))
    one.start("r7")
    before, epoch = one.clients["r7"], one.store.domains[7].epoch
    one.run([row("INTRODUCE 7 5 6")])
    assert one.clients["r7"] is not before and not before.watches and not before.transactions
    assert one.store.domains[7] == Known(1, one.clients["r7"].conn_id, CONNECTED, 5, 6, target=1)
    assert one.store.domains[7].epoch > epoch, "an epoch was given out twice"
    assert before not in one.store.clients and one.clients["r7"].target == 1
    assert not [key for key in one.store.items.values if key.startswith(("watch.", "tx."))]
    one.run([row("WRITE /s/x v"), row("READ /s", "ENOENT", who="r7", tx="t")])


def test_words_are_stored_between_two_records() -> None:
    """S5: RESETTING, until the ring has been reset."""
    one = world()
    client = one.host.attach(7, 99, 1, 1)
    domain.connect(one.store, 7, client, Known(1, 99, domain.RESETTING, 1, 1))
    assert one.store.domains[7].state == domain.RESETTING and one.store.resetting == [7]
    one.store.reset_rings([7])
    assert one.store.domains[7].state == CONNECTED
    with pytest.raises(AssertionError):
        one.store.reset_rings([7])


def test_another_domain_with_the_number_is_introduced_over_the_first() -> None:
    """Its end was not seen yet: it is told first, then the beginning."""
    one = world(*SPECIAL_WATCHES, row("INTRODUCE 7 1 1", events="d0 @introduceDomain i"),
                row("WRITE own v", who="r7", answer="EACCES"))
    one.put("/s/own", "", "n7")
    begin(one, 7)
    one.run([row("INTRODUCE 7 1 1", events=(
        "d0 @releaseDomain r, d0 @releaseDomain/7 d, d0 @releaseDomain/7 s, "
        "d0 @introduceDomain i")),
        row("READ /s/own", "ENOENT"), row("READ /s/own", "ENOENT", who="r7")])


# -- ending


def test_death_and_release_are_told_once() -> None:
    """By its bare name without depth, by number with one, or on the number's own name."""
    heard = "d0 @releaseDomain r, d0 @releaseDomain/7 d, d0 @releaseDomain/7 s"
    begun = row("INTRODUCE 7 1 1", events="d0 @introduceDomain i")
    one = world(*SPECIAL_WATCHES, begun, row("RELEASE 7", events=heard),
                row("RELEASE 7", "ENOENT"), row("IS_DOMAIN_INTRODUCED 7", b"F\0"), begun)
    assert end(one, 7) == heard
    assert one.look(7) == ""
    one.run([row("IS_DOMAIN_INTRODUCED 7", b"F\0"), row("INTRODUCE 7 1 1", "ENOENT")])


def test_several_that_end_at_once_are_one_bare_name() -> None:
    one = world(row("INTRODUCE 7 1 1"), row("INTRODUCE 1 1 1"), *SPECIAL_WATCHES)
    one.host.domains.clear()
    assert one.look(1, 7) == ("d0 @releaseDomain r, d0 @releaseDomain/1 d, d0 @releaseDomain/7 d, "
                              "d0 @releaseDomain/7 s")


def test_who_was_never_introduced_ends_silently() -> None:
    one = world(*SPECIAL_WATCHES, row("SET_PERMS /s b0 r7"))
    assert end(one, 7) == "" and 7 not in one.store.domains


def test_shutdown_is_told_once_until_resume() -> None:
    """Pitfall 11, and its end is told all the same."""
    heard = "d0 @releaseDomain r, d0 @releaseDomain/7 d, d0 @releaseDomain/7 s"
    one = world(row("INTRODUCE 7 1 1"), *SPECIAL_WATCHES)
    one.host.shut_down.add(7)
    assert [one.look(7), one.look(7)] == [heard, ""]
    one.run([row("IS_DOMAIN_INTRODUCED 7", b"T\0"), row("INTRODUCE 7 1 1")])
    assert one.look(7) == "", "introduced again: still the same shutdown"
    one.run([row("RESUME 7")])
    assert [one.look(7), one.look(7)] == [heard, ""]
    one.host.shut_down.discard(7)
    one.run([row("RESUME 7")])
    assert one.look(7) == ""
    one.host.shut_down.add(7)
    assert [one.look(7), end(one, 7)] == [heard, heard]


def test_shutdown_of_who_is_only_known_is_not_told() -> None:
    one = world(*SPECIAL_WATCHES, row("SET_PERMS /s b0 r7"))
    one.host.shut_down.add(7)
    assert one.look(7) == ""
    one.run([row("INTRODUCE 7 1 1", events="d0 @introduceDomain i")])
    assert one.look(7) != "", "it was never told"


def test_a_muted_ring_changes_nothing_in_this() -> None:
    """XSA-325: @releaseDomain at its real end, once; until then it is introduced."""
    one = world(row("INTRODUCE 7 1 1"), row("WATCH /s t", events="r7 /s t", who="r7"),
                *SPECIAL_WATCHES)
    client = one.clients["r7"]
    assert text_of(one.step(one.store.mute(7, 2))) == ""
    assert one.store.domains[7].error == client.error == 2 and one.store.muted == [client]
    assert not client.watches
    one.run([row("WRITE /s/x v"), row("IS_DOMAIN_INTRODUCED 7", b"T\0")])
    assert one.look(7) == ""
    assert end(one, 7) == "d0 @releaseDomain r, d0 @releaseDomain/7 d, d0 @releaseDomain/7 s"


def test_a_muted_ring_is_heard_again_when_it_is_introduced_again() -> None:
    one = world(row("INTRODUCE 7 1 1"))
    one.step(one.store.mute(7, 2))
    one.run([row("INTRODUCE 7 1 1"), row("READ /s", b"", who="r7")])
    assert one.store.domains[7].error == 0 and one.clients["r7"].error == 0


# -- who hears


def test_special_watches_hear_what_they_may_read() -> None:
    """@introduceDomain is domain 0's own, @releaseDomain everybody's, until it is changed."""
    one = world(*[row(f"INTRODUCE {domid} 1 1") for domid in (1, 2)],
                *[row(f"WATCH @{name}Domain {name[0]}", events=f"r{domid} @{name}Domain {name[0]}",
                      who=f"r{domid}") for domid in (1, 2) for name in ("introduce", "release")],
                row("INTRODUCE 7 1 1"))
    assert end(one, 7) == "r1 @releaseDomain r, r2 @releaseDomain r"
    begin(one, 7)
    one.run([row("SET_PERMS @introduceDomain n0 r1"), row("SET_PERMS @releaseDomain n0 r2 r7"),
             row("INTRODUCE 7 1 1", events="r1 @introduceDomain i")])
    assert end(one, 7) == "r2 @releaseDomain r"


def test_special_events_come_in_the_order_of_registration() -> None:
    one = world(row("INTRODUCE 1 1 1"),
                row("WATCH @releaseDomain/7 a", events="r1 @releaseDomain/7 a", who="r1"),
                row("WATCH @releaseDomain b", events="r1 @releaseDomain b", who="r1"),
                row("WATCH @releaseDomain c 65535", events="r1 @releaseDomain c", who="r1"),
                row("WATCH @releaseDomain d 0", events="r1 @releaseDomain d", who="r1"),
                row("WATCH @releaseDomain/8 e", events="r1 @releaseDomain/8 e", who="r1"),
                row("INTRODUCE 7 1 1"))
    assert end(one, 7) == ("r1 @releaseDomain/7 a, r1 @releaseDomain b, r1 @releaseDomain/7 c, "
                           "r1 @releaseDomain d")


def test_special_events_are_never_coalesced() -> None:
    one = world(row("INTRODUCE 7 1 1"), row("INTRODUCE 1 1 1"), *SPECIAL_WATCHES[1:2])
    one.host.domains -= {1, 7}
    one.store.look_at([1])
    one.store.look_at([7])
    assert text_of(one.step([])) == "d0 @releaseDomain r, d0 @releaseDomain r"


# -- what goes with a domain


def test_all_that_it_owned_goes_wherever_it_is() -> None:
    """XSA-419: with events, children included whoever owns them, deepest first; what is above hears
    of each. In the order of paths; a node that went with one above it is not told twice."""
    one = world(row("INTRODUCE 7 1 1"))
    for path, owner in (("/s/b", 7), ("/s/b/of1", 1), ("/s/b/of7", 7), ("/s/a", 7), ("/t", 1),
                        ("/t/7", 7), ("/local/domain/7", 7)):
        one.put(path, "", f"n{owner}")
    one.run([row("WATCH / r", events="d0 / r"), row("WATCH /s/b/of1 o", events="d0 /s/b/of1 o"),
             row("WATCH /t t", events="d0 /t t"), row("WATCH @releaseDomain z",
                                                      events="d0 @releaseDomain z")])
    assert end(one, 7) == ("d0 /local/domain/7 r, d0 /s/a r, d0 /s/b/of1 o, d0 /s/b r, "
                           "d0 /t/7 r, d0 /t/7 t, d0 @releaseDomain z")
    assert sorted(one.tree()) == ["/", "/local", "/local/domain", "/s", "/t", "/tool",
                                  "/tool/xenstored"]
    assert one.store.tree.owned_count(7) == 0


def test_the_root_is_never_removed() -> None:
    """It is domain 0's again."""
    one = world(row("INTRODUCE 7 1 1"), row("SET_PERMS / n7 r1"), row("WATCH / r", events="d0 / r"))
    assert end(one, 7) == "d0 / r"
    one.run([row("GET_PERMS /", b"n0\0r1\0"), row("READ /s", b"")])


def test_its_own_watches_do_not_hear_of_it() -> None:
    """Nor anybody who could read only as its actor or owner."""
    one = world(row("INTRODUCE 7 1 1"), row("INTRODUCE 3 1 1"), row("SET_TARGET 3 7"))
    one.put("/s/own", "", "n7")
    one.put("/own", "", "n7")
    one.run([row("WATCH /own a", events=f"{who} /own a", who=who) for who in ("r7", "r3")]
            + [row("WATCH /s/own b", events="r3 /s/own b", who="r3")])
    # The parent /s may be read by all, so /s/own is heard; / may not.
    assert end(one, 7) == "r3 /s/own b"


def test_all_its_rights_go_silently() -> None:
    """XSA-322: nobody hears; the index is empty; a new domain with the number has none of them."""
    one = world(row("INTRODUCE 7 1 1"), row("SET_PERMS /tool n0 r1 b7 w2"),
                row("SET_PERMS @introduceDomain n0 r7"), row("SET_PERMS @releaseDomain r0 b7 n2"),
                row("READ /tool", b"", who="r7"), row("WATCH / r", events="d0 / r"))
    assert sorted(one.store.tree.granted[7]) == [b"/tool"]
    assert end(one, 7) == "" and 7 not in one.store.tree.granted
    begin(one, 7)
    one.run([row("GET_PERMS /tool", b"n0\0r1\0w2\0"), row("GET_PERMS @introduceDomain", b"n0\0"),
             row("GET_PERMS @releaseDomain", b"r0\0n2\0"), row("INTRODUCE 7 1 1"),
             row("READ /tool", "EACCES", who="r7"),
             row("GET_PERMS @introduceDomain", "EACCES", who="r7")])


def test_a_special_node_that_it_owned_is_domain_0_s_again() -> None:
    """XSA-322 for special nodes: the next domain with the number must not own it."""
    one = world(row("INTRODUCE 7 1 1"), row("SET_PERMS @introduceDomain n7"))
    end(one, 7)
    begin(one, 7)
    one.run([row("GET_PERMS @introduceDomain", b"n0\0"), row("INTRODUCE 7 1 1"),
             row("SET_PERMS @introduceDomain r7", "EACCES", who="r7")])


def test_quotas_and_features_of_its_own_go() -> None:
    one = world(row("SET_QUOTA 7 nodes 5"), row("SET_FEATURE 7 2"))
    assert end(one, 7) == ""
    begin(one, 7)
    one.run([row("GET_QUOTA 7 nodes", b"1000\0"), row("GET_FEATURE 7", b"14\0")])
    assert not [key for key in one.store.items.values if key.startswith(("domain.7", "quota.7"))]


def test_a_whole_life_leaves_nothing_behind() -> None:
    """Three hundred times: XSA-419, 483."""
    one = world(row("INTRODUCE 7 1 1"))
    one.is_paranoid = False
    one.start("d0", "any")
    end(one, 7)
    before = one.tree(), set(one.store.items.values), len(one.store.clients)
    for _ in range(300):
        begin(one, 7)
        one.run([row("SET_PERMS /tool n0 b7"), row("INTRODUCE 7 1 1"),
                 row("WRITE /s/x/y v", who="r7"), row("WRITE /tool/z v", who="r7"),
                 row("WATCH /s t", events="r7 /s t", who="r7"), row("SET_PERMS /tool n0")])
        one.start("r7")
        one.ask("r7", "WRITE /s/in v", "t")
        end(one, 7)
    assert (one.tree(), set(one.store.items.values), len(one.store.clients)) == before
    assert one.store.check() is None and not one.store.rings and not one.store.actors


# -- who is known


def test_rights_that_are_set_before_there_is_such_a_domain_grant_nothing() -> None:
    """XSA-417: they are shown, and ignored, for the domain that comes and all after it."""
    one = world(row("SET_PERMS /tool n0 b9 r7"), row("GET_PERMS /tool", b"n0\0b9\0r7\0"))
    begin(one, 9)
    one.run([row("INTRODUCE 9 1 1"), row("READ /tool", "EACCES", who="r9"),
             row("GET_PERMS /tool", b"n0\0b9\0r7\0"), row("INTRODUCE 7 1 1"),
             row("READ /tool", b"", who="r7"),
             row("SET_PERMS /tool n0 b9"), row("READ /tool", b"", who="r9")])
    end(one, 9)
    one.run([row("GET_PERMS /tool", b"n0\0")])


def test_rights_that_are_set_before_the_introduction_count() -> None:
    """A toolstack writes them first; the domain is known from then on, by its identity."""
    one = world(row("SET_PERMS /tool n0 b7"))
    assert one.store.domains[7] == Known(1)
    one.run([row("INTRODUCE 7 1 1"), row("READ /tool", b"", who="r7")])


def test_rights_of_one_that_was_replaced_before_its_introduction_do_not_count() -> None:
    """XSA-417 proper: another domain has the number by then."""
    one = world(row("SET_PERMS /tool n0 b7"), *SPECIAL_WATCHES)
    begin(one, 7)
    one.run([row("INTRODUCE 7 1 1", events="d0 @introduceDomain i"),
             row("READ /tool", "EACCES", who="r7"), row("GET_PERMS /tool", b"n0\0")])


def test_an_identity_that_was_not_known_yet_is_learned() -> None:
    """The ring file comes later than the domain: 0 is nobody's identity, and no other."""
    one = world()
    one.host.identities[7] = 0
    one.run([row("SET_PERMS /tool n0 b7")])
    one.host.identities[7] = 5
    assert one.look(7) == "" and one.store.domains[7] == Known(5)
    one.run([row("INTRODUCE 7 1 1"), row("READ /tool", b"", who="r7")])
    one.host.identities[7] = 0
    assert one.look(7) == "" and one.store.domains[7].identity == 5
    one.host.identities[7] = 6
    one.look(7)
    assert 7 not in one.store.domains


def test_new_nodes_inherit_that_an_entry_is_ignored() -> None:
    one = world(row("SET_PERMS /s b0 r9"), row("WRITE /s/x v"))
    begin(one, 9)
    one.run([row("SET_PERMS /s b0"), row("INTRODUCE 9 1 1"), row("GET_PERMS /s/x", b"b0\0r9\0")])
    assert one.store.tree.nodes[b"/s/x"].perms is from_wire(b"b0\0R9\0")  # type: ignore[index]


def test_failed_requests_make_nobody_known() -> None:
    one = world(row("INTRODUCE 1 1 1"), row("SET_PERMS /none n7", "ENOENT"),
                row("SET_PERMS /tool n7", "EACCES", who="r1"), row("SET_PERMS /s x7", "EINVAL"),
                row("SET_PERMS @none n7", "ENOENT"), row("SET_QUOTA 7 none 1", "EINVAL"))
    assert set(one.store.domains) == {1}


# -- acting for another


def test_a_target_merges_two_identities_until_it_ends() -> None:
    """Pitfall 6: rights and ownership; not quotas, nor the base of relative paths."""
    one = world(*[row(f"INTRODUCE {domid} 1 1") for domid in (3, 7)])
    one.put("/seven", "7", "n7")
    one.put("/may7", "m", "n0", "r7")
    one.run([
        row("READ /seven", "EACCES", who="r3"), row("SET_TARGET 3 7"),
        row("READ /seven", b"7", who="r3"), row("READ /may7", b"m", who="r3"),
        row("SET_PERMS /seven n7 r2", who="r3"), row("READ /seven", b"7", who="r7"),
        row("SET_TARGET 3 9", "ENOENT"), row("SET_TARGET 9 3", "ENOENT"),
        row("SET_TARGET 0 3", "EINVAL"), row("READ /seven", b"7", who="r3")])
    assert one.store.actors == {7: {3}}
    end(one, 7)
    assert one.clients["r3"].target == -1 and one.store.domains[3].target == -1
    assert not one.store.actors
    begin(one, 7)
    one.run([row("INTRODUCE 7 1 1")])
    one.put("/seven", "new", "n7")
    one.run([row("READ /seven", "EACCES", who="r3")])


def test_a_target_is_replaced_by_the_next() -> None:
    one = world(*[row(f"INTRODUCE {domid} 1 1") for domid in (2, 3, 7)], row("SET_TARGET 3 7"),
                row("SET_TARGET 3 2"))
    assert one.store.actors == {7: set(), 2: {3}}
    end(one, 7)
    assert one.clients["r3"].target == 2
    end(one, 3)
    end(one, 2)
    assert not one.store.rings


@pytest.mark.parametrize("order", [(3, 7), (7, 3)])
def test_a_domain_and_its_device_model_end_together(order: tuple[int, int]) -> None:
    """XSA-233."""
    one = world(*[row(f"INTRODUCE {domid} 1 1") for domid in (3, 7)], row("SET_TARGET 3 7"),
                row("WRITE /s/x v", who="r3"),
                row("SET_PERMS /s/x n3 b7", who="r3"), row("WRITE /s/x/y v", who="r7"))
    one.host.domains -= {3, 7}
    one.look(*order)
    assert sorted(one.tree()) == ["/", "/s", "/tool", "/tool/xenstored"]


def test_nobody_can_be_the_target_s_self() -> None:
    """DOMID_SELF is no domain that could be acted for."""
    world(row("INTRODUCE 7 1 1"), row("SET_TARGET 7 32752", "ENOENT"))
