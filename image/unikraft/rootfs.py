# SPDX-License-Identifier: Apache-2.0
"""The root file system of the Unikraft image: the server, what it imports of Python's standard
library, and start.py, all compiled.

    python3.10 -I -S -B rootfs.py ROOT SOURCES OUT

ROOT is this project, SOURCES has msgpack unpacked (../python/fetch.py). Makes OUT/rootfs/ (what
kraft packs) and OUT/rootfs.cpio (the same, for whoever has no kraft). It must be Python 3.10 that
runs this, since that is what lib-python3 is: bytecode, and the standard library, are its own.

R1. What is loaded after importing all of the server is what is packed: this file imports nothing
    else before that. Modules that the image does not have cannot be found here either (ABSENT);
    those which are compiled into it are empty here (BUILTIN).
R2. Compiled files are believed without a look at a source, which is not there. Asserts are on.
R3. The same sources make the same bytes.
Knows nothing of Unikraft. Change with: main.c, which says where things are."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

VERSION = (3, 10)
ROOMS = ("app", "persist", "ring")
PROGRAM = "app.__main__"
ABSENT = ("resource", "_ctypes", "termios", "_posixsubprocess", "grp", "_bz2", "_lzma",
          "_hashlib", "_ssl", "_uuid", "_decimal", "_curses", "readline", "_crypt")
BUILTIN = ("_unikraft", "_drill", "mmh3", "msgpack._cmsgpack")
DOTTED = "../python/dotted.py"  # stands for a built-in module inside a package
LATER = ("encodings.ascii", "encodings.latin_1", "encodings.utf_8", "faulthandler", "traceback",
         "warnings", "runpy", "locale", "shutil", "linecache", "tokenize")
OURS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "library")
LIBRARY = "lib/python"  # in the image
SERVER = "server"


class Anything:
    """Has every attribute, and can be called."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def __call__(self, *arguments: object, **options: object) -> Anything:
        return self

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def stub(name: str) -> ModuleType:
    """A module that has whatever is asked of it."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: Anything  # type: ignore[method-assign]
    return module


def load(root: str, packages: str) -> None:
    """Import all that the image will import (R1)."""
    sys.path[:] = [OURS, *(path for path in sys.path if "python3" in path), packages, root]
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in BUILTIN:
        sys.modules[name] = stub(name)
    for name in (PROGRAM, *LATER):
        importlib.import_module(name)
    for room in ROOMS:
        for file in sorted(os.listdir(os.path.join(root, room))):
            if file.endswith(".py") and file not in ("sim.py", "__main__.py"):
                importlib.import_module(f"{room}.{file[:-3]}".removesuffix(".__init__"))


def loaded(root: str, packages: str) -> dict[str, str]:
    """Path in the image -> source, of all modules that came from a file."""
    library = os.path.dirname(os.__file__)
    places = {OURS: LIBRARY, library: LIBRARY, packages: LIBRARY, root: SERVER}
    found = {}
    for module in list(sys.modules.values()):
        source = getattr(getattr(module, "__spec__", None), "origin", None) or ""
        if not source.endswith(".py"):
            continue
        home = max((place for place in places if source.startswith(place + os.sep)), key=len)
        found[f"{places[home]}/{os.path.relpath(source, home)}"] = source
    for room in ROOMS:
        found.setdefault(f"{SERVER}/{room}/__init__.py", os.path.join(root, room, "__init__.py"))
    return found


def compiled(source: str, name: str) -> bytes:
    """The bytecode of a file, which calls itself `name` in tracebacks (R2)."""
    import _imp
    import marshal
    from importlib.util import MAGIC_NUMBER

    with open(source, "rb") as file:
        text = file.read()
    code = compile(text, f"/{name}", "exec", dont_inherit=True, optimize=0)
    unchecked = (0b01).to_bytes(4, "little")
    checked: bytes = _imp.source_hash(0, text)
    return MAGIC_NUMBER + unchecked + checked + marshal.dumps(code)


def write(files: dict[str, bytes], out: str) -> None:
    """OUT/rootfs and OUT/rootfs.cpio."""
    import shutil

    tree = os.path.join(out, "rootfs")
    shutil.rmtree(tree, ignore_errors=True)
    for name, data in files.items():
        path = os.path.join(tree, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    with open(os.path.join(out, "rootfs.cpio"), "wb") as file:
        file.write(archive(files))


def archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive (newc), directories first."""
    import pack

    directories = sorted({name[:place] for name in files
                          for place, letter in enumerate(name) if letter == "/"})
    parts = []
    for inode, name in enumerate((*directories, *files), 1):
        mode, data = (0o100644, files[name]) if name in files else (0o040755, b"")
        parts.append(pack.entry(name.encode() + b"\0", inode, mode, data))
    parts.append(pack.entry(b"TRAILER!!!\0", 0, 0, b""))
    return b"".join(parts)


def main(root: str, sources: str, out: str) -> int:
    """Make it; returns the exit code."""
    if sys.version_info[:2] != VERSION:
        print("rootfs.py: it must be Python 3.10 that runs this, as it is in the image",
              file=sys.stderr)
        return 2
    packages = os.path.join(sources, "msgpack")
    load(root, packages)
    found = loaded(root, packages)
    here = os.path.dirname(os.path.abspath(__file__))
    for name in BUILTIN:
        if "." in name:
            found[f"{LIBRARY}/{name.replace('.', '/')}.py"] = os.path.join(here, DOTTED)
    files = {name + "c": compiled(source, name) for name, source in sorted(found.items())}
    with open(os.path.join(here, "start.py"), "rb") as file:
        files["start.py"] = file.read()
    sys.path.append(os.path.join(os.path.dirname(here), "python"))
    write(files, out)
    print(f"{len(files)} files, {sum(map(len, files.values())) >> 10} KiB in {out}/rootfs")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(os.path.abspath, sys.argv[1:])))
