# SPDX-License-Identifier: Apache-2.0
"""What the process may use, on Linux and in the image, and the number of nodes that follows.

Method: limits that are set, or a module `resource` that is not there. Cannot show: that a node
takes what admission counts for it (tests/bench/heap.py)."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import pytest

from app import limits
from app.errors import Enospc
from app.path import ROOT
from app.path import Path as NodePath
from app.perms import from_wire
from app.tree import NODE_HEAP, Node, Space, Tree
from tests.app.test_main import Daemon

MIB = 1 << 20


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """No module `resource`, and a memory of which so much is free."""
    answers = {"SC_AVPHYS_PAGES": 100 * MIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(limits, "resource", None)
    monkeypatch.setattr(os, "sysconf", answers.__getitem__)
    return answers


@pytest.fixture
def no_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of a control group that can be written; none is there yet."""
    monkeypatch.setattr(limits, "CGROUP_FILES", (str(tmp_path / "max"), str(tmp_path / "old")))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    return tmp_path


def test_in_the_image_what_is_free_counts(image: dict[str, int]) -> None:
    assert limits.is_image()
    assert limits.heap_limit() == 100 * MIB - limits.RESERVE
    image["SC_AVPHYS_PAGES"] = 1
    assert limits.heap_limit() == 0
    assert limits.memory_used() == "free memory: 4 KiB\n"
    limits.raise_file_limit()  # there is none


def test_on_linux_the_least_limit_counts(no_cgroup: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    assert not limits.is_image()
    assert limits.heap_limit() == limits.HEAP_UNKNOWN - limits.HEAP_OF_PROCESS
    (no_cgroup / "max").write_text("max\n")
    assert limits.heap_limit() == limits.HEAP_UNKNOWN - limits.HEAP_OF_PROCESS
    (no_cgroup / "old").write_text(f"{300 * MIB}\n")
    assert limits.heap_limit() == 220 * MIB
    monkeypatch.setattr(resource, "getrlimit",
                        lambda which: (200 * MIB if which == resource.RLIMIT_DATA else 250 * MIB,
                                       0))
    assert limits.heap_limit() == 120 * MIB
    monkeypatch.setattr(resource, "getrlimit", lambda which: (MIB, MIB))
    assert limits.heap_limit() == 0
    assert re.fullmatch(r"max resident: \d+ KiB\n", limits.memory_used())


@pytest.mark.parametrize("log, heap, who", [(MIB, 1 << 40, "region"), (1 << 40, MIB, "memory")])
def test_the_number_is_that_of_admission(log: int, heap: int, who: str) -> None:
    """A tree takes so many nodes of that size, and not one more."""
    space = Space(log, heap, 1 << 20)
    text = limits.admitted(space)
    found = re.fullmatch(rf"admits at most (\d+) nodes, if path, value and permissions take "
                         rf"{limits.NODE_TYPICAL} bytes: the {who} is the limit", text)
    assert found is not None, text
    tree, perms = Tree(space, []), from_wire(b"n0\0")
    count = 0

    def add() -> None:
        path = NodePath(b"/%07d" % count)
        node = Node(b"x" * (limits.NODE_TYPICAL - len(path) - len(perms.wire)), perms,
                    tree.next_ordinal())
        tree.admit(limits.NODE_TYPICAL + limits.NODE_OVERHEAD, 1)
        tree.create(path, node)
        tree.effects.clear()

    tree.adopt({ROOT: Node(b"", perms, tree.next_ordinal())}, {})
    tree.space.items_bytes = -tree.bytes  # the root is there anyway
    tree.space.heap_bytes += NODE_HEAP
    while count < int(found[1]):
        add()
        count += 1
    with pytest.raises(Enospc):
        add()


def test_it_is_said_at_the_start(tmp_path: Path) -> None:
    """In one line, on Linux too."""
    one = Daemon(tmp_path)
    one.wait_until_listening()
    one.end()
    (line,) = [line for line in one.lines if "admits" in line]
    found = re.fullmatch(r"tardigrade: admits at most (\d+) nodes, .*: the region is the limit\n",
                         line)
    assert found is not None and 4000 < int(found[1]) < 6000, line
