# SPDX-License-Identifier: Apache-2.0
"""The life of domains: known, introduced, shut down, gone; features; the special nodes.

S1. @introduceDomain and @releaseDomain have permissions and nothing else; @releaseDomain may be
    watched by everybody unless somebody with the right to says otherwise.
S2. A domain is known from the first permission or INTRODUCE that names it while it exists, by its
    identity. When it is gone, or another has its number, all that it owned and every right that
    it had goes with it, before anybody else can have its number here (XSA-322, 417, 419).
S3. A connection has an epoch, which is never given out again: what is stored under an old epoch is
    nobody's.
S4. @releaseDomain fires when a shutdown is first seen (again only after RESUME), and when an
    introduced domain is gone. A ring that is ignored changes nothing in this (XSA-325).
S5. Two steps make a connection: RESETTING, then the ring's words are stored, then CONNECTED. A
    life that finds RESETTING stores them again: nobody can have used the ring yet.
Knows nothing of pages and ports (guests.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from app import path as paths
from app.client import NO_TARGET
from app.effects import EFFECT_OVERHEAD
from app.errors import Eacces, Ebusy, Einval, Enoent, Eperm, XsError
from app.path import INTRODUCE_DOMAIN, RELEASE_DOMAIN, SPECIALS, Path
from app.perms import DOMID_ANY, DOMID_FIRST_RESERVED, DOMID_SELF, READ, Perms, from_wire
from app.tree import Node

if TYPE_CHECKING:
    from app.client import Client
    from app.host import Domain
    from app.store import Store

FEATURE_ERROR = 2
FEATURE_WATCH_DEPTH = 4
FEATURE_DOMID_ANY = 8
FEATURES = FEATURE_ERROR | FEATURE_WATCH_DEPTH | FEATURE_DOMID_ANY

RESETTING, CONNECTED, LEAVING = 1, 2, 3  # Known.state of a domain with an epoch

SPECIAL_DEFAULTS = {b"@introduceDomain": b"n0\0", b"@releaseDomain": b"n0\0r%d\0" % DOMID_ANY}
assert set(SPECIAL_DEFAULTS) == set(SPECIALS)


class Known(NamedTuple):
    """A domain that the server knows: item "domain.DOMID". `epoch` 0: never introduced. `port` and
    `gfn` are what INTRODUCE named; `error`: the code by which its ring is ignored, 0 if not."""

    identity: int
    epoch: int = 0
    state: int = 0
    gfn: int = 0
    port: int = 0
    target: int = NO_TARGET
    error: int = 0
    is_shutdown: int = 0


def known(store: Store, domid: int) -> Known | None:
    """What is known of a domain."""
    return store.domains.get(domid)


def must_know(store: Store, domid: int) -> Known:
    """What is known of a domain that is known."""
    one = known(store, domid)
    assert one is not None, domid
    return one


def put(store: Store, domid: int, value: Known) -> None:
    """Change what is known of a domain."""
    store.domains[domid] = value
    store.items.put(f"domain.{domid}", tuple(value))


def restore(store: Store) -> None:
    """Take in the domains' items of an earlier life."""
    for key, value in store.items.values.items():
        kind, _, digits = key.partition(".")
        if kind == "domain" and digits.isdigit():
            store.domains[int(digits)] = Known(*cast("tuple[int, ...]", value))
    store.leaving = {domid for domid, one in store.domains.items() if one.state == LEAVING}


def is_introduced(store: Store, domid: int) -> bool:
    """Whether the domain is connected: 0 always is, DOMID_SELF asks about the caller."""
    if domid in (0, DOMID_SELF):
        return True
    one = known(store, domid)
    return one is not None and one.epoch != 0 and one.state != LEAVING


# -- beginning


def exists(store: Store, domid: int) -> bool:
    """Whether there is such a domain; from now on it is known (S2)."""
    if domid == 0 or domid in store.domains:
        return True
    return domid < DOMID_FIRST_RESERVED and store.host.look(domid) is not None


def learn(store: Store, perms: Perms) -> Perms:
    """Permissions that are about to be set: the domains that they name become known, and entries
    for domains that do not exist grant nothing from now on. Changes items: after all checks."""
    states = {domid: store.host.look(domid) for domid in {perms.owner, *perms.granted}
              if 0 < domid < DOMID_FIRST_RESERVED and domid not in store.domains}
    for domid, state in states.items():
        if state is not None:
            put(store, domid, Known(state.identity))
    return perms.ignoring({domid for domid, state in states.items() if state is None})


