# SPDX-License-Identifier: Apache-2.0
"""How long recovery takes, process start excluded, and how long the longest pause of a turn is.

  python -m tests.bench.recovery

Regions of 64 MiB in /dev/shm: 120,000 nodes, a log full of live data and rewrites, 1,000 nodes
behind a million writes. Each is recovered in a process of its own. A pause is one turn's CPU."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

from app.client import Client
from app.host import NoHost
from app.journal import Journal, open_journal, space_for
from app.services import Console
from app.store import Store
from app.wire import XS_RM, XS_WRITE, Request
from persist.region import open_region

TURN_WRITES = 8


def write(number: int, value: int) -> Request:
    """A write to one of a host's device nodes."""
    path = b"/local/domain/%d/device/vif/%d/state" % (number // 50, number % 50)
    return Request(XS_WRITE, 1, 0, path + b"\0value%d" % value)


class Server:
    """Store and journal on a region file, without sockets."""

    def __init__(self, path: str) -> None:
        self.region = open_region(path, None)
        began = time.perf_counter()
        self.store = Store(space_for(self.region, 1 << 50), NoHost(), Console("error"))
        self.journal: Journal
        self.journal, self.start = open_journal(self.region, self.store,
                                                lambda: time.time_ns() // 1000, lambda: None)
        self.took_ms = (time.perf_counter() - began) * 1e3
        self.client = Client(1, 0, privileged=True)

    def turn(self, requests: Iterable[Request]) -> tuple[float, int]:
        """One turn; returns its CPU time in ms, carrying included, and the nodes changed."""
        began, changed = time.process_time(), 0
        self.journal.prepare()
        steps = []
        for request in requests:
            effects = self.store.handle(self.client, request)
            steps.append((self.client, request, effects))
            changed += sum(len(getattr(effect, "removed", "1")) for effect in effects)
        self.client.take_outbox()
        self.journal.after_turn(self.journal.commit(steps))
        return (time.process_time() - began) * 1e3, changed


def load(path: str, kind: str) -> None:
    """Fill a new region."""
    server = Server(path)
    numbers = {"120000 nodes": range(58_200), "full log": range(85_000),
               "1000 nodes": range(480)}[kind]
    chance = random.Random(1)
    rewrites = {"120000 nodes": 0, "full log": 400_000, "1000 nodes": 1_000_000}[kind]
    queue = [write(number, number) for number in numbers]
    for number in range(rewrites):
        if len(queue) >= TURN_WRITES or number == rewrites - 1:
            server.turn(queue[:TURN_WRITES] if number < rewrites - 1 else queue)
            del queue[:TURN_WRITES]
        queue.append(write(chance.randrange(len(numbers)), number))
    for start in range(0, len(queue), 1):
        server.turn(queue[start:start + 1])


def pauses() -> None:
    """Print the longest pause beyond what is allowed to changes, at 100,000 nodes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        server = Server(os.path.join(directory, "region"))
        number, worst, chance = 0, 0.0, random.Random(1)
        while len(server.store.tree.nodes) < 100_000:
            took, changed = server.turn([write(number, 0)])
            worst, number = max(worst, took - 0.002 * changed), number + 1
        for _ in range(30_000):
            took, changed = server.turn([write(chance.randrange(number), 1)])
            worst = max(worst, took - 0.002 * changed)
        while server.journal.idle():
            pass
        print(f"longest turn while loading and rewriting 100,000 nodes: {worst:.1f} ms")
        nodes = len(server.store.tree.nodes)
        took, changed = server.turn([Request(XS_RM, 1, 0, b"/local\0")])
        print(f"removing {changed} of {nodes} nodes: {took:.0f} ms, "
              f"{took * 1000 / changed:.2f} us a node")


def main() -> int:
    """Run everything, or one measurement in a process of its own."""
    import gc
    gc.disable()
    if len(sys.argv) == 4:
        if sys.argv[1] == "load":
            load(sys.argv[3], sys.argv[2])
        else:
            server = Server(sys.argv[3])
            print(f"{sys.argv[2]}: {server.start.nodes} nodes from {server.start.records} records "
                  f"in {server.took_ms:.0f} ms, {server.start.outcome.value}")
        return 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        for kind in ("120000 nodes", "full log", "1000 nodes"):
            path = os.path.join(directory, kind.replace(" ", "-"))
            for action in ("load", "recover", "recover", "recover"):
                subprocess.run([sys.executable, "-m", "tests.bench.recovery", action, kind, path],
                               check=True)
            os.unlink(path)
    pauses()
    return 0


if __name__ == "__main__":
    sys.exit(main())
