# SPDX-License-Identifier: Apache-2.0
"""Debian's Xen programs, downloaded and extracted, never installed; and what is compiled beside
them.

D1. The marker file is written last: what it marks is complete.
D2. One process changes the cache at a time (a lock file); what is there already needs no lock.
D3. A compiled file is named after the content of its sources: two checkouts share one cache and
    never get each other's.
Knows nothing of how the programs are run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

XEN_VERSION = "4.17"
PACKAGES = (
    f"xen-utils-{XEN_VERSION}", "xen-utils-common", "xenstore-utils", "libxen-dev",
    "libxenstore4", f"libxenmisc{XEN_VERSION}", "libxenevtchn1", "libxengnttab1",
    "libxencall1", "libxenforeignmemory1", "libxentoollog1", "libxentoolcore1",
    "libxendevicemodel1", "libxenhypfs1", "libyajl2", "libfdt1",
)
PROGRAMS_CHECKED = ("xenstored", "oxenstored", "test-xenstore", "xenstore-ls", "xenstore-control")
PROGRAM_DIRECTORIES = (f"usr/lib/xen-{XEN_VERSION}/bin", "usr/sbin", "usr/bin")
SHIM_SOURCE = Path(__file__).resolve().parent / "simxen.c"

# What apt-get says when its lists are missing, or older than the archive.
LISTS_NEEDED = re.compile(r"Unable to locate package|no installation candidate|404 +Not Found"
                          r"|No packages found|Can't find a source|Can't select candidate")


class OracleError(Exception):
    """Something the user has to fix; the text says what."""


def cache_dir() -> Path:
    """Where packages are extracted and programs compiled to."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "xenstore-oracle"


def package_root() -> Path:
    """The root directory of the extracted packages."""
    return cache_dir() / "root"


def library_path() -> str:
    """LD_LIBRARY_PATH for programs of the extracted packages."""
    usr_lib = package_root() / "usr/lib"
    found = sorted(usr_lib.glob("*-linux-gnu*")) + sorted(usr_lib.glob("xen-*/lib/*"))
    return ":".join(str(directory) for directory in found if directory.is_dir())


def program_path(name: str) -> str:
    """Full path of a program of the extracted packages. Raises OracleError."""
    for directory in PROGRAM_DIRECTORIES:
        candidate = package_root() / directory / name
        if candidate.is_file():
            return str(candidate)
    raise OracleError(f"{name}: no such program in {package_root()}; "
                      "first run: python -m tests.oracle.oracle fetch")


def fetch() -> None:
    """Make everything that is missing: packages, then the shim. Silent if nothing is.

    Dying halfway leaves a cache that the next call completes."""
    if not is_complete():
        try:
            cache_dir().mkdir(parents=True, exist_ok=True)
            lock = open(cache_dir() / "lock", "w")
        except OSError as error:
            raise OracleError(f"{cache_dir()}: {error.strerror}; "
                              "set XDG_CACHE_HOME to a directory that can be written") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_complete():
                install()
    shim_path()


def is_complete() -> bool:
    """Whether the packages were extracted, and their programs can find their libraries."""
    return (package_root() / "complete").exists()


def install() -> None:
    """Download, extract, check, mark. The caller holds the lock."""
    need_tools("apt-get", "dpkg")
    downloads, root = cache_dir() / "debs", package_root()
    print(f"oracle: downloading {len(PACKAGES)} Debian packages into {cache_dir()}",
          file=sys.stderr, flush=True)
    shutil.rmtree(root, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)  # an older version must not be extracted as well
    downloads.mkdir()
    download(downloads, lambda: PACKAGES)
    for package in sorted(downloads.glob("*.deb")):
        run_checked(["dpkg", "-x", str(package), str(root)])
    check_libraries()
    (root / "complete").touch()


def download(directory: Path, packages: Callable[[], Sequence[str]]) -> None:
    """apt-get download what packages() names into `directory`; root fetches missing or outdated
    lists, once. packages() raises LookupError in apt-get's words if it needs them itself."""
    said = _try_download(directory, packages)
    if said and LISTS_NEEDED.search(said):
        if os.geteuid():
            raise OracleError("apt-get's package lists are missing or old; "
                              "run: sudo apt-get update")
        run_checked(["apt-get", "update"])
        said = _try_download(directory, packages)
    if said:
        raise OracleError(f"apt-get download failed: {complaint(said)}")


def _try_download(directory: Path, packages: Callable[[], Sequence[str]]) -> str:
    """What apt-get said if it failed; nothing if it did not."""
    try:
        done = run(["apt-get", "download", *packages()], cwd=directory)
    except LookupError as error:
        return str(error)
    return (done.stdout or "it said nothing") if done.returncode else ""


def complaint(output: str) -> str:
    """The line of apt-get's output that says why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "Err:"))]
    return (errors or lines or ["it said nothing"])[0]


def check_libraries() -> None:
    """Raise OracleError unless every program of interest finds its shared libraries."""
    environment = dict(os.environ, LD_LIBRARY_PATH=library_path())
    for name in PROGRAMS_CHECKED:
        done = run(["ldd", program_path(name)], env=environment)
        missing = [line.split()[0] for line in done.stdout.splitlines() if "not found" in line]
        if done.returncode or missing:
            raise OracleError(f"{name} cannot be run here; it lacks "
                              f"{' '.join(missing) or done.stdout.strip()}")


def shim_path() -> Path:
    """The library that stands for the hypervisor, compiled if need be. Raises OracleError."""
    if not is_complete():
        raise OracleError("the packages are missing; first run: "
                          "python -m tests.oracle.oracle fetch")
    return compile_c("simxen.so", [SHIM_SOURCE],
                     ["-shared", "-fPIC", f"-I{package_root()}/usr/include"], ["-ldl"])


def compile_c(name: str, sources: Sequence[Path], flags: Iterable[str] = (),
              libraries: Iterable[str] = ()) -> Path:
    """Compile into the cache and return the result's path; what is there already is kept.

    Headers beside the sources count as sources. Raises OracleError."""
    digest = hashlib.sha256()
    headers = sorted({header for source in sources for header in source.parent.glob("*.h")})
    for path in [*headers, *sources]:
        digest.update(path.read_bytes() + b"\0")
    stem, _, suffix = name.partition(".")
    output = cache_dir() / f"{stem}-{digest.hexdigest()[:12]}{suffix and '.' + suffix}"
    if not output.exists():
        need_tools("gcc")
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = output.with_name(f".{output.name}.{os.getpid()}")
        run_checked(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra",
                     "-Wno-unused-parameter", *flags, "-o", str(temporary),
                     *map(str, sources), *libraries])
        os.replace(temporary, output)
    return output


def need_tools(*names: str) -> None:
    """Raise OracleError if a program of the system is missing."""
    for name in names:
        if not shutil.which(name):
            how = "run: sudo apt-get install gcc libc6-dev" if name == "gcc" else "use Debian 12"
            raise OracleError(f"{name} is needed; {how}")


def run(command: Sequence[str], cwd: Path | None = None,
        env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end; both outputs together, in English."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, cwd=cwd,
                          env=dict(env or os.environ, LC_ALL="C"))


def run_checked(command: Sequence[str]) -> None:
    """Run to the end. Raises OracleError with all output if it fails."""
    done = run(command)
    if done.returncode:
        raise OracleError(f"{' '.join(command)}\nfailed:\n{done.stdout.rstrip()}")
