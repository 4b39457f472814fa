# SPDX-License-Identifier: Apache-2.0
"""READ, DIRECTORY, DIRECTORY_PART, GET_PERMS, WRITE, MKDIR, RM, SET_PERMS do what the reference
says, with its errors and quirks, and a refused request changes nothing. Method: tables of rows on
the house of world.py, a fresh one for every row; sequences where one request prepares the next.

Source: protocol reference 1.3, 2.1, 2.2, 6. Watches: test_watch.py. Limits: test_quota.py."""

from __future__ import annotations

from typing import Any

import pytest

from app import wire
from tests.app.world import World, house, nul

READ = [
    ("d0", "", "READ /pub", b"pub"),
    ("g1", "", "READ /pub", b"pub"),
    ("g2", "", "READ /pub", b"pub"),
    ("g3", "", "READ /pub", "EACCES"),
    ("d0", "", "READ /priv", b"secret"),
    ("g1", "", "READ /priv", "EACCES"),
    ("g1", "", "READ /priv/one", b"1"),  # the way there needs no right
    ("g2", "", "READ /priv/one", "EACCES"),
    # missing: the nearest existing ancestor says whether one may know
    ("d0", "", "READ /none", "ENOENT"),
    ("d0", "", "READ /none/none/none", "ENOENT"),
    ("g1", "", "READ /none", "EACCES"),
    ("g1", "", "READ /pub/none", "ENOENT"),
    ("g1", "", "READ /pub/none/none", "ENOENT"),
    ("g2", "", "READ /pub/none", "ENOENT"),
    ("g3", "", "READ /pub/none", "EACCES"),
    ("g1", "", "READ /priv/none", "EACCES"),
    ("g1", "", "READ /priv/none/none", "EACCES"),
    ("g1", "", "READ /priv/one/none", "ENOENT"),
    # relative to the caller's own home
    ("g1", "", "READ name", b"one"),
    ("g2", "", "READ name", "ENOENT"),
    ("g3", "", "READ name", "EACCES"),
    ("d0", "", "READ name", "ENOENT"),
    ("g1", "", "READ /local/domain/1/name", b"one"),
    # no paths
    ("d0", "", "READ /pub/", "EINVAL"),
    ("d0", "", "READ //pub", "EINVAL"),
    ("d0", "", "READ /priv//x", "EINVAL"),
    ("d0", "", "READ name/", "EINVAL"),
    ("d0", "", "READ /a.b", "EINVAL"),
    ("d0", "", "READ /a:b", "EINVAL"),
    ("d0", "", "READ /a+b", "EINVAL"),
    ("d0", "", (wire.XS_READ, nul("/a b")), "EINVAL"),
    ("d0", "", (wire.XS_READ, nul("/\xe9")), "EINVAL"),
    ("d0", "", "READ @releaseDomain", "EINVAL"),
    ("d0", "", "READ /@x", "ENOENT"),  # an ordinary legal name
    ("d0", "", "READ /local/domain/", "EINVAL"),  # XSA-481
]

DIRECTORY = [
    ("d0", "", "DIRECTORY /", b"tool\0pub\0priv\0local\0"),  # in order of creation
    ("d0", "", "DIRECTORY /tool", b"xenstored\0"),
    ("d0", "", "DIRECTORY /tool/xenstored", b""),  # no children: no byte
    ("g1", "", "DIRECTORY /", "EACCES"),
    ("g1", "", "DIRECTORY /pub", b"x\0"),
    ("g3", "", "DIRECTORY /pub", "EACCES"),
    ("d0", "", "DIRECTORY /none", "ENOENT"),
    ("g1", "", "DIRECTORY /none", "EACCES"),
    ("d0", "", "DIRECTORY /priv", b"x\0one\0"),
    ("d0", "", "DIRECTORY @releaseDomain", "EINVAL"),
    ("g1", "", (wire.XS_DIRECTORY, b"/pub"), "EINVAL"),
]

