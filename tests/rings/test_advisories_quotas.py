# SPDX-License-Identifier: Apache-2.0
"""Security advisories of the peers that concern rights and quotas: each fault's proof test, as the
reference lists it (section 6), by a guest on a real ring against the real process; C xenstored is
asked, too. tests/app/test_advisories.py has the same in process, in more shapes.

Cannot show: numbers of quotas that are each server's own (they differ by one)."""

from __future__ import annotations

import pytest

from tests.oracle.xsclient import MessageType as M
from tests.oracle.xsclient import strings
from tests.rings.house import House, refused, settled

NODES = 1000
MAX_DEPTH = 1000


def test_xsa_72_a_directory_of_long_names(both: House) -> None:
    both.public()
    for number in range(30):
        both.dom0.mkdir(f"/pub/{number}{'n' * 200}")
    guest = both.guest(1)
    assert refused(guest.directory, "/pub") == "E2BIG"
    assert len(guest.directory_parts("/pub")) == 30
    guest.write("x", "alive")
    both.check()


def test_xsa_115_what_must_not_be_heard(both: House) -> None:
    guest, other = both.guest(1), both.guest(2)
    for path in ("/", "/priv", "/local/domain/2/x", "@introduceDomain", "@releaseDomain"):
        guest.watch(path, "t")
    settled(guest)
    both.dom0.write("/priv", "1")
    both.dom0.rm("/priv")
    other.write("x", "1")
    both.guest(3)
    assert settled(guest) == []
    both.destroy(3)
    assert settled(guest) == ([("@releaseDomain", "t")] if both.is_ours else [])  # later C: r32757
    assert refused(guest.is_introduced, 2) == "EACCES"
    foreign = both.dom0.transaction_start()
    assert refused(guest.read, "/local/domain/2/x", foreign) == "ENOENT"
    assert guest.request(M.WATCH, strings("own", "t"), foreign).error is None
    both.dom0.transaction_end(foreign, commit=False)


@pytest.mark.parametrize("kind", [M.WRITE, M.MKDIR])
def test_xsa_272_creating_is_charged(both: House, kind: M) -> None:
    guest = both.guest(1)
    made = 0
    while guest.request(kind, strings(f"d{made // 100}/{made}")).error is None:
        made += 1
        assert made <= NODES
    assert made > NODES - 20
    both.check()


def test_xsa_323_what_can_be_created_can_be_addressed(both: House) -> None:
    """At the limit, by a short number; then addressed by its longer absolute name."""
    guest = both.guest(1)
    path = "x" * 1000 + "/" + "y" * 1047
    while refused(guest.write, path, "v") == "EINVAL":
        path = path[:-1]
    assert len(path) in (2047, 2048)
    assert guest.read(path) == guest.read(f"/local/domain/1/{path}") == b"v"
    assert both.dom0.read(f"/local/domain/1/{path}") == b"v"
    both.guest(12345).write(path, "w")
    assert both.dom0.read(f"/local/domain/12345/{path}") == b"w"


def test_xsa_324_an_event_that_no_message_can_hold(both: House) -> None:
    guest = both.guest(1)
    assert guest.request(M.WATCH, strings("a", "t" * 4090)).error is None
    guest.write("a/b/c/d", "1")
    both.dom0.write("/local/domain/1/a/x", "1")
    guest.rm("a")
    assert [path for path, _ in settled(guest)] == ["a", "a/x", "a"]  # a/b/c/d did not fit
    both.check()


def test_xsa_352_nodes_are_not_given_away(both: House) -> None:
    guest = both.guest(1)
    both.guest(2)
    guest.write("x", "1")
    for perms in (("n0",), ("n2",), ("b2", "n1")):
        assert refused(guest.set_perms, "x", *perms) == "EPERM"
    assert guest.get_perms("x") == ["n1"]


def test_xsa_353_the_root_is_checked(both: House) -> None:
    guest = both.guest(1)
    for kind, rest in ((M.READ, b""), (M.DIRECTORY, b""), (M.GET_PERMS, b""), (M.WRITE, b"v"),
                       (M.RM, b""), (M.SET_PERMS, b"n1\0"), (M.MKDIR, b"")):
        assert guest.request(kind, b"/\0" + rest).error == "EACCES", kind


def test_xsa_414_a_create_that_fails_midway(both: House) -> None:
    guest = both.guest(1)
    made = 0
    while refused(guest.mkdir, f"d{made // 100}/{made}") is None:
        made += 1
    for number in range(4):  # some room, less than the deep path needs
        guest.rm(f"d{number}/{number * 100 + 50}")
    before = [guest.directory(f"d{number}") for number in range(5)]
    top = both.dom0.directory("/local/domain/1")
    assert refused(guest.write, "a/b/c/d/e/f/g", "v") == "ENOSPC"
    assert both.dom0.directory("/local/domain/1") == top
    assert [guest.directory(f"d{number}") for number in range(5)] == before
    assert guest.request(M.WRITE, strings("a/b/c") + b"v").error is None
    both.check()


def test_xsa_415_421_creates_that_are_undone_in_a_transaction(both: House) -> None:
    guest = both.guest(1)
    guest.mkdir("k")
    for number in range(900):
        guest.mkdir(f"k/{number // 100}/{number}")
    top = both.dom0.directory("/local/domain/1")
    tx_id = guest.transaction_start()
    guest.write("a/b", "v", tx_id)
    deep = "/".join(["deep"] * 200)
    at_once = refused(guest.write, f"a/{deep}", "v", tx_id)
    at_end = refused(guest.transaction_end, tx_id)
    assert (at_once, at_end) == (("ENOSPC", "ENOMEM") if both.is_ours else (None, "ENOSPC"))
    assert both.dom0.directory("/local/domain/1") == top
    tx_id = guest.transaction_start()
    for number in range(30):
        guest.write(f"n{number}/x", "v", tx_id)
        guest.rm(f"n{number}", tx_id)
    guest.transaction_end(tx_id)
    assert both.dom0.directory("/local/domain/1") == top
    for number in range(80):  # the count of nodes is as it was
        guest.mkdir(f"more/{number}")
    both.check()


@pytest.mark.parametrize("is_dying", [False, True])
def test_xsa_418_deep_paths_need_no_recursion(both: House, is_dying: bool) -> None:
    """A thousand levels: made, listed, removed, or left to the death of their owner."""
    guest = both.guest(1)
    levels, path = 0, "a"
    while levels < MAX_DEPTH and guest.request(M.WRITE, strings(path) + b"v").error is None:
        levels += 1
        path += "/a"
    assert levels > 950
    path = path[:-2]
    assert guest.read(path) == b"v"
    assert guest.directory(path[:-2]) == ["a"]
    guest.watch(path, "t")
    if is_dying:
        both.destroy(1)
        assert refused(both.dom0.read, "/local/domain/1") == "ENOENT"
    else:
        guest.rm("a")
        assert both.dom0.directory("/local/domain/1") == []
        assert settled(guest)[-1] == (path, "t")
    both.check()


def test_xsa_440_two_transactions_remove_the_same_nodes(both: House) -> None:
    guest = both.guest(1)
    for number in range(20):
        guest.write(f"a/{number}", "v")
    first, second = guest.transaction_start(), guest.transaction_start()
    guest.rm("a", first)
    guest.rm("a", second)
    guest.transaction_end(first)
    assert refused(guest.transaction_end, second) == "EAGAIN"
    made = 0
    while refused(guest.mkdir, f"d{made // 100}/{made}") is None:
        made += 1
    assert NODES - 20 < made <= NODES
    both.check()
