# SPDX-License-Identifier: Apache-2.0
"""How people are told of changes: nodes, effects, differences, who has asked; and the same for
programs. One place for all commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.effects import Item
from app.path import Path
from app.tree import Node
from tools.dump.items import is_request, item_words
from tools.dump.past import SERVER_TYPE, Change, Past
from tools.dump.state import Difference
from tools.dump.text import operation, permissions, text, when


def node_text(path: Path, node: Node) -> str:
    """One node: path, value, permissions."""
    return f'{text(path)} = "{text(node.value)}" ({permissions(node)})'


def item_text(key: str, value: Item) -> str:
    """One item, in brackets: it is no node."""
    return f"[{key} = {item_words(key, value)}]"


def effect_texts(effects: Iterable[tuple[Any, Any]]) -> list[str]:
    """Effects as they were recorded, but for requests that go with their transaction."""
    return [_effect_text(key, value) for key, value in effects
            if value is not None or not is_request(key)]


def _effect_text(key: Path | str, value: Node | Item) -> str:
    if isinstance(key, str):
        assert not isinstance(value, Node)
        return item_text(key, value) if value is not None else f"[no {key}]"
    if not isinstance(value, Node):
        return f"rm {text(key)}"
    return node_text(key, value)


def difference_texts(one: Difference) -> list[str]:
    """One difference, as lines that begin with - and +."""
    lines = []
    for sign, value in (("-", one.before), ("+", one.after)):
        if isinstance(one.key, str):
            assert not isinstance(value, Node)
            lines += [f"{sign} {item_text(one.key, value)}"] if value is not None else []
        elif isinstance(value, Node):
            lines.append(f"{sign} {node_text(one.key, value)}")
    return lines


def patch_texts(differences: Iterable[Difference]) -> list[str]:
    """The differences of a change, as lines; but for requests that go with their transaction."""
    return [line for one in differences if one.after is not None or not is_request(one.key)
            for line in difference_texts(one)]


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
