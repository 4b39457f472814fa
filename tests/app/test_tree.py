# SPDX-License-Identifier: Apache-2.0
"""The flat state: after any changes its indices say what its nodes say, every change leaves an
effect that tells all of it, and what may not be admitted leaves no trace. Method: small trees by
hand, random changes against a dict, and each index broken by hand to see check() find it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import path as paths
from app.effects import Cut, Put
from app.errors import Enospc
from app.path import ROOT, Path
from app.perms import from_wire
from app.store import Store
from app.tree import NODE_HEAP, Node, Space, Tree, node_bytes
from tests.app.world import WIDE, FakeHost, FakeServices

PERMS = {domid: from_wire(b"n%d\0" % domid) for domid in (0, 1, 2)}


def fresh(space: tuple[int, int, int] = WIDE) -> Tree:
    """A tree with a root only."""
    store = Store(Space(*space), FakeHost(()), FakeServices())
    store.populate()
    store.tree.cut(Path(b"/tool"))
    store.take_effects()
    return store.tree


def create(tree: Tree, path: str, value: bytes = b"", domid: int = 0, fires: bool = True) -> Node:
    """A node, and what is missing above it."""
    one = Path(path.encode())
    if paths.parent(one) not in tree.nodes:
        create(tree, paths.parent(one).decode(), b"", domid, fires=False)
    node = Node(value, PERMS[domid], tree.next_ordinal())
    tree.create(one, node, fires)
    return node


def test_create_replace_and_cut() -> None:
    tree = fresh()
    node = create(tree, "/a/b", b"v", 1)
    assert tree.get(Path(b"/a/b")) is node
    assert tree.listing(ROOT) == b"a\0" and tree.listing(Path(b"/a")) == b"b\0"
    assert tree.listing(Path(b"/a/b")) == b"" and tree.listing(Path(b"/none")) == b""
    assert tree.owned_count(1) == 2 and tree.owned_count(2) == 0
    after = Node(b"longer", PERMS[2], node.ordinal)
    tree.replace(Path(b"/a/b"), node, after)
    assert (tree.owned_count(1), tree.owned_count(2)) == (1, 1)
    assert tree.owned_size(2) == node_bytes(Path(b"/a/b"), after)
    tree.cut(Path(b"/a"))
    assert list(tree.nodes) == [ROOT] and not tree.dirs
    assert tree.owned_count(1) == tree.owned_count(2) == 0
    assert tree.check() is None


def test_effects_tell_all_of_a_change() -> None:
    tree = fresh()
    one = create(tree, "/a/b", b"v")
    two = Node(b"w", PERMS[0], one.ordinal)
    tree.replace(Path(b"/a/b"), one, two)
    tree.cut(Path(b"/a"))
    parent, put, again, cut = tree.effects
    assert isinstance(parent, Put) and isinstance(put, Put) and isinstance(again, Put)
    assert (parent.path, parent.before, parent.fires) == (b"/a", None, False)
    assert (put.path, put.before, put.after, put.fires) == (b"/a/b", None, one, True)
    assert (again.before, again.after) == (one, two)
    assert isinstance(cut, Cut) and cut.path == b"/a"
    assert [path for path, _ in cut.removed] == [b"/a/b", b"/a"]


def test_a_subtree_is_children_first_siblings_in_order() -> None:
    tree = fresh()
    for path in ("/d/a/1", "/d/b/1", "/d/a/2", "/d/c"):
        create(tree, path)
    assert tree.subtree(Path(b"/d")) == [b"/d/a/1", b"/d/a/2", b"/d/a", b"/d/b/1", b"/d/b",
                                         b"/d/c", b"/d"]
    assert tree.subtree(Path(b"/d/c")) == [b"/d/c"]
    assert tree.subtree(ROOT)[-1] == b"/"


def test_a_deep_tree_needs_no_recursion() -> None:
    """XSA-418."""
    tree = fresh()
    path = Path(b"/")
    for _ in range(5000):
        path = paths.child(path, b"a")
        tree.create(path, Node(b"", PERMS[1], tree.next_ordinal()))
    assert len(tree.subtree(ROOT)) == 5001
    tree.cut(Path(b"/a"))
    assert list(tree.nodes) == [ROOT] and tree.check() is None


def test_ordinals_only_grow() -> None:
    tree = fresh()
    seen = [create(tree, f"/d{number}").ordinal for number in range(5)]
    tree.cut(Path(b"/d3"))
    seen.append(create(tree, "/d3").ordinal)
    assert seen == sorted(set(seen))
    assert tree.generation >= seen[-1]


STEPS = st.lists(st.tuples(
    st.sampled_from(["create", "write", "chmod", "cut"]),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(
        lambda names: "/" + "/".join(names)),
    st.sampled_from([b"", b"v", b"longer"]),
    st.sampled_from([0, 1, 2])), max_size=25)


@given(STEPS)
def test_any_changes_keep_the_indices_right(steps: list[tuple[str, str, bytes, int]]) -> None:
    tree = fresh()
    plain: dict[str, tuple[bytes, int]] = {"/": (b"", 0)}
    for what, text, value, domid in steps:
        path = Path(text.encode())
        before = tree.get(path)
        if what == "create" and before is None:
            create(tree, text, value, domid)
            for end in range(1, len(text)):
                if text[end] == "/":
                    plain.setdefault(text[:end], (b"", domid))
            plain[text] = (value, domid)
        elif what == "write" and before is not None:
            tree.replace(path, before, Node(value, before.perms, before.ordinal))
            plain[text] = (value, plain[text][1])
        elif what == "chmod" and before is not None:
            tree.replace(path, before, Node(before.value, PERMS[domid], before.ordinal))
            plain[text] = (plain[text][0], domid)
        elif what == "cut" and before is not None:
            tree.cut(path)
            plain = {one: node for one, node in plain.items()
                     if one != text and not one.startswith(text + "/")}
        assert tree.check() is None
    assert plain == {one.decode(): (node.value, node.perms.owner)
                     for one, node in tree.nodes.items()}
    for domid in (0, 1, 2):
        assert tree.owned_count(domid) == sum(owner == domid for _, owner in plain.values())
        assert tree.owned_size(domid) == sum(
            node_bytes(one, node) for one, node in tree.nodes.items()
            if node.perms.owner == domid)
    for one in plain:
        names = [other for other in plain if other != "/" and
                 paths.parent(Path(other.encode())) == one.encode()]
        assert sorted(tree.listing(Path(one.encode())).split(b"\0")[:-1]) == sorted(
            paths.name(Path(other.encode())) for other in names)
        assert tree.name_bytes(Path(one.encode())) == len(tree.listing(Path(one.encode())))


# -- check() finds every kind of damage

def _lose_from_parent(tree: Tree) -> None:
    directory = tree.dirs[Path(b"/a")]
    del directory.names[b"b"]
    directory.name_bytes -= 2


def _list_what_is_not_there(tree: Tree) -> None:
    directory = tree.dirs[Path(b"/a")]
    directory.names[b"ghost"] = directory.names[b"b"]
    directory.name_bytes += 6


def _keep_a_directory(tree: Tree) -> None:
    tree.dirs[Path(b"/ghost")] = tree.dirs[Path(b"/a")]


def _forget_an_owner(tree: Tree) -> None:
    tree.owned[1].discard(Path(b"/a/b"))


def _count_wrong(tree: Tree) -> None:
    tree.bytes += 1


def _count_an_owner_wrong(tree: Tree) -> None:
    tree.owned_bytes[1] -= 1


def _count_names_wrong(tree: Tree) -> None:
    tree.dirs[Path(b"/a")].name_bytes += 1


def _lose_a_parent(tree: Tree) -> None:
    del tree.nodes[Path(b"/a")]


def _change_behind_its_back(tree: Tree) -> None:
    node = tree.nodes[Path(b"/a/b")]
    tree.nodes[Path(b"/a/b")] = Node(node.value, PERMS[2], node.ordinal)


@pytest.mark.parametrize("damage", [
    _lose_from_parent, _list_what_is_not_there, _keep_a_directory, _forget_an_owner, _count_wrong,
    _count_an_owner_wrong, _count_names_wrong, _lose_a_parent, _change_behind_its_back])
def test_check_finds(damage: Callable[[Tree], None]) -> None:
    tree = fresh()
    create(tree, "/a/b", b"v", 1)
    create(tree, "/a/c", b"v", 1)
    assert tree.check() is None
    damage(tree)
    assert tree.check() is not None


# -- admission


def test_three_limits_are_exact() -> None:
    tree = fresh()
    create(tree, "/a", b"v")
    live = tree.bytes + tree.space.items_bytes
    tree.space.log_bytes = live + 100
    tree.admit(100)
    with pytest.raises(Enospc):
        tree.admit(101)
    tree.admit(0, 1)
    tree.admit(-5, 0)  # what shrinks is always let in
    tree.space.log_bytes, tree.space.step_bytes = 1 << 30, 50
    tree.admit(50)
    with pytest.raises(Enospc):
        tree.admit(51)
    tree.space.step_bytes = 1 << 30
    tree.space.heap_bytes = live + 10 + (len(tree.nodes) + 1) * NODE_HEAP
    tree.admit(10, 1)
    with pytest.raises(Enospc):
        tree.admit(10, 2)
    with pytest.raises(Enospc):
        tree.admit(11, 1)


def test_changes_are_counted() -> None:
    """Transactions rely on it: every change of the tree gives another number."""
    tree = fresh()
    node = create(tree, "/a/b")
    seen = {tree.changes}
    tree.replace(Path(b"/a/b"), node, Node(b"", node.perms, node.ordinal))
    assert tree.changes not in seen
    seen.add(tree.changes)
    tree.cut(Path(b"/a"))
    assert tree.changes not in seen
