# SPDX-License-Identifier: Apache-2.0
"""A Xen host's software from Debian 12: downloaded and extracted into the cache, never installed.

P1. The marker file is written last: what it marks is complete. The directory is named after the
    list of packages: another list is another directory.
P2. One process changes the cache at a time (tests.oracle.packages has the same rule, and the same
    cache directory).
Knows nothing of how a machine is made of it. Change with: image.py."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import sys
from pathlib import Path

from tests.oracle.packages import (
    XEN_VERSION,
    cache_dir,
    download,
    need_tools,
    run,
    run_checked,
)

ROOT = Path(__file__).resolve().parent.parent.parent
KERNEL_BY = "linux-image-amd64"  # depends on the package of today's kernel
PYTHON = "3.11"
PACKAGES = (
    f"xen-hypervisor-{XEN_VERSION}-amd64", f"xen-utils-{XEN_VERSION}", "xen-utils-common",
    "xenstore-utils", "libxencall1", "libxenevtchn1", "libxenforeignmemory1", "libxengnttab1",
    "libxenstore4", "libxentoollog1", "libxentoolcore1", "libxendevicemodel1", "libxenhypfs1",
    f"libxenmisc{XEN_VERSION}", "libyajl2", "libncurses6", "libtinfo6", "libnl-route-3-200",
    "libnl-3-200", "libuuid1", "libfdt1", "libaio1", "busybox-static", "bash", "util-linux",
    "libc6", "libgcc-s1", "zlib1g", "libbz2-1.0", "liblzma5", "libzstd1", "liblzo2-2", "libexpat1",
    "libssl3", "libffi8", f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
)
# msgpack and mmh3: Debian 12 has the one too old and the other not at all.
WHEELS = ("--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON,
          "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64",
          "--platform", "manylinux2014_x86_64")


def lab_dir() -> Path:
    """Where the lab keeps what it can make again."""
    return cache_dir() / "xen-lab"


def software_root() -> Path:
    """The root directory of the extracted packages, made if need be. Raises OracleError."""
    root = lab_dir() / f"root-{hashlib.sha256(repr(PACKAGES).encode()).hexdigest()[:12]}"
    if not (root / "complete").exists():
        lab_dir().mkdir(parents=True, exist_ok=True)
        with open(lab_dir() / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (root / "complete").exists():
                _install(root)
    return root


def _install(root: Path) -> None:
    """Download, extract, mark. The caller holds the lock."""
    need_tools("apt-get", "apt-cache", "dpkg")
    print(f"xen lab: downloading {len(PACKAGES) + 1} Debian packages into {lab_dir()}",
          file=sys.stderr, flush=True)
    downloads = lab_dir() / "debs"
    for directory in (root, downloads):
        shutil.rmtree(directory, ignore_errors=True)
    downloads.mkdir()
    download(downloads, _packages)
    for package in sorted(downloads.glob("*.deb")):
        run_checked(["dpkg", "-x", str(package), str(root)])
    run_checked([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                 *WHEELS, "--target", str(root / "wheels"), *_dependencies()])
    shutil.rmtree(downloads)
    compile_python(root, root / f"usr/lib/python{PYTHON}")
    compile_python(root, root / "wheels")
    (root / "complete").touch()


def compile_python(root: Path, directory: Path) -> None:
    """Compile what is in a directory for the interpreter in `root`, by that interpreter."""
    loader = next(root.glob("lib64/ld-linux-*"))
    libraries = [*root.glob("lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu")]
    run_checked(["env", f"PYTHONHOME={root / 'usr'}", str(loader),
                 "--library-path", ":".join(map(str, libraries)),
                 str(root / f"usr/bin/python{PYTHON}"), "-m", "compileall", "-q",
                 "--invalidation-mode", "unchecked-hash", str(directory)])


def _packages() -> list[str]:
    """All packages, the kernel that Debian means today among them."""
    depends = run(["apt-cache", "depends", KERNEL_BY])
    kernel = re.search(r"Depends: (linux-image-\S+)", depends.stdout)
    if kernel is None:
        raise LookupError(depends.stdout or f"Unable to locate package {KERNEL_BY}")
    return [kernel[1], *PACKAGES]


def _dependencies() -> list[str]:
    """What the server itself needs, as pyproject.toml says."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r"^dependencies = \[(.*?)\]", text, re.M | re.S)
    assert found is not None
    return re.findall(r'"([^"]+)"', found[1])
