# SPDX-License-Identifier: Apache-2.0
"""Limits bind the unprivileged, exactly: a limit of N lets N through and refuses N + 1, 0 is no
limit, a domain's own value beats the global one, and what is refused leaves no trace. Method: for
each quota, fill it up with a guest, then one more; then the same as domain 0.

Source: protocol reference 1.4, 3, pitfalls 10 and 13; XSA-272, 326, 352, 483. Two limits are not
counts but sizes, and keep C's edge: a path is shorter than path-max, a record than node-size.
Cannot show: outstanding requests and the memory of packets (connections')."""

from __future__ import annotations

import pytest

from app import wire
from app.quota import DEFAULTS, MEANINGS
from app.transaction import TOLD_MAX
from app.wire import Request
from tests.app.world import Answer, World, nul


def home(**limits: int) -> World:
    """Guests 1 and 2 with a home each, which counts; limits are set for domain 1 alone."""
    world = World(is_paranoid=False)
    world.put("/local/domain/1", "", "n1")
    world.put("/local/domain/2", "", "n2")
    world.put("/shared", "", "b0")
    for name, value in limits.items():
        assert world.ask("d0", f"SET_QUOTA 1 {name.replace('_', '-')} {value}") == "OK"
    return world


def check(world: World) -> None:
    """The tree's own O(nodes) check."""
    assert world.store.check() is None


def test_every_quota_has_a_meaning() -> None:
    assert DEFAULTS.keys() == MEANINGS.keys()


# -- nodes


@pytest.mark.parametrize("limit", [2, 3, 10, 1000])
@pytest.mark.parametrize("request_", ["MKDIR {}", "WRITE {} v"])
def test_nodes(limit: int, request_: str) -> None:
    """XSA-272: on every way to create. The home is the first of them."""
    world = home(**{} if limit == 1000 else {"nodes": limit})
    for number in range(limit - 1):  # not all in one directory, which has its own limit
        path = f"d{number}" if number < 30 else f"d{number % 30}/{number}"
        assert world.ask("g1", request_.format(path)) == "OK"
    assert world.store.tree.owned_count(1) == limit
    before = world.tree()
    assert world.ask("g1", request_.format("more")) == "ENOSPC"
    assert world.ask("g1", request_.format("/shared/more")) == "ENOSPC"
    assert world.tree() == before
    assert world.ask("g1", "WRITE d0 other") == "OK"  # what is there may be changed
    assert world.ask("g1", "MKDIR d0") == "OK"
    assert world.ask("g2", "MKDIR more") == "OK"  # others have their own
    assert world.ask("g1", "RM d1" if limit > 2 else "RM d0") == "OK"
    assert world.ask("g1", request_.format("more")) == "OK"
    check(world)


def test_a_deep_create_counts_all_it_makes() -> None:
    """XSA-414: refused midway, nothing of it stays."""
    world = home(nodes=5)
    before = world.tree()
    assert world.ask("g1", "WRITE a/b/c/d/e v") == "ENOSPC"
    assert world.tree() == before
    assert world.ask("g1", "WRITE a/b/c/d v") == "OK"
    assert world.ask("g1", "MKDIR e") == "ENOSPC"
    check(world)


def test_nodes_count_for_the_owner_wherever_they_are() -> None:
    world = home(nodes=3)
    world.run([
        ("g1", "", "MKDIR /shared/a", "OK"),
        ("d0", "", "MKDIR /local/domain/1/made-by-0", "OK"),  # copies the owner too
        ("g1", "", "MKDIR b", "ENOSPC"),
        ("d0", "", "MKDIR /local/domain/1/beyond", "OK"),  # domain 0 is not bound
        ("d0", "", "SET_PERMS /shared/a n0", "OK"),
        ("d0", "", "RM /local/domain/1/beyond", "OK"),
        ("g1", "", "MKDIR b", "OK"),
        ("g1", "", "MKDIR c", "ENOSPC"),
    ])
    check(world)


def test_a_domain_that_gives_nodes_away_is_refused() -> None:
    """XSA-352: its quota would be empty again."""
    world = home(nodes=2)
    world.run([
        ("g1", "", "MKDIR a", "OK"),
        ("g1", "", "SET_PERMS a n2", "EPERM"),
        ("g1", "", "MKDIR b", "ENOSPC"),
    ])
    assert world.store.tree.owned_count(1) == 2


