# SPDX-License-Identifier: Apache-2.0
"""Domain, feature and quota messages answer as in the reference, with their errors, and a refused
one changes nothing. Method: tables of rows on the house of world.py, a fresh one for every row.

What INTRODUCE, RELEASE and death do is in test_domain.py. Source: protocol reference 1.3, 2.5, 3.
Cannot show: rings."""

from __future__ import annotations

from typing import Any

import pytest

from app import wire
from tests.app.world import World, house, nul

INTRODUCE = [
    ("d0", "", "INTRODUCE 7 1 1", "OK"),
    ("d0", "", "INTRODUCE 7 0 4294967295", "OK"),
    ("d0", "", "INTRODUCE 7 99999999999 1", "OK"),
    ("d0", "", "INTRODUCE 9 1 1", "ENOENT"),  # no such domain
    ("d0", "", "INTRODUCE 0 1 1", "EINVAL"),
    ("d0", "", "INTRODUCE 7 1 0", "EINVAL"),
    ("d0", "", "INTRODUCE 7 1 -1", "EINVAL"),
    ("d0", "", "INTRODUCE 7 1 x", "EINVAL"),
    ("d0", "", "INTRODUCE 7 x 1", "EINVAL"),
    ("d0", "", "INTRODUCE x 1 1", "EINVAL"),
    ("d0", "", "INTRODUCE 65536 1 1", "EINVAL"),
    ("d0", "", "INTRODUCE -1 1 1", "EINVAL"),
    ("d0", "", "INTRODUCE 7 1", "EINVAL"),
    ("d0", "", "INTRODUCE 7 1 1 1", "EINVAL"),
    ("g1", "", "INTRODUCE 7 1 1", "EACCES"),
    ("g1", "", "INTRODUCE x", "EACCES"),
]

RELEASE = [
    ("d0", "", "RELEASE 7", "ENOENT"),  # exists, was not introduced
    ("d0", "", "RELEASE 9", "ENOENT"),
    ("d0", "", "RELEASE 0", "EINVAL"),
    ("d0", "", "RELEASE x", "EINVAL"),
    ("d0", "", "RELEASE 65536", "EINVAL"),
    ("d0", "", "RELEASE 007x", "EINVAL"),
    ("g1", "", "RELEASE 1", "EACCES"),
]

RESUME = [
    ("d0", "", "RESUME 7", "ENOENT"),
    ("d0", "", "RESUME 9", "ENOENT"),
    ("d0", "", "RESUME 0", "EINVAL"),
    ("d0", "", "RESUME x", "EINVAL"),
    ("g1", "", "RESUME 1", "EACCES"),
]

SET_TARGET = [
    ("d0", "", "SET_TARGET 7 1", "ENOENT"),
    ("d0", "", "SET_TARGET 7 0", "ENOENT"),
    ("d0", "", "SET_TARGET 0 7", "EINVAL"),
    ("d0", "", "SET_TARGET x 0", "EINVAL"),
    ("d0", "", "SET_TARGET 65536 0", "EINVAL"),
    ("g1", "", "SET_TARGET 1 2", "EACCES"),
]

IS_DOMAIN_INTRODUCED = [
    ("d0", "", "IS_DOMAIN_INTRODUCED 0", b"T\0"),
    ("d0", "", "IS_DOMAIN_INTRODUCED 7", b"F\0"),
    ("d0", "", "IS_DOMAIN_INTRODUCED 9", b"F\0"),
    ("d0", "", "IS_DOMAIN_INTRODUCED 32752", b"T\0"),  # DOMID_SELF
    ("d0", "", "IS_DOMAIN_INTRODUCED x", "EINVAL"),
    ("d0", "", "IS_DOMAIN_INTRODUCED 65536", "EINVAL"),
    ("g1", "", "IS_DOMAIN_INTRODUCED 0", "EACCES"),  # XSA-115
    ("g1", "", "IS_DOMAIN_INTRODUCED 1", "EACCES"),
]

GET_DOMAIN_PATH = [
    ("d0", "", "GET_DOMAIN_PATH 0", b"/local/domain/0\0"),
    ("d0", "", "GET_DOMAIN_PATH 9", b"/local/domain/9\0"),  # whether or not it exists
    ("g1", "", "GET_DOMAIN_PATH 2", b"/local/domain/2\0"),  # anybody may ask
    ("g1", "", "GET_DOMAIN_PATH 65535", b"/local/domain/65535\0"),
    ("g1", "", "GET_DOMAIN_PATH 007", b"/local/domain/7\0"),
    ("g1", "", "GET_DOMAIN_PATH 65536", "EINVAL"),
    ("g1", "", "GET_DOMAIN_PATH x", "EINVAL"),
    ("g1", "", "GET_DOMAIN_PATH 7x", "EINVAL"),
    ("g1", "", "GET_DOMAIN_PATH -7", "EINVAL"),
    ("g1", "", "GET_DOMAIN_PATH +7", "EINVAL"),
    ("g1", "", (wire.XS_GET_DOMAIN_PATH, nul("")), "EINVAL"),
    ("g1", "", (wire.XS_GET_DOMAIN_PATH, nul(" 7")), "EINVAL"),
    ("g1", "", (wire.XS_GET_DOMAIN_PATH, nul("1_0")), "EINVAL"),
    ("g1", "", (wire.XS_GET_DOMAIN_PATH, nul("\xb2")), "EINVAL"),
]

