# SPDX-License-Identifier: Apache-2.0
"""What a commit lets others hear: one event per changed path, in the order of first touch, nothing
for what was created and removed again, and nothing before the commit. Method: scripts whose
outcome was measured on C xenstored 4.17; the watcher is another connection.

Source: protocol reference 2.3 (events), 2.4. Cannot show: slow readers (connections')."""

from __future__ import annotations

import pytest

from tests.app.world import World

# name, nodes before, what the transaction does, watches of d0b, what it hears ("path watch")
COMMITS = [
    ("one write", "/t/a", "WRITE /t/a 1", "/", "/t/a /"),
    ("two writes of one node", "/t/a", "WRITE /t/a 1; WRITE /t/a 2", "/ /t/a",
     "/t/a /, /t/a /t/a"),
    ("same value", "/t/a", "WRITE /t/a v", "/", "/t/a /"),
    ("order of writing", "/t/a /t/b", "WRITE /t/b 1; WRITE /t/a 1", "/", "/t/b /, /t/a /"),
    ("order of first touch", "/t/a /t/b", "READ /t/a; WRITE /t/b 1; WRITE /t/a 1", "/",
     "/t/a /, /t/b /"),
    ("a listing is a touch", "/t/a /t/b", "DIRECTORY /t/a; WRITE /t/b 1; WRITE /t/a 1", "/",
     "/t/a /, /t/b /"),
    ("created and removed", "/t", "WRITE /t/n 1; RM /t/n", "/ /t/n", ""),
    ("created, removed, created", "/t", "WRITE /t/n 1; RM /t/n; WRITE /t/n 1", "/", "/t/n /"),
    ("implicit, then leaf removed", "/t", "WRITE /t/n/m 1; RM /t/n/m", "/ /t/n", ""),
    ("implicit parents are silent", "/t", "WRITE /t/n/m 1", "/ /t/n", "/t/n/m /, /t/n/m /t/n"),
    ("implicit, then written", "/t", "WRITE /t/n/m 1; WRITE /t/n 1", "/ /t/n",
     "/t/n/m /, /t/n/m /t/n, /t/n /, /t/n /t/n"),
    ("removed, then implicit", "/t/n", "RM /t/n; WRITE /t/n/m 1", "/ /t/n",
     "/t/n /, /t/n /t/n, /t/n/m /, /t/n/m /t/n"),
    ("removed child, then implicit", "/t/n/m", "RM /t/n; WRITE /t/n/m/k 1", "/ /t/n /t/n/m",
     "/t/n /, /t/n /t/n, /t/n/m /t/n/m, /t/n/m/k /, /t/n/m/k /t/n, /t/n/m/k /t/n/m"),
    ("perms and value are one", "/t/n", "SET_PERMS /t/n n0 r1; WRITE /t/n 1", "/", "/t/n /"),
    ("mkdir of what exists", "/t/n", "MKDIR /t/n", "/", ""),
    ("rm of what is missing", "/t", "RM /t/n", "/", ""),
    ("only reading", "/t/n", "READ /t/n; DIRECTORY /t; GET_PERMS /t/n", "/ /t/n", ""),
    ("rm, one level", "/t/d/a", "RM /t/d", "/ /t/d /t/d/a /t/d/none",
     "/t/d /, /t/d /t/d, /t/d/a /t/d/a"),
    ("written, then its parent removed", "/t/d/a/1", "WRITE /t/d/a 1; RM /t/d",
     "/ /t/d /t/d/a /t/d/a/1",  # the event that reaches further stays
     "/t/d/a /, /t/d/a /t/d, /t/d/a /t/d/a, /t/d /, /t/d /t/d, /t/d/a/1 /t/d/a/1"),
    ("creating touches the parent", "/t/d /t/e",
     "WRITE /t/d/x 1; WRITE /t/e 1; WRITE /t/d 1", "/", "/t/d/x /, /t/d /, /t/e /"),
    ("creating touches all it makes", "/t/d /t/e",
     "WRITE /t/d/x/y 1; WRITE /t/e 1; WRITE /t/d 1; WRITE /t/d/x 1", "/",
     "/t/d/x/y /, /t/d/x /, /t/d /, /t/e /"),
    ("removing nothing touches it too", "/t/d /t/e",
     "RM /t/d/x; WRITE /t/e 1; WRITE /t/d 1", "/", "/t/d /, /t/e /"),
    # touched too: the nearest ancestor consulted for an error, the parent when deleting, and a
    # removed subtree from its top (reference 2.3)
    ("missing touches the ancestor", "/t/d /t/e",
     "READ /t/d/x; WRITE /t/e 1; WRITE /t/d 1", "/", "/t/d /, /t/e /"),
    ("removing touches the parent", "/t/d/x /t/e",
     "RM /t/d/x; WRITE /t/e 1; WRITE /t/d 1", "/", "/t/d/x /, /t/d /, /t/e /"),
    ("removed child, made again", "/t/d/a/1", "RM /t/d; WRITE /t/d/a 1",
     "/ /t/d /t/d/a /t/d/a/1",
     "/t/d /, /t/d /t/d, /t/d/a /, /t/d/a /t/d, /t/d/a /t/d/a, /t/d/a/1 /t/d/a/1"),
    ("removed, then its parent", "/t/d/a/1", "RM /t/d/a; RM /t/d", "/ /t/d /t/d/a /t/d/a/1",
     "/t/d/a /, /t/d/a /t/d, /t/d/a /t/d/a, /t/d /, /t/d /t/d, /t/d/a/1 /t/d/a/1"),
    ("removed, made, removed", "/t/d/a/1", "RM /t/d; WRITE /t/d 1; RM /t/d",
     "/ /t/d /t/d/a /t/d/a/1", "/t/d /, /t/d /t/d, /t/d/a /t/d/a, /t/d/a/1 /t/d/a/1"),
    ("rm, from the top, parents first", "/t/d/a/1 /t/d/b/1 /t/d/a/2 /t/d/c", "RM /t/d",
     "/ /t/d /t/d/a /t/d/b /t/d/c /t/d/a/1 /t/d/a/2 /t/d/b/1",
     "/t/d /, /t/d /t/d, /t/d/a /t/d/a, /t/d/a/1 /t/d/a/1, /t/d/a/2 /t/d/a/2, /t/d/b /t/d/b, "
     "/t/d/b/1 /t/d/b/1, /t/d/c /t/d/c"),
]


