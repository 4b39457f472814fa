# SPDX-License-Identifier: Apache-2.0
"""Transactions: serialisable, repeatable, all or nothing; a conflict is EAGAIN and nothing else
is. Method: the outcome table of the reference (2.3) with the rule of DESIGN.md, that what a
transaction was told must be what it would be told if run again at commit; then sequences.

Events of a commit: test_transaction_events.py. Any interleaving at all: test_model.py."""

from __future__ import annotations

import pytest

from tests.app.world import Row, World, house


def base() -> World:
    """/a 0, /b, /d with x, /e with x, /f with x, /p (g1's) with q."""
    world = World()
    for path in ("/a", "/b", "/d/x", "/e/x", "/f/x"):
        world.put(path, "0")
    world.put("/p", "0", "n1")
    world.put("/p/q", "0", "n1")
    return world


# name, what the transaction does, what is done outside after that, what it does then, the outcome
OUTCOMES = [
    ("nothing", "", "", "", "OK"),
    ("read a, write b / write c", "READ /a; WRITE /b 1", "WRITE /c 1", "", "OK"),
    ("read a, write b / write a", "READ /a; WRITE /b 1", "WRITE /a 1", "", "EAGAIN"),
    ("read a, write b / same value", "READ /a; WRITE /b 1", "WRITE /a 0", "", "OK"),
    ("read a, write b / ABA", "READ /a; WRITE /b 1", "WRITE /a 1; WRITE /a 0", "", "OK"),
    ("read a, write b / rm and remade", "READ /a; WRITE /b 1", "RM /a; WRITE /a 0", "", "OK"),
    ("read a, write b / chmod a", "READ /a; WRITE /b 1", "SET_PERMS /a b0", "", "OK"),
    ("read a, write b / child of a", "READ /a; WRITE /b 1", "WRITE /a/x 1", "", "OK"),
    ("read a, write b / rm a", "READ /a; WRITE /b 1", "RM /a", "", "EAGAIN"),
    ("perms a / chmod a", "GET_PERMS /a; WRITE /b 1", "SET_PERMS /a b0", "", "EAGAIN"),
    ("perms a / same perms", "GET_PERMS /a; WRITE /b 1", "SET_PERMS /a n0", "", "OK"),
    ("perms a / write a", "GET_PERMS /a; WRITE /b 1", "WRITE /a 1", "", "OK"),
    ("blind write a / write a", "WRITE /a 1", "WRITE /a 2", "", "OK"),
    ("blind write a / rm a", "WRITE /a 1", "RM /a", "", "OK"),
    ("blind write n / write n", "WRITE /n 1", "WRITE /n 2", "", "OK"),
    ("blind mkdir n / mkdir n", "MKDIR /n", "MKDIR /n", "", "OK"),
    ("blind chmod a / chmod a", "SET_PERMS /a b0", "SET_PERMS /a r0", "", "OK"),
    ("blind chmod a / rm a", "SET_PERMS /a b0", "RM /a", "", "EAGAIN"),
    ("create siblings", "WRITE /d/y 1", "WRITE /d/z 1", "", "OK"),
    ("create below / rm parent", "WRITE /d/y 1", "RM /d", "", "OK"),
    ("read missing n / create n", "READ /n; WRITE /a 1", "WRITE /n 1", "", "EAGAIN"),
    ("read missing n / create sibling", "READ /n; WRITE /a 1", "WRITE /m 1", "", "OK"),
    ("read missing n / create, rm n", "READ /n; WRITE /a 1", "WRITE /n 1; RM /n", "", "OK"),
    ("perms of missing / create", "GET_PERMS /n", "WRITE /n 1", "", "EAGAIN"),
    ("list missing / create", "DIRECTORY /n", "WRITE /n 1", "", "EAGAIN"),
    ("chmod missing / create", "SET_PERMS /n n0", "WRITE /n 1", "", "EAGAIN"),
    ("list e / change e/x", "DIRECTORY /e; WRITE /b 1", "WRITE /e/x 1", "", "OK"),
    ("list e / change e", "DIRECTORY /e; WRITE /b 1", "WRITE /e 1", "", "OK"),
    ("list e / chmod e/x", "DIRECTORY /e; WRITE /b 1", "SET_PERMS /e/x b0", "", "OK"),
    ("list e / add e/y", "DIRECTORY /e; WRITE /b 1", "WRITE /e/y 1", "", "EAGAIN"),
    ("list e / add e/x/y", "DIRECTORY /e; WRITE /b 1", "WRITE /e/x/y 1", "", "OK"),
    ("list e / add and rm e/y", "DIRECTORY /e; WRITE /b 1", "WRITE /e/y 1; RM /e/y", "", "OK"),
    ("list e / rm e/x", "DIRECTORY /e; WRITE /b 1", "RM /e/x", "", "EAGAIN"),
    ("list e / rm e", "DIRECTORY /e; WRITE /b 1", "RM /e", "", "EAGAIN"),
    ("part e / add e/y", "DIRECTORY_PART /e 0", "WRITE /e/y 1", "", "EAGAIN"),
    ("part e / change e/x", "DIRECTORY_PART /e 0", "WRITE /e/x 1", "", "OK"),
    ("part e / add and rm e/y", "DIRECTORY_PART /e 0", "WRITE /e/y 1; RM /e/y", "", "OK"),
    ("own child listed / other child", "WRITE /e/y 1; DIRECTORY /e", "WRITE /e/z 1", "", "EAGAIN"),
    ("read only / unchanged", "READ /a", "WRITE /b 1", "", "OK"),
    ("read only / changed", "READ /a", "WRITE /a 1", "", "EAGAIN"),
    ("read only, missing / created", "READ /n", "WRITE /n 1", "", "EAGAIN"),
    ("rm f / write f/x", "RM /f", "WRITE /f/x 1", "", "OK"),
    ("rm f / add f/y", "RM /f", "WRITE /f/y 1", "", "OK"),
    ("rm f / write f", "RM /f", "WRITE /f 1", "", "OK"),
    ("rm f / rm f", "RM /f", "RM /f", "", "EAGAIN"),
    ("rm f / rm f, remade", "RM /f", "RM /f; WRITE /f 1", "", "OK"),
    ("rm f/x / rm f", "RM /f/x", "RM /f", "", "EAGAIN"),
    ("rm f / rm f/x", "RM /f", "RM /f/x", "", "OK"),
    ("rm missing / create", "RM /n", "WRITE /n 1", "", "EAGAIN"),
    ("rm missing / nothing", "RM /n", "WRITE /m 1", "", "OK"),
    ("rm missing in d / rm d", "RM /d/n", "RM /d", "", "EAGAIN"),
    ("read after own write / write", "WRITE /a 1; READ /a", "WRITE /a 2", "", "OK"),
    ("read after own rm / write", "RM /a; READ /a", "WRITE /a 2", "", "OK"),
    ("list after own mkdir n / mkdir n/x", "MKDIR /n; DIRECTORY /n", "WRITE /n/x 1", "", "EAGAIN"),
    ("first read is after the change", "", "WRITE /a 1", "READ /a; WRITE /b 1", "OK"),
    ("change between two first reads", "READ /a", "WRITE /b 1", "READ /b", "OK"),
    ("write skew", "READ /a; WRITE /b 1", "WRITE /a 1", "WRITE /c 1", "EAGAIN"),
    ("read, write the same / write", "READ /a; WRITE /a 1", "WRITE /a 2", "", "EAGAIN"),
    ("read, write the same / write it", "READ /a; WRITE /a 1", "WRITE /a 1", "", "EAGAIN"),
]


