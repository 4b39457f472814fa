# SPDX-License-Identifier: Apache-2.0
"""Who hears of what, by which path, in which order, and who must not. Method: tables of rows; each
row compares every packet of every client, so silence is tested wherever nothing is written down.

Source: protocol reference 1.3, 1.7, 2.4; XSA-115, XSA-324; orders measured on C xenstored 4.17.
Cannot show: slow readers (test_client.py, connections'), the special events (no deaths yet)."""

from __future__ import annotations

from typing import Any

import pytest

from app import wire
from app.client import Client
from app.path import Path
from app.watch import Watch, WatchTable
from tests.app.world import World, house, nul

# -- registering. On the house, a fresh one for every row.

REGISTER = [
    ("d0", "", "WATCH /pub t", "OK", "d0 /pub t"),  # one event at once, behind the OK
    ("g1", "", "WATCH /pub t", "OK", "g1 /pub t"),
    ("d0", "", "WATCH / t", "OK", "d0 / t"),
    ("g1", "", "WATCH /none/none t", "OK", "g1 /none/none t"),  # need not exist
    ("g1", "", "WATCH /priv t", "OK", "g1 /priv t"),  # nor be readable
    ("g1", "", "WATCH name t", "OK", "g1 name t"),  # relative: heard relative
    ("g3", "", "WATCH name t", "OK", "g3 name t"),
    ("d0", "", "WATCH name t", "OK", "d0 name t"),
    ("g1", "", "WATCH /local/domain/1/name t", "OK", "g1 /local/domain/1/name t"),
    ("g1", "", "WATCH @releaseDomain t", "OK", "g1 @releaseDomain t"),
    ("g1", "", "WATCH @introduceDomain t", "OK", "g1 @introduceDomain t"),
    ("g1", "", "WATCH @anything t", "OK", "g1 @anything t"),
    ("g1", "", "WATCH @releaseDomain/5 t", "OK", "g1 @releaseDomain/5 t"),
    ("g1", "", "WATCH /pub t 0", "OK", "g1 /pub t"),
    ("g1", "", "WATCH /pub t 65535", "OK", "g1 /pub t"),
    ("g1", "", "WATCH /pub t 65536", "EINVAL"),
    ("g1", "", "WATCH /pub t -1", "EINVAL"),
    ("g1", "", "WATCH /pub t x", "EINVAL"),
    ("g1", "", "WATCH /pub/ t", "EINVAL"),
    ("g1", "", "WATCH /pub//x t", "EINVAL"),
    ("g1", "", "WATCH /p.b t", "EINVAL"),
    ("g1", "", "WATCH /local/domain/ t", "EINVAL"),
    ("g1", "", (wire.XS_WATCH, nul("", "t")), "EINVAL"),
    ("g1", "", (wire.XS_WATCH, nul("/pub")), "EINVAL"),
    ("g1", "", (wire.XS_WATCH, nul("/pub", "t", "1", "1")), "EINVAL"),
    ("g1", "", (wire.XS_WATCH, nul("/pub") + b"t"), "EINVAL"),
    ("g1", "", (wire.XS_WATCH, nul("/pub", "t", "")), "EINVAL"),
    ("d0", "", "UNWATCH /pub t", "ENOENT"),
    ("d0", "", "UNWATCH /pub/ t", "ENOENT"),  # there is no such watch, whatever it says
]


@pytest.mark.parametrize("row", REGISTER, ids=str)
def test_registering(row: tuple[Any, ...]) -> None:
    world = house()
    before = world.tree()
    world.run([row])
    assert world.tree() == before and not world.effects


@pytest.mark.parametrize("path", ["@", "@foo.bar", "@foo/"])
def test_any_path_behind_an_at_sign_may_be_watched(path: str) -> None:
    """Reference 2.1: `@anything` may be watched; C 4.17 takes these three too."""
    house().run([("d0", "", f"WATCH {path} t", "OK", f"d0 {path} t")])