def run(before: str, does: str, watches: str, hears: str) -> World:
    """A commit by d0; d0b must hear it, and what it hears is given."""
    world = World()
    for path in before.split(" "):
        world.put(path, "v")
    for path in watches.split(" "):
        world.ask("d0b", f"WATCH {path} {path}")
    world.start("d0")
    for request in does.split("; "):
        assert set(world.packets("d0", request, "t")) == {"d0"}, "heard before the commit"
    events = ", ".join(f"d0b {one}" for one in hears.split(", ")) if hears else ""
    return world.run([("d0", "t", "END T", "OK", events)])


@pytest.mark.parametrize("name, before, does, watches, hears", COMMITS,
                         ids=[row[0] for row in COMMITS])
def test_events_of_a_commit(name: str, before: str, does: str, watches: str, hears: str) -> None:
    run(before, does, watches, hears)


@pytest.mark.parametrize("name, before, does, watches, hears", COMMITS,
                         ids=[row[0] for row in COMMITS])
def test_the_same_after_something_else_has_changed(name: str, before: str, does: str,
                                                   watches: str, hears: str) -> None:
    """The commit runs again then; what is heard of it is the same, and its own watches hear
    first of all what happened outside."""
    world = World()
    for path in [*before.split(" "), "/other"]:
        world.put(path, "v")
    world.start("d0")
    for request in does.split("; "):
        world.ask("d0", request, "t")
    world.ask("d0b", "WRITE /other 1")
    for path in watches.split(" "):
        world.ask("d0b", f"WATCH {path} {path}")
    events = ", ".join(f"d0b {one}" for one in hears.split(", ")) if hears else ""
    world.run([("d0", "t", "END T", "OK", events)])