def introduce(store: Store, domid: int, gfn: int, port: int) -> type[XsError] | None:
    """A domain's connection begins, or begins anew. Raises Enoent for no such domain, and Ebusy
    while the last nodes of one with its number are being removed. An error that is found after
    something was changed is returned."""
    state = store.host.look(domid)
    if state is None:
        raise Enoent
    before = known(store, domid)
    if before is not None and before.state == LEAVING:
        raise Ebusy
    if before is not None and is_other(before, state):
        store.leave(domid)
        if domid in store.domains:
            return Ebusy
        before = None
    try:
        client = store.host.attach(domid, next_epoch(store), gfn, port)
    except XsError as error:
        return type(error)
    connect(store, domid, client, Known(
        state.identity, client.conn_id, RESETTING, gfn, port,
        before.target if before is not None else NO_TARGET, 0,
        before.is_shutdown if before is not None else 0))
    if before is None or not before.epoch:
        store.came.append(domid)
    return None


def next_epoch(store: Store) -> int:
    """A number that no connection had before (S3)."""
    epoch = store.items.number("next.epoch", 1)
    store.items.note("next.epoch", epoch + 1)
    return epoch


def connect(store: Store, domid: int, client: Client, value: Known) -> None:
    """`client` is the domain's connection from now on; nothing of an older one is left."""
    old = store.rings.get(domid)
    if old is not None:
        store.disconnect(old)
    store.rings[domid] = client
    store.resetting.append(domid)
    client.error = 0
    set_client_target(store, client, value.target)
    store.clients.add(client)
    put(store, domid, value)


def connected(store: Store, domid: int) -> None:
    """The ring's words have been stored (S5)."""
    one = known(store, domid)
    assert one is not None and one.state == RESETTING, (domid, one)
    put(store, domid, one._replace(state=CONNECTED))


def mute(store: Store, domid: int, code: int) -> None:
    """Ignore a ring that broke the rules, until its domain is gone or introduced again."""
    one, client = known(store, domid), store.rings[domid]
    assert one is not None and one.epoch == client.conn_id, (domid, one)
    store.disconnect(client)
    store.clients.add(client)
    client.error = code
    store.muted.append(client)
    put(store, domid, one._replace(error=code))


def set_target(store: Store, domid: int, target: int) -> None:
    """From now on the domain acts also for `target`. Both must be introduced (Enoent)."""
    one = known(store, domid)
    if one is None or target == DOMID_SELF or not (
            is_introduced(store, domid) and is_introduced(store, target)):
        raise Enoent
    set_client_target(store, store.rings[domid], target)
    put(store, domid, one._replace(target=target))


def set_client_target(store: Store, client: Client, target: int) -> None:
    """Keep the index by target."""
    if client.target != NO_TARGET:
        store.actors[client.target].discard(client.domid)
    client.target = target
    if target != NO_TARGET:
        store.actors.setdefault(target, set()).add(client.domid)


# -- ending


def is_other(before: Known, now: Domain | None) -> bool:
    """Whether the domain that was known as `before` is gone."""
    return now is None or (before.identity != now.identity
                           and before.identity != 0 and now.identity != 0)


def shut_down(store: Store, domid: int, is_shutdown: bool) -> bool:
    """Note a domain's shutdown; whether it is seen for the first time (S4)."""
    one = known(store, domid)
    if one is None or not one.epoch or one.is_shutdown or not is_shutdown:
        return False
    put(store, domid, one._replace(is_shutdown=1))
    return True


def resume(store: Store, domid: int) -> None:
    """The next shutdown is a new one. Raises Enoent unless the domain is introduced."""
    one = known(store, domid)
    if one is None or not is_introduced(store, domid):
        raise Enoent
    put(store, domid, one._replace(is_shutdown=0))
    store.resumed.add(domid)


def leave(store: Store, domid: int, budget: int) -> bool:
    """A domain is gone or released: its connection, its nodes, its rights. Returns whether it was
    introduced and is wholly gone now, so that @releaseDomain is due.

    Removes about `budget` bytes' worth of effects; what is left over is for the next step: the
    domain is LEAVING until then, and known."""
    one = known(store, domid)
    assert one is not None, domid
    client = store.rings.pop(domid, None)
    if client is not None:
        store.disconnect(client)
        set_client_target(store, client, NO_TARGET)
        store.host.detach(client)
    budget = _remove_owned(store, domid, budget)
    budget = _remove_granted(store, domid, budget)
    if budget <= 0:
        if one.state != LEAVING:
            put(store, domid, one._replace(state=LEAVING))
        return False
    for name in SPECIALS:
        before = special_perms(store, name)
        after = before.without(domid) if domid in before.granted else before
        if after.owner == domid:
            after = after.with_owner(0)
        if after is not before:
            store.items.put("special." + name.decode(), after.wire)
    for other in store.actors.pop(domid, ()):
        store.rings[other].target = NO_TARGET
        put(store, other, must_know(store, other)._replace(target=NO_TARGET))
    store.quotas.forget(domid)
    store.items.put(f"domain.{domid}.features", None)
    store.items.note(f"suspect.domain.{domid}", None)
    store.items.put(f"domain.{domid}", None)
    del store.domains[domid]
    return one.epoch != 0