@pytest.mark.parametrize("name, does, outside, then, outcome", OUTCOMES,
                         ids=[row[0] for row in OUTCOMES])
@pytest.mark.parametrize("other", ["d0", "d0b"])
def test_outcomes(name: str, does: str, outside: str, then: str, outcome: str, other: str) -> None:
    """Outside: by another connection, or by the same one without the tx id."""
    world = base()
    world.start("d0")
    for request in filter(None, does.split("; ")):
        world.ask("d0", request, "t")
    for request in filter(None, outside.split("; ")):
        assert world.ask(other, request) == "OK"
    for request in filter(None, then.split("; ")):
        world.ask("d0", request, "t")
    before = world.tree()
    world.run([("d0", "t", "END T", outcome), ("d0", "t", "END T", "ENOENT")])  # closed either way
    requests = [one for one in f"{does}; {then}".split("; ") if one]
    if outcome == "OK":  # as if it had been run now, alone
        expected = base()
        for request in [*outside.split("; "), *requests]:
            if request:
                expected.ask("d0", request)
        assert world.tree() == expected.tree()
        assert world.ask("d0", "DIRECTORY /d") == expected.ask("d0", "DIRECTORY /d")
    else:
        assert world.tree() == before


@pytest.mark.parametrize("letter, is_kept", [("T", True), ("F", False)])
def test_nothing_is_seen_before_the_commit(letter: str, is_kept: bool) -> None:
    world = base()
    before = world.tree()
    world.run([
        ("d0", "", "START", "=t"),
        ("d0", "t", "WRITE /a 1", "OK"),
        ("d0", "t", "WRITE /n/m 1", "OK"),
        ("d0", "t", "RM /d", "OK"),
        ("d0", "t", "SET_PERMS /b b0", "OK"),
        ("d0", "", "READ /a", b"0"),
        ("d0b", "", "READ /n/m", "ENOENT"),
        ("d0", "t", "READ /a", b"1"),
        ("d0", "t", "READ /n", b""),
        ("d0", "t", "READ /d/x", "ENOENT"),
        ("d0", "t", "DIRECTORY /", b"tool\0a\0b\0e\0f\0p\0n\0"),
        ("d0", "t", "GET_PERMS /b", b"b0\0"),
    ])
    assert world.tree() == before
    world.run([("d0", "t", f"END {letter}", "OK"),
               ("d0", "", "READ /a", b"1" if is_kept else b"0")])
    assert (world.tree() == before) is not is_kept


