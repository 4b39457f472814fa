# SPDX-License-Identifier: Apache-2.0
"""The messages about domains, features, quotas, and CONTROL: type -> handler. See ops.py.

Knows nothing of how domains live (domain.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import control, domain, wire
from app import path as paths
from app.args import Answer, Op, View, domid_of, number, strings
from app.client import Client
from app.errors import Eacces, Einval, Enoent
from app.quota import DEFAULTS
from app.wire import OK, PAYLOAD_MAX

if TYPE_CHECKING:
    from app.store import Store


# -- features and quotas


def get_feature(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """GET_FEATURE [domid]: the server's features, or those a domain is offered."""
    parts = strings(payload, 0, 1) if payload else []
    if parts == [] or parts == [b""]:
        return b"%d\0" % domain.FEATURES
    if not client.privileged:
        raise Eacces
    return b"%d\0" % domain.features(store, domid_of(parts[0]))


def get_quota(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """GET_QUOTA [[domid] name]: all names, or one value."""
    parts = strings(payload, 0, 2) if payload else []
    if parts == [] or parts == [b""]:
        return " ".join(DEFAULTS).encode() + b"\0"
    domid = domid_of(parts[0]) if len(parts) == 2 else None
    if domid is not None and not store.is_domain(domid):
        raise Enoent
    return b"%d\0" % store.quotas.value(quota_name(parts[-1]), domid)


def set_quota(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """SET_QUOTA [domid] name value: 0 for no limit."""
    parts = strings(payload, 2, 3)
    domid = domid_of(parts[0]) if len(parts) == 3 else None
    name, value = quota_name(parts[-2]), number(parts[-1], 0xFFFFFFFF)
    if domid is not None and not store.is_domain(domid):
        raise Enoent
    if domid is not None:
        domain.remember(store, domid)
    store.quotas.put(name, value, domid)
    return OK


def quota_name(text: bytes) -> str:
    """A known quota's name. Raises Einval."""
    name = text.decode("latin-1")
    if name not in DEFAULTS:
        raise Einval
    return name


# -- domains


def get_domain_path(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """GET_DOMAIN_PATH domid: its home, whether or not there is such a domain."""
    (text,) = strings(payload, 1, 1)
    return paths.home(domid_of(text)) + b"\0"


def is_domain_introduced(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """IS_DOMAIN_INTRODUCED domid: T or F."""
    (text,) = strings(payload, 1, 1)
    return b"T\0" if domain.is_introduced(store, domid_of(text)) else b"F\0"


def introduce(store: Store, client: Client, view: View, payload: bytes) -> Answer:
    """INTRODUCE domid gfn port: a domain's ring is served from now on; again: served anew."""
    domid_text, gfn, port = strings(payload, 3, 3)
    domid = domid_of(domid_text)
    if not gfn.isdigit() or number(port, 0xFFFFFFFF) == 0 or domid == 0:
        raise Einval
    return domain.introduce(store, domid, number(gfn, 0xFFFFFFFFFFFFFFFF), int(port)) or OK


def release(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """RELEASE domid: the domain is to be treated as gone."""
    domid = other_domid(client, payload)
    if not domain.is_introduced(store, domid):
        raise Enoent
    store.leave(domid)
    return OK


def resume(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """RESUME domid: its next shutdown is a new one."""
    domain.resume(store, other_domid(client, payload))
    return OK


def other_domid(client: Client, payload: bytes) -> int:
    """A domid that is neither 0 nor the caller's. Raises Einval."""
    (text,) = strings(payload, 1, 1)
    domid = domid_of(text)
    if domid in (0, client.domid):
        raise Einval
    return domid


def set_target(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """SET_TARGET domid target: the domain acts also for its target."""
    domid, target = (domid_of(text) for text in strings(payload, 2, 2))
    if domid == 0:
        raise Einval  # it may do everything anyway
    domain.set_target(store, domid, target)
    return OK


def set_feature(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """SET_FEATURE domid value: what a domain is offered, before it is introduced."""
    texts = strings(payload, 2, 2)
    domain.set_features(store, domid_of(texts[0]), number(texts[1], 0xFFFFFFFF))
    return OK


def control_command(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """CONTROL command argument*."""
    return control.run(store, strings(payload, 1, PAYLOAD_MAX))


DOMAIN_OPS = {
    wire.XS_CONTROL: Op(control_command, uses_tx=False, privileged=True),
    wire.XS_INTRODUCE: Op(introduce, uses_tx=False, privileged=True),
    wire.XS_RELEASE: Op(release, uses_tx=False, privileged=True),
    wire.XS_GET_DOMAIN_PATH: Op(get_domain_path, uses_tx=False, privileged=False),
    wire.XS_IS_DOMAIN_INTRODUCED: Op(is_domain_introduced, uses_tx=False, privileged=True),
    wire.XS_RESUME: Op(resume, uses_tx=False, privileged=True),
    wire.XS_SET_TARGET: Op(set_target, uses_tx=False, privileged=True),
    wire.XS_GET_FEATURE: Op(get_feature, uses_tx=False, privileged=False),
    wire.XS_SET_FEATURE: Op(set_feature, uses_tx=False, privileged=True),
    wire.XS_GET_QUOTA: Op(get_quota, uses_tx=False, privileged=True),
    wire.XS_SET_QUOTA: Op(set_quota, uses_tx=False, privileged=True),
}