def test_a_watch_is_its_path_and_its_token() -> None:
    house().run([
        ("g1", "", "WATCH name t", "OK", "g1 name t"),
        ("g1", "", "WATCH name t", "EEXIST"),
        ("g1", "", "WATCH /local/domain/1/name t", "EEXIST"),  # the same, spelt absolutely
        ("g1", "", "WATCH name t 1", "EEXIST"),  # another depth is no other watch
        ("g1", "", "WATCH name u", "OK", "g1 name u"),
        ("g2", "", "WATCH /local/domain/1/name t", "OK", "g2 /local/domain/1/name t"),
        ("d0", "", "WATCH /pub t", "OK", "d0 /pub t"),
        ("d0b", "", "WATCH /pub t", "OK", "d0b /pub t"),  # each connection has its own
        ("g2", "", "UNWATCH name t", "ENOENT"),
        ("g1", "", "UNWATCH name v", "ENOENT"),
        ("g1", "", "UNWATCH /local/domain/1/name t", "OK"),  # absolute spelling removes it
        ("g1", "", "UNWATCH name t", "ENOENT"),
        ("g1", "", "WRITE name two", "OK", "g1 name u"),
        ("g1", "", "WATCH name t", "OK", "g1 name t"),
        ("g1", "", "WRITE name three", "OK", "g1 name u, g1 name t"),  # registered first, first
        ("g1", "", (wire.XS_WATCH, nul("name", "")), "OK", "g1 name "),
        ("g1", "", (wire.XS_UNWATCH, nul("name", "")), "OK"),
    ])


# -- which changes fire. Domain 0 watches / as "r", /d as "d", /d/x as "x", /d/x/y as "y".

FIRES = [
    ("WRITE /other v", "/other r"),
    ("WRITE /d v", "/d r, /d d"),
    ("WRITE /d/x v", "/d/x r, /d/x d, /d/x x"),
    ("WRITE /d/x/y v", "/d/x/y r, /d/x/y d, /d/x/y x, /d/x/y y"),
    ("WRITE /d/x/y/z v", "/d/x/y/z r, /d/x/y/z d, /d/x/y/z x, /d/x/y/z y"),
    ("WRITE /dd v", "/dd r"),  # below means below, not a longer name
    ("WRITE /d/xx v", "/d/xx r, /d/xx d"),
    ("WRITE / v", "/ r"),
    ("WRITE /d/x same", "/d/x r, /d/x d, /d/x x"),  # the same value fires too
    ("WRITE /new/deep/leaf v", "/new/deep/leaf r"),  # implicit parents: nothing of their own
    ("MKDIR /new/deep/leaf", "/new/deep/leaf r"),
    ("MKDIR /d/x", ""),  # exists: nothing
    ("MKDIR /d/x/new", "/d/x/new r, /d/x/new d, /d/x/new x"),
    ("SET_PERMS /d/x n0", "/d/x r, /d/x d, /d/x x"),
    ("RM /d/x/y", "/d/x/y r, /d/x/y d, /d/x/y x, /d/x/y y"),
    # a subtree: the removed nodes' own watches, deepest first; one event upward
    ("RM /d/x", "/d/x/y y, /d/x r, /d/x d, /d/x x"),
    ("RM /d", "/d/x/y y, /d/x x, /d r, /d d"),
    ("RM /none", ""),
    ("RM /d/none", ""),
    ("READ /d/x", None),
    ("DIRECTORY /d", None),
    ("GET_PERMS /d", None),
]


@pytest.mark.parametrize("request_, events", FIRES)
@pytest.mark.parametrize("who", ["d0", "d0b"])
def test_what_fires(request_: str, events: str | None, who: str) -> None:
    """Whether somebody else or the watcher itself did it, whose events stand before its OK."""
    world = World()
    world.put("/d/x/y", "same")
    world.put("/d/x", "same")
    for path, token in (("/", "r"), ("/d", "d"), ("/d/x", "x"), ("/d/x/y", "y")):
        world.ask("d0", f"WATCH {path} {token}")
    answer = "OK" if events is not None else world.ask("d0b", request_)
    expected = ", ".join(f"d0 {one}" for one in events.split(", ")) if events else ""
    world.run([(who, "", request_, answer, expected)])


def test_rm_walks_children_first_in_order_of_creation() -> None:
    world = World()
    for path in ("/d/a/1", "/d/b/1", "/d/a/2", "/d/c"):
        world.put(path)
    for path in ("/d", "/d/a", "/d/b", "/d/c", "/d/a/1", "/d/a/2", "/d/b/1", "/d/c/none"):
        world.ask("g1", f"WATCH {path} t")
        world.ask("d0", f"WATCH {path} t")
    order = ["/d/a/1", "/d/a/2", "/d/a", "/d/b/1", "/d/b", "/d/c", "/d"]  # as C does
    world.run([("d0", "", "RM /d", "OK", ", ".join(f"d0 {path} t" for path in order))])