def test_nodes_inside_a_transaction() -> None:
    world = home(nodes=3)
    world.run([
        ("g1", "", "START", "=t"),
        ("g1", "t", "MKDIR a", "OK"),
        ("g1", "t", "MKDIR b", "OK"),
        ("g1", "t", "RM a", "OK"),
        ("g1", "t", "MKDIR c", "OK"),
        ("g1", "t", "END T", "OK"),
        ("g1", "", "DIRECTORY /local/domain/1", b"b\0c\0"),
        ("g1", "", "START", "=t"),
        ("g1", "t", "MKDIR d", "ENOSPC"),
        ("g1", "t", "END T", "ENOMEM"),
        ("g1", "", "MKDIR d", "ENOSPC"),
        ("g1", "", "RM b", "OK"),
        ("g1", "", "MKDIR d", "OK"),
    ])
    check(world)


# -- counts of a connection


@pytest.mark.parametrize("limit", [1, 2, 128])
def test_watches(limit: int) -> None:
    world = home(**{} if limit == 128 else {"watches": limit})
    for number in range(limit):
        assert world.ask("g1", f"WATCH w{number} t") == "OK"
    assert world.ask("g1", "WATCH more t") == "ENOSPC"
    assert world.ask("g1", "WATCH @releaseDomain t") == "ENOSPC"
    assert world.ask("g1", "WATCH w0 t") == "EEXIST"
    assert world.ask("g2", "WATCH w0 t") == "OK"
    assert world.ask("g1", "UNWATCH w0 t") == "OK"
    assert world.ask("g1", "WATCH more t") == "OK"
    assert world.ask("g1", "RESET_WATCHES") == "OK"
    for number in range(limit):
        assert world.ask("g1", f"WATCH w{number} t") == "OK"
    assert world.ask("g1", "WATCH more t") == "ENOSPC"


@pytest.mark.parametrize("limit", [1, 2, 10])
def test_transactions(limit: int) -> None:
    world = home(**{} if limit == 10 else {"transactions": limit})
    for number in range(limit):
        world.start("g1", f"t{number}")
    assert world.ask("g1", "START") == "ENOSPC"
    world.start("g2", "other")
    assert world.ask("g1", "END F", "t0") == "OK"
    world.start("g1", "t0")
    assert world.ask("g1", "START") == "ENOSPC"
    assert world.ask("g1", "RESET_WATCHES") == "OK"
    world.start("g1", "t0")


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_permissions_of_a_node(limit: int) -> None:
    world = home(**{} if limit == 5 else {"node_permissions": limit})
    own = " ".join(["n1", "r2", "r3", "r4", "r5", "r6"][:limit])
    assert world.ask("g1", f"SET_PERMS /local/domain/1 {own}") == "OK"
    assert world.ask("g1", f"SET_PERMS /local/domain/1 {own} r7") == "ENOSPC"
    assert world.ask("g1", "GET_PERMS /local/domain/1") == nul(*own.split(" "))
    assert world.ask("d0", f"SET_PERMS /local/domain/1 {own} r7 r8") == "OK"


def test_nodes_touched_by_a_transaction() -> None:
    """The limit lets N nodes be touched; the next one fails the transaction."""
    world = home(transaction_nodes=3)
    for name in ("a", "b", "c", "d"):
        world.ask("g1", f"WRITE {name} v")
    world.run([
        ("g1", "", "START", "=t"),
        *(("g1", "t", f"READ {name}", b"v") for name in ("a", "b", "c")),
        ("g1", "t", "END T", "OK"),
        ("g1", "", "START", "=t"),
        *(("g1", "t", f"READ {name}", b"v") for name in ("a", "b", "c")),
        ("g1", "t", "READ d", "ENOSPC"),
        ("g1", "t", "END T", "ENOMEM"),
        ("g1", "", "START", "=t"),
        *(("g1", "t", f"READ {name}", b"v") for name in ("a", "b", "c")),
        ("g1", "t", "READ d", "ENOSPC"),
        ("g1", "t", "END F", "OK"),
        ("d0", "", "START", "=t"),
        *(("d0", "t", f"READ /local/domain/1/{name}", b"v") for name in ("a", "b", "c", "d")),
        ("d0", "t", "END T", "OK"),
    ])