def test_reads_are_repeatable() -> None:
    base().run([
        ("d0", "", "START", "=t"),
        ("d0", "t", "READ /a", b"0"),
        ("d0", "t", "DIRECTORY /e", b"x\0"),
        ("d0", "t", "READ /n", "ENOENT"),
        ("d0", "t", "GET_PERMS /b", b"n0\0"),
        ("d0", "", "WRITE /a 1", "OK"),
        ("d0", "", "WRITE /e/y 1", "OK"),
        ("d0", "", "WRITE /n 1", "OK"),
        ("d0", "", "SET_PERMS /b b0", "OK"),
        ("d0", "t", "READ /a", b"0"),
        ("d0", "t", "DIRECTORY /e", b"x\0"),
        ("d0", "t", "READ /n", "ENOENT"),
        ("d0", "t", "GET_PERMS /b", b"n0\0"),
        ("d0", "", "RM /a", "OK"),
        ("d0", "", "RM /e", "OK"),
        ("d0", "t", "READ /a", b"0"),
        ("d0", "t", "DIRECTORY /e", b"x\0"),
        ("d0", "t", "END T", "EAGAIN"),
    ])


def test_ids_belong_to_a_connection_and_are_never_given_again() -> None:
    world = base()
    seen: set[int] = set()
    for turn in range(3000):
        who = ("d0", "d0b", "g1")[turn % 3]
        world.start(who)
        assert 0 < world.transactions["t"] < 1 << 32
        assert world.transactions["t"] not in seen
        seen.add(world.transactions["t"])
        other = "g2" if who == "g1" else "g1"
        world.check(Row(other, "t", "END F", "ENOENT"))
        world.check(Row(who, "t", "END F", "OK"))
        world.check(Row(who, "t", "READ /a", "ENOENT"))


