# SPDX-License-Identifier: Apache-2.0
"""What QEMU boots: hypervisor, dom0's kernel, and dom0's root file system in two parts, Debian's
and ours.

I1. What is made of Debian's packages alone is kept in the cache, under a name that says of what;
    ours is made for each run.
I2. Kernels are unpacked and Python is compiled here, by Debian's interpreter: the emulated machine
    takes forty times as long for anything. Compiled files are not compared with their sources.
Knows nothing of scenarios. Change with: packages.py, dom0/init."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.oracle.packages import XEN_VERSION, OracleError, compile_c
from tests.xen.cpio import Archive
from tests.xen.packages import ROOT, compile_python, lab_dir, software_root

HERE = Path(__file__).resolve().parent
ROOMS = ("app", "persist", "ring", "tools")
STUB_DIR = ROOT / "build/image"
STUB_FILES = ("kernel.elf", "kernel-pv.elf", "initrd.cpio")
MODULES = ("xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs",
           "xen-blkback", "xen-netback", "brd")  # dom0's; dom0/init loads the first five
GUEST_MODULES = ("xen-blkfront", "xen-netfront")
UNUSED = ("boot", "lib/modules", "usr/include", "usr/share", "usr/lib/*/gconv", "wheels",
          "usr/lib/python3.*/test", "usr/lib/python3.*/idlelib", "usr/lib/python3.*/lib2to3",
          "usr/lib/*/perl*", "complete")
SETUP_SECTORS = 0x1F1  # of a bzImage: linux/Documentation/x86/boot.rst
PAYLOAD = 0x248  # its offset from the protected-mode code, and its length
XZ_MAGIC = b"\xfd7zXZ\0"


class Image(NamedTuple):
    """Files to be booted. `initrd`: Debian's part; ours is appended to it for a run."""

    xen: Path
    kernel: Path
    initrd: Path


def build() -> Image:
    """Everything but our part; what is in the cache is kept. Raises OracleError."""
    root = software_root()
    return Image(
        _kept("xen", [root / f"boot/xen-{XEN_VERSION}-amd64.gz"], _unpack_xen),
        _kept("vmlinux", [_only(root, "boot/vmlinuz-*")], _unpack_kernel),
        _kept("dom0-cpio", [root, Path(__file__)], _pack_debian))


def write_initrd(image: Image, path: Path, files: Mapping[str, bytes]) -> None:
    """Dom0's root: Debian's part, the server's, the lab's, and `files`."""
    with open(path, "wb") as output:
        output.write(image.initrd.read_bytes())
        archive = Archive(output)
        _add_server(archive, path.with_name("server"))
        for source in sorted((HERE / "dom0").iterdir()):
            if source.name != "init":
                archive.copy(source, f"lab/{source.name}")
        archive.file("init", (HERE / "dom0/init").read_bytes(), 0o755)
        guest = compile_c("xen-guest", [HERE / "guest.c", HERE / "devices.c"], ["-static"])
        archive.copy(guest, "lab/traffic")
        archive.file("lab/guest.cpio", _root_of(guest))
        archive.copy(image.kernel, "lab/vmlinux")
        for name in STUB_FILES:
            if (STUB_DIR / name).exists():  # made by `make image`; a scenario that needs it says so
                archive.copy(STUB_DIR / name, f"lab/stub/{name}")
        for name, content in files.items():
            archive.file(name, content)
        archive.close()


def _add_server(archive: Archive, scratch: Path) -> None:
    """The server as it is now, compiled in a copy of it."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, scratch / room, ignore=shutil.ignore_patterns("__pycache__"))
    compile_python(software_root(), scratch)
    for source in sorted(scratch.rglob("*.py*")):
        archive.copy(source, Path("server") / source.relative_to(scratch))


def _root_of(program: Path) -> bytes:
    """A guest's root: one program, and its drivers."""
    output = io.BytesIO()
    archive = Archive(output)
    archive.file("init", program.read_bytes(), 0o755)
    for name in GUEST_MODULES:
        archive.copy(_module(software_root(), name), f"{name}.ko")
    archive.close()
    return output.getvalue()


def _kept(name: str, sources: list[Path], make: Callable[[Path, Path], None]) -> Path:
    """The cached result of make(sources[0], output)."""
    digest = hashlib.sha256()
    for source in sources:
        if source.is_dir():
            digest.update(f"{(source / 'complete').stat().st_mtime_ns}\n".encode())
        else:
            digest.update(source.read_bytes())
    output = lab_dir() / f"{name}-{digest.hexdigest()[:12]}"
    if not output.exists():
        temporary = output.with_name(f".{output.name}.{os.getpid()}")
        make(sources[0], temporary)
        os.replace(temporary, output)
    return output


def _only(root: Path, pattern: str) -> Path:
    """The one file that matches. Raises OracleError."""
    found = list(root.glob(pattern))
    if len(found) != 1:
        raise OracleError(f"{root}: {len(found)} files match {pattern}; remove {lab_dir()}")
    return found[0]


def _module(root: Path, name: str) -> Path:
    """A module of Debian's kernel."""
    return _only(root, f"lib/modules/*/kernel/drivers/**/{name}.ko")


def _unpack_xen(source: Path, output: Path) -> None:
    output.write_bytes(gzip.decompress(source.read_bytes()))


def _unpack_kernel(source: Path, output: Path) -> None:
    """The ELF file inside a bzImage."""
    data = source.read_bytes()
    offset, length = struct.unpack_from("<II", data, PAYLOAD)
    offset += (data[SETUP_SECTORS] + 1) * 512
    payload = data[offset:offset + length]
    if not payload.startswith(XZ_MAGIC):
        raise OracleError(f"{source}: its payload is not compressed by xz")
    output.write_bytes(lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload))


def _pack_debian(root: Path, output: Path) -> None:
    """Debian's part of dom0's root."""
    with open(output, "wb") as file:
        archive = Archive(file)
        unused = {path for pattern in UNUSED for path in root.glob(pattern)}
        for source in _walk(root, unused):
            archive.copy(source, source.relative_to(root))
        for source in _walk(root / "wheels", set()):
            archive.copy(source, Path("usr/lib/python3/dist-packages")
                         / source.relative_to(root / "wheels"))
        for name in MODULES:
            archive.copy(_module(root, name), f"lab/modules/{name}.ko")
        archive.close()


def _walk(directory: Path, unused: set[Path]) -> Iterator[Path]:
    """Files and links below `directory`, in a fixed order, without those in `unused`."""
    for path in sorted(directory.iterdir()):
        if path in unused:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path, unused)
        else:
            yield path
