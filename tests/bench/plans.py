# SPDX-License-Identifier: Apache-2.0
"""What is measured: plans, each a list of xsbench command lines.

L1. A plan whose runs leave nodes, watches or domains behind restarts the servers before every run.
L2. The short selection of all SHORT plans together takes two or three minutes on two CPUs.
Knows nothing of servers. Change with: README.md, which explains the modes."""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN_STEPS = "1,10,100,1000,3000"
DOMID_MAX = 3099  # that a workload may INTRODUCE or give a node to


@dataclass(frozen=True)
class Plan:
    """A set of workloads that make one table."""

    name: str
    text: str
    workloads: tuple[str, ...]
    short: tuple[str, ...] = ()  # what is run of it when no plan is asked for
    is_fresh: bool = False  # the servers are restarted before every run
    is_on_one_cpu: bool = False
    has_domains: bool = False  # domains 1 to DOMID_MAX exist
    columns: tuple[str, ...] = ("ops_s", "p50_us", "p99_us", "cpu_us")
    ratio: str = "ops_s"  # the column that ratios are made of

    @property
    def has_rings(self) -> bool:
        """Whether its clients are guests on rings of a simulated Xen directory."""
        return any("-m ring-" in workload for workload in self.workloads)


def each(template: str, *values: object) -> tuple[str, ...]:
    """A workload for every value."""
    return tuple(template.format(value) for value in values)


_micro = (
    *each("-t 0.3 -m {}", "noop", "read", "write", "dir", "perms", "mkdirrm", "txn", "txn-read",
          "txn-conflict", "connect"),
    *(f"-t 0.3 -k {depth} -m {mode}"
      for depth in (4, 16, 64) for mode in ("pipe-read", "pipe-write")),
    *(f"-t 0.3 -c {count} -m {mode}"
      for count in (2, 8, 64, 512) for mode in ("multi-read", "multi-write")),
    *each("-t 0.3 -c {} -m txn-par", 8, 64),
)
_fanouts = tuple(f"-t 0.4 -c {count} -w {watches} -m fanout"
                 for watches, count in ((1, 1), (10, 10), (100, 1), (100, 100), (1000, 10)))
_misses = tuple(f"-t 0.4 -c {count} -w {watches} -m watchmiss"
                for watches, count in ((0, 1), (100, 8), (1000, 1), (1000, 8), (1000, 500),
                                       (10000, 1), (10000, 8)))
_ring = (
    *each("-t 0.3 -m ring-{}", "noop", "read", "write", "dir", "mkdirrm", "txn", "fanout -w 1 -c 1",
          "big"),
    "-t 0.3 -L -m ring-read", "-t 0.3 -L -m ring-write",
    *(f"-t 0.3 -k {depth} -m ring-{mode}"
      for depth in (4, 16) for mode in ("pipe-read", "pipe-write")),
    *(f"-t 0.3 -c {count} -m ring-{mode}"
      for count in (8, 64, 512) for mode in ("multi-read", "multi-write")),
)

