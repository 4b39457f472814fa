# SPDX-License-Identifier: Apache-2.0
"""Changes -> commands of git fast-import. Pure.

G1. A node is where FORMAT.md section 7 puts it; git then computes the ids that the log has sealed.
G2. What is said is absolute, as effects are: a file that is said again, or removed without being
    there, does no harm. So an archive that knows more than the walk beside it stays right.
Source: git's fast-import documentation. Knows nothing of repositories, and of what people read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from app import path as paths
from app.effects import Item
from app.items import group_of
from app.journal import SEAL_AUTHOR
from app.path import ROOT, Path
from app.seal import NAME_MAX, entry_name, item_text, perms_text
from app.tree import Node
from tools.dump.state import Difference, State

SERVER = SEAL_AUTHOR.encode()
TIP = b":1"  # the mark of the newest commit of main
SEAL = b":2"  # of the newest seal
SEALED = b":3"  # and of the commit of main that it is about
DEAD = b":4"  # of the last commit of a life that has crashed


def identity(domid: int) -> bytes:
    """A domain as an author."""
    return b"domain %d <domain-%d@xenstore>" % (domid, domid)


def data(content: bytes) -> bytes:
    """A counted string."""
    return b"data %d\n%b\n" % (len(content), content)


def commit(ref: bytes, mark: bytes, who: tuple[bytes, bytes], time_s: int, message: bytes,
           files: bytes, parent: bytes = b"") -> bytes:
    """One commit on `ref`. `who`: author and committer. `parent`: a mark or id; only where it is
    not the commit that this process has put on `ref` last."""
    author, committer = who
    return (b"commit %b\nmark %b\nauthor %b %d +0000\ncommitter %b %d +0000\n" % (
        ref, mark, author, time_s, committer, time_s) + data(message)
        + (b"from %b\n" % parent if parent else b"") + files + b"\n")


def tag(name: str, target: bytes, time_s: int, message: bytes) -> bytes:
    """An annotated tag; one of that name is replaced."""
    return b"tag %b\nfrom %b\ntagger %b %d +0000\n" % (name.encode(), target, SERVER, time_s) \
        + data(message)


def alias(mark: bytes, target: bytes) -> bytes:
    """`mark` now is `target`, whatever that will be later."""
    return b"alias\nmark %b\nto %b\n\n" % (mark, target)


def reset(ref: str, target: bytes) -> bytes:
    """`ref` now is `target`."""
    return b"reset %b\nfrom %b\n\n" % (ref.encode(), target)


def root_is(tree: bytes) -> bytes:
    """Instead of single files: a tree that is there already."""
    return b'M 040000 %b ""\n' % tree.hex().encode()


def changed(effects: Iterable[tuple[Any, Any]], differences: Sequence[Difference],
            is_in_step: bool) -> bytes:
    """The files that a step makes, changes and removes. `is_in_step`: what the differences name as
    the state before is exactly what git has."""
    said: list[bytes] = []
    at = 0  # in the differences, which come in the order of the effects
    for key, value in effects:
        if isinstance(key, str):
            said.append(_item(key, value))
            at += 1
        elif value is None:
            said.append(b"D %b\n" % directory(key))
            while at < len(differences) and _is_cut(differences[at], key):
                at += 1
        else:
            if differences[at].after is None:  # another ordinal: a removal that was not recorded
                said.append(b"D %b\n" % directory(key))
                while differences[at].after is None:
                    at += 1
            before = differences[at].before
            said.append(_node(key, value, before if is_in_step and isinstance(before, Node)
                              else None))
            at += 1
    return b"".join(said)


def effects_of(differences: Iterable[Difference]) -> list[tuple[Any, Any]]:
    """The effects that make these differences, where none were recorded."""
    return [(one.key, one.after) for one in differences if one.after is not None]


def everything(state: State) -> bytes:
    """Instead of whatever git has: all of `state`."""
    said = [b"deleteall\n"]
    said += [_node(path, node, None) for path, node in state.nodes.items()]
    said += [_item(key, value) for key, value in state.items.items()]
    return b"".join(said)


@lru_cache(maxsize=4096)
def directory(path: Path) -> bytes:
    """Where git has a node."""
    if path == ROOT:
        return b""
    if len(path) <= NAME_MAX:
        return path[1:]
    return b"/".join([entry_name(name) for name in path[1:].split(b"/")])


def _node(path: Path, node: Node, before: Node | None) -> bytes:
    place = directory(path) + b"/" if path != ROOT else b""
    said = b""
    if before is None or before.perms is not node.perms:
        said = b"M 100644 inline %b.p\n%b" % (place, data(perms_text(node.perms.wire)))
    if before is None and path != ROOT and len(paths.name(path)) > NAME_MAX:
        said += b"M 100644 inline %b.n\n%b" % (place, data(paths.name(path)))
    if not node.value:
        if before is None or before.value:
            said += b"D %b.v\n" % place
    elif before is None or before.value != node.value:
        said += b"M 100644 inline %b.v\n%b" % (place, data(node.value))
    return said


def _item(key: str, value: Item) -> bytes:
    kind, number = group_of(key)
    place = "/".join(filter(None, (".xs", kind, number, key))).encode()
    if value is None:
        return b"D %b\n" % place
    return b"M 100644 inline %b\n%b" % (place, data(item_text(value)))


def _is_cut(one: Difference, path: Path) -> bool:
    """Whether `one` says that `path` or something below it has gone."""
    return one.after is None and isinstance(one.key, bytes) and (
        one.key == path or path == ROOT or one.key.startswith(path + b"/"))
