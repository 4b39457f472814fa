# SPDX-License-Identifier: Apache-2.0
"""How fast xsdump git is: commits a second, with 1, 100 and 1,000 domains.

  python -m tests.bench.history [--commits 20000] [--domains 1,100,1000]

Each domain has 53 nodes, as a guest with a disk and a network card; then single writes by domains,
a seal after every hundredth. In /dev/shm. Wall-clock, and the CPU time of both processes: on a
machine that does other work, only the second compares."""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time

from app.wire import XS_WRITE, Request
from tests.bench.recovery import Server

NODES = 50  # leaves of a domain
SEAL_EVERY = 100


def fill(path: str, domains: int, commits: int) -> int:
    """A region with that many changes; returns how many commits that makes."""
    server, chance, turns = Server(path), random.Random(1), 1
    for domain in range(domains):
        server.turn([write(domain, leaf, b"0") for leaf in range(NODES)])
        turns += NODES
    for number in range(max(commits - turns, 0)):
        server.turn([write(chance.randrange(domains), chance.randrange(NODES), b"%d" % number)])
        if number % SEAL_EVERY == 0:
            while server.journal.idle():
                pass
    server.region.close()
    return max(commits, turns)


def write(domain: int, leaf: int, value: bytes) -> Request:
    """A write to one of a domain's nodes."""
    return Request(XS_WRITE, 1, 0, b"/local/domain/%d/device/%d/%d\0%b" % (
        domain, leaf % 2, leaf, value))


def measure(directory: str, domains: int, commits: int) -> str:
    """Archive it in a process of its own; says how that went."""
    region, place = os.path.join(directory, "region"), os.path.join(directory, "archive")
    commits = fill(region, domains, commits)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "tools.xsdump", region, "git", "--bare", place],
                          stdout=subprocess.PIPE, check=True, text=True)
    took_s = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.startswith(f"{commits} commits added"), done.stdout
    cpu_s = sum(getattr(after, kind) - getattr(before, kind) for kind in ("ru_utime", "ru_stime"))
    size = sum(os.path.getsize(os.path.join(root, name))
               for root, _, names in os.walk(place) for name in names)
    return (f"{domains} domains: {commits} commits in {took_s:.1f} s, {commits / took_s:.0f} a "
            f"second; {cpu_s * 1e6 / commits:.0f} us of CPU and {size / commits:.0f} bytes each")


def main() -> int:
    """Print a line for each number of domains."""
    parser = argparse.ArgumentParser(prog="tests.bench.history", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=20_000)
    parser.add_argument("--domains", default="1,100,1000")
    options = parser.parse_args()
    for domains in map(int, options.domains.split(",")):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            print(measure(directory, domains, options.commits), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
