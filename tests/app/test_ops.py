# SPDX-License-Identifier: Apache-2.0
"""Every message type keeps the contract of its row in the operation table: what it takes, who may
send it, whether its tx_id counts. Method: one table of rows for what all have in common; what each
does with nodes and domains is in test_ops_nodes.py and test_ops_domains.py.

What INTRODUCE and death do is in test_domain.py. Source: protocol reference 1.3. Cannot show:
rings."""

from __future__ import annotations

import pytest

from app import wire
from app.ops import OPS
from tests.app.world import TYPES, Asked, World, house, nul

# type, a request that is served, its answer for domain 0, and for the guest g1
SERVED = [
    ("CONTROL", "CONTROL check", "OK", "EACCES"),
    ("DIRECTORY", "DIRECTORY /pub", b"x\0", b"x\0"),
    ("READ", "READ /pub/x", b"x", b"x"),
    ("GET_PERMS", "GET_PERMS /pub", b"n0\0b1\0r2\0", b"n0\0b1\0r2\0"),
    ("WATCH", "WATCH /pub t", "OK", "OK"),
    ("UNWATCH", "UNWATCH /pub t", "ENOENT", "ENOENT"),
    ("TRANSACTION_START", "START", b"1\0", b"1\0"),
    ("TRANSACTION_END", "END T", "ENOENT", "ENOENT"),
    ("INTRODUCE", "INTRODUCE 7 1 1", "OK", "EACCES"),
    ("RELEASE", "RELEASE 7", "ENOENT", "EACCES"),
    ("GET_DOMAIN_PATH", "GET_DOMAIN_PATH 7", b"/local/domain/7\0", b"/local/domain/7\0"),
    ("WRITE", "WRITE /pub/x 1", "OK", "OK"),
    ("MKDIR", "MKDIR /pub/x", "OK", "OK"),
    ("RM", "RM /pub/x", "OK", "OK"),
    ("SET_PERMS", "SET_PERMS /priv/one n1", "OK", "OK"),
    ("IS_DOMAIN_INTRODUCED", "IS_DOMAIN_INTRODUCED 0", b"T\0", "EACCES"),
    ("RESUME", "RESUME 7", "ENOENT", "EACCES"),
    ("SET_TARGET", "SET_TARGET 7 1", "ENOENT", "EACCES"),
    ("RESET_WATCHES", "RESET_WATCHES", "OK", "OK"),
    ("DIRECTORY_PART", "DIRECTORY_PART /none 0", "ENOENT", "EACCES"),
    ("GET_FEATURE", "GET_FEATURE", b"14\0", b"14\0"),
    ("SET_FEATURE", "SET_FEATURE 7 0", "OK", "EACCES"),
    ("GET_QUOTA", "GET_QUOTA nodes", b"1000\0", "EACCES"),
    ("SET_QUOTA", "SET_QUOTA nodes 5", "OK", "EACCES"),
]
PRIVILEGED = {"CONTROL", "INTRODUCE", "RELEASE", "IS_DOMAIN_INTRODUCED", "RESUME", "SET_TARGET",
              "SET_FEATURE", "GET_QUOTA", "SET_QUOTA"}
TX_IGNORED = PRIVILEGED | {"WATCH", "UNWATCH", "GET_DOMAIN_PATH", "RESET_WATCHES", "GET_FEATURE"}
NOT_SERVED = [15, 16, 20, 27, 28, 100, 0x7FFFFFFF, 0xFFFFFFFF]  # 20: RESTRICT, removed
NAMES = [row[0] for row in SERVED]


def test_the_table_is_complete() -> None:
    assert sorted(OPS) == sorted(TYPES[name] for name in NAMES)
    assert {kind for kind, op in OPS.items() if op.privileged} == {TYPES[one]
                                                                   for one in PRIVILEGED}
    assert {kind for kind, op in OPS.items() if not op.uses_tx} == {TYPES[one]
                                                                    for one in TX_IGNORED}


@pytest.mark.parametrize("name, request_, privileged, guest", SERVED, ids=NAMES)
def test_who_may_send_it(name: str, request_: str, privileged: str | bytes,
                         guest: str | bytes) -> None:
    for who, answer in (("d0", privileged), ("d0b", privileged), ("g1", guest)):
        assert house().ask(who, request_) == answer, who


@pytest.mark.parametrize("name, request_, privileged, guest", SERVED, ids=NAMES)
def test_an_unknown_tx_id_counts_or_not(name: str, request_: str, privileged: str | bytes,
                                        guest: str | bytes) -> None:
    assert house().ask("d0", request_, 99) == (privileged if name in TX_IGNORED else "ENOENT")
    expected = guest if name in TX_IGNORED else "ENOENT"
    assert house().ask("g1", request_, 99) == expected
    # another connection's transaction is an unknown one, whatever its owner's rights
    world = house()
    world.start("d0")
    assert world.ask("g1", request_, "t") == expected
    assert world.ask("d0b", request_, "t") == (privileged if name in TX_IGNORED else "ENOENT")


@pytest.mark.parametrize("kind", NOT_SERVED)
@pytest.mark.parametrize("payload", [b"", b"\0", nul("/pub", "t"), bytes(4096)])
def test_other_types_are_enosys(kind: int, payload: bytes) -> None:
    world = house()
    before = world.tree()
    for who in ("d0", "g1"):
        for tx_id in (0, 5):
            assert world.ask(who, (kind, payload), tx_id) == "ENOSYS"
        assert world.ask(who, "READ /pub") == b"pub"  # the connection is served on
    assert world.tree() == before


