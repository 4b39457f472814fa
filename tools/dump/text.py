# SPDX-License-Identifier: Apache-2.0
"""How people are told: values, permissions, times, who has asked; and the same for programs. One
place for all commands."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from app import wire
from app.effects import Item
from app.path import Path
from app.seal import perms_text
from app.tree import Node
from tools.dump.past import SERVER_TYPE, Change, Past
from tools.dump.state import Difference

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


def difference_texts(one: Difference) -> list[str]:
    """One difference, as lines that begin with - and +."""
    lines = []
    for sign, value in (("-", one.before), ("+", one.after)):
        if isinstance(one.key, str):
            lines += [f"{sign} [{one.key} = {value!r}]"] if value is not None else []
        elif isinstance(value, Node):
            lines.append(f"{sign} {node_text(one.key, value)}")
    return lines


def difference_fields(one: Difference) -> dict[str, Any]:
    """The same for programs."""
    if isinstance(one.key, str):
        return {"item": one.key, "before": one.before, "after": one.after}
    return {"path": text(one.key), "before": node_fields(one.before),
            "after": node_fields(one.after)}


def node_fields(node: Node | Item) -> dict[str, Any] | None:
    """A node for programs; None if there is none."""
    if not isinstance(node, Node):
        return None
    return {"value": node.value, "permissions": permissions(node)}


def saved_text(past: Past) -> str:
    """Of a damaged region, what restore would save; `past` is at its end."""
    nodes, lost = len(past.state.nodes), past.state.orphans()
    if past.is_whole:
        return f"all {nodes} nodes: the digest proves that nothing is missing (xsdump restore)"
    above = f"; {len(lost)} above others are lost, the first is {text(min(lost))}" if lost else ""
    return f"{nodes} nodes, but not all that there was{above} (xsdump restore)"


def operation(type_: int) -> str:
    """The request's name in the protocol."""
    return "server" if type_ == SERVER_TYPE else wire.TYPE_NAMES.get(type_, str(type_))


def asker(change: Change) -> str:
    """Who has asked for a change."""
    if change.type == SERVER_TYPE:
        return "server"
    who = f"dom{change.domid} conn {change.conn_id}"
    return f"{who} pid {change.pid}" if change.pid else who


def head(change: Change) -> str:
    """Record, time, who, what: how a line about a change begins."""
    number = str(change.sequence) + (f".{change.step}" if change.steps > 1 else "")
    what = "" if change.type == SERVER_TYPE else operation(change.type)
    return f"{number:>8} {when(change.time_us)} {asker(change)} {what}".rstrip()


def change_fields(change: Change) -> dict[str, Any]:
    """A change for programs."""
    return {"event": "change", "sequence": change.sequence, "step": change.step,
            "time_us": change.time_us, "life": change.life, "domid": change.domid,
            "connection": change.conn_id, "pid": change.pid,
            "operation": operation(change.type), "req_id": change.req_id,
            "differences": [difference_fields(one) for one in change.differences]}


def concerns(differences: Iterable[Difference], wanted: list[str]) -> bool:
    """Whether anything is at or below a wanted path, or an item that begins with a wanted word. No
    wish is fulfilled by everything."""
    return not wanted or any(is_wanted(one.key, wanted) for one in differences)


def is_wanted(key: Path | str, wanted: list[str]) -> bool:
    """Whether a path or item is what somebody asked for."""
    if isinstance(key, str):
        return any(key == word or key.startswith(word + ".") for word in wanted)
    name = text(key)
    return any(word == "/" or name == word or name.startswith(word + "/") for word in wanted)