@pytest.mark.parametrize("ending, answer", [("END F", "OK"), ("END T", "EAGAIN"),
                                            ("RESET_WATCHES", "OK")])
def test_nobody_hears_of_what_was_not_committed(ending: str, answer: str) -> None:
    world = World()
    world.put("/a", "0")
    world.run([
        ("d0b", "", "WATCH / t", "OK", "d0b / t"),
        ("d0", "", "START", "=t"),
        ("d0", "t", "READ /a", b"0"),
        ("d0", "t", "WRITE /b 1", "OK"),
        ("d0", "t", "RM /a", "OK"),
        ("d0b", "", "WRITE /a 1", "OK", "d0b /a t"),
        ("d0", "t", ending, answer),
        ("d0b", "", "READ /b", "ENOENT"),
    ])


def test_the_committer_hears_itself_before_its_ok() -> None:
    world = World()
    world.run([
        ("d0", "", "WATCH /a t", "OK", "d0 /a t"),
        ("d0", "", "START", "=t"),
        ("d0", "t", "WRITE /a/b 1", "OK"),
        ("d0", "t", "WRITE /a 1", "OK"),
        ("d0", "t", "END T", "OK", "d0 /a/b t, d0 /a t"),
    ])


def test_a_watch_inside_a_transaction_is_set_at_once() -> None:
    """WATCH and UNWATCH ignore the tx_id, known or not (pitfall 12)."""
    World().run([
        ("d0", "", "START", "=t"),
        ("d0", "t", "WRITE /a 1", "OK"),
        ("d0", "t", "WATCH /a t", "OK", "d0 /a t"),
        ("d0", 4711, "WATCH /a u", "OK", "d0 /a u"),
        ("d0", "", "WATCH /a t", "EEXIST"),
        ("d0", "t", "UNWATCH /a u", "OK"),
        ("d0", "t", "END T", "OK", "d0 /a t"),
    ])


# name, permissions of /t/n and of /t/n/m (domain 0's), what the transaction does, what g1 hears
RIGHTS = [
    ("may read it", "n0 r1", "n0", "WRITE /t/n 1", "/t/n n"),
    ("may not", "n0", "n0", "WRITE /t/n 1; WRITE /t/n/m 1", ""),
    ("parent may be read", "n0 r1", "n0", "WRITE /t/n/m 1", "/t/n/m n, /t/n/m m"),
    ("lost the right", "n0 r1", "n0", "SET_PERMS /t/n n0; WRITE /t/n 1", "/t/n n"),
    ("got the right", "n0", "n0", "WRITE /t/n 1; SET_PERMS /t/n n0 r1", "/t/n n"),
    ("had the right in between only", "n0", "n0", "SET_PERMS /t/n n0 r1; SET_PERMS /t/n n0", ""),
    ("removed: the last rights count", "n0", "n0 r1", "RM /t/n", "/t/n/m m"),
    ("removed: so they do", "n0 r1", "n0 r1", "RM /t/n", "/t/n n, /t/n/m m"),
    ("removed with its parent", "n0 r1", "n0", "RM /t/n", "/t/n n"),  # as C: no parent is left
]


@pytest.mark.parametrize("name, perms, below, does, hears", RIGHTS, ids=[row[0] for row in RIGHTS])
def test_rights_at_a_commit(name: str, perms: str, below: str, does: str, hears: str) -> None:
    """XSA-115: old or new rights of the node, or those of its parent, as they are committed."""
    world = World()
    world.put("/t", "")
    world.put("/t/n", "", *perms.split(" "))
    world.put("/t/n/m", "", *below.split(" "))
    world.ask("g1", "WATCH /t/n n")
    world.ask("g1", "WATCH /t/n/m m")
    world.start("d0")
    for request in does.split("; "):
        assert world.ask("d0", request, "t") == "OK"
    events = ", ".join(f"g1 {one}" for one in hears.split(", ")) if hears else ""
    world.run([("d0", "t", "END T", "OK", events)])