GET_PERMS = [
    ("d0", "", "GET_PERMS /pub", b"n0\0b1\0r2\0"),
    ("g2", "", "GET_PERMS /pub", b"n0\0b1\0r2\0"),
    ("g3", "", "GET_PERMS /pub", "EACCES"),
    ("g1", "", "GET_PERMS /pub/none", "ENOENT"),
    ("g1", "", "GET_PERMS /priv/none", "EACCES"),
    ("d0", "", "GET_PERMS /none", "ENOENT"),
    ("d0", "", "GET_PERMS @introduceDomain", b"n0\0"),
    ("d0", "", "GET_PERMS @releaseDomain", b"n0\0r32757\0"),
    ("g1", "", "GET_PERMS @releaseDomain", b"n0\0r32757\0"),  # everybody may watch it
    ("g1", "", "GET_PERMS @introduceDomain", "EACCES"),
    ("d0", "", "GET_PERMS @other", "EINVAL"),
    ("d0", "", "GET_PERMS @releaseDomain/5", "EINVAL"),
    ("d0", "", "GET_PERMS @", "EINVAL"),
]

WRITE = [
    ("d0", "", "WRITE /new v", "OK"),
    ("d0", "", "WRITE /a/b/c/d v", "OK"),
    ("d0", "", "WRITE / v", "OK"),
    ("d0", "", "WRITE /@x v", "OK"),
    ("d0", "", "WRITE /AZaz09-_@ v", "OK"),
    ("g1", "", "WRITE /pub v", "OK"),
    ("g1", "", "WRITE /pub/new v", "OK"),
    ("g2", "", "WRITE /pub v", "EACCES"),
    ("g2", "", "WRITE /pub/new v", "EACCES"),
    ("g3", "", "WRITE /pub/new v", "EACCES"),
    ("g1", "", "WRITE /new v", "EACCES"),
    ("g1", "", "WRITE / v", "EACCES"),
    ("g1", "", "WRITE /priv/x v", "EACCES"),
    ("g1", "", "WRITE /priv/new v", "EACCES"),
    ("g1", "", "WRITE /priv/one v", "OK"),
    ("g1", "", "WRITE /priv/one/a/b v", "OK"),
    ("g1", "", "WRITE a/b/c v", "OK"),
    ("g2", "", "WRITE data v", "OK"),
    ("g3", "", "WRITE data v", "EACCES"),
    ("d0", "", "WRITE /new/ v", "EINVAL"),
    ("d0", "", "WRITE /a//b v", "EINVAL"),
    ("d0", "", "WRITE @releaseDomain v", "EINVAL"),
    ("d0", "", "WRITE @foo v", "EINVAL"),
    ("d0", "", "WRITE /local/domain/ v", "EINVAL"),
]

MKDIR = [
    ("d0", "", "MKDIR /new", "OK"),
    ("d0", "", "MKDIR /a/b/c", "OK"),
    ("d0", "", "MKDIR /pub", "OK"),  # exists: OK
    ("d0", "", "MKDIR /", "OK"),
    ("g1", "", "MKDIR /pub", "OK"),
    ("g1", "", "MKDIR /pub/new", "OK"),
    ("g2", "", "MKDIR /pub", "EACCES"),
    ("g2", "", "MKDIR /pub/new", "EACCES"),
    ("g3", "", "MKDIR /pub/new", "EACCES"),
    ("g1", "", "MKDIR /new", "EACCES"),
    ("g1", "", "MKDIR /", "EACCES"),
    ("g1", "", "MKDIR dir", "OK"),
    ("d0", "", "MKDIR @introduceDomain", "EINVAL"),
    ("d0", "", "MKDIR /new/", "EINVAL"),
    ("d0", "", "MKDIR /local/domain/", "EINVAL"),
]