def test_the_default_number_of_touched_nodes() -> None:
    world = home()
    world.start("g1")
    for number in range(1000):
        assert world.ask("g1", f"READ /local/domain/1/{number}", "t") == "ENOENT"
    for number in range(1000, 1100):
        world.ask("g1", f"READ /local/domain/1/{number}", "t")
    assert world.ask("g1", "READ /local/domain/1/new", "t") == "ENOSPC"
    assert world.ask("g1", "READ /local/domain/1/0", "t") == "ENOENT"
    assert world.ask("g1", "END T", "t") == "ENOMEM"


def test_what_is_touched_already_may_be_touched_again() -> None:
    home(transaction_nodes=2).run([
        ("g1", "", "START", "=t"),
        ("g1", "t", "MKDIR a", "OK"),  # it and its parent
        ("g1", "t", "WRITE a v", "OK"),
        ("g1", "t", "END T", "OK"),
    ])


def test_one_request_does_not_touch_more_than_allowed() -> None:
    """As in C, each node of a removed tree counts; what is refused leaves nothing behind."""
    world = home(transaction_nodes=3)
    for number in range(9):
        world.ask("g1", f"MKDIR d/{number}")
    world.run([("g1", "", "START", "=t"), ("g1", "t", "RM d", "ENOSPC"),
               ("g1", "t", "END T", "ENOMEM"), ("g1", "", "READ d/0", b"")])


@pytest.mark.parametrize("who", ["d0", "g1"])
def test_requests_of_a_transaction(who: str) -> None:
    """Whoever makes it: all of them may have to be run again at the commit."""
    world = home(memory=0, transaction_nodes=0)
    world.start(who)
    client, tx_id = world.clients[who], world.transactions["t"]
    for _ in range(TOLD_MAX - 1):
        world.store.handle(client, Request(wire.XS_READ, 1, tx_id, nul("/local/domain/1")))
        client.take_outbox()
    world.run([(who, "t", "READ /local/domain/1", b""),
               (who, "t", "READ /local/domain/1", "ENOSPC"),
               (who, "t", "END T", "ENOMEM")])


# -- sizes


PREFIX = "/local/domain/1/"
PATHS: list[tuple[str, str, Answer]] = [
    ("g1", "a" * 2047, "OK"),
    ("g1", "a" * 2048, "EINVAL"),
    ("g1", PREFIX + "a" * 2047, "OK"),  # the prefix does not count: XSA-323
    ("g1", PREFIX + "a" * 2048, "EINVAL"),
    ("g1", "/local/domain/12345/" + "a" * 2047, "EACCES"),
    ("g1", "/local/domain/12345/" + "a" * 2048, "EINVAL"),
    ("g1", "/" + "a" * 2046, "EACCES"),
    ("g1", "/" + "a" * 2047, "EINVAL"),
    ("d0", "/" + "a" * 2047, "OK"),
    ("d0", "/" + "a" * 4080, "OK"),  # domain 0: as much as a message holds
    ("d0", "/a" * 2040, "OK"),
]


@pytest.mark.parametrize("who, path, answer", PATHS)
def test_length_of_a_path(who: str, path: str, answer: Answer) -> None:
    world = home(node_size=0, nodes=0)
    assert world.ask(who, f"MKDIR {path}") == answer
    missing = "ENOENT" if answer == "OK" else answer
    assert world.ask(who, f"READ {path}x"[:-1]) == (b"" if answer == "OK" else missing)
    assert world.ask(who, f"RM {path}") == answer
    watched = world.ask(who, f"WATCH {path} t")
    assert watched == ("EINVAL" if answer == "EINVAL" else "OK")


def test_a_path_length_can_be_set() -> None:
    world = home(path_max=10, node_size=0)
    assert world.ask("g1", "MKDIR " + "a" * 9) == "OK"
    assert world.ask("g1", "MKDIR " + "a" * 10) == "EINVAL"
    assert world.ask("g2", "MKDIR " + "a" * 10) == "OK"


