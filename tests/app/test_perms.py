# SPDX-License-Identifier: Apache-2.0
"""The one access decision: owner, first match, default, targets, DOMID_ANY; and the wire form.
Method: a table of (list, domid, target, right) rows, and random lists against the rule in words.

Source: protocol reference 2.2, pitfall 6. Cannot show: who dies and when (test_domain.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import perms as permissions
from app.errors import Einval
from app.perms import BOTH, READ, WRITE, Perms, from_wire, parse

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


# -- entries that are ignored (M4)

# list as it is kept, as it is shown, domid, may read, may write
IGNORED = [
    ("n0 R5", "n0 r5", 5, False, False),
    ("n0 B5", "n0 b5", 5, False, False),
    ("b0 N5", "b0 n5", 5, True, True),  # nor does it take anything away: the default holds
    ("n0 R5 b5", "n0 r5 b5", 5, True, True),  # the first match is the next one
    ("n0 R5 b32757", "n0 r5 b32757", 5, True, True),
    ("n0 R5 w6", "n0 r5 w6", 6, False, True),
    ("n5 R5", "n5 r5", 5, True, True),  # the owner is the owner
]


@pytest.mark.parametrize("kept, shown, domid, reads, writes", IGNORED)
def test_ignored_entries_are_shown_and_grant_nothing(kept: str, shown: str, domid: int, reads: bool,
                                                     writes: bool) -> None:
    perms = make(kept)
    assert perms.allows(domid, NOBODY, READ) is reads
    assert perms.allows(domid, NOBODY, WRITE) is writes
    assert perms.allows(99, domid, READ) is (reads or kept.startswith("b"))
    assert perms.shown == make(shown).wire and perms.wire != perms.shown
    assert perms.count == make(shown).count, "the quota counts it"


@given(ENTRIES, st.sets(st.sampled_from([1, 2, 5])))
def test_ignoring_is_as_if_the_entries_were_not_there(entries: list[tuple[str, int]],
                                                      ignored: set[int]) -> None:
    """For every caller; the owner stays; what is shown stays; doing it twice changes nothing."""
    perms = make(" ".join(f"{letter}{who}" for letter, who in entries))
    after = perms.ignoring(ignored)
    plain = make(" ".join(f"{letter}{who}" for number, (letter, who) in enumerate(entries)
                          if number == 0 or who not in ignored))
    for domid in (0, 1, 2, 5, 9):
        for target in (NOBODY, 1):
            for want in (READ, WRITE):
                assert after.allows(domid, target, want) is plain.allows(domid, target, want)
    assert after.shown == perms.wire and after.owner == perms.owner and after.count == perms.count
    assert after.granted == plain.granted
    assert after.ignoring(ignored) is after and from_wire(after.wire) is after


def test_domains_that_would_leave_a_right_behind() -> None:
    """Not domain 0, nor what is no domain, nor the ignored, nor the owner."""
    assert set(make("n5 r1 b2 N3 r0 r32757 r32752 w1").granted) == {1, 2}
    assert make("n5").granted == ()


def test_ignored_entries_go_and_stay_as_others_do() -> None:
    perms = make("n0 R5 b6")
    assert perms.with_owner(7) is make("n7 R5 b6")
    assert perms.without(6) is make("n0 R5") and perms.without(5) is make("n0 b6")


@pytest.mark.parametrize("text", ["N0", "B0 r1", "n0 R5", "n0 r1 W2"])
def test_no_client_can_send_capitals(text: str) -> None:
    """It could else make a right that its death does not take away."""
    with pytest.raises(Einval):
        parse("".join(one + "\0" for one in text.split(" ")).encode())
    assert parse(b"n0\0r5\0") is make("n0 r5")