FEATURES = [
    ("d0", "", "GET_FEATURE", b"14\0"),  # ERROR, WATCHDEPTH, DOMID_ANY
    ("g1", "", "GET_FEATURE", b"14\0"),
    ("d0", "", "GET_FEATURE 7", b"14\0"),
    ("d0", "", "GET_FEATURE 0", b"14\0"),
    ("d0", "", "GET_FEATURE 9", "ENOENT"),
    ("d0", "", "GET_FEATURE x", "EINVAL"),
    ("d0", "", "GET_FEATURE 7 7", "EINVAL"),
    ("g1", "", "GET_FEATURE 1", "EACCES"),
    ("g1", "", "GET_FEATURE 2", "EACCES"),
    ("d0", "", "SET_FEATURE 7 4", "OK"),
    ("d0", "", "SET_FEATURE 7 0", "OK"),
    ("d0", "", "SET_FEATURE 7 15", "EINVAL"),  # RECONNECTION is not supported
    ("d0", "", "SET_FEATURE 7 16", "EINVAL"),
    ("d0", "", "SET_FEATURE 7 -2", "EINVAL"),
    ("d0", "", "SET_FEATURE 7 x", "EINVAL"),
    ("d0", "", "SET_FEATURE 9 0", "ENOENT"),
    ("d0", "", "SET_FEATURE 0 0", "EBUSY"),  # introduced
    ("d0", "", "SET_FEATURE x 0", "EINVAL"),
    ("g1", "", "SET_FEATURE 1 0", "EACCES"),
]

QUOTAS = [
    ("d0", "", "GET_QUOTA nodes", b"1000\0"),
    ("d0", "", "GET_QUOTA watches", b"128\0"),
    ("d0", "", "GET_QUOTA transactions", b"10\0"),
    ("d0", "", "GET_QUOTA outstanding", b"20\0"),
    ("d0", "", "GET_QUOTA transaction-nodes", b"1024\0"),
    ("d0", "", "GET_QUOTA node-permissions", b"5\0"),
    ("d0", "", "GET_QUOTA path-max", b"2048\0"),
    ("d0", "", "GET_QUOTA node-size", b"2048\0"),
    ("d0", "", "GET_QUOTA memory", b"2621440\0"),
    ("d0", "", "GET_QUOTA soft-memory", b"2097152\0"),
    ("d0", "", "GET_QUOTA 7 nodes", b"1000\0"),
    ("d0", "", "GET_QUOTA 0 nodes", b"1000\0"),
    ("d0", "", "GET_QUOTA 9 nodes", "ENOENT"),
    ("d0", "", "GET_QUOTA x nodes", "EINVAL"),
    ("d0", "", "GET_QUOTA permissions", "EINVAL"),  # the document's name, in no server
    ("d0", "", "GET_QUOTA Nodes", "EINVAL"),
    ("g1", "", "GET_QUOTA", "EACCES"),
    ("g1", "", "GET_QUOTA nodes", "EACCES"),
    ("d0", "", "SET_QUOTA nodes 5", "OK"),
    ("d0", "", "SET_QUOTA nodes 0", "OK"),
    ("d0", "", "SET_QUOTA soft-memory 7", "OK"),
    ("d0", "", "SET_QUOTA nodes 4294967295", "OK"),
    ("d0", "", "SET_QUOTA nodes 4294967296", "EINVAL"),
    ("d0", "", "SET_QUOTA nodes -1", "EINVAL"),
    ("d0", "", "SET_QUOTA nodes x", "EINVAL"),
    ("d0", "", "SET_QUOTA other 5", "EINVAL"),
    ("d0", "", "SET_QUOTA 7 nodes 5", "OK"),
    ("d0", "", "SET_QUOTA 9 nodes 5", "ENOENT"),
    ("d0", "", "SET_QUOTA x nodes 5", "EINVAL"),
    ("d0", "", "SET_QUOTA 7 other 5", "EINVAL"),
    ("g1", "", "SET_QUOTA nodes 5", "EACCES"),
    ("g1", "", "SET_QUOTA 1 nodes 5", "EACCES"),
]