def test_of_several_watches_the_first_registered_hears_first() -> None:
    world = World()
    for path, token in (("/a", "3"), ("/a/b", "1"), ("/", "2"), ("/a/b/c", "4")):
        world.ask("d0", f"WATCH {path} {token}")
    world.run([("d0", "", "WRITE /a/b/c v", "OK",
                "d0 /a/b/c 3, d0 /a/b/c 1, d0 /a/b/c 2, d0 /a/b/c 4")])


def test_an_event_that_waits_already_is_not_sent_twice() -> None:
    """Two watches whose events are equal, path and token: C does not queue the second."""
    house().run([
        ("d0", "", "WATCH /pub t", "OK", "d0 /pub t"),
        ("d0", "", "WATCH /pub/x t", "OK", "d0 /pub/x t"),
        ("d0", "", "WATCH /pub/x u", "OK", "d0 /pub/x u"),
        ("d0", "", "WRITE /pub/x v", "OK", "d0 /pub/x t, d0 /pub/x u"),
        ("d0", "", "WRITE /pub/x v", "OK", "d0 /pub/x t, d0 /pub/x u"),  # the first were taken
        ("g1", "", "WATCH name t", "OK", "g1 name t"),
        ("g1", "", "WATCH /local/domain/1 t", "OK", "g1 /local/domain/1 t"),
        ("d0", "", "WRITE /local/domain/1/name v", "OK",
         "g1 name t, g1 /local/domain/1/name t"),  # another spelling is another event
    ])


# -- depth: how many levels below the watch's path are heard

DEPTHS = [
    # watch, depth, changed path, heard
    ("/d", 0, "/d", True), ("/d", 0, "/d/a", False), ("/d", 0, "/", False),
    ("/d", 1, "/d", True), ("/d", 1, "/d/a", True), ("/d", 1, "/d/a/b", False),
    ("/d", 2, "/d/a/b", True), ("/d", 2, "/d/a/b/c", False),
    ("/d", 65535, "/d/a/b/c/d/e", True),
    ("/", 0, "/", True), ("/", 0, "/d", False), ("/", 1, "/d", True), ("/", 1, "/d/a", False),
    ("/", 2, "/d/a", True), ("/d/a", 0, "/d/a", True), ("/d/a", 0, "/d/ab", False),
]


@pytest.mark.parametrize("path, depth, changed, heard", DEPTHS)
def test_depth(path: str, depth: int, changed: str, heard: bool) -> None:
    house().run([
        ("d0", "", f"WATCH {path} t {depth}", "OK", f"d0 {path} t"),
        ("d0b", "", f"WRITE {changed} v", "OK", f"d0 {changed} t" if heard else ""),
    ])


def test_depth_counts_from_a_relative_watchs_own_path() -> None:
    house().run([
        ("g1", "", "WATCH dir t 1", "OK", "g1 dir t"),
        ("g1", "", "WRITE dir/a v", "OK", "g1 dir/a t"),
        ("g1", "", "WRITE dir/a/b v", "OK"),
        ("g1", "", "WRITE dir v", "OK", "g1 dir t"),
    ])


def test_a_removed_subtree_fires_shallow_watches_inside_it() -> None:
    house().run([
        ("d0", "", "WRITE /d/a/b v", "OK"),
        ("d0", "", "WATCH /d/a t 0", "OK", "d0 /d/a t"),
        ("d0", "", "WATCH / u 1", "OK", "d0 / u"),
        ("d0b", "", "RM /d/a", "OK", "d0 /d/a t"),
        ("d0b", "", "WRITE /d/a/b v", "OK"),
        ("d0b", "", "RM /d", "OK", "d0 /d/a t, d0 /d u"),
    ])


# -- relative paths


def test_relative_watches_hear_relative_paths() -> None:
    house().run([
        ("g1", "", "WATCH a r", "OK", "g1 a r"),
        ("g1", "", "WATCH /local/domain/1/a a", "OK", "g1 /local/domain/1/a a"),
        ("d0", "", "WRITE /local/domain/1/a/b v", "OK", "g1 a/b r, g1 /local/domain/1/a/b a"),
        ("d0", "", "RM /local/domain/1", "OK", "g1 a r, g1 /local/domain/1/a a"),
    ])


