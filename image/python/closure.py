# SPDX-License-Identifier: Apache-2.0
"""Which modules the image holds: what the server imports, asked of the interpreter itself.

    python3.11 -I -S -B closure.py ROOT EXTENSIONS     prints one line per module:

    builtin NAME         compiled in: goes into the table of built-in modules
    frozen NAME          Debian's libpython has it frozen already
    module NAME FILE     to be frozen
    package NAME FILE    to be frozen, a package
    absent NAME: WHY     ours, or imported by one of ours, and not to be had in the image

L1. This is an interpreter of its own, and this file imports nothing that the image would not have
    anyway: what is loaded at the end was asked for.
L2. What the image lacks is not to be found here either. There is no extension module but those in
    EXTENSIONS, which are linked from the same objects as the image.
L3. What the program begins with must be there. What else of our rooms wants a module that the
    image lacks is said to be absent, and left out.
Knows nothing of code. Cannot see what the standard library imports while it runs: LATER names it.
Change with: freeze.py, which reads the lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

ROOMS = ("app", "persist", "ring")
PROGRAM = "app.__main__"
EXTENSIONS = ("_drill", "mmap", "mmh3", "msgpack._cmsgpack")
ONLY_SYNTAX = 0x400  # ast.PyCF_ONLY_AST: importing ast would be seen (L1)
LATER = (
    "encodings.ascii", "encodings.latin_1", "encodings.utf_8",  # by bytes.decode(NAME)
    "faulthandler", "traceback", "warnings",  # by whoever dies or complains
    "runpy", "locale", "shutil",  # by argparse: when LANG is set, and for the width of a help
)


def our_modules(root: str) -> Iterator[tuple[str, str]]:
    """Name and file of every module of our rooms, in a fixed order."""
    for room in ROOMS:
        for directory, inner, files in os.walk(os.path.join(root, room)):
            inner.sort()
            for file in sorted(files):
                path = os.path.join(directory, file)
                stem, ending = os.path.splitext(os.path.relpath(path, root))
                if ending == ".py":
                    yield stem.replace(os.sep, ".").removesuffix(".__init__"), path


def imports_of(file: str) -> list[str]:
    """The modules that a file names in its imports, wherever they stand."""
    found: set[str] = set()
    with open(file, "rb") as source:
        waiting = [compile(source.read(), file, "exec", ONLY_SYNTAX)]
    while waiting:
        node = waiting.pop()
        if type(node).__name__ == "Import":
            found.update(alias.name for alias in node.names)
        elif type(node).__name__ == "ImportFrom":
            found.add(node.module)
        for field in node._fields:
            value = getattr(node, field, None)
            waiting += [one for one in (value if isinstance(value, list) else [value])
                        if hasattr(one, "_fields")]
    return sorted(found)


def absent(names: list[str]) -> dict[str, str]:
    """Import what can be imported; what cannot, for lack of which module. Raises what is our own
    mistake."""
    lacking = {}
    for name in names:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            lack = error.name or ""
            if lack.partition(".")[0] in ROOMS:
                raise
            lacking[name] = lack
    return lacking


def line_of(name: str, module: ModuleType) -> str | None:
    """What is said of a loaded module; None for what is no module of its own."""
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.name != name:  # __main__; os.path and the like: other names
        return None
    if name in EXTENSIONS or spec.origin == "built-in":
        return f"builtin {name}"
    if spec.origin == "frozen":
        return f"frozen {name}"
    assert spec.origin is not None and spec.origin.endswith(".py"), spec
    kind = "module" if spec.submodule_search_locations is None else "package"
    return f"{kind} {name} {spec.origin}"


def main(root: str, extensions: str) -> int:
    """Import everything, then tell."""
    library = os.path.dirname(os.__file__)
    sys.path[:] = [library, extensions, root]
    lacking = absent([PROGRAM, *EXTENSIONS, *LATER])
    if lacking:
        for name, lack in lacking.items():
            print(f"{name} cannot be imported in the image, which has no module {lack}",
                  file=sys.stderr)
        return 1
    ours = list(our_modules(root))
    imported = {name for _, file in ours for name in imports_of(file)}
    lacking = absent([name for name, _ in ours] + sorted(imported))
    lines = [line_of(name, module) for name, module in list(sys.modules.items())]
    lines += [f"absent {name}: no module {lack}" for name, lack in lacking.items()]
    print(*sorted(line for line in lines if line is not None), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
