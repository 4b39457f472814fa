# SPDX-License-Identifier: Apache-2.0
"""How people are told: values, permissions, times, who has asked. One place for all commands."""

from __future__ import annotations

import time

from app import wire
from app.effects import Item
from app.path import Path
from app.seal import perms_text
from app.tree import Node
from tools.dump.past import SERVER_TYPE, Change


def text(data: bytes) -> str:
    """Bytes as C xenstore prints them: printable ASCII, the rest as \\xNN."""
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


def node_text(path: Path, node: Node) -> str:
    """One node: path, value, permissions."""
    return f'{text(path)} = "{text(node.value)}" ({permissions(node)})'


def effect_text(key: Path | str, value: Node | Item) -> str:
    """One effect, as it was recorded."""
    if isinstance(key, str):
        return f"[{key} = {value!r}]" if value is not None else f"[no {key}]"
    if not isinstance(value, Node):
        return f"rm {text(key)}"
    return node_text(key, value)


def operation(type_: int) -> str:
    """The request's name in the protocol."""
    return "server" if type_ == SERVER_TYPE else wire.TYPE_NAMES.get(type_, str(type_))


def asker(change: Change) -> str:
    """Who has asked for a change."""
    if change.type == SERVER_TYPE:
        return "server"
    who = f"dom{change.domid} conn {change.conn_id}"
    return f"{who} pid {change.pid}" if change.pid else who
