# SPDX-License-Identifier: Apache-2.0
"""A git repository of ours: made, recognised, gone on with; and what fast-import cannot do.

R1. Only a repository that we have made is ever written to, or one that is empty: then its config
    says xsdump.archive. A directory with anything else in it is refused.
R2. refs/seals is one chain. Where the log has a seal whose parent is not here, the chain before is
    kept as refs/seals-before/N, and the new one begins at a commit registered in `shallow`, so that
    its id is the sealed one, and git does not look for its parent.
R3. The work tree follows main only if nobody has changed it or has left main.
Knows nothing of regions. docs/HISTORY.md says what a shallow root means for pushing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tools.dump.gitimport import GitError, environment
from tools.dump.gitwords import Last, parse_last

MAIN = "refs/heads/main"
SEALS = "refs/seals"
SEALS_BEFORE = "refs/seals-before"
CONFIG = "xsdump.archive"
VERSION = "1"
LOOKED_BACK = 1000  # commits
PACKS_MAX = 24  # then they are put together


class RefusedError(Exception):
    """The directory is not ours to write to."""


class Repository:
    """Made by open_repository()."""

    def __init__(self, directory: Path, git_dir: Path) -> None:
        self.directory = directory
        self.git_dir = git_dir
        self.is_bare = directory == git_dir
        self.is_sha256 = self._git("rev-parse", "--show-object-format").strip() == b"sha256"

    def last(self) -> Last | None:
        """What main's newest commit says of itself; None if there is none."""
        if self.resolve(MAIN) is None:
            return None
        message = self._git("log", "-1", "--format=%B", MAIN).decode("utf-8", "replace")
        try:
            return parse_last(message)
        except ValueError as error:
            raise RefusedError(f"{self.directory}: the newest commit of main is not one that "
                               f"xsdump has made ({error}): commit to another branch") from error

    def has_record(self, check: str) -> bool:
        """Whether main has a commit of the record with this checksum."""
        return bool(self._git("log", "-1", "--format=%H", "--fixed-strings",
                              f"--grep=Record: {check}", MAIN).strip())

    def commit_at(self, sequence: int) -> bytes | None:
        """The newest commit of main that is of no later record; None if there is none nearby."""
        if self.resolve(MAIN) is None:
            return None
        said = self._git("log", f"-{LOOKED_BACK}", "--format=%H "
                         "%(trailers:key=Sequence,valueonly,separator=)", MAIN)
        return next((bytes.fromhex(commit) for commit, at in map(str.split,
                     said.decode().splitlines()) if int(at) <= sequence), None)

    def resolve(self, ref: str) -> bytes | None:
        """The id that a ref has."""
        done = self._try("rev-parse", "--verify", "--quiet", ref)
        return bytes.fromhex(done.stdout.strip().decode()) if done.returncode == 0 else None

    def sealed_up_to(self) -> int:
        """The sequence that the newest seal of the chain holds; 0 if there is none."""
        if self.resolve(SEALS) is None:
            return 0
        subject = self._git("log", "-1", "--format=%s", SEALS).decode()
        return int(subject.rpartition(" ")[2])

    def end_chain(self) -> None:
        """The chain of seals ends here; what was is kept (R2)."""
        tip = self.resolve(SEALS)
        if tip is not None:
            before = self._git("for-each-ref", "--format=%(refname)", SEALS_BEFORE).split()
            self._git("update-ref", f"{SEALS_BEFORE}/{len(before) + 1}", tip.hex())
            self._git("update-ref", "-d", SEALS)

    def begin_chain(self, body: bytes) -> None:
        """A chain begins with this commit, whose parent is not here (R2)."""
        said = self._git("hash-object", "-t", "commit", "-w", "--stdin", given=body)
        commit = said.strip()
        shallow = self.git_dir / "shallow"
        known = shallow.read_bytes().splitlines() if shallow.exists() else []
        roots = {*known, commit}
        written = self.git_dir / "shallow.xsdump"
        written.write_bytes(b"".join(root + b"\n" for root in sorted(roots)))
        written.replace(shallow)
        self._git("update-ref", SEALS, commit.decode())

    def tidy(self) -> None:
        """Many small packs become few: each run of fast-import leaves one."""
        if sum(1 for _ in (self.git_dir / "objects" / "pack").glob("*.pack")) > PACKS_MAX:
            self._git("repack", "--geometric=2", "-d", "-q")

    def update_work_tree(self) -> str | None:
        """Let the files be main's (R3). None if they are, else why not."""
        if self.is_bare or self.resolve(MAIN) is None:
            return None
        if self._try("symbolic-ref", "-q", "HEAD").stdout.strip().decode() != MAIN:
            return "HEAD is not on main"
        self._try("update-index", "-q", "--refresh")
        if self._try("diff-files", "--quiet").returncode != 0:
            return "its files were changed"
        self._git("reset", "--hard", "--quiet", MAIN)
        return None

    def _git(self, *words: str, given: bytes | None = None) -> bytes:
        return _must(self._place() + list(words), self.directory, given)

    def _try(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return _run(self._place() + list(words), self.directory)

    def _place(self) -> list[str]:
        place = ["--git-dir", str(self.git_dir)]
        return place if self.is_bare else [*place, "--work-tree", str(self.directory)]


def open_repository(directory: Path, is_bare: bool, object_format: str | None) -> Repository:
    """The archive in `directory`, which is made if there is none. `is_bare` is for a new one, as is
    `object_format`. Raises RefusedError, GitError."""
    directory = directory.absolute()
    try:
        is_new = not directory.exists() or (directory.is_dir() and not os.listdir(directory))
        if is_new:
            return _make(directory, is_bare, object_format or "sha1")
    except OSError as error:
        raise RefusedError(f"{directory}: {error.strerror}") from error
    git_dir = directory / ".git"
    if not git_dir.exists():
        git_dir = directory
    if not (git_dir / "HEAD").is_file() or not (git_dir / "objects").is_dir():
        raise RefusedError(f"{directory}: not empty, and no git repository; it was not touched")
    done = _run(["--git-dir", str(git_dir), "config", "--local", CONFIG], directory)
    if done.stdout.strip().decode() != VERSION:
        if not _is_empty(directory, git_dir):
            raise RefusedError(f"{directory}: a git repository that xsdump has not made; it was "
                               "not touched")
        _claim(directory, git_dir)
    repository = Repository(directory, git_dir)
    if object_format is not None and (object_format == "sha256") != repository.is_sha256:
        raise RefusedError(f"{directory}: has another object format than {object_format}")
    return repository


def _make(directory: Path, is_bare: bool, object_format: str) -> Repository:
    directory.mkdir(parents=True, exist_ok=True)
    git_dir = directory if is_bare else directory / ".git"
    _must(["init", "--quiet", f"--object-format={object_format}",
           *(["--bare"] if is_bare else []), str(directory)], directory)
    _claim(directory, git_dir)
    return Repository(directory, git_dir)


def _is_empty(directory: Path, git_dir: Path) -> bool:
    """Whether nobody has put anything into this repository yet."""
    return ((git_dir == directory or os.listdir(directory) == [".git"])
            and not _must(["--git-dir", str(git_dir), "for-each-ref"], directory)
            and not any(name for _, _, names in os.walk(git_dir / "objects") for name in names))


def _claim(directory: Path, git_dir: Path) -> None:
    _must(["--git-dir", str(git_dir), "symbolic-ref", "HEAD", MAIN], directory)
    _must(["--git-dir", str(git_dir), "config", CONFIG, VERSION], directory)


def _must(words: list[str], directory: Path, given: bytes | None = None) -> bytes:
    done = _run(words, directory, given)
    if done.returncode != 0:
        raise GitError(f"{directory}: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout


def _run(words: list[str], directory: Path,
         given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *words], cwd=directory, input=given, capture_output=True,
                              env=environment(), check=False)
    except FileNotFoundError as error:
        raise GitError("git is not installed") from error
