# SPDX-License-Identifier: Apache-2.0
"""The one access decision: owner, first match, default, targets, DOMID_ANY; and the wire form.
Method: a table of (list, domid, target, right) rows, and random lists against the rule in words.

Source: protocol reference 2.2, pitfall 6. Cannot show: rights of a dead domid (no deaths yet)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import perms as permissions
from app.errors import Einval
from app.perms import BOTH, READ, WRITE, Perms, from_wire

NOBODY = -1
# list, domid, target, may read, may write
DECISIONS = [
    ("n1", 1, NOBODY, True, True),  # the owner, whatever its letter
    ("n1", 2, NOBODY, False, False),  # a stranger: entry 0's letter
    ("r1", 2, NOBODY, True, False),
    ("w1", 2, NOBODY, False, True),
    ("b1", 2, NOBODY, True, True),
    ("n0 r2", 2, NOBODY, True, False),
    ("n0 r2", 3, NOBODY, False, False),
    ("b0 n2", 2, NOBODY, False, False),  # a later entry overrides the default
    ("b0 n2", 3, NOBODY, True, True),
    ("n0 r2 w2", 2, NOBODY, True, False),  # the first match wins
    ("n0 w2 r2", 2, NOBODY, False, True),
    ("n0 n2 b2", 2, NOBODY, False, False),
    ("n1 n1", 1, NOBODY, True, True),  # the owner is the owner
    ("n0 r32757", 2, NOBODY, True, False),  # DOMID_ANY
    ("n0 r32757", 9999, NOBODY, True, False),
    ("n0 n2 b32757", 2, NOBODY, False, False),
    ("n0 b32757 n2", 2, NOBODY, True, True),
    ("n1", 5, 1, True, True),  # for its target it is the owner
    ("n0 r1", 5, 1, True, False),
    ("n0 r1 b5", 5, 1, True, False),  # own or target: whichever stands first
    ("n0 b5 n1", 5, 1, True, True),
    ("n5", 1, NOBODY, False, False),  # not the other way round
    ("n0", 0, NOBODY, True, True),
    ("n65535", 65535, NOBODY, True, True),
]


def make(text: str) -> Perms:
    """'n0 r1' -> Perms."""
    return from_wire(b"".join(one.encode() + b"\0" for one in text.split(" ")))


@pytest.mark.parametrize("text, domid, target, reads, writes", DECISIONS)
def test_decisions(text: str, domid: int, target: int, reads: bool, writes: bool) -> None:
    perms = make(text)
    assert perms.allows(domid, target, READ) is reads
    assert perms.allows(domid, target, WRITE) is writes
    assert perms.allows(domid, target, BOTH) is (reads and writes)


ENTRIES = st.lists(st.tuples(st.sampled_from("nrwb"), st.sampled_from([0, 1, 2, 5, 32757])),
                   min_size=1, max_size=5)


@given(ENTRIES, st.sampled_from([0, 1, 2, 5]), st.sampled_from([NOBODY, 1, 2]))
def test_any_list(entries: list[tuple[str, int]], domid: int, target: int) -> None:
    """The rule of the reference, word by word."""
    perms = make(" ".join(f"{letter}{who}" for letter, who in entries))
    letter = entries[0][0]
    for one, who in entries[1:]:
        if who in (domid, target, 32757):
            letter = one
            break
    if entries[0][1] in (domid, target):
        letter = "b"
    assert perms.allows(domid, target, READ) == (letter in "rb")
    assert perms.allows(domid, target, WRITE) == (letter in "wb")
    assert perms.count == len(entries) and perms.owner == entries[0][1]


@given(ENTRIES, st.integers(0, 65535))
def test_the_wire_form_comes_back(entries: list[tuple[str, int]], domid: int) -> None:
    wire = b"".join(b"%b%d\0" % (letter.encode(), who) for letter, who in entries)
    perms = from_wire(wire)
    assert perms.wire == wire
    assert from_wire(wire) is perms  # equal lists are one object
    other = perms.with_owner(domid)
    assert other.owner == domid
    assert other.wire.split(b"\0")[1:] == wire.split(b"\0")[1:]
    assert other.wire[:1] == wire[:1]
    assert other.with_owner(entries[0][1]) is perms


@pytest.mark.parametrize("given_, canonical", [(b"n007\0", b"n7\0"), (b"n0\0r01\0", b"n0\0r1\0")])
def test_spellings_become_one(given_: bytes, canonical: bytes) -> None:
    assert from_wire(given_) is from_wire(canonical)
    assert from_wire(given_).wire == canonical


@pytest.mark.parametrize("wire", [b"", b"\0", b"n0", b"n\0", b"0\0", b"x0\0", b"N0\0", b"n-1\0",
                                  b"n+1\0", b"n 1\0", b"n0x\0", b"nn0\0", b"n65536\0", b"n0\0\0",
                                  b"\0n0\0", b"n0 r1\0", b"n0\0r\0", b"n99999999999999999999\0",
                                  b"n1_0\0", b"n\xb2\0"])
def test_no_lists(wire: bytes) -> None:
    with pytest.raises(Einval):
        from_wire(wire)


def test_reserved_numbers() -> None:
    assert permissions.DOMID_SELF == 0x7FF0 and permissions.DOMID_ANY == 0x7FF5 == 32757


def test_a_domains_entries_can_be_taken_out() -> None:
    """For its death: it keeps nothing that it was granted (XSA-322); the owner is dealt with
    elsewhere."""
    assert make("n0 r1 b2 w1").without(1) is make("n0 b2")
    assert make("n1 r1 b2").without(1) is make("n1 b2")
    assert make("n0").without(1) is make("n0")