RM = [
    ("d0", "", "RM /pub", "OK"),
    ("d0", "", "RM /none", "OK"),  # its parent is there
    ("d0", "", "RM /none/none", "ENOENT"),
    ("d0", "", "RM /pub/none", "OK"),
    ("d0", "", "RM /pub/x/none/none", "ENOENT"),
    ("d0", "", "RM /", "EINVAL"),
    ("g1", "", "RM /", "EACCES"),
    ("g1", "", "RM /pub/x", "OK"),
    ("g1", "", "RM /pub", "OK"),  # the right on the node itself is what counts
    ("g2", "", "RM /pub/x", "EACCES"),
    ("g1", "", "RM /pub/none", "OK"),
    ("g1", "", "RM /pub/none/none", "ENOENT"),
    ("g2", "", "RM /pub/none", "EACCES"),  # may read there, not write
    ("g2", "", "RM /pub/none/none", "EACCES"),
    ("g1", "", "RM /priv/none", "EACCES"),
    ("g1", "", "RM /priv/one", "OK"),
    ("g1", "", "RM name", "OK"),
    ("g1", "", "RM /none", "EACCES"),
    ("d0", "", "RM @releaseDomain", "EINVAL"),
    ("d0", "", "RM /pub/", "EINVAL"),
    ("d0", "", "RM /local/domain/", "EINVAL"),
]

SET_PERMS = [
    ("d0", "", "SET_PERMS /pub n0", "OK"),
    ("d0", "", "SET_PERMS /pub n1 r2 w3 b7", "OK"),
    ("d0", "", "SET_PERMS /pub n7", "OK"),  # exists without being connected
    ("d0", "", "SET_PERMS /pub n9", "ENOENT"),  # no such domain: owner of nothing
    ("d0", "", "SET_PERMS /pub n0 r9", "OK"),  # other entries may name anybody
    ("d0", "", "SET_PERMS /pub n0 r32757", "OK"),  # DOMID_ANY
    ("d0", "", "SET_PERMS /pub n32757", "ENOENT"),
    ("d0", "", "SET_PERMS /none n0", "ENOENT"),
    ("d0", "", "SET_PERMS / r0", "OK"),
    ("g1", "", "SET_PERMS /priv/one n1 r2", "OK"),
    ("g1", "", "SET_PERMS /priv/one b1 w0", "OK"),
    ("g1", "", "SET_PERMS /priv/one n2", "EPERM"),  # only the privileged give nodes away
    ("g1", "", "SET_PERMS /priv/one n0", "EPERM"),
    ("g1", "", "SET_PERMS /priv/one n9", "EPERM"),
    ("g1", "", "SET_PERMS /pub n0 b1", "EACCES"),  # may write, does not own
    ("g1", "", "SET_PERMS /pub n1", "EACCES"),
    ("g2", "", "SET_PERMS /pub n0", "EACCES"),
    ("g1", "", "SET_PERMS /priv n1", "EACCES"),
    ("g1", "", "SET_PERMS / n1", "EACCES"),
    ("g1", "", "SET_PERMS /pub/none n1", "ENOENT"),
    ("g1", "", "SET_PERMS /priv/none n1", "EACCES"),
    ("g1", "", "SET_PERMS name n1 r2", "OK"),
    ("d0", "", "SET_PERMS /pub x0", "EINVAL"),
    ("d0", "", "SET_PERMS /pub N0", "EINVAL"),
    ("d0", "", "SET_PERMS /pub n", "EINVAL"),
    ("d0", "", "SET_PERMS /pub 0", "EINVAL"),
    ("d0", "", "SET_PERMS /pub n-1", "EINVAL"),
    ("d0", "", "SET_PERMS /pub n0x", "EINVAL"),
    ("d0", "", "SET_PERMS /pub nr0", "EINVAL"),
    ("d0", "", "SET_PERMS /pub n0 r65536", "EINVAL"),
    ("d0", "", "SET_PERMS /pub/ n0", "EINVAL"),
    ("d0", "", "SET_PERMS @releaseDomain n0 r1", "OK"),
    ("d0", "", "SET_PERMS @introduceDomain n0 r1", "OK"),
    ("d0", "", "SET_PERMS @introduceDomain n1", "OK"),
    ("d0", "", "SET_PERMS @introduceDomain n9", "ENOENT"),
    ("d0", "", "SET_PERMS @other n0", "ENOENT"),
    ("g1", "", "SET_PERMS @releaseDomain n1", "EACCES"),
    ("g1", "", "SET_PERMS @releaseDomain n0 r1", "EACCES"),
]

