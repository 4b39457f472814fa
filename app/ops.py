# SPDX-License-Identifier: Apache-2.0
"""The operation table: message type -> handler and flags. One function per message.

N1. A handler checks everything before it changes anything: an XsError leaves no trace.
N2. "Missing" and "forbidden" look alike to the unprivileged: a missing node is EACCES where the
    nearest existing ancestor would not allow the access.
N3. Quotas bind the unprivileged only. New nodes belong to an unprivileged creator.
Knows nothing of framing and of the journal. Source: reference of the protocol in Xen's
docs/misc/xenstore.txt; where the servers differ, docs/ARCHITECTURE.md says whom we follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import domain, wire
from app import path as paths
from app.args import Op, View, number, strings
from app.client import Client
from app.domain_ops import DOMAIN_OPS
from app.errors import E2big, Eacces, Ebusy, Eexist, Einval, Enoent, Enospc, Eperm, XsError
from app.path import Path
from app.perms import READ, WRITE, Perms
from app.perms import parse as parse_perms
from app.quota import RECORD_HEADER, RECORD_PERM
from app.transaction import Overlay
from app.tree import Node, Tree, node_bytes
from app.watch import Watch
from app.wire import OK, PAYLOAD_MAX

if TYPE_CHECKING:
    from app.store import Store

DEPTH_MAX = 0xFFFF


def node_path(store: Store, client: Client, text: bytes) -> Path:
    """The canonical path of `text`, held to the caller's limit. Raises Einval."""
    path = paths.parse(text, client.base)
    if not client.privileged:
        limit = store.quotas.limit("path-max", client.domid)
        size = len(path)  # the length that counts is at most this
        if size > paths.ABSOLUTE_MAX or (size >= limit and paths.quota_length(path) >= limit):
            raise Einval
    return path


def only_path(store: Store, client: Client, payload: bytes) -> Path:
    """The path of a payload that holds nothing else. Raises Einval."""
    if payload.find(b"\0") != len(payload) - 1:
        raise Einval
    return node_path(store, client, payload[:-1])


# -- access


def may(client: Client, perms: Perms, want: int) -> bool:
    """Whether the client has all of `want` on a node with `perms`."""
    return client.privileged or perms.allows(client.domid, client.target, want)


def missing(client: Client, view: View, path: Path, want: int) -> type[XsError]:
    """The error for a node that is not there (N2)."""
    if client.privileged and isinstance(view, Tree):
        return Enoent  # inside a transaction the ancestor is looked at all the same
    _, ancestor = nearest(view, path)
    return Enoent if may(client, ancestor.perms, want) else Eacces


def nearest(view: View, path: Path) -> tuple[list[Path], Node]:
    """The paths that are missing from `path` up (itself first), and the first node above them."""
    absent = [path]
    while True:
        path = paths.parent(path)
        node = view.get(path)
        if node is not None:
            return absent, node
        absent.append(path)


def get_node(client: Client, view: View, path: Path, want: int) -> Node:
    """The node, if the client may `want` it. Raises Enoent or Eacces."""
    node = view.get(path)
    if node is None:
        raise missing(client, view, path, want)
    if not client.privileged and not may(client, node.perms, want):
        raise Eacces
    return node


def is_owner(client: Client, perms: Perms) -> bool:
    """Whether the client owns a node with `perms`, itself or for its target."""
    return client.privileged or perms.owner in (client.domid, client.target)


# -- reading