def _remove_owned(store: Store, domid: int, budget: int) -> int:
    """Remove what the domain owns, children included whoever owns them, with events."""
    tree = store.tree
    owned = tree.owned.get(domid, set())
    if paths.ROOT in owned:
        root = tree.nodes[paths.ROOT]
        tree.replace(paths.ROOT, root, Node(root.value, root.perms.with_owner(0), root.ordinal))
    for path in sorted(owned):  # what is above comes first, and takes along what is below
        if budget <= 0:
            break
        if path in tree.nodes and path != paths.ROOT:
            budget -= EFFECT_OVERHEAD + len(path)
            tree.cut(path)
    return budget


def _remove_granted(store: Store, domid: int, budget: int) -> int:
    """Take the domain's rights out of all permission lists, silently."""
    tree = store.tree
    for path in sorted(tree.granted.get(domid, ())):
        if budget <= 0:
            break
        before = tree.nodes[path]
        after = Node(before.value, before.perms.without(domid), before.ordinal)
        budget -= EFFECT_OVERHEAD + len(path) + len(after.value) + len(after.perms.wire)
        tree.replace(path, before, after, fires=False)
    return budget


# -- special nodes


def fire_special(store: Store, name: Path, domids: list[int]) -> None:
    """Tell the watches of a special node. One without depth hears its bare name, once for all of
    `domids`; one with a depth, or on one domain's own name, hears of each by number."""
    perms = special_perms(store, name)
    singles = [Path(b"%b/%d" % (name, domid)) for domid in domids]
    due = [(watch, name) for watch in store.watches.exact(name) if not watch.depth]
    due += [(watch, single) for watch in store.watches.exact(name) if watch.depth
            for single in singles]
    due += [(watch, single) for single in singles for watch in store.watches.exact(single)]
    for watch, path in sorted(due, key=lambda pair: pair[0].ordinal):
        client = watch.client
        if client.privileged or perms.allows(client.domid, client.target, READ):
            store.send_event(watch, path, is_special=True)


def fire_domains(store: Store) -> None:
    """Tell of the domains that have shut down or are gone, and of those that were introduced."""
    if store.gone:
        fire_special(store, RELEASE_DOMAIN, store.gone)
    if store.came:
        fire_special(store, INTRODUCE_DOMAIN, store.came)


def special_perms(store: Store, name: bytes) -> Perms:
    """The permissions of a special node. Raises Einval for a name that is none."""
    default = SPECIAL_DEFAULTS.get(name)
    if default is None:
        raise Einval
    wire = store.items.get("special." + name.decode())
    return from_wire(wire if isinstance(wire, bytes) else default)


def set_special_perms(store: Store, client: Client, name: bytes, perms: Perms) -> None:
    """Replace the permissions of a special node. Raises Enoent for a name that is none."""
    if name not in SPECIAL_DEFAULTS:
        raise Enoent
    before = special_perms(store, name)
    if not client.privileged and before.owner not in (client.domid, client.target):
        raise Eacces
    if perms.owner != before.owner:
        if not client.privileged:
            raise Eperm
        if not exists(store, perms.owner):
            raise Enoent
    store.items.put("special." + name.decode(), learn(store, perms).wire)


# -- features


def features(store: Store, domid: int) -> int:
    """The features that a domain is offered. Raises Enoent for no such domain."""
    if not exists(store, domid):
        raise Enoent
    return store.items.number(f"domain.{domid}.features", FEATURES)


def set_features(store: Store, domid: int, value: int) -> None:
    """Restrict what a domain is offered. Raises Einval, Enoent, or Ebusy once it is introduced."""
    if value & ~FEATURES:
        raise Einval
    if not exists(store, domid):
        raise Enoent
    if is_introduced(store, domid):
        raise Ebusy
    remember(store, domid)
    store.items.put(f"domain.{domid}.features", value)


def remember(store: Store, domid: int) -> None:
    """A domain gets settings of its own: they are to go with it, so it is known from now on."""
    if domid and domid not in store.domains:
        state = store.host.look(domid)
        if state is not None:
            put(store, domid, Known(state.identity))