PLAIN = [*READ, *DIRECTORY, *GET_PERMS]
CHANGING = [*WRITE, *MKDIR, *RM, *SET_PERMS]


@pytest.mark.parametrize("row", PLAIN, ids=str)
def test_reading(row: tuple[Any, ...]) -> None:
    world = house()
    before = world.tree()
    world.run([row])
    assert world.tree() == before
    assert not world.effects


@pytest.mark.parametrize("row", CHANGING, ids=str)
def test_changing(row: tuple[Any, ...]) -> None:
    world = house()
    before, items = world.tree(), dict(world.store.items.values)
    world.run([row])
    if row[3] != "OK":
        assert world.tree() == before and world.store.items.values == items
        assert not world.effects


@pytest.mark.parametrize("row", [*PLAIN, *CHANGING], ids=str)
def test_the_same_inside_a_transaction(row: tuple[Any, ...]) -> None:
    """A transaction alone is told what it would be told outside; special nodes are not in it."""
    who, _, request, answer = row
    if isinstance(request, str) and request.startswith("SET_PERMS @"):
        return
    world = house()
    before = world.tree()
    world.start(who)
    world.run([(who, "t", request, answer)])
    assert world.tree() == before
    outside = house()
    outside.ask(who, request)
    assert world.ask(who, "END T", "t") == "OK"
    assert world.tree() == outside.tree()


VALUES = [b"", b"\0", b"\0\0\0", b"a\0b", bytes(range(256)), b"OK\0", b"ENOENT\0", b"\xff" * 1900]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("who", ["d0", "g1"])
def test_a_value_comes_back_byte_for_byte(value: bytes, who: str) -> None:
    world = house()
    assert world.ask(who, (wire.XS_WRITE, nul("/pub/v") + value)) == "OK"
    assert world.ask(who, "READ /pub/v") == ("OK" if value == b"OK\0" else value)
    assert world.ask(who, (wire.XS_WRITE, nul("/pub/v") + b"other")) == "OK"
    assert world.ask(who, "READ /pub/v") == b"other"


def test_new_nodes_copy_the_parents_perms_and_belong_to_a_guest() -> None:
    """Pitfall 7. The creator owns, implicit parents too; domain 0 leaves the parent's owner."""
    house().run([
        ("g1", "", "WRITE /pub/a/b v", "OK"),
        ("d0", "", "GET_PERMS /pub/a", b"n1\0b1\0r2\0"),
        ("d0", "", "GET_PERMS /pub/a/b", b"n1\0b1\0r2\0"),
        ("d0", "", "READ /pub/a", b""),
        ("d0", "", "WRITE /pub/a/c v", "OK"),
        ("d0", "", "GET_PERMS /pub/a/c", b"n1\0b1\0r2\0"),
        ("d0", "", "MKDIR /priv/one/d/e", "OK"),
        ("d0", "", "GET_PERMS /priv/one/d/e", b"n1\0"),
        ("g1", "", "MKDIR m", "OK"),
        ("d0", "", "GET_PERMS /local/domain/1/m", b"n1\0"),
        ("g1", "", "WRITE /pub v", "OK"),  # writing is no creation
        ("d0", "", "GET_PERMS /pub", b"n0\0b1\0r2\0"),
        ("g2", "", "READ /pub/a/b", b"v"),
        ("g3", "", "READ /pub/a/b", "EACCES"),
    ])


