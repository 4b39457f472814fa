# SPDX-License-Identifier: Apache-2.0
"""What this process may use, memory and file descriptors, and how many nodes that admits.

On Linux the limits are those set for the process. The image is known by having no module
`resource`: there the whole memory is ours, and what counts is how much of it is free.
Knows nothing of nodes but what admission counts for one (tree.py)."""

from __future__ import annotations

import os

from app.tree import NODE_HEAP, NODE_OVERHEAD, Space

try:
    import resource
except ImportError:  # in the image
    resource = None  # type: ignore[assignment]

HEAP_UNKNOWN = 1 << 50  # no limit is known
HEAP_OF_PROCESS = 80 << 20  # what Python and its modules take before the first node
RESERVE = 8 << 20  # of what is free in the image: requests under way, what is owed, a carry pass
NODE_TYPICAL = 64  # bytes of path, value and permissions
CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def heap_limit() -> int:
    """How many bytes of nodes this process can hold. On Linux the least limit set for it, less
    HEAP_OF_PROCESS; in the image what is free now, less RESERVE: so ask before the first node."""
    if resource is None:
        return max(free_memory() - RESERVE, 0)
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    known = [limit for limit in limits if limit != resource.RLIM_INFINITY]
    for path in CGROUP_FILES:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdecimal():
            known.append(int(text))
    return max(min(known, default=HEAP_UNKNOWN) - HEAP_OF_PROCESS, 0)


def owed_max() -> tuple[int, int] | None:
    """Bytes that may wait for one socket that does not read, and for all; None: as usual."""
    return None if resource is not None else (RESERVE // 8, RESERVE // 2)


def free_memory() -> int:
    """Bytes of the machine's memory that nobody uses now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_image() -> bool:
    """Whether there is no operating system around us."""
    return resource is None


def raise_file_limit() -> None:
    """One file descriptor per client: as many as allowed."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def memory_used() -> str:
    """A line of the memory report."""
    if resource is None:
        return f"free memory: {free_memory() >> 10} KiB\n"
    return f"max resident: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} KiB\n"


def admitted(space: Space) -> str:
    """How many nodes admission lets in at most, and what it is that sets the limit."""
    node = NODE_TYPICAL + NODE_OVERHEAD
    by_log, by_heap = space.log_bytes // node, space.heap_bytes // (node + NODE_HEAP)
    return (f"admits at most {min(by_log, by_heap)} nodes, if path, value and permissions take "
            f"{NODE_TYPICAL} bytes: the {'memory' if by_heap < by_log else 'region'} is the limit")
