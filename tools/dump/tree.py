# SPDX-License-Identifier: Apache-2.0
"""xsdump tree and diff: the state at one moment, and what differs between two."""

from __future__ import annotations

import argparse
from typing import Any

from app.effects import Item
from app.path import Path
from app.tree import Node
from persist.region import Medium
from tools.dump import moment
from tools.dump.arguments import clean_path
from tools.dump.changes import (
    concerns,
    difference_fields,
    difference_texts,
    item_text,
    node_fields,
    node_text,
)
from tools.dump.output import Output
from tools.dump.past import Past, read_past
from tools.dump.state import Difference
from tools.dump.text import text

EXIT_MISSING = 1
TREE_EXAMPLES = """examples:
  xsdump REGION tree /local/domain/7
  xsdump REGION tree --at crash:2 --items         what the store held when life 2 ended

"""
DIFF_EXAMPLES = """examples:
  xsdump REGION diff 30s /local/domain/7          what has become of a domain in half a minute
  xsdump REGION diff crash:2 life:4               what lies between two moments

"""


def add_arguments(commands: Any) -> None:
    """The commands' part of the command line."""
    tree = commands.add_parser(
        "tree", help="the nodes with values and permissions, now or at a moment",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=TREE_EXAMPLES + moment.WORDS)
    tree.add_argument("path", metavar="PATH", nargs="?", default="/", type=clean_path)
    tree.add_argument("--at", metavar="MOMENT", default="end")
    tree.add_argument("--items", action="store_true",
                      help="the server's own state, too: quotas, domains, watches")
    tree.set_defaults(command=show_tree)
    diff = commands.add_parser(
        "diff", help="what differs between two moments",
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=DIFF_EXAMPLES + moment.WORDS)
    diff.add_argument("before", metavar="A", help="a moment")
    diff.add_argument("after", metavar="B", nargs="?", default="end",
                      help="a later one (default: end)")
    diff.add_argument("paths", metavar="PATH", nargs="*", type=clean_path)
    diff.set_defaults(command=show_diff)


def show_tree(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print every node from PATH down."""
    past = moment.at(region, options.at)
    _say_if_incomplete(past, out)
    found = past.state.known_below(Path(options.path.encode()))
    for path in found:
        node = past.state.nodes[path]
        out.say(node_text(path, node), path=text(path), **(node_fields(node) or {}))
    if options.items:
        for key, value in sorted(past.state.items.items()):
            out.say(item_text(key, value), item=key, value=value)
    if found or options.path == "/":
        return 0
    out.note(f"{options.path}: there is no such node then")
    return EXIT_MISSING


def show_diff(region: Medium, options: argparse.Namespace, out: Output) -> int:
    """Print what was taken away (-) and what came (+)."""
    past = read_past(region)
    if options.after.startswith("/"):  # B was left out
        options.paths.insert(0, clean_path(options.after))
        options.after = "end"
    first, last = moment.find(past, options.before), moment.find(past, options.after)
    moment.go_to(past, first)
    _say_if_incomplete(past, out)
    nodes, items = dict(past.state.nodes), dict(past.state.items)
    moment.go_to(past, last)
    for one in _differences(nodes, items, past):
        if concerns([one], options.paths):
            lines = difference_texts(one)
            out.say("\n".join(out.paint("red" if line[0] == "-" else "green", line)
                              for line in lines), **difference_fields(one))
    return 0


def _differences(nodes: dict[Path, Node], items: dict[str, Item], past: Past) -> list[Difference]:
    found = []
    for path in sorted(nodes.keys() | past.state.nodes.keys()):
        before, after = nodes.get(path), past.state.nodes.get(path)
        if (_content(before), before and before.ordinal) != (
                _content(after), after and after.ordinal):
            found.append(Difference(path, before, after))
    for key in sorted(items.keys() | past.state.items.keys()):
        if items.get(key) != past.state.items.get(key):
            found.append(Difference(key, items.get(key), past.state.items.get(key)))
    return found


def _content(node: Node | None) -> tuple[bytes, bytes] | None:
    return (node.value, node.perms.wire) if node is not None else None


def _say_if_incomplete(past: Past, out: Output) -> None:
    if past.is_empty:
        out.note("nothing was recorded yet")
    elif not past.is_whole:
        out.say(out.paint("red", "(incomplete: a part of what this state rests on was cleaned "
                                 "away, or is damaged)"))
