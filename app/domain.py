# SPDX-License-Identifier: Apache-2.0
"""What belongs to domains rather than to nodes: features, and the special nodes' permissions.

S1. @introduceDomain and @releaseDomain have permissions and nothing else; @releaseDomain may be
    watched by everybody unless somebody with the right to says otherwise.
Knows nothing of rings: without them nobody but domain 0 is introduced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import Eacces, Ebusy, Einval, Enoent, Eperm
from app.path import SPECIALS
from app.perms import DOMID_ANY, DOMID_SELF, Perms, from_wire

if TYPE_CHECKING:
    from app.client import Client
    from app.store import Store

FEATURE_ERROR = 2
FEATURE_WATCH_DEPTH = 4
FEATURE_DOMID_ANY = 8
FEATURES = FEATURE_ERROR | FEATURE_WATCH_DEPTH | FEATURE_DOMID_ANY

_SPECIAL_DEFAULTS = {b"@introduceDomain": b"n0\0", b"@releaseDomain": b"n0\0r%d\0" % DOMID_ANY}
assert set(_SPECIAL_DEFAULTS) == set(SPECIALS)


def is_introduced(domid: int) -> bool:
    """Whether the domain is connected: 0 always is, DOMID_SELF asks about the caller."""
    return domid in (0, DOMID_SELF)


def special_perms(store: Store, name: bytes) -> Perms:
    """The permissions of a special node. Raises Einval for a name that is none."""
    default = _SPECIAL_DEFAULTS.get(name)
    if default is None:
        raise Einval
    wire = store.items.get("special." + name.decode())
    return from_wire(wire if isinstance(wire, bytes) else default)


def set_special_perms(store: Store, client: Client, name: bytes, perms: Perms) -> None:
    """Replace the permissions of a special node. Raises Enoent for a name that is none."""
    if name not in _SPECIAL_DEFAULTS:
        raise Enoent
    before = special_perms(store, name)
    if not client.privileged and before.owner not in (client.domid, client.target):
        raise Eacces
    if perms.owner != before.owner:
        if not client.privileged:
            raise Eperm
        if not store.is_domain(perms.owner):
            raise Enoent
    store.items.put("special." + name.decode(), perms.wire)


def features(store: Store, domid: int) -> int:
    """The features that a domain is offered. Raises Enoent for no such domain."""
    if not store.is_domain(domid):
        raise Enoent
    return store.items.number(f"domain.{domid}.features", FEATURES)


def set_features(store: Store, domid: int, value: int) -> None:
    """Restrict what a domain is offered. Raises Einval, Enoent, or Ebusy once it is introduced."""
    if value & ~FEATURES:
        raise Einval
    if not store.is_domain(domid):
        raise Enoent
    if is_introduced(domid):
        raise Ebusy
    store.items.put(f"domain.{domid}.features", value)