ALL = (
    Plan("same", "client and server on one CPU: the cost without cross-CPU wake-ups",
         each("-t 0.3 -m {}", "noop", "read", "write", "txn", "mkdirrm"),
         short=each("-t 0.3 -m {}", "noop", "read", "write", "txn", "mkdirrm"),
         is_on_one_cpu=True),
    Plan("micro", "single operations, pipelining, many connections", _micro,
         short=(*each("-t 0.3 -m {}", "read", "write", "dir", "mkdirrm", "txn", "connect"),
                "-t 0.3 -k 16 -m pipe-read", "-t 0.3 -k 16 -m pipe-write",
                "-t 0.3 -c 64 -m multi-read", "-t 0.3 -c 64 -m multi-write",
                "-t 0.3 -c 8 -m txn-par")),
    Plan("sib", "concurrent transactions that create siblings",
         each("-t 0.4 -c {} -m txn-sib", 1, 2, 8, 32)),
    Plan("watch", "watch delivery, and the cost of watches that do not match",
         _fanouts + _misses, is_fresh=True,
         short=("-t 0.3 -c 10 -w 10 -m fanout", "-t 0.3 -c 1 -w 100 -m fanout",
                "-t 0.3 -c 10 -w 1000 -m fanout", "-t 0.3 -c 8 -w 10000 -m watchmiss")),
    Plan("idle", "one active connection among idle ones",
         each("-t 0.3 -c {} -w 0 -m watchmiss", 1, 10, 100, 300, 1000, 3000), is_fresh=True,
         short=each("-t 0.3 -c {} -w 0 -m watchmiss", 1, 300, 3000)),
    Plan("crowd", "latency alone, with 3,000 idle connections, 10,000 watches elsewhere, and both",
         tuple(f"-t 1 -c {count} -w {watches} -m watchmiss"
               for count, watches in ((1, 0), (3000, 0), (8, 10000), (3000, 10000))),
         is_fresh=True, columns=("ops_s", "p50_us", "p99_us", "max_us")),
    Plan("load", "number of nodes", each("-t 0.4 -n {} -m load", 1000, 10000, 100000),
         is_fresh=True),
    Plan("bigdir", "one large directory", each("-t 0.4 -n {} -m big-dir", 100, 1000, 3000, 10000),
         is_fresh=True),
    Plan("scale", "number of domains, 4 watches each",
         (f"-t 0.25 -q -c 8 -w 4 -m scale -D {DOMAIN_STEPS}",), is_fresh=True, has_domains=True),
    Plan("scale0", "number of domains, no watches",
         (f"-t 0.25 -q -c 8 -w 0 -m scale -D {DOMAIN_STEPS}",), is_fresh=True, has_domains=True),
    Plan("scalei", "number of INTRODUCEd domains, 4 watches each",
         (f"-t 0.2 -q -c 8 -w 4 -i -m scale -D {DOMAIN_STEPS}",), is_fresh=True,
         has_domains=True),
    Plan("rmtree", "RM of /local/domain with many domains",
         tuple(f"-t 0.01 -q -c 8 -w {watches} -m scale -D {domains}"
               for watches in (4, 0) for domains in (100, 1000)),
         is_fresh=True, has_domains=True),
    Plan("walk", "a full walk like xenstore-ls", ("-t 0.05 -c 8 -w 4 -m scale -D 10,100,1000",),
         is_fresh=True, has_domains=True),
    Plan("ring", "guests on rings", _ring,
         short=(*each("-t 0.3 -m ring-{}", "read", "write"), "-t 0.3 -k 16 -m ring-pipe-write",
                "-t 0.3 -c 64 -m ring-multi-write")),
    Plan("ringsame", "guests on rings, client and server on one CPU", _ring,
         short=each("-t 0.3 -m ring-{}", "read", "write"), is_on_one_cpu=True),
    Plan("ringcrowd", "many guests, each with one request in flight",
         tuple(f"-t 1 -c {count} -m ring-{mode}"
               for count in (1000, 3000) for mode in ("multi-read", "multi-write")),
         is_fresh=True),
    Plan("ringscale", "number of INTRODUCEd guests, 4 watches each",
         (f"-t 0.25 -m ring-scale -D {DOMAIN_STEPS}",), is_fresh=True),
    Plan("pause", "server CPU of single mixed operations, not wall-clock: pauses show in max",
         each("-t 3 -m pause -D {}", 100, 3000), is_fresh=True,
         short=("-t 2 -m pause -D 1000",),
         columns=("p50_us", "p99_us", "max_us", "over_1ms"), ratio="p50_us"),
)
BY_NAME = {plan.name: plan for plan in ALL}
SHORT = tuple(plan for plan in ALL if plan.short)


def adjust(workload: str, seconds: float | None, domains: str | None) -> list[str]:
    """A workload's arguments, with another duration or other domain counts."""
    words = workload.split()
    for flag, value in (("-t", seconds), ("-D", domains)):
        if value is not None and flag in words:
            words[words.index(flag) + 1] = str(value)
    return words
