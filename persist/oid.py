# SPDX-License-Identifier: Apache-2.0
"""Git objects <-> their ids (SHA-1), as git computes them. Pure.

O1. A tree's entries are sorted as git sorts them: bytewise, directories as if they ended in '/'.
O2. Modes are written without leading zeros: 40000 for a tree, 100644 for a blob.
Source: git's own format documents, checked by a test against the git program. Knows no xenstore."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1
from typing import NamedTuple

OID_SIZE = 20
BLOB_MODE = b"100644"
TREE_MODE = b"40000"


class Entry(NamedTuple):
    """One entry of a tree: mode as git writes it, name without '/', binary oid."""

    mode: bytes
    name: bytes
    oid: bytes


def object_id(kind: bytes, body: bytes) -> bytes:
    """The binary oid of an object of `kind` (blob, tree, commit) with content `body`."""
    return sha1(b"%b %d\0%b" % (kind, len(body), body), usedforsecurity=False).digest()


def blob_id(body: bytes) -> bytes:
    """The binary oid of a blob."""
    return object_id(b"blob", body)


def sort_key(entry: Entry) -> bytes:
    """Where git puts an entry in its tree."""
    return entry.name + b"/" if entry.mode == TREE_MODE else entry.name


def tree_body(entries: Iterable[Entry]) -> bytes:
    """The content of a tree object; `entries` in any order, names unique."""
    return b"".join(b"%b %b\0%b" % entry for entry in sorted(entries, key=sort_key))


def tree_id(entries: Iterable[Entry]) -> bytes:
    """The binary oid of a tree."""
    return object_id(b"tree", tree_body(entries))


def commit_body(tree: bytes, parent: bytes | None, who: str, time_s: int, message: str) -> bytes:
    """The content of a commit object. `who` is "name <mail>", times are UTC."""
    lines = [f"tree {tree.hex()}"]
    if parent is not None:
        lines.append(f"parent {parent.hex()}")
    lines += [f"author {who} {time_s} +0000", f"committer {who} {time_s} +0000", "", message]
    return "\n".join(lines).encode()


def commit_id(tree: bytes, parent: bytes | None, who: str, time_s: int, message: str) -> bytes:
    """The binary oid of a commit."""
    return object_id(b"commit", commit_body(tree, parent, who, time_s, message))
