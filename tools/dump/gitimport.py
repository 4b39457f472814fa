# SPDX-License-Identifier: Apache-2.0
"""git fast-import as a process that is written to, asked, and made to keep what it has.

I1. Few answers are owed at any time: both sides can never wait for each other.
I2. What was written before a checkpoint is in the repository, whatever becomes of us; what was
    written behind it is only if we have said that we are done. An interrupt from the terminal does
    not reach the process.
Knows nothing of what is written. The environment is only git's allocator: see MALLOC."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import NoReturn

# It deflates objects by the thousand: without this each one's memory goes back to the system, and
# the page faults cost a quarter of all.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "100000000", "MALLOC_MMAP_THRESHOLD_": "100000000",
          "MALLOC_TOP_PAD_": "16777216"}
CHUNK_SIZE = 1 << 16
ASKED_MAX = 400  # answers have 57 bytes, a pipe 64 KiB


class GitError(Exception):
    """git could not do it; the text is what it said."""


def environment() -> dict[str, str]:
    """Without what may name another repository."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}


class FastImport:
    """One process. Raises GitError when it has ended before its time."""

    def __init__(self, git_dir: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            ["git", "--git-dir", git_dir, "-c", "core.compression=1", "-c",
             "fastimport.unpackLimit=0", "fast-import", "--quiet", "--done"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0,
            env=environment() | MALLOC, start_new_session=True)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._answers = open(self._process.stdout.fileno(), "rb", closefd=False)  # noqa: SIM115
        self._pending: list[bytes] = []
        self._size = 0
        self.asked = 0

    def write(self, commands: bytes) -> None:
        """Whole commands, soon."""
        self._pending.append(commands)
        self._size += len(commands)
        if self._size >= CHUNK_SIZE:
            self._flush()

    def ask_tree(self, target: bytes) -> None:
        """Of a commit; the answer comes from answers()."""
        assert self.asked < ASKED_MAX
        self.write(b'ls %b ""\n' % target)
        self.asked += 1

    def answers(self) -> list[bytes]:
        """The ids of all trees that were asked for, once git has come so far."""
        self.write(b"progress here\n")
        self._flush()
        found = []
        while True:
            line = self._answers.readline()
            if line == b"progress here\n":
                break
            if not line:
                self._fail()
            found.append(bytes.fromhex(line.split()[2].decode()))
        assert len(found) == self.asked, (len(found), self.asked)
        self.asked = 0
        return found

    def checkpoint(self) -> None:
        """All of it is in the repository now (I2)."""
        assert self.asked == 0
        self.write(b"checkpoint\n")
        self.answers()

    def close(self) -> None:
        """The end: everything is kept."""
        self.write(b"done\n")
        self._flush()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        rest = self._answers.read()
        self._process.stdout.close()
        if self._process.wait() != 0:
            self._fail()
        self._errors.close()
        assert not rest, rest

    def abandon(self) -> None:
        """Whatever was not kept yet is lost."""
        self._process.kill()
        self._process.wait()

    def _flush(self) -> None:
        commands, self._pending, self._size = b"".join(self._pending), [], 0
        assert self._process.stdin is not None
        view = memoryview(commands)
        try:
            while view:
                view = view[self._process.stdin.write(view) or 0:]
        except BrokenPipeError:
            self._fail()

    def _fail(self) -> NoReturn:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip()
        raise GitError(f"git fast-import has ended ({code}): {said or 'it did not say why'}")
