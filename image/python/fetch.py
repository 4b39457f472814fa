# SPDX-License-Identifier: Apache-2.0
"""The sources of msgpack and mmh3: downloaded by pip, checked, unpacked.

    fetch.py PYTHON SOURCES SDISTS DIRECTORY

SOURCES is a requirements file with one version and one hash for each package. SDISTS keeps the
archives: what is there is not downloaded again. PYTHON is one that has pip.
F1. No byte of an archive is used before its hash was found to be right, wherever it came from.
F2. DIRECTORY holds NAME, without a version, for each package: the archive's files and nothing else.
Knows nothing of how they are compiled."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PINNED = re.compile(r"^(?P<name>\w+)==(?P<version>[\w.]+) --hash=sha256:(?P<digest>[0-9a-f]{64})$",
                    re.M)


class FetchError(Exception):
    """The sources cannot be had; the text says why."""


class Package(NamedTuple):
    """A line of SOURCES."""

    name: str
    version: str
    digest: str

    @property
    def stem(self) -> str:
        """What the archive and the directory in it are called."""
        return f"{self.name}-{self.version}"


def download(python: str, packages: list[Package], sources: Path, sdists: Path) -> None:
    """Let pip get the archives. Raises FetchError."""
    command = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--no-binary", ",".join(package.name for package in packages),
               "--require-hashes", "--requirement", str(sources), "--dest", str(sdists)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        raise FetchError(f"{python}: {error.strerror}; `make venv` makes it") from error
    if done.returncode != 0:
        raise FetchError(f"{done.stdout}{' '.join(command)}: failed")


def checked(archive: Path, package: Package) -> Path:
    """The archive, if it is the one that is meant. Raises FetchError."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.digest:
        raise FetchError(f"{archive}: sha256 is {digest}, but must be {package.digest}: it is not "
                         f"what was reviewed. Remove the file to have it downloaded again")
    return archive


def unpack(archive: Path, package: Package, directory: Path) -> None:
    """The archive's files, in the place of what was there."""
    target = directory / package.name
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not member.isfile():
                continue
            if path.parts[0] != package.stem or ".." in path.parts:
                raise FetchError(f"{archive}: it holds {member.name}")
            source = tar.extractfile(member)
            assert source is not None
            file = target.joinpath(*path.parts[1:])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(source.read())


def main(python: str, sources: Path, sdists: Path, directory: Path) -> int:
    """Returns the exit code."""
    packages = [Package(**found.groupdict())
                for found in PINNED.finditer(sources.read_text("utf-8"))]
    archives = {package: sdists / f"{package.stem}.tar.gz" for package in packages}
    try:
        if not all(archive.exists() for archive in archives.values()):
            sdists.mkdir(parents=True, exist_ok=True)
            download(python, packages, sources, sdists)
        for package, archive in archives.items():
            unpack(checked(archive, package), package, directory)
    except (FetchError, OSError) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(Path, sys.argv[2:])))