TABLES = [*INTRODUCE, *RELEASE, *RESUME, *SET_TARGET, *IS_DOMAIN_INTRODUCED, *GET_DOMAIN_PATH,
          *FEATURES, *QUOTAS]


@pytest.mark.parametrize("row", TABLES, ids=str)
def test_rows(row: tuple[Any, ...]) -> None:
    world = house()
    before, items = world.tree(), dict(world.store.items.values)
    world.run([row])
    assert world.tree() == before
    if row[3] != "OK":
        assert world.store.items.values == items and not world.effects


def test_the_names_of_all_quotas() -> None:
    payload = house().ask("d0", "GET_QUOTA")
    assert isinstance(payload, bytes) and payload.endswith(b"\0")
    assert sorted(payload[:-1].split(b" ")) == sorted(
        b"nodes watches outstanding memory soft-memory transactions transaction-nodes "
        b"node-permissions path-max node-size".split())


def test_a_domains_own_quota_beats_the_global_one() -> None:
    house().run([
        ("d0", "", "SET_QUOTA 7 nodes 5", "OK"),
        ("d0", "", "GET_QUOTA 7 nodes", b"5\0"),
        ("d0", "", "GET_QUOTA 1 nodes", b"1000\0"),
        ("d0", "", "GET_QUOTA nodes", b"1000\0"),
        ("d0", "", "SET_QUOTA nodes 9", "OK"),
        ("d0", "", "GET_QUOTA 7 nodes", b"5\0"),
        ("d0", "", "GET_QUOTA 1 nodes", b"9\0"),
        ("d0", "", "SET_QUOTA 7 nodes 0", "OK"),
        ("d0", "", "GET_QUOTA 7 nodes", b"0\0"),
    ])


def test_features_are_set_per_domain() -> None:
    house().run([
        ("d0", "", "SET_FEATURE 7 4", "OK"),
        ("d0", "", "GET_FEATURE 7", b"4\0"),
        ("d0", "", "GET_FEATURE 1", b"14\0"),
        ("d0", "", "GET_FEATURE", b"14\0"),
        ("d0", "", "SET_FEATURE 7 14", "OK"),
        ("d0", "", "GET_FEATURE 7", b"14\0"),
    ])


def test_special_nodes_keep_their_permissions() -> None:
    house().run([
        ("d0", "", "SET_PERMS @introduceDomain n1 r2", "OK"),
        ("d0", "", "GET_PERMS @introduceDomain", b"n1\0r2\0"),
        ("g1", "", "GET_PERMS @introduceDomain", b"n1\0r2\0"),
        ("g2", "", "GET_PERMS @introduceDomain", b"n1\0r2\0"),
        ("g3", "", "GET_PERMS @introduceDomain", "EACCES"),
        ("g2", "", "SET_PERMS @introduceDomain n2", "EACCES"),
        ("g1", "", "SET_PERMS @introduceDomain n1 r3", "OK"),
        ("d0", "", "GET_PERMS @introduceDomain", b"n1\0r3\0"),
        ("d0", "", "SET_PERMS @releaseDomain n0", "OK"),
        ("g1", "", "GET_PERMS @releaseDomain", "EACCES"),
        ("d0", "", "DIRECTORY /", b"tool\0pub\0priv\0local\0"),  # they are no nodes
    ])


def test_a_guest_gives_no_special_node_away() -> None:
    """As with ordinary nodes: only the privileged change an owner (reference 1.3, SET_PERMS)."""
    house().run([
        ("d0", "", "SET_PERMS @introduceDomain n1", "OK"),
        ("g1", "", "SET_PERMS @introduceDomain n2", "EPERM"),
        ("d0", "", "GET_PERMS @introduceDomain", b"n1\0"),
    ])


def test_domains_come_and_go_with_the_host() -> None:
    """Whoever is named is known from then on, until the host says that it is gone."""
    world = World(domains=(), guests=())
    world.run([("d0", "", "SET_PERMS /tool n5", "ENOENT"),
               ("d0", "", "SET_QUOTA 5 nodes 1", "ENOENT"),
               ("d0", "", "GET_FEATURE 5", "ENOENT")])
    world.host.domains.add(5)
    world.run([("d0", "", "SET_PERMS /tool n5", "OK"),
               ("d0", "", "SET_QUOTA 5 nodes 1", "OK"),
               ("d0", "", "GET_FEATURE 5", b"14\0")])
    world.host.domains.clear()
    world.store.look_at([5])
    world.run([("d0", "", "DIRECTORY /", b""),  # what it owned went with it
               ("d0", "", "GET_FEATURE 5", "ENOENT")])
