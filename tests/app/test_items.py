# SPDX-License-Identifier: Apache-2.0
"""Items: what is put is there, leaves one effect, and is counted. Method: small sequences, and
random puts against a dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.effects import Effect, Item, SetItem
from app.items import Items, group_of, grouped, item_bytes
from app.tree import Space, Tree
from tests.app.world import WIDE

KEYS = st.sampled_from(["quota.nodes", "quota.5.nodes", "special.@releaseDomain", "next.tx"])
VALUES: st.SearchStrategy[Item] = st.one_of(
    st.none(), st.integers(0, 1 << 40), st.text("ab", max_size=4), st.binary(max_size=4),
    st.tuples(st.integers(0, 9), st.tuples(st.binary(max_size=2), st.none())))


@given(st.lists(st.tuples(KEYS, VALUES), max_size=20))
def test_any_puts(puts: list[tuple[str, Item]]) -> None:
    effects: list[Effect] = []
    space = Space(*WIDE)
    items = Items(Tree(space, effects))
    plain: dict[str, Item] = {}
    for key, value in puts:
        before, count = plain.get(key), len(effects)
        items.put(key, value)
        if before == value:
            assert len(effects) == count, "nothing changed, and there is an effect"
        else:
            (effect,) = effects[count:]
            assert isinstance(effect, SetItem)
            assert (effect.key, effect.before, effect.after) == (key, before, value)
        plain[key] = value
        if value is None:
            del plain[key]
        assert items.values == plain
        assert items.groups == grouped(plain)
        assert space.items_bytes == sum(item_bytes(*one) for one in plain.items())
    for key in ("quota.nodes", "other"):
        assert items.get(key) == plain.get(key)


def test_what_answers_do_not_depend_on_is_no_change_for_transactions() -> None:
    """I2: note() leaves an effect like put(), and does not count."""
    effects: list[Effect] = []
    tree = Tree(Space(*WIDE), effects)
    items = Items(tree)
    assert items.note("watch.1.2", (b"/a", b"t", 0, -1)) and tree.changes == 0
    assert not items.note("watch.1.2", (b"/a", b"t", 0, -1)) and len(effects) == 1
    items.put("quota.nodes", 5)
    assert tree.changes == 1 and len(effects) == 2
    items.put("quota.nodes", 5)
    assert tree.changes == 1 and len(effects) == 2


def test_restoring_leaves_no_effect() -> None:
    effects: list[Effect] = []
    items = Items(Tree(Space(*WIDE), effects))
    items.restore("next.tx", 5)
    assert items.number("next.tx", 0) == 5 and not effects
    items.restore("next.tx", None)
    assert items.number("next.tx", 7) == 7 and not items.values


def test_groups() -> None:
    """Kind, and the number behind it if there is one."""
    assert [group_of(key) for key in ("quota.nodes", "quota.5.nodes", "domain.7", "tx.3.9.0",
                                      "special.@releaseDomain", "next.tx")] == [
        ("quota", ""), ("quota", "5"), ("domain", "7"), ("tx", "3"), ("special", ""), ("next", "")]


def test_a_number_is_a_number() -> None:
    items = Items(Tree(Space(*WIDE), []))
    items.put("quota.nodes", b"junk")
    assert items.number("quota.nodes", 3) == 3