# How many strings a type takes. Any other number is EINVAL, and so is a missing last NUL.
COUNTS = {
    "DIRECTORY": (1, 1), "READ": (1, 1), "GET_PERMS": (1, 1), "MKDIR": (1, 1), "RM": (1, 1),
    "WATCH": (2, 3), "UNWATCH": (2, 2), "DIRECTORY_PART": (2, 2), "GET_DOMAIN_PATH": (1, 1),
    "INTRODUCE": (3, 3), "RELEASE": (1, 1), "RESUME": (1, 1), "IS_DOMAIN_INTRODUCED": (1, 1),
    "SET_TARGET": (2, 2), "SET_FEATURE": (2, 2), "SET_QUOTA": (2, 3), "GET_QUOTA": (0, 2),
    "GET_FEATURE": (0, 1),
}
ARGUMENTS = {
    "WATCH": ["/pub", "1", "1"], "UNWATCH": ["/pub", "1"], "DIRECTORY_PART": ["/pub", "0"],
    "GET_DOMAIN_PATH": ["1"], "RELEASE": ["1"], "RESUME": ["1"], "IS_DOMAIN_INTRODUCED": ["1"],
    "SET_TARGET": ["1", "2"], "INTRODUCE": ["1", "2", "3"], "SET_FEATURE": ["1", "2"],
    "SET_QUOTA": ["1", "nodes", "7"], "GET_QUOTA": ["1", "nodes"], "GET_FEATURE": ["1"],
}


@pytest.mark.parametrize("name", COUNTS)
def test_another_number_of_strings_is_einval(name: str) -> None:
    least, most = COUNTS[name]
    arguments = ARGUMENTS.get(name, ["/pub"])
    for count in range(5):
        payload = nul(*(arguments + ["1"] * 5)[:count]) if count < 4 else nul(*["1"] * 6)
        answer = house().ask("d0", (TYPES[name], payload))
        if least <= count <= most:
            if "QUOTA" not in name or count == most:  # fewer arguments name no quota here
                assert answer != "EINVAL", payload
        else:
            assert answer == "EINVAL", payload
    for payload in (nul(*arguments)[:-1], nul(*arguments) + b"x", nul(*arguments)[:-1] + b"\1"):
        assert house().ask("d0", (TYPES[name], payload)) == "EINVAL", payload


ODD: list[tuple[Asked, str]] = [
    ((wire.XS_WRITE, b""), "EINVAL"),
    ((wire.XS_WRITE, b"/pub"), "EINVAL"),  # no NUL at all
    ((wire.XS_WRITE, b"\0value"), "EINVAL"),
    ((wire.XS_READ, b""), "EINVAL"),
    ((wire.XS_READ, b"\0"), "EINVAL"),
    ((wire.XS_READ, b"\0\0"), "EINVAL"),
    ((wire.XS_READ, b"/pub\0\0"), "EINVAL"),
    ((wire.XS_DIRECTORY, b""), "EINVAL"),
    ((wire.XS_MKDIR, b""), "EINVAL"),
    ((wire.XS_RM, b""), "EINVAL"),
    ((wire.XS_GET_PERMS, b""), "EINVAL"),
    ((wire.XS_SET_PERMS, b""), "EINVAL"),
    ((wire.XS_SET_PERMS, nul("/pub")), "EINVAL"),
    ((wire.XS_SET_PERMS, nul("/pub", "")), "EINVAL"),
    ((wire.XS_SET_PERMS, nul("/pub") + b"n0"), "EINVAL"),
    ((wire.XS_SET_PERMS, nul("/pub", "n0", "")), "EINVAL"),
    ((wire.XS_WATCH, b""), "EINVAL"),
    ((wire.XS_UNWATCH, b""), "EINVAL"),
    ((wire.XS_CONTROL, b""), "EINVAL"),
    ((wire.XS_CONTROL, b"check"), "EINVAL"),
    ((wire.XS_DIRECTORY_PART, nul("/pub", "-1")), "EINVAL"),
    ((wire.XS_DIRECTORY_PART, nul("/pub", "x")), "EINVAL"),
    ((wire.XS_DIRECTORY_PART, nul("/pub", "")), "EINVAL"),
    ((wire.XS_INTRODUCE, b""), "EINVAL"),
]


@pytest.mark.parametrize("request_, answer", ODD)
def test_odd_payloads(request_: Asked, answer: str) -> None:
    assert house().ask("d0", request_) == answer
    if request_[0] not in (wire.XS_CONTROL, wire.XS_INTRODUCE):
        assert house().ask("g1", request_) == answer


@pytest.mark.parametrize("name", ["TRANSACTION_START", "RESET_WATCHES", "GET_FEATURE", "GET_QUOTA"])
@pytest.mark.parametrize("payload", [b"", b"\0"])
def test_nothing_or_one_nul_is_no_argument(name: str, payload: bytes) -> None:
    """Zero-length payloads are legal (pitfall 12); clients send one NUL in their place."""
    answer = World().ask("d0", (TYPES[name], payload))
    assert answer not in ("EINVAL", "ENOENT"), answer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("payload", [bytes(4096), b"/" * 4096, b"9" * 4094 + b".\0",
                                     b"\xff" * 64, b"\xff\0" * 8, b"@\0" * 3, b"-.1\0" * 3,
                                     b" 1\0" * 3, b"\xb2\0" * 3, b"/pub/\0" * 3])
def test_junk_is_answered_and_changes_nothing(name: str, payload: bytes) -> None:
    """One answer whatever comes (World checks that), and nothing in the tree."""
    world = house()
    before, items = world.tree(), dict(world.store.items.values)
    for who in ("d0", "g1"):
        world.ask(who, (TYPES[name], payload))
    items["next.tx"] = world.store.items.values.get("next.tx")  # START takes anything
    assert world.tree() == before
    assert {key: value for key, value in world.store.items.values.items()
            if value is not None} == {key: value for key, value in items.items()
                                      if value is not None}
