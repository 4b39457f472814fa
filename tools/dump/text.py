# SPDX-License-Identifier: Apache-2.0
"""How people are told of bytes, permissions, times, requests, damage: one place for all commands.

Knows nothing of regions, records and changes (changes.py)."""

from __future__ import annotations

import re
import time

from app import codec, wire
from app.seal import perms_text
from app.tree import Node

SHOWN = 80  # bytes of a request

_is_plain = re.compile(rb"[ !#-\[\]-~]*").fullmatch  # what most paths and values are made of


def text(data: bytes) -> str:
    """Bytes as C xenstore prints them: printable ASCII, the rest as \\xNN."""
    if _is_plain(data):
        return data.decode()
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'\\"' else f"\\x{byte:02x}"
                   for byte in data)


def printable(line: str) -> str:
    """Text of others, on a terminal."""
    return "".join(char if char.isprintable() else "?" for char in line)


def when(time_us: int) -> str:
    """Local time, to the millisecond."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_us // 1_000_000))
    return f"{stamp}.{time_us % 1_000_000 // 1000:03}"


def permissions(node: Node) -> str:
    """A node's permissions: n0,r5."""
    return text(perms_text(node.perms.wire))


def damage_text(position: int, size: int, reason: str) -> str:
    """Bytes of the log that do not verify."""
    return f"position {position:#x}, {size} bytes: {printable(reason)}"


def operation(type_: int) -> str:
    """The request's name in the protocol; `server` where nobody has asked."""
    return "server" if type_ == codec.START.type else wire.TYPE_NAMES.get(type_, str(type_))


def request_words(type_: int, payload: bytes) -> str:
    """A request, its parts apart by blanks; the beginning of a long one."""
    return f"{operation(type_)} {text(payload.rstrip(bytes(1)).replace(bytes(1), b' ')[:SHOWN])}"