def test_creating_needs_the_nearest_existing_ancestor_only() -> None:
    house().run([
        ("d0", "", "SET_PERMS /pub w0", "OK"),  # strangers may write, not read
        ("g3", "", "WRITE /pub/deep/er v", "OK"),
        ("d0", "", "GET_PERMS /pub/deep", b"w3\0"),
        ("d0", "", "SET_PERMS /pub n0", "OK"),
        ("g3", "", "WRITE /pub/deep/er/still v", "OK"),  # /pub no longer matters
        ("g3", "", "WRITE /pub/other v", "EACCES"),
        ("g2", "", "WRITE /pub/deep/new v", "OK"),
        ("g2", "", "READ /pub/deep/new", b"v"),
        ("g3", "", "READ /pub/deep/new", "EACCES"),
    ])


def test_rm_takes_all_below_whoever_owns_it() -> None:
    world = house().run([
        ("d0", "", "SET_PERMS /pub n0 b1 b2", "OK"),
        ("g2", "", "WRITE /pub/two/deep v", "OK"),
        ("d0", "", "WRITE /pub/two/deep/er v", "OK"),
        ("d0", "", "SET_PERMS /pub/two/deep/er n0", "OK"),
        ("g1", "", "RM /pub", "OK"),
        ("d0", "", "READ /pub/two/deep/er", "ENOENT"),
        ("d0", "", "DIRECTORY /", b"tool\0priv\0local\0"),
        ("d0", "", "RM /pub", "OK"),
    ])
    assert not any(path.startswith("/pub") for path in world.tree())
    assert world.store.tree.owned_count(2) == 1  # its home


def test_listings_stand_in_order_of_creation() -> None:
    World().run([
        *(("d0", "", f"WRITE /d/{name} v", "OK") for name in "zmab"),
        ("d0", "", "DIRECTORY /d", b"z\0m\0a\0b\0"),
        ("d0", "", "WRITE /d/m w", "OK"),
        ("d0", "", "SET_PERMS /d/a r0", "OK"),
        ("d0", "", "DIRECTORY /d", b"z\0m\0a\0b\0"),
        ("d0", "", "RM /d/m", "OK"),
        ("d0", "", "WRITE /d/m w", "OK"),
        ("d0", "", "DIRECTORY /d", b"z\0a\0b\0m\0"),
    ])


def test_missing_and_forbidden_look_alike() -> None:
    """Pitfall 15: nothing about a forbidden place can be told from the answers."""
    requests = ["READ {}", "DIRECTORY {}", "DIRECTORY_PART {} 0", "GET_PERMS {}", "WRITE {} v",
                "MKDIR {}", "RM {}", "SET_PERMS {} n1"]
    for request in requests:
        answers = {house().ask("g1", request.format(path))
                   for path in ("/priv/x", "/priv/none", "/priv/none/none", "/none")}
        assert answers == {"EACCES"}, request


# -- DIRECTORY and DIRECTORY_PART at the edge of a message


def filled(total: int, name_size: int = 31) -> World:
    """A directory /d whose listing has `total` bytes, in names of about `name_size`."""
    world = World(is_paranoid=False)
    world.put("/d")
    number = 0
    while total:
        size = min(name_size, total - 1)
        if 0 < total - size - 1 < 6:
            size -= 6
        assert world.ask("d0", f"MKDIR /d/{number:05d}{'n' * (size - 5)}") == "OK"
        total -= size + 1
        number += 1
    return world


@pytest.mark.parametrize("total, answer", [(4064, None), (4095, None), (4096, None),
                                           (4097, "E2BIG"), (9000, "E2BIG")])
def test_a_listing_larger_than_a_message_is_e2big(total: int, answer: str | None) -> None:
    """XSA-72; the connection lives on."""
    world = filled(total)
    got = world.ask("d0", "DIRECTORY /d")
    assert got == answer if answer else len(got) == total
    world.start("d0")
    assert world.ask("d0", "DIRECTORY /d", "t") == got
    assert world.ask("d0", "READ /d") == b""