def test_what_a_guest_made_can_be_named_by_all() -> None:
    """XSA-323."""
    world = home(node_size=0)
    long = "a" * 2047
    assert world.ask("g1", f"WRITE {long} v") == "OK"
    assert world.ask("g1", f"READ {PREFIX}{long}") == b"v"
    assert world.ask("d0", f"READ {PREFIX}{long}") == b"v"
    assert world.ask("d0", f"RM {PREFIX}{long}") == "OK"


def largest(perms: int, names: int = 0) -> int:
    """The largest value in a record below 2048 bytes: 24 of header, 8 per permission."""
    return 2047 - 24 - 8 * perms - names


@pytest.mark.parametrize("perms", [1, 3, 5])
def test_size_of_a_node(perms: int) -> None:
    """C 4.17, measured: 2015, 1999 and 1983 bytes."""
    world = home()
    world.ask("g1", "SET_PERMS /local/domain/1 " + " ".join(["n1", "r2", "r3", "r4", "r5"][:perms]))
    size = largest(perms)
    assert size == {1: 2015, 3: 1999, 5: 1983}[perms]
    world.run([
        ("g1", "", f"WRITE new {'v' * size}", "OK"),
        ("g1", "", f"WRITE other {'v' * (size + 1)}", "ENOSPC"),
        ("g1", "", f"WRITE new {'v' * (size + 1)}", "ENOSPC"),
        ("g1", "", "READ new", b"v" * size),
        ("g1", "", "READ other", "ENOENT"),
        ("d0", "", f"WRITE {PREFIX}new {'v' * (size + 1)}", "OK"),
        ("g1", "", f"WRITE new {'v' * (size + 1)}", "ENOSPC"),
        ("g1", "", "WRITE new v", "OK"),
    ])


def test_children_names_count_in_their_parent() -> None:
    """Pitfall 13; C 4.17, measured: 531 short names, and 4 bytes of names for 4 of value."""
    world = home()
    world.ask("g1", "MKDIR d")
    for number in range(531):
        assert world.ask("g1", f"MKDIR d/{number}") == "OK"
    before = world.tree()
    assert world.ask("g1", "MKDIR d/531") == "ENOSPC"
    assert world.ask("g1", "WRITE d/531/x/y v") == "ENOSPC"
    assert world.tree() == before
    assert world.ask("g1", "RM d/7") == "OK"  # removal is always allowed
    assert world.ask("g1", "MKDIR d/9x") == "OK"
    assert world.ask("g1", f"WRITE e {'v' * 10}") == "OK"
    assert world.ask("g1", "MKDIR e/abc") == "OK"
    assert world.ask("g1", f"WRITE e {'v' * largest(1, 4)}") == "OK"
    assert world.ask("g1", f"WRITE e {'v' * (largest(1, 4) + 1)}") == "ENOSPC"
    assert world.ask("g1", "MKDIR e/x") == "ENOSPC"
    assert world.ask("d0", f"MKDIR {PREFIX}e/x") == "OK"
    assert world.ask("g1", "RM e/x") == "OK"
    check(world)


def test_a_full_directory_of_domain_0_can_be_emptied_by_a_guest() -> None:
    """XSA-115's other half: growth beyond the quota is domain 0's, removal goes on."""
    world = home()
    for number in range(700):
        assert world.ask("d0", f"WRITE /shared/{number} v") == "OK"
    assert world.ask("g1", "MKDIR /shared/mine") == "ENOSPC"
    assert world.ask("g1", "RM /shared/5") == "OK"
    assert world.ask("g1", "RM /shared/6") == "OK"
    check(world)


def test_implicit_parents_are_held_to_the_size_too() -> None:
    world = home()
    before = world.tree()
    assert world.ask("g1", f"MKDIR a/{'n' * 2015}") == "ENOSPC"
    assert world.ask("g1", f"MKDIR {'n' * 2015}") == "ENOSPC"
    assert world.tree() == before
    assert world.ask("g1", f"MKDIR a/{'n' * 2014}") == "OK"


def test_more_permissions_make_a_node_larger() -> None:
    world = home()
    world.run([
        ("g1", "", f"WRITE new {'v' * largest(1)}", "OK"),
        ("g1", "", "SET_PERMS new n1 r2", "ENOSPC"),
        ("g1", "", "GET_PERMS new", b"n1\0"),
        ("d0", "", f"SET_PERMS {PREFIX}new n1 r2", "OK"),
    ])


