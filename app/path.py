# SPDX-License-Identifier: Apache-2.0
"""Text of a client -> canonical path. No unchecked path passes beyond this file.

P1. A Path is absolute, canonical and legal: '/' or ('/' name)+ with names of A-Za-z0-9-/_@.
P2. The length limit counts after stripping '/local/domain/N/', so that a path which could be
    made can be named by anyone, however many digits the domid has (XSA-323).
P3. Special paths start with '@' and are no nodes; they are told apart here, once.
Knows nothing of trees and permissions."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NewType

from app.errors import Einval

Path = NewType("Path", bytes)

ROOT = Path(b"/")
DOMAINS = b"/local/domain"
INTRODUCE_DOMAIN = Path(b"@introduceDomain")
RELEASE_DOMAIN = Path(b"@releaseDomain")
SPECIALS = (INTRODUCE_DOMAIN, RELEASE_DOMAIN)
ABSOLUTE_MAX = 3072  # of the protocol; only the unprivileged are held to a smaller quota

_legal = re.compile(rb"/|(?:/[-A-Za-z0-9_@]+)+").fullmatch
_domain_prefix = re.compile(rb"/local/domain/[0-9]+/").match


def home(domid: int) -> bytes:
    """The directory that a domain's relative paths start from."""
    return b"%b/%d" % (DOMAINS, domid)


@lru_cache(maxsize=4096)
def parse(text: bytes, base: bytes) -> Path:
    """The canonical node path of `text`, relative to `base`. Raises Einval for anything else."""
    path = text if text.startswith(b"/") else b"%b/%b" % (base, text)
    if text.startswith(b"@") or not _legal(path):
        raise Einval
    return Path(path)


def parse_watch(text: bytes, base: bytes) -> tuple[Path, int]:
    """The canonical path or special path of a watch, and how many leading bytes of it an event
    leaves out (0 unless `text` is relative). Raises Einval."""
    if text.startswith(b"@"):
        return Path(text), 0  # whatever follows: C lets it be watched, it just never fires
    path = parse(text, base)
    return path, 0 if text.startswith(b"/") else len(base) + 1


def quota_length(path: Path) -> int:
    """The length that the path-max quota counts (P2)."""
    prefix = _domain_prefix(path)
    return len(path) - (prefix.end() if prefix else 0)


def parent(path: Path) -> Path:
    """The parent of a path other than the root."""
    return Path(path[:path.rfind(b"/")] or b"/")


def name(path: Path) -> bytes:
    """The last component."""
    return path[path.rfind(b"/") + 1:]


def child(path: Path, last: bytes) -> Path:
    """The path of the child `last`."""
    return Path(path + last if path == b"/" else path + b"/" + last)


def is_special(path: Path) -> bool:
    """Whether this is a special path, or one below it such as @releaseDomain/5."""
    return path.startswith(b"@")
