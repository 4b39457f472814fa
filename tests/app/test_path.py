# SPDX-License-Identifier: Apache-2.0
"""Text becomes a legal canonical path or EINVAL, and nothing else passes. Method: tables, and a
slow check character by character against random text.

Source: protocol reference 1.4, 2.1; XSA-323, XSA-481."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import path as paths
from app.errors import Einval
from app.path import Path

LETTERS = (string.ascii_letters + string.digits + "-_@").encode()
BASE = b"/local/domain/5"
LEGAL = [
    (b"/", b"/"),
    (b"/a", b"/a"),
    (b"/a/b-c/D_9@", b"/a/b-c/D_9@"),
    (b"/@x", b"/@x"),
    (b"/-", b"/-"),
    (b"a", b"/local/domain/5/a"),
    (b"a/b", b"/local/domain/5/a/b"),
    (b"-", b"/local/domain/5/-"),
    (b"a@", b"/local/domain/5/a@"),
    (b"/local/domain/5", b"/local/domain/5"),
    (b"/" + b"a" * 4000, b"/" + b"a" * 4000),
]
ILLEGAL = [b"", b"//", b"/a/", b"a/", b"/a//b", b"a//b", b"/local/domain/", b"/a.b", b"/..",
           b"..", b".", b"/a:b", b"/a+b", b"/a b", b" /a", b"/a ", b"/a\n", b"/a\0",
           b"/\xc3\xa9", b"/a\\b",
           b"@introduceDomain", b"@releaseDomain", b"@", b"@x", b"/a~", b"/*"]


@pytest.mark.parametrize("text, canonical", LEGAL)
def test_legal(text: bytes, canonical: bytes) -> None:
    assert paths.parse(text, BASE) == canonical
    assert paths.parse(canonical, b"/other") == canonical  # canonical paths stay as they are


@pytest.mark.parametrize("text", ILLEGAL)
def test_illegal(text: bytes) -> None:
    with pytest.raises(Einval):
        paths.parse(text, BASE)


def is_legal(text: bytes) -> bool:
    """The rule in words: absolute, only legal characters, no empty name."""
    if text == b"/":
        return True
    names = text.split(b"/")
    return (text.startswith(b"/") and all(names[1:]) and not names[0]
            and all(letter in LETTERS for name in names for letter in name))


@given(st.one_of(st.binary(max_size=12),
                 st.lists(st.sampled_from([b"/", b"a", b"@", b".", b"-", b"Z9", b"\0", b"\n"]),
                          max_size=8).map(b"".join)))
def test_any_text(text: bytes) -> None:
    absolute = text if text.startswith(b"/") else BASE + b"/" + text
    if is_legal(absolute) and not text.startswith(b"@"):
        path = paths.parse(text, BASE)
        assert path == absolute
        watched, hidden = paths.parse_watch(text, BASE)
        assert watched == path and path[hidden:] == text
    else:
        with pytest.raises(Einval):
            paths.parse(text, BASE)
        if not text.startswith(b"@"):
            with pytest.raises(Einval):
                paths.parse_watch(text, BASE)


@given(st.lists(st.text("ab-@", min_size=1, max_size=3), min_size=1, max_size=5))
def test_parent_name_and_child_fit_together(names: list[str]) -> None:
    path = Path(b"/" + b"/".join(name.encode() for name in names))
    parent = paths.parent(path)
    assert paths.child(parent, paths.name(path)) == path
    assert paths.name(path) == names[-1].encode()
    assert (parent == b"/") == (len(names) == 1)


@pytest.mark.parametrize("path, length", [
    (b"/", 1),
    (b"/local/domain/5", 15),  # nothing behind it: nothing to strip
    (b"/local/domain/5/a", 1),
    (b"/local/domain/65535/a/b", 3),
    (b"/local/domain/x/a", 17),
    (b"/local/domain/5x/a", 18),
    (b"/x/local/domain/5/a", 19),
    (b"/local/domains/5/a", 18),
])
def test_the_length_that_counts(path: bytes, length: int) -> None:
    assert paths.quota_length(Path(path)) == length


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(1, 3000))
def test_the_length_does_not_depend_on_the_domid(one: int, two: int, size: int) -> None:
    """XSA-323, pitfall 10: what was made by a relative path can be named when the domid grows."""
    relative = b"a" * size
    assert (paths.quota_length(paths.parse(relative, paths.home(one)))
            == paths.quota_length(paths.parse(relative, paths.home(two))) == size)


@pytest.mark.parametrize("text, path, hidden", [
    (b"/a", b"/a", 0),
    (b"/local/domain/5/a", b"/local/domain/5/a", 0),  # spelt absolutely: heard absolutely
    (b"a", b"/local/domain/5/a", 16),
    (b"a/b", b"/local/domain/5/a/b", 16),
    (b"@introduceDomain", b"@introduceDomain", 0),
    (b"@releaseDomain/7", b"@releaseDomain/7", 0),
    (b"@anything", b"@anything", 0),
])
def test_watch_paths(text: bytes, path: bytes, hidden: int) -> None:
    assert paths.parse_watch(text, BASE) == (path, hidden)


def test_specials_are_told_apart() -> None:
    assert paths.is_special(Path(b"@releaseDomain")) and paths.is_special(Path(b"@releaseDomain/5"))
    assert not paths.is_special(Path(b"/@x")) and not paths.is_special(Path(b"/"))
    assert {*paths.SPECIALS} == {b"@introduceDomain", b"@releaseDomain"}