# -- memory


def test_memory_counts_nodes_watches_and_transactions() -> None:
    """XSA-326: whatever a guest makes the server keep comes to an end."""
    for request, tx in (("WRITE {} " + "v" * 1000, ""), ("WATCH {} " + "t" * 1000, ""),
                        ("READ {}" + "x" * 1000, "t")):
        world = home(memory=20000, nodes=0, watches=0, transaction_nodes=0)
        world.start("g1")
        answers = [world.ask("g1", request.format(f"n{number}"), tx) for number in range(60)]
        assert "ENOMEM" in answers, request
        first = answers.index("ENOMEM")
        assert 10 <= first <= 25, request
        assert set(answers[first:]) == {"ENOMEM"}, request
        assert world.ask("g2", request.format("n")) != "ENOMEM"
        assert world.ask("d0", "WRITE /local/domain/1/more v") == "OK"
        check(world)


# -- who is bound, and by what


@pytest.mark.parametrize("name, requests", [
    ("nodes", [f"MKDIR /n{number}" for number in range(1200)]),
    ("watches", [f"WATCH /n{number} t" for number in range(150)]),
    ("transactions", ["START"] * 30),
    ("node-size", [f"WRITE /n {'v' * 4000}"]),
    ("node-permissions", ["SET_PERMS /tool " + " ".join(["n0"] + ["r1"] * 20)]),
    ("path-max", [f"MKDIR /{'n' * 3000}"]),
])
def test_domain_0_is_not_bound(name: str, requests: list[str]) -> None:
    world = home()
    world.ask("d0", f"SET_QUOTA {name} 1")
    world.ask("d0", f"SET_QUOTA 0 {name} 1")
    for request in requests:
        answer = world.ask("d0", request)
        assert answer == "OK" or isinstance(answer, bytes), request[:40]


def test_zero_is_no_limit() -> None:
    world = home(nodes=0, watches=0, transactions=0, node_size=0, node_permissions=0,
                 transaction_nodes=0, memory=0, path_max=0)
    world.start("g1")
    for number in range(1500):
        assert world.ask("g1", f"MKDIR {number}") == "OK"
        assert world.ask("g1", f"WATCH {number} t") == "OK"
        assert world.ask("g1", f"READ {number}", "t") == b""
    for _ in range(30):
        assert isinstance(world.ask("g1", "START"), bytes)
    assert world.ask("g1", f"WRITE big {'v' * 4000}") == "OK"
    assert world.ask("g1", f"MKDIR {'n' * 3000}") == "OK"
    assert world.ask("g1", "SET_PERMS big " + " ".join(["n1"] + ["r2"] * 50)) == "OK"
    check(world)


def test_a_lower_limit_takes_nothing_away() -> None:
    world = home()
    for number in range(5):
        world.ask("g1", f"MKDIR {number}")
    world.run([
        ("d0", "", "SET_QUOTA 1 nodes 2", "OK"),
        ("g1", "", "MKDIR more", "ENOSPC"),
        ("g1", "", "WRITE 1 v", "OK"),
        ("g1", "", "DIRECTORY /local/domain/1", nul(*range(5))),
        ("d0", "", "SET_QUOTA 1 nodes 7", "OK"),
        ("g1", "", "MKDIR more", "OK"),
        ("g1", "", "MKDIR evenmore", "ENOSPC"),
    ])


def test_global_limits_count_at_once() -> None:
    world = home()
    world.run([
        ("d0", "", "SET_QUOTA nodes 1", "OK"),
        ("g1", "", "MKDIR a", "ENOSPC"),
        ("g2", "", "MKDIR a", "ENOSPC"),
        ("d0", "", "SET_QUOTA 1 nodes 2", "OK"),
        ("g1", "", "MKDIR a", "OK"),
        ("g2", "", "MKDIR a", "ENOSPC"),
    ])
    assert world.ask("d0", (wire.XS_SET_QUOTA, nul("nodes", "1000"))) == "OK"
    assert world.ask("g2", "MKDIR a") == "OK"
