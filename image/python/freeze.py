# SPDX-License-Identifier: Apache-2.0
"""Modules to bytes and tables: frozen.bin, the code, and frozen.c, what the interpreter is told.

    PYTHONHASHSEED=0 python3.11 -s -S -P -B freeze.py CLOSURE DIRECTORY

Z1. The interpreter that compiles here is the one that is linked: another version is a compile-time
    error of frozen.c.
Z2. Asserts stay on (optimize=0). Docstrings are left out: nobody reads them there, and they cost
    memory twice, in the program and in its snapshot.
Z3. The same sources make the same bytes: fixed order, a fresh process, no path of this machine;
    a file is called <frozen NAME>.
Knows nothing of why a module is in. Change with: closure.py, main.c, dotted.py."""

from __future__ import annotations

import ast
import marshal
import sys
from pathlib import Path
from typing import NamedTuple

ALIGNMENT = 16
HAVE_DOCSTRINGS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
DOTTED = Path(__file__).resolve().with_name("dotted.py")
# Built-in modules whose function for the table is not PyInit_NAME. The first two have none: the
# interpreter makes them before it looks at the table.
INITS = {"builtins": "NULL", "sys": "NULL",
         "_warnings": "_PyWarnings_Init", "marshal": "PyMarshal_Init"}


class Frozen(NamedTuple):
    """A module to be frozen."""

    name: str
    file: Path
    is_package: bool


def read_closure(text: str) -> tuple[list[Frozen], list[str]]:
    """What to freeze, and the built-in modules."""
    modules, builtins = [], []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        name, _, file = rest.partition(" ")
        if kind in ("module", "package"):
            modules.append(Frozen(name, Path(file), kind == "package"))
        elif kind == "builtin":
            builtins.append(name)
            if "." in name:
                modules.append(Frozen(name, DOTTED, False))
    return sorted(modules), sorted(builtins)


def code_of(module: Frozen) -> bytes:
    """The compiled module."""
    tree = ast.parse(module.file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, HAVE_DOCSTRINGS) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.copy_location(ast.Pass(), node.body[0])]
    code = compile(tree, f"<frozen {module.name}>", "exec", dont_inherit=True, optimize=0)
    return marshal.dumps(code)


def init_of(builtin: str) -> str:
    """The C function that makes a built-in module."""
    return INITS.get(builtin, "PyInit_" + builtin.rpartition(".")[2])


def tables(modules: list[tuple[Frozen, int, int]], builtins: list[str]) -> str:
    """frozen.c. Modules come with offset and size of their code."""
    frozen = [f'    {{"{name}", frozen_code + {offset}, {size}, {int(is_package)}, NULL}},'
              for (name, _, is_package), offset, size in modules]
    inits = [init for init in map(init_of, builtins) if init != "NULL"]
    return "\n".join([
        "/* Made by freeze.py: the frozen modules and the built-in ones. */",
        "#include <Python.h>", "",
        f"_Static_assert(PY_VERSION_HEX == {sys.hexversion:#010x},",
        f'               "frozen by Python {sys.version.split()[0]}, which libpython is not");', "",
        'extern const unsigned char frozen_code[] __attribute__((visibility("hidden")));',
        '__asm__(".section .rodata\\n\\t"',
        f'        ".balign {ALIGNMENT}\\n"',
        '        "frozen_code: .incbin \\"frozen.bin\\"\\n\\t"',
        '        ".previous");', "",
        "const struct _frozen image_frozen[] = {", *frozen, "    {0}", "};", "",
        *[f"extern PyObject *{init}(void);" for init in inits], "",
        "/* Takes the place of libpython's own table, and so of the modules that are not in it. */",
        "struct _inittab _PyImport_Inittab[] = {",
        *[f'    {{"{name}", {init_of(name)}}},' for name in builtins], "    {0}", "};", ""])


def main(closure: str, directory: str) -> int:
    """Read the closure, write both files."""
    modules, builtins = read_closure(Path(closure).read_text("utf-8"))
    blob = bytearray()
    placed = []
    for module in modules:
        code = code_of(module)
        placed.append((module, len(blob), len(code)))
        blob += code + bytes(-len(code) % ALIGNMENT)
    (Path(directory) / "frozen.bin").write_bytes(blob)
    (Path(directory) / "frozen.c").write_text(tables(placed, builtins), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