# -- who must not hear (XSA-115): the node or its parent must be readable


def watched(*paths: str) -> World:
    """The house, with g1, g2 and g3 watching the paths."""
    world = house()
    for who in ("g1", "g2", "g3"):
        for path in paths:
            world.ask(who, f"WATCH {path} t")
    return world


def test_what_may_not_be_read_is_not_heard_of() -> None:
    watched("/", "/priv", "/priv/x", "/none", "/pub").run([
        ("d0", "", "WRITE /priv v", "OK"),
        ("d0", "", "WRITE /priv/x v", "OK"),
        ("d0", "", "WRITE /priv/new v", "OK"),
        ("d0", "", "SET_PERMS /priv/x n0 b7", "OK"),
        ("d0", "", "WRITE /none v", "OK"),
        ("d0", "", "RM /priv", "OK"),
        ("d0", "", "WRITE /tool v", "OK"),
        ("d0", "", "WRITE / v", "OK"),
        ("d0", "", "WRITE /pub v", "OK", "g1 /pub t, g2 /pub t"),
    ])


def test_a_readable_node_below_unreadable_ones_is_heard() -> None:
    watched("/").run([
        ("d0", "", "WRITE /priv/one v", "OK", "g1 /priv/one t"),
        ("d0", "", "RM /priv/one", "OK", "g1 /priv/one t"),  # by its last rights
        ("d0", "", "WRITE /priv/one v", "OK"),  # made anew, with the parent's rights
    ])


def test_a_readable_parent_is_enough() -> None:
    watched("/pub/secret").run([
        ("d0", "", "WRITE /pub/secret/y v", "OK", "g1 /pub/secret/y t, g2 /pub/secret/y t"),
        ("d0", "", "SET_PERMS /pub/secret n0", "OK", "g1 /pub/secret t, g2 /pub/secret t"),
        ("d0", "", "WRITE /pub/secret v", "OK", "g1 /pub/secret t, g2 /pub/secret t"),
        ("d0", "", "SET_PERMS /pub/secret/y n0", "OK", "g1 /pub/secret/y t, g2 /pub/secret/y t"),
        ("d0", "", "WRITE /pub/secret/y v", "OK"),  # the grandparent is not
        ("d0", "", "RM /pub/secret", "OK", "g1 /pub/secret t, g2 /pub/secret t"),
    ])


def test_set_perms_is_heard_by_old_or_new_rights() -> None:
    """Pitfall 9: the loser sees it once, and nothing afterwards."""
    watched("/priv/x").run([
        ("d0", "", "WRITE /priv/x 0", "OK"),
        ("d0", "", "SET_PERMS /priv/x n0 r1", "OK", "g1 /priv/x t"),
        ("d0", "", "WRITE /priv/x 1", "OK", "g1 /priv/x t"),
        ("d0", "", "SET_PERMS /priv/x n0 r2", "OK", "g1 /priv/x t, g2 /priv/x t"),
        ("d0", "", "WRITE /priv/x 2", "OK", "g2 /priv/x t"),
        ("d0", "", "SET_PERMS /priv/x n0", "OK", "g2 /priv/x t"),
        ("d0", "", "WRITE /priv/x 3", "OK"),
        ("d0", "", "RM /priv/x", "OK"),
    ])


def test_rm_is_judged_by_the_last_rights() -> None:
    watched("/priv/x", "/priv/x/y").run([
        ("d0", "", "WRITE /priv/x/y v", "OK"),
        ("d0", "", "SET_PERMS /priv/x/y n0 r2", "OK", "g2 /priv/x/y t"),
        ("d0", "", "SET_PERMS /priv/x n0 r1", "OK", "g1 /priv/x t"),
        # y: g1 may read its parent, g2 may read it; x: g1 only, nobody may read /priv
        ("d0", "", "RM /priv", "OK", "g1 /priv/x/y t, g1 /priv/x t, g2 /priv/x/y t"),
    ])


def test_what_is_removed_with_its_readable_parent_is_heard() -> None:
    """C 4.17, measured: the parent still counts while its children are being removed."""
    watched("/pub/sub/x").run([
        ("d0", "", "WRITE /pub/sub/x v", "OK", "g1 /pub/sub/x t, g2 /pub/sub/x t"),
        ("d0", "", "SET_PERMS /pub/sub/x n0", "OK", "g1 /pub/sub/x t, g2 /pub/sub/x t"),
        ("d0", "", "RM /pub", "OK", "g1 /pub/sub/x t, g2 /pub/sub/x t"),
    ])