def read(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """READ path: the value, nothing added."""
    return get_node(client, view, only_path(store, client, payload), READ).value


def directory(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """DIRECTORY path: the children's names, each with a NUL; E2BIG beyond one message."""
    path = only_path(store, client, payload)
    get_node(client, view, path, READ)
    if view.name_bytes(path) > PAYLOAD_MAX:
        raise E2big
    return view.listing(path)


def directory_part(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """DIRECTORY_PART path offset: generation, then whole names from the offset on; the last part
    has one more NUL. A client that sees another generation starts again."""
    text, offset_text = strings(payload, 2, 2)
    path, offset = node_path(store, client, text), number(offset_text, 1 << 32)
    get_node(client, view, path, READ)
    head = b"%d\0" % view.listing_generation(path)
    names = view.listing(path)
    room = PAYLOAD_MAX - len(head)
    if len(names) - offset < room:
        return head + names[offset:] + b"\0"
    end = names.rfind(b"\0", offset, offset + room) + 1
    if not end:
        raise E2big
    return head + names[offset:end]


def get_perms(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """GET_PERMS path: the permission list."""
    if payload.startswith(b"@"):
        (name,) = strings(payload, 1, 1)
        perms = view.recall(name.decode("latin-1"), domain.special_perms(store, name))
        if not may(client, perms, READ):
            raise Eacces
        return perms.shown
    return get_node(client, view, only_path(store, client, payload), READ).perms.shown


# -- changing


def write(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """WRITE path value: set the value; missing nodes are made on the way."""
    nul = payload.find(b"\0")
    if nul < 0:
        raise Einval
    path, value = node_path(store, client, payload[:nul]), payload[nul + 1:]
    before = view.get(path)
    if before is None:
        make(store, client, view, path, value)
        return OK
    if not client.privileged:
        if not may(client, before.perms, WRITE):
            raise Eacces
        check_size(store, client, view, path, before.perms, value)
    after = Node(value, before.perms, before.ordinal)
    growth = len(value) - len(before.value)
    if growth > 0:
        view.admit(growth)
    view.replace(path, before, after)
    return OK


def mkdir(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """MKDIR path: make an empty node; one that exists is left alone, and nothing fires."""
    path = only_path(store, client, payload)
    before = view.get(path)
    if before is None:
        make(store, client, view, path, b"")
    elif not may(client, before.perms, WRITE):
        raise Eacces
    return OK


def make(store: Store, client: Client, view: View, path: Path, value: bytes) -> None:
    """Create `path` and what is missing above it, with the nearest ancestor's permissions."""
    absent, ancestor = nearest(view, path)
    perms = ancestor.perms
    if not client.privileged:
        if not may(client, perms, WRITE):
            raise Eacces
        above = paths.parent(absent[-1])
        perms = perms.with_owner(client.domid)
        try:
            check_make(store, client, view, absent, perms, value)
            check_size(store, client, view, above, ancestor.perms, ancestor.value,
                       len(paths.name(absent[-1])) + 1)
        except XsError:
            view.poison()
            raise
    nodes = [(one, Node(value if one is path else b"", perms, view.next_ordinal()))
             for one in reversed(absent)]
    view.admit(sum(node_bytes(one, node) for one, node in nodes), len(nodes))
    for one, node in nodes:
        view.create(one, node, fires=one is path)


def rm(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """RM path: remove the node and all below it. A missing node with a parent is OK."""
    path = only_path(store, client, payload)
    node = view.get(path)
    if node is None:
        error = missing(client, view, path, WRITE)
        if error is Enoent and view.get(paths.parent(path)) is not None:
            view.observe(b"absent")
            return OK
        raise error
    if not may(client, node.perms, WRITE):
        raise Eacces
    if path == paths.ROOT:
        raise Einval
    view.observe(b"present")
    view.cut(path)
    return OK


def set_perms(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """SET_PERMS path perm+: replace the permission list."""
    strings(payload, 2, PAYLOAD_MAX)
    text, _, perms_wire = payload.partition(b"\0")
    perms = parse_perms(perms_wire)
    if not client.privileged and (
            perms.count > store.quotas.limit("node-permissions", client.domid)):
        raise Enospc
    if text.startswith(b"@"):
        if isinstance(view, Overlay):
            raise Einval
        domain.set_special_perms(store, client, text, perms)
        return OK
    path = node_path(store, client, text)
    before = get_node(client, view, path, WRITE)
    if not is_owner(client, before.perms):
        raise Eacces
    if perms.owner != before.perms.owner:
        if not client.privileged:
            raise Eperm
        if not store.is_domain(perms.owner):
            raise Enoent
    if not client.privileged:
        check_size(store, client, view, path, perms, before.value)
    growth = len(perms.wire) - len(before.perms.wire)
    if growth > 0:
        view.admit(growth)
    perms = domain.learn(store, perms)
    view.replace(path, before, Node(before.value, perms, before.ordinal))
    return OK


# -- quotas of the unprivileged


def check_size(store: Store, client: Client, view: View, path: Path, perms: Perms, value: bytes,
               more_names: int = 0) -> None:
    """Raise Enospc if the node's record would reach node-size: header, perms, value, names."""
    size = (RECORD_HEADER + RECORD_PERM * perms.count + len(value)
            + view.name_bytes(path) + more_names)
    if size >= store.quotas.limit("node-size", client.domid):
        raise Enospc


def check_make(store: Store, client: Client, view: View, absent: list[Path], perms: Perms,
               value: bytes) -> None:
    """Raise Enospc or Enomem if the caller may not own so much more."""
    quotas, domid = store.quotas, client.domid
    if view.owned_count(domid) + len(absent) > quotas.limit("nodes", domid):
        raise Enospc
    size = RECORD_HEADER + RECORD_PERM * perms.count
    if size + len(value) >= quotas.limit("node-size", domid):
        raise Enospc
    for one in absent[:-1]:  # each of them is the only name in the new node above it
        if size + len(paths.name(one)) + 1 >= quotas.limit("node-size", domid):
            raise Enospc
    store.check_memory(client, view.owned_size(domid)
                       + sum(len(one) for one in absent) + len(value))


# -- watches


def watch(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """WATCH path token [depth]: OK, then at once one event for the path itself."""
    text, token, *rest = strings(payload, 2, 3)
    path, hidden = paths.parse_watch(text, client.base)
    depth = number(rest[0], DEPTH_MAX) if rest else None
    if (path, token) in client.watches:
        raise Eexist
    one = Watch(client, path, token, hidden, depth, store.tree.next_ordinal())
    if not client.privileged:
        if paths.quota_length(path) >= store.quotas.limit("path-max", client.domid):
            raise Einval
        if len(client.watches) >= store.quotas.limit("watches", client.domid):
            raise Enospc
        store.check_memory(client, store.tree.owned_size(client.domid) + one.cost())
    store.add_watch(one)
    return OK


def unwatch(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """UNWATCH path token: ENOENT if there is no such watch, however the path is spelt."""
    text, token = strings(payload, 2, 2)
    try:
        path, _ = paths.parse_watch(text, client.base)
    except Einval:
        raise Enoent from None
    one = client.watches.get((path, token))
    if one is None:
        raise Enoent
    store.drop_watch(one)
    return OK


def reset_watches(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """RESET_WATCHES: drop the caller's watches and transactions."""
    store.drop_watches(client)
    store.drop_transactions(client)
    return OK


# -- transactions: END is the store's own


def transaction_start(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """TRANSACTION_START: a new id. Inside a transaction: EBUSY."""
    if isinstance(view, Overlay):
        raise Ebusy
    if not client.privileged and (
            len(client.transactions) >= store.quotas.limit("transactions", client.domid)):
        raise Enospc
    return b"%d\0" % store.start_transaction(client)


def transaction_end(store: Store, client: Client, view: View, payload: bytes) -> bytes:
    """TRANSACTION_END T|F without a transaction."""
    if payload not in (b"T\0", b"F\0"):
        raise Einval
    raise Enoent


OPS: dict[int, Op] = {
    wire.XS_DIRECTORY: Op(directory, uses_tx=True, privileged=False),
    wire.XS_READ: Op(read, uses_tx=True, privileged=False),
    wire.XS_GET_PERMS: Op(get_perms, uses_tx=True, privileged=False),
    wire.XS_WATCH: Op(watch, uses_tx=False, privileged=False),
    wire.XS_UNWATCH: Op(unwatch, uses_tx=False, privileged=False),
    wire.XS_TRANSACTION_START: Op(transaction_start, uses_tx=True, privileged=False),
    wire.XS_TRANSACTION_END: Op(transaction_end, uses_tx=True, privileged=False),
    wire.XS_WRITE: Op(write, uses_tx=True, privileged=False),
    wire.XS_MKDIR: Op(mkdir, uses_tx=True, privileged=False),
    wire.XS_RM: Op(rm, uses_tx=True, privileged=False),
    wire.XS_SET_PERMS: Op(set_perms, uses_tx=True, privileged=False),
    wire.XS_RESET_WATCHES: Op(reset_watches, uses_tx=False, privileged=False),
    wire.XS_DIRECTORY_PART: Op(directory_part, uses_tx=True, privileged=False),
    **DOMAIN_OPS,
}
