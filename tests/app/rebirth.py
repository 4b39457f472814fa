# SPDX-License-Identifier: Apache-2.0
"""A world after a crash: a new store that has of the old one what a log keeps, and nothing else:
nodes, items (through msgpack and back), the counter of ordinals. Rings are there again, with what
belongs to them; sockets are new ones. Stands in for journal.py and rings.py."""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]

from app import codec, domain
from app import path as paths
from app.path import ROOT, Path
from app.store import Store
from app.tree import Directory, Node, Space
from tests.app.world import RingClient, World


def reborn(world: World) -> tuple[World, list[str]]:
    """The next life, and the keys of items that belong to nobody."""
    old, space = world.store, world.store.space
    after = World(world.host.domains, guests=())
    after.host.identities, after.host.shut_down = world.host.identities, world.host.shut_down
    store = after.store = Store(Space(space.log_bytes, space.heap_bytes, space.step_bytes),
                                after.host, after.services)
    store.tree.generation = old.tree.generation
    nodes: dict[Path, Node] = {}
    dirs: dict[Path, Directory] = {}
    for path, node in old.tree.nodes.items():
        nodes[path] = Node(node.value, node.perms, node.ordinal)
        if path != ROOT:
            dirs.setdefault(paths.parent(path), Directory()).names[paths.name(path)] = node.ordinal
    store.tree.adopt(nodes, dirs)
    for key, value in old.items.values.items():
        store.items.restore(key, codec.item(msgpack.unpackb(msgpack.packb(value))))
    store.resume()
    after.clients.clear()
    after.connect("d0", 0)
    after.connect("d0b", 0)
    for domid, one in store.domains.items():
        if one.epoch and one.state != domain.LEAVING:
            client = RingClient(one.epoch, domid, privileged=False)
            client.error = one.error
            after.host.attached[domid] = store.rings[domid] = client
            store.clients.add(client)
            domain.set_client_target(store, client, one.target)
            after.clients[f"r{domid}"] = client
    orphans = store.resume_clients({client.conn_id: client for client in store.rings.values()})
    after.transactions = dict(world.transactions)
    return after, orphans