def test_a_target_hears_as_its_target() -> None:
    world = house()
    world.clients["g3"].target = 1
    world.ask("g3", "WATCH / t")
    world.run([
        ("d0", "", "WRITE /priv/one v", "OK", "g3 /priv/one t"),
        ("g3", "", "READ /priv/one", b"v"),
        ("d0", "", "WRITE /priv/x v", "OK"),
    ])


# -- long tokens (XSA-324)


@pytest.mark.parametrize("size, is_heard", [(4096 - 2 - 4, True), (4096 - 2 - 4 - 2, True)])
def test_a_watch_with_the_longest_token(size: int, is_heard: bool) -> None:
    """The registration fills its message; its own event fits exactly, those below do not."""
    world = house()
    world.ask("d0", (wire.XS_WATCH, nul("/pub", "t" * size)))
    heard = world.packets("d0b", "WRITE /pub/x v").get("d0", [])
    assert bool(heard) is (size + 2 + len("/pub/x") <= 4096)
    assert bool(world.packets("d0b", "WRITE /pub v").get("d0")) is is_heard
    assert world.ask("d0", "READ /pub") == b"v"


def test_a_watch_that_can_never_be_heard_is_accepted() -> None:
    """A relative path makes a registration fit whose absolute twin would not; the server lives."""
    world = house()
    token = "t" * 4090
    assert world.ask("g1", (wire.XS_WATCH, nul("a", token))) == "OK"
    assert world.packets("d0", "WRITE /local/domain/1/a/bcd v").get("g1") is None
    assert world.ask("g1", (wire.XS_UNWATCH, nul("a", token))) == "OK"


# -- dropping


def test_reset_watches_drops_the_callers_only() -> None:
    for payload in (b"", b"\0"):
        house().run([
            ("d0", "", "WATCH /pub t", "OK", "d0 /pub t"),
            ("d0", "", "WATCH /pub/x u", "OK", "d0 /pub/x u"),
            ("g1", "", "WATCH /pub t", "OK", "g1 /pub t"),
            ("d0", "", (wire.XS_RESET_WATCHES, payload), "OK"),
            ("d0", "", "WRITE /pub/x v", "OK", "g1 /pub/x t"),
            ("d0", "", "UNWATCH /pub t", "ENOENT"),
            ("d0", "", "WATCH /pub t", "OK", "d0 /pub t"),
        ])


def test_watching_and_resetting_leaves_nothing() -> None:
    """XSA-330."""
    world = house()
    for _ in range(50):
        for number in range(128):
            assert world.ask("g1", f"WATCH /pub/{number} t") == "OK"
        assert world.ask("g1", "RESET_WATCHES") == "OK"
    assert not world.store.watches.by_path and not world.clients["g1"].watches
    world.run([("d0", "", "WRITE /pub/1 v", "OK")])


# -- the table itself, against a scan of all watches


def test_matching_is_a_scan_of_all_watches_only_faster() -> None:
    table, client = WatchTable(), Client(1, 0, True)
    texts = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/a/bc", "/c"]
    watches = [Watch(client, Path(text.encode()), b"%d" % number, 0, depth, number)
               for number, (text, depth) in enumerate(
                   (text, depth) for depth in (None, 0, 1, 2) for text in texts)]
    for one in watches:
        table.add(one)

    def is_heard(one: Watch, text: str) -> bool:
        own = "" if one.path == b"/" else one.path.decode()
        if text != one.path.decode() and not text.startswith(own + "/"):
            return False
        rest = text[len(own):].strip("/")
        return one.depth is None or (len(rest.split("/")) if rest else 0) <= one.depth

    for left in (watches, watches[::2], watches[:1], []):
        for one in [one for path in list(table.by_path) for one in table.exact(path)]:
            if one not in left:
                table.remove(one)
        for text in [*texts, "/a/b/c/d", "/none"]:
            path = Path(text.encode())
            assert table.matching(path) == [one for one in left if is_heard(one, text)], text
            assert table.exact(path) == [one for one in left if one.path == path]
    assert not table.by_path
