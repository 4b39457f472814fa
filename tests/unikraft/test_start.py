# SPDX-License-Identifier: Apache-2.0
"""image/unikraft/start.py as a program, with a module _unikraft that is made up: the words of the
command line reach the server, what is ours in the standard library is asked, and every way out is
one through the module. Method: a process each.

Cannot show: Unikraft; docs/UNIKRAFT.md says how it was booted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MADE_UP = """
import os, sys

def exit(code):
    sys.stdout.flush()
    print("the machine: exit", code, file=sys.stderr, flush=True)
    os._exit(7)

def free_pages():
    return 3000

def watchdog(seconds):
    print("the machine: watchdog", seconds, file=sys.stderr, flush=True)

def wait(seconds):
    print("the machine: wait", file=sys.stderr, flush=True)
    assert os.sysconf("SC_AVPHYS_PAGES") == 3000 and os.sysconf("SC_PAGE_SIZE") >= 4096
    try:
        os.pipe2(0)
    except OSError as error:
        print("pipes:", error, file=sys.stderr, flush=True)
    raise KeyboardInterrupt
"""
WITH_XEN = """
def bind(domid, port): ...

def hypercall(*words):
    raise OSError(1, "Operation not permitted")
"""


def start(tmp_path: Path, text: str, *words: str) -> str:
    """What a start has said on standard error."""
    (tmp_path / "_unikraft.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B",
         str(ROOT / "image/unikraft/start.py"), *words],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr
    return done.stderr


def test_it_serves_and_waits_by_the_module(tmp_path: Path) -> None:
    said = start(tmp_path, MADE_UP, "--region", str(tmp_path / "region"), "--region-size", "1M",
                 "--socket", str(tmp_path / "socket"), "--watchdog", "5")
    assert "region, 1 MiB: new" in said
    assert said.index("the machine: watchdog 5") < said.index("the machine: wait")
    assert "no pipes" in said
    assert "KeyboardInterrupt" in said and said.endswith("the machine: exit 1\n")


def test_on_xen_the_host_is_unikraft_and_the_event_is_taken(tmp_path: Path) -> None:
    said = start(tmp_path, MADE_UP + WITH_XEN, "--event", "14",
                 "--region", str(tmp_path / "region"), "--region-size", "1M",
                 "--socket", str(tmp_path / "socket"))
    assert "privcmd: asking for domains" in said and "not permitted" in said
    assert said.endswith("the machine: exit 1\n")


@pytest.mark.parametrize("words", [["--nonsense"], ["--log-level", "nonsense"]])
def test_wrong_words_end_it_too(tmp_path: Path, words: list[str]) -> None:
    said = start(tmp_path, MADE_UP, *words)
    assert "usage:" in said and said.endswith("the machine: exit 1\n")