def test_start_and_end_are_particular() -> None:
    """Pitfall 2: a bad letter leaves the transaction open."""
    base().run([
        ("d0", "", "END T", "ENOENT"),
        ("d0", "", "END F", "ENOENT"),
        ("d0", 12345, "END T", "ENOENT"),
        ("d0", 12345, "END X", "ENOENT"),
        ("d0", 12345, "START", "ENOENT"),
        ("d0", "", "START", "=t"),
        ("d0", "t", "START", "EBUSY"),  # nested
        ("d0", "t", "WRITE /a 1", "OK"),
        *(("d0", "t", (7, payload), "EINVAL")
          for payload in (b"", b"\0", b"X\0", b"t\0", b"TT\0", b"T", b"F", b"T\0\0", b"T\0F\0")),
        ("d0", "t", "READ /a", b"1"),
        ("d0", "t", "END T", "OK"),
        ("d0", "", "READ /a", b"1"),
        ("d0", "", "START", "=t"),
        ("d0", "", "START", "=u"),
        ("d0", "t", "WRITE /a 2", "OK"),
        ("d0", "u", "WRITE /b 2", "OK"),
        ("d0", "u", "END T", "OK"),
        ("d0", "t", "END F", "OK"),
        ("d0", "", "READ /a", b"1"),
        ("d0", "", "READ /b", b"2"),
    ])


def test_a_bad_letter_without_a_transaction_is_einval() -> None:
    """C 4.17, measured: the letter is looked at before tx_id 0 is."""
    base().run([("d0", "", "END X", "EINVAL")])


@pytest.mark.parametrize("payload", [b"", b"\0"])
def test_reset_watches_ends_all_transactions_of_the_caller(payload: bytes) -> None:
    """XSA-484: also with the tx_id set."""
    base().run([
        ("d0", "", "START", "=t"), ("d0", "", "START", "=u"), ("d0b", "", "START", "=v"),
        ("d0", "t", "WRITE /a 1", "OK"),
        ("d0", "t", (21, payload), "OK"),
        ("d0", "t", "END T", "ENOENT"), ("d0", "u", "END T", "ENOENT"),
        ("d0b", "v", "END T", "OK"),
        ("d0", "", "READ /a", b"0"),
        ("d0", "", "START", "=t"), ("d0", "t", "WRITE /a 1", "OK"), ("d0", "t", "END T", "OK"),
    ])


@pytest.mark.parametrize("failing", [
    "WRITE /p/big " + "v" * 2048,  # larger than a node may be
    "WRITE /p/x/" + "n" * 2040,  # so is a name in its parent
    "MKDIR /p/one/two/three",  # one node too many
])
def test_a_failed_create_fails_the_transaction(failing: str) -> None:
    """Pitfall 15, XSA-415: ENOSPC now, ENOMEM at the end, and no trace of anything."""
    world = base()
    world.ask("d0", "SET_QUOTA 1 nodes 4")
    before = world.tree()
    world.run([
        ("g1", "", "START", "=t"),
        ("g1", "t", "WRITE /p/ok 1", "OK"),
        ("g1", "t", failing, "ENOSPC"),
        ("g1", "t", "READ /p/ok", b"1"),
        ("g1", "t", "END T", "ENOMEM"),
        ("g1", "t", "END T", "ENOENT"),
    ])
    assert world.tree() == before and world.store.tree.owned_count(1) == 2
    world.run([("g1", "", "START", "=t"), ("g1", "t", failing, "ENOSPC"),
               ("g1", "t", "END F", "OK"), ("g1", "", "WRITE /p/ok 1", "OK")])