def parts(world: World, tx: str = "") -> list[bytes]:
    """The payloads of DIRECTORY_PART until the last part."""
    found, offset = [], 0
    while True:
        payload = world.ask("d0", f"DIRECTORY_PART /d {offset}", tx)
        assert isinstance(payload, bytes) and len(payload) <= 4096, payload
        found.append(payload)
        names = payload.partition(b"\0")[2]
        if names.endswith(b"\0\0") or names == b"\0":
            return found
        assert names.endswith(b"\0") and names != b"\0", "whole names only"
        offset += len(names)


@pytest.mark.parametrize("total", [0, 32, 4060, *range(4088, 4098), 8190, 20000])
@pytest.mark.parametrize("tx", ["", "t"])
def test_parts_join_to_the_listing(total: int, tx: str) -> None:
    world = filled(total)
    if tx:
        world.start("d0")
    found = parts(world, tx)
    assert len({part.partition(b"\0")[0] for part in found}) == 1, "one generation"
    assert found[0].partition(b"\0")[0].isdigit()
    joined = b"".join(part.partition(b"\0")[2] for part in found)
    assert joined[-1:] == b"\0"
    assert joined[:-1] == world.store.tree.listing(b"/d")  # type: ignore[arg-type]
    assert len(joined) - 1 == total
    for offset in (total, total + 1, 1 << 30):
        assert world.ask("d0", f"DIRECTORY_PART /d {offset}", tx) == (
            found[0].partition(b"\0")[0] + b"\0\0")


def test_another_generation_whenever_the_listing_changes() -> None:
    world = World()
    world.put("/d")
    seen: list[bytes] = []

    def generation() -> bytes:
        payload = world.ask("d0", "DIRECTORY_PART /d 0")
        assert isinstance(payload, bytes)
        return payload.partition(b"\0")[0]

    for request in ("MKDIR /d/a", "WRITE /d/b v", "RM /d/a", "WRITE /d/a v", "WRITE /d/c/d v",
                    "RM /d/c"):
        seen.append(generation())
        assert world.ask("d0", request) == "OK"
        assert generation() not in seen, request
    before = generation()
    for request in ("WRITE /d/a w", "RM /d/none", "MKDIR /d/b", "WRITE /other v"):
        assert world.ask("d0", request) == "OK"
        assert generation() == before, request


@pytest.mark.parametrize("who, path, answer", [
    ("g1", "/pub", b"x\0\0"), ("g2", "/pub", b"x\0\0"), ("g3", "/pub", "EACCES"),
    ("g1", "/pub/none", "ENOENT"), ("g1", "/none", "EACCES"), ("d0", "/none", "ENOENT"),
    ("g1", "/", "EACCES"), ("g1", ".", "EINVAL"), ("g1", "name", b"\0")])
def test_who_may_list_in_parts(who: str, path: str, answer: str | bytes) -> None:
    got = house().ask(who, f"DIRECTORY_PART {path} 0")
    assert (got.partition(b"\0")[2] if isinstance(got, bytes) else got) == answer


def test_a_permission_list_larger_than_a_message_is_e2big() -> None:
    """A guest's node copies the parent's list with its own, longer number in front."""
    world = World(domains=(30000,), guests=(30000,))
    world.put("/d")
    many = nul("/d", "b0", *["b30000"] * 583)
    many += nul(*["n1"] * ((4096 - len(many)) // 3))
    assert world.ask("d0", (wire.XS_SET_PERMS, many)) == "OK"
    world.run([("d0", "", "SET_QUOTA node-permissions 0", "OK"),
               ("d0", "", "SET_QUOTA node-size 0", "OK"),
               ("g30000", "", "MKDIR /d/x", "OK"),
               ("g30000", "", "GET_PERMS /d/x", "E2BIG"),
               ("g30000", "", "READ /d/x", b"")])
