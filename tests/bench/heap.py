# SPDX-License-Identifier: Apache-2.0
"""What a node takes of the Python heap: the figure behind app.tree.NODE_HEAP.

  python -m tests.bench.heap [NODES]

Loads nodes shaped like a host's (frontends and backends of domains), and divides the growth of the
resident memory, less the bytes of paths and values, by their number. Git ids are included."""

from __future__ import annotations

import gc
import sys

from app.tree import NODE_HEAP
from persist import layout
from tests.crash.world import ArrayMedium, Life

KEYS = ("state", "backend", "backend-id", "mac", "handle", "protocol")


def resident_bytes() -> int:
    """The process's resident memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * layout.PAGE_SIZE


def main() -> int:
    """Measure and print."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 120_000
    life = Life(ArrayMedium(layout.REGION_SIZE_DEFAULT))
    tree = life.store.tree
    gc.collect()
    before, number = resident_bytes(), 0
    while len(tree.nodes) < wanted:
        key = KEYS[number % len(KEYS)]
        domid, device = number // 120, number // len(KEYS) % 20
        life.turn((11, 0, f"/local/domain/{domid}/device/vif/{device}/{key}\0value"
                          f"-{number}".encode()))
        life.tidy()
        number += 1
    life.tidy(idle=True)
    gc.collect()
    grown = resident_bytes() - before - life.journal.log.tail
    contents = sum(len(path) + len(node.value) for path, node in tree.nodes.items())
    per_node = (grown - contents) / len(tree.nodes)
    print(f"{len(tree.nodes)} nodes: {grown >> 20} MiB, {per_node:.0f} bytes a node beyond path "
          f"and value; NODE_HEAP is {NODE_HEAP}")
    return 0 if per_node <= NODE_HEAP else 1


if __name__ == "__main__":
    sys.exit(main())