def test_other_errors_fail_nothing() -> None:
    base().run([
        ("g1", "", "START", "=t"),
        ("g1", "t", "WRITE /p/ok 1", "OK"),
        ("g1", "t", "WRITE /a 1", "EACCES"),
        ("g1", "t", "WRITE /n 1", "EACCES"),
        ("g1", "t", "READ /p/none", "ENOENT"),
        ("g1", "t", "WRITE /p//x 1", "EINVAL"),
        ("g1", "t", "SET_PERMS /p n0", "EPERM"),
        ("g1", "t", "SET_PERMS /p n1 r2 r3 r4 r5 r6", "ENOSPC"),
        ("g1", "t", "RM /p/none/none", "ENOENT"),
        ("g1", "t", "END T", "OK"),
        ("d0", "", "READ /p/ok", b"1"),
    ])


def test_the_node_quota_is_checked_again_at_the_commit() -> None:
    """A quota used up meanwhile is told as such (C: ENOSPC), and nothing is applied."""
    world = base()
    world.run([
        ("d0", "", "SET_QUOTA 1 nodes 4", "OK"),
        ("g1", "", "START", "=t"),
        ("g1", "t", "WRITE /p/x 1", "OK"),
        ("g1", "t", "WRITE /p/y 1", "OK"),
        ("g1", "", "WRITE /p/z 1", "OK"),
        ("g1", "t", "END T", "ENOSPC"),
        ("g1", "t", "END T", "ENOENT"),
        ("g1", "", "DIRECTORY /p", b"q\0z\0"),
    ])
    assert world.store.tree.owned_count(1) == 3


def test_owners_and_sizes_are_right_after_a_commit() -> None:
    """XSA-421: created and removed in the same transaction; World checks the indices."""
    world = base()
    world.run([
        ("g1", "", "START", "=t"),
        ("g1", "t", "WRITE /p/a/b/c 1", "OK"),
        ("g1", "t", "RM /p/a", "OK"),
        ("g1", "t", "WRITE /p/a 1", "OK"),
        ("g1", "t", "RM /p/q", "OK"),
        ("g1", "t", "WRITE /p/q/r 1", "OK"),
        ("g1", "t", "RM /p/q/r", "OK"),
        ("g1", "t", "DIRECTORY /p", b"a\0q\0"),
        ("g1", "t", "END T", "OK"),
        ("g1", "", "DIRECTORY /p", b"a\0q\0"),
    ])
    assert world.store.tree.owned_count(1) == 3
    world.run([("d0", "", "START", "=t"), ("d0", "t", "SET_PERMS /p n2", "OK"),
               ("d0", "t", "SET_PERMS /p/a n2", "OK"), ("d0", "t", "END T", "OK")])
    assert (world.store.tree.owned_count(1), world.store.tree.owned_count(2)) == (1, 2)


def test_a_transaction_sees_its_own_changes_in_order() -> None:
    base().run([
        ("d0", "", "START", "=t"),
        ("d0", "t", "WRITE /d/c 1", "OK"), ("d0", "t", "WRITE /d/b 1", "OK"),
        ("d0", "t", "RM /d/x", "OK"),
        ("d0", "t", "WRITE /d/x 2", "OK"),
        ("d0", "t", "DIRECTORY /d", b"c\0b\0x\0"),
        ("d0", "t", "END T", "OK"),
        ("d0", "", "DIRECTORY /d", b"c\0b\0x\0"),
        ("d0", "", "READ /d/x", b"2"),
    ])


def test_a_domain_that_loses_a_right_cannot_commit() -> None:
    """It would be told EACCES now."""
    world = house()
    world.run([
        ("g1", "", "START", "=t"), ("g1", "t", "WRITE /pub/n 1", "OK"),
        ("d0", "", "SET_PERMS /pub n0", "OK"),
        ("g1", "t", "END T", "EAGAIN"),
        ("d0", "", "READ /pub/n", "ENOENT"),
    ])


def test_two_that_read_each_others_target() -> None:
    """Write skew between two transactions: one of them must be told."""
    base().run([
        ("d0", "", "START", "=t"), ("d0b", "", "START", "=u"),
        ("d0", "t", "READ /a", b"0"), ("d0b", "u", "READ /b", b"0"),
        ("d0", "t", "WRITE /b 1", "OK"), ("d0b", "u", "WRITE /a 1", "OK"),
        ("d0", "t", "END T", "OK"), ("d0b", "u", "END T", "EAGAIN"),
        ("d0", "", "READ /a", b"0"), ("d0", "", "READ /b", b"1"),
    ])


