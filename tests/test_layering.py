# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: arrows point down (DESIGN 3, STYLE 2.2), and a new edge fails here. The
core has no clock, no randomness, no environment, no input and output. Method: the imports of every
file, from its syntax tree, those for type checking included, against the table below.

Cannot show: what is imported by a computed name, and what a package does behind its import."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = {f"app.{name}" for name in [
    "errors", "effects", "wire", "path", "perms", "items", "quota", "tree", "client", "watch",
    "transaction", "ops", "domain", "control", "host", "store",
    "isolation", "args", "domain_ops", "fairness", "quarantine"]}
STORES = {f"app.{name}" for name in ["codec", "replay", "seal", "streams", "journal"]}
EDGES = {f"app.{name}" for name in [
    "serve", "execute", "rings", "guests", "intents", "lastwords", "sockets", "services", "boot",
    "mux", "lines", "channel", "drill", "limits", "snapshot", "death",
    "__main__"]}
STDLIB = set(sys.stdlib_module_names) | {"__future__"}
# Of the standard library the core takes what computes, and nothing else.
PURE = {"__future__", "array", "collections", "collections.abc", "functools", "hashlib", "re",
        "struct", "typing", "enum", "itertools", "dataclasses", "operator", "bisect", "math"}
OUTSIDE = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}  # builtins


def files_of(room: str) -> list[Path]:
    """The Python files of a room."""
    return sorted((ROOT / room).rglob("*.py"))


def name_of(file: Path) -> str:
    """The module's dotted name."""
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    """Whether there is such a file here."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports_of(tree: ast.AST) -> set[str]:
    """The modules that a file imports: `from app import wire` is app.wire."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                found.add(inner if is_module(inner) else module)
    return found


def runs_at_import(tree: ast.Module) -> ast.Module:
    """The file without what is under `if TYPE_CHECKING`."""
    body = [node for node in tree.body
            if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name)
                    and node.test.id == "TYPE_CHECKING")]
    return ast.Module(body, [])


def top(name: str) -> str:
    """'app' of 'app.wire'."""
    return name.partition(".")[0]


def is_allowed(importer: str, imported: str) -> bool:
    """The table of edges."""
    room = top(importer)
    if top(imported) in ("tests", "tools") and room != top(imported):
        return False  # nothing imports them
    if importer in CORE:
        return imported in CORE or imported in PURE
    if importer in STORES:
        return (imported in CORE | STORES or top(imported) in ("persist", "msgpack", "mmh3")
                or top(imported) in STDLIB)
    if room == "persist":
        return top(imported) in {"persist", "mmh3"} | STDLIB
    if room == "ring":
        return top(imported) in {"ring", "_unikraft"} | STDLIB  # the latter: image/unikraft
    if importer == "app":
        return False
    return importer in EDGES or room == "tools"


MODULES = [file for room in ("app", "persist", "ring", "tools") for file in files_of(room)]


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_no_new_edge(file: Path) -> None:
    importer = name_of(file)
    for imported in sorted(imports_of(ast.parse(file.read_text("utf-8")))):
        assert is_allowed(importer, imported), (
            f"{importer} imports {imported}: a new edge. DESIGN 3 and STYLE 2.2 say what may be "
            "imported; tests/test_layering.py is the table")


def test_every_file_of_app_has_its_place() -> None:
    """A new file has to be put into a layer, which is the moment to think about it."""
    names = {name_of(file) for file in files_of("app")} - {"app"}
    assert names == CORE | STORES | EDGES


@pytest.mark.parametrize("room", ["app", "persist", "ring"])
def test_no_cycles(room: str) -> None:
    """At run time; for the type checker alone the core may name each other's types."""
    edges = {name_of(file): {one for one in imports_of(runs_at_import(ast.parse(
        file.read_text("utf-8")))) if top(one) == room} for file in files_of(room)}
    left = dict(edges)
    while True:
        leaves = {name for name, imported in left.items() if not imported & left.keys() - {room}}
        if not leaves:
            break
        left = {name: imported for name, imported in left.items() if name not in leaves}
    assert not left, f"these import each other in a circle: {sorted(left)}"


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_reaches_for_nothing_outside(name: str) -> None:
    """No file, terminal or computed code by way of a builtin."""
    tree = ast.parse((ROOT / (name.replace(".", "/") + ".py")).read_text("utf-8"))
    called = {node.func.id for node in ast.walk(tree)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & OUTSIDE


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_keeps_no_hidden_state(name: str) -> None:
    """No `global`, and no list, set or dict at module level that is filled later: what a function
    of the core knows was passed in. Tables of constants are upper-case and never changed."""
    tree = ast.parse((ROOT / (name.replace(".", "/") + ".py")).read_text("utf-8"))
    assert not any(isinstance(node, (ast.Global, ast.Nonlocal)) for node in ast.walk(tree))
    tables = {target.id for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))
              for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
              if isinstance(target, ast.Name)
              and isinstance(node.value, (ast.Dict, ast.List, ast.Set, ast.DictComp,
                                          ast.ListComp, ast.SetComp))}
    assert all(table.upper() == table for table in tables), tables
    for node in ast.walk(tree):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.value, ast.Name):
            is_change = isinstance(node.ctx, (ast.Store, ast.Del)) or (
                isinstance(node, ast.Attribute)
                and node.attr in ("append", "add", "update", "pop", "clear", "setdefault", "insert",
                                  "remove", "discard", "extend", "popitem"))
            assert not (is_change and node.value.id in tables), f"{node.value.id} is changed"


# -- the check itself


@pytest.mark.parametrize("importer, imported, allowed", [
    ("app.store", "app.ops", True), ("app.store", "typing", True), ("app.store", "time", False),
    ("app.store", "random", False), ("app.store", "os", False), ("app.host", "os", False),
    ("app.host", "socket", False), ("app.tree", "app.journal", False),
    ("app.tree", "msgpack", False), ("app.ops", "app.serve", False),
    ("app.journal", "app.store", True), ("app.journal", "persist.log", True),
    ("app.journal", "msgpack", True), ("app.journal", "app.serve", False),
    ("app.journal", "tools.xsdump", False), ("app.codec", "app.sockets", False),
    ("persist.log", "persist.region", True), ("persist.log", "mmh3", True),
    ("persist.log", "app.wire", False), ("persist.log", "msgpack", False),
    ("persist.log", "ring.page", False), ("ring.page", "persist.log", False),
    ("ring.page", "struct", True), ("ring.page", "app.wire", False),
    ("app.serve", "select", True), ("app.serve", "ring.page", True),
    ("app.serve", "tests.model", False), ("app.serve", "tools.xsdump", False),
    ("tools.xsdump", "persist.log", True), ("tools.xsdump", "tools.other", True),
    ("tools.xsdump", "tests.model", False), ("app.unknown", "typing", False),
])
def test_the_table(importer: str, imported: str, allowed: bool) -> None:
    assert is_allowed(importer, imported) is allowed


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse("import os.path, time as t\nfrom app import wire, path as p\n"
                     "from app.tree import Node\n"
                     "def f():\n    from random import choice\n    import app.store\n"
                     "if TYPE_CHECKING:\n    from app.client import Client\n")
    assert imports_of(tree) == {"os.path", "time", "app.wire", "app.path", "app.tree", "random",
                                "app.store", "app.client"}
    assert "app.client" not in imports_of(runs_at_import(tree))