def test_a_create_that_the_store_cannot_hold_fails_the_transaction() -> None:
    """Reference 2.3: a failed create inside a transaction marks it failed, whatever the limit."""
    world = World(space=(8192, 1 << 32, 1 << 22))
    world.run([
        ("d0", "", "START", "=t"), ("d0", "t", "WRITE /a 1", "OK"),
        *(("d0", "t", f"WRITE /big{number} {'v' * 2500}", "OK") for number in range(2)),
        ("d0", "t", f"WRITE /big9 {'v' * 4000}", "ENOSPC"),
        ("d0", "t", "END T", "ENOMEM"),
    ])


def test_rm_of_a_directory_with_a_child_that_was_seen_absent() -> None:
    """Any guest can do this alone, with and without its tx id (P9): it must not end the server."""
    house().run([
        ("g1", "", "MKDIR dir", "OK"),
        ("g1", "", "START", "=t"),
        ("g1", "t", "READ dir/x", "ENOENT"),
        ("g1", "", "WRITE dir/x 1", "OK"),
        ("g1", "t", "RM dir", "OK"),
        ("g1", "t", "READ dir/x", "ENOENT"),
        ("g1", "t", "END T", "EAGAIN"),
        ("g1", "", "READ dir/x", b"1"),
    ])


# -- where the conflict rule and the view are easy to get wrong


def test_a_value_is_not_an_error() -> None:
    world = base()
    world.put("/a", "!ENOENT")
    world.run([
        ("d0", "", "START", "=t"), ("d0", "t", "READ /a", b"!ENOENT"),
        ("d0", "", "RM /a", "OK"),
        ("d0", "t", "END T", "EAGAIN"),
    ])


def test_reads_of_special_permissions_are_repeatable_and_conflict() -> None:
    base().run([
        ("d0", "", "START", "=t"),
        ("d0", "t", "GET_PERMS @introduceDomain", b"n0\0"),
        ("d0", "", "SET_PERMS @introduceDomain n0 r1", "OK"),
        ("d0", "t", "GET_PERMS @introduceDomain", b"n0\0"),
        ("d0", "t", "END T", "EAGAIN"),
    ])


def test_a_quota_set_meanwhile_counts_at_the_commit() -> None:
    base().run([
        ("g1", "", "START", "=t"), ("g1", "t", "WRITE /p/x 1", "OK"),
        ("d0", "", "SET_QUOTA 1 nodes 2", "OK"),
        ("g1", "t", "END T", "ENOSPC"),
    ])


def test_nothing_new_is_listed_by_a_right_that_was_taken_away() -> None:
    """C 4.17 keeps node and listing together: it answers the old listing, which is empty."""
    world = house()
    world.run([
        ("g2", "", "START", "=t"), ("g2", "t", "READ /pub", b"pub"),
        ("d0", "", "SET_PERMS /pub n0", "OK"),
        ("d0", "", "WRITE /pub/secret-name 1", "OK"),
    ])
    assert world.ask("g2", "DIRECTORY /pub", "t") in (b"x\0", "EACCES")


def test_nodes_that_others_made_meanwhile_are_not_counted_twice() -> None:
    """Alone, before or after, it is told OK; ENOMEM instead, clients do not retry."""
    world = base()
    world.run([
        ("d0", "", "SET_QUOTA 1 nodes 5", "OK"),  # /p, /p/q, and three more
        ("g1", "", "START", "=t"), ("g1", "t", "WRITE /p/x/y 1", "OK"),
        ("g1", "", "WRITE /p/x/y 1", "OK"),
        ("g1", "t", "MKDIR /p/z", "OK"),
        ("g1", "t", "END T", "OK"),
    ])
