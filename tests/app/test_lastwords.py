# SPDX-License-Identifier: Apache-2.0
"""What a life says of its end is found by the next one, with a kernel's account behind it, and the
one line that tells what happened is picked out of it. Method: texts as Python and the kernel write
them; lives that are processes of their own, which die during recovery too.

Cannot show: that the kernel finds room for its lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.lastwords import CAUSE_MAX, OWN_BYTES_MAX, RECOVERING, shorten, telling

KERNEL = ("rax 1 rbx 2\nrip 0x4012ab\n"
          "kernel: page fault: write to 0x0 at rip 0x4012ab in restart 3\n")
TOLD = "kernel: page fault: write to 0x0 at rip 0x4012ab in restart 3"
RAISED = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nOops: why\n'
CHAINED = RAISED + "\nDuring handling of the above exception, another exception occurred:\n\n" \
    'Traceback (most recent call last):\n  File "a.py", line 2, in f\n    ^^^\nLast: of two\n' \
    "lines\n"
FATAL = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x0 (most recent call first):\n" \
    '  File "a.py", line 5 in g\n  File "a.py", line 1 in f\n\nExtension modules: mmh3 (total: 1)\n'
STUCK = 'Stack (most recent call first):\n  File "a.py", line 5 in g\n  File "a.py", line 1 in f\n'


@pytest.mark.parametrize("text, line", [
    ("", ""),
    (RAISED, "Oops: why"),
    (CHAINED, "Last: of two"),
    (FATAL, "Fatal Python error: Segmentation fault"),
    (STUCK, 'no progress in its time: File "a.py", line 5 in g'),
    (STUCK.replace("Stack", "Current thread 0x0"),
     'no progress in its time: File "a.py", line 5 in g'),
    (KERNEL, TOLD),
    (FATAL + KERNEL, f"Fatal Python error: Segmentation fault; {TOLD}"),
    (RAISED + "kernel: exit 1 in restart 2\n", "Oops: why; kernel: exit 1 in restart 2"),
    (RECOVERING, "while recovering"),
    (RECOVERING + RAISED, "while recovering: Oops: why"),
    (RECOVERING + KERNEL, f"while recovering: {TOLD}"),
    ("MemoryError, and no memory to say more\n", "MemoryError, and no memory to say more"),
    ("anything\nat all", "at all"),
])
def test_the_line_that_tells(text: str, line: str) -> None:
    assert telling(text) == telling(text.strip()) == telling(shorten(text)) == line


@pytest.mark.parametrize("text", [
    RAISED.replace("    g()\n", '    g()\n  File "a.py", line 1, in f\n' * 100),
    RAISED.replace("why", "why" + "x" * 5000),
    RAISED.replace("    g()\n", "    g(" + "x" * 5000 + ")\n"),
    CHAINED.replace("    ^^^\n", '  File "a.py", line 1, in f\n' * 100),
    FATAL.replace('  File "a.py", line 1 in f\n', '  File "a.py", line 1 in f\n' * 100),
    FATAL.replace('  File "a.py", line 1 in f\n', '  File "a.py", line 1 in f\n' * 100) + KERNEL,
    STUCK + '  File "a.py", line 1 in f\n' * 100 + KERNEL,
], ids=range(7))
def test_a_long_text_tells_the_same(text: str) -> None:
    """Shortened to whole lines of its beginning and its end."""
    short = shorten(text)
    assert len(short) <= CAUSE_MAX < len(text)
    assert telling(short)[:100] == telling(text)[:100]


# -- lives

BEGIN = """
import os, sys
from app.lastwords import LastWords
from persist.region import open_region
def life(watchdog_s=30):
    global region
    region = open_region("region", 1 << 20)
    words = LastWords(sys.argv[1], watchdog_s, region)
    print(repr((words.problem, words.of_last_life(), words.text)))
    return words
"""


def live(tmp_path: Path, body: str, crash_file: str = "crash") -> tuple[int, list[str]]:
    """A life in a process: its exit code, and the lines that it printed."""
    done = subprocess.run([sys.executable, "-c", BEGIN + body, crash_file], cwd=tmp_path,
                          capture_output=True, text=True, timeout=30,
                          env={**os.environ, "PYTHONPATH": os.getcwd()})
    return done.returncode, done.stdout.splitlines()


def test_a_first_life_and_a_clean_end(tmp_path: Path) -> None:
    for _ in range(2):
        assert live(tmp_path, "words = life()\nwords.begin_serving()\nwords.close()") == (
            0, ["(None, '', '')"])
        assert not (tmp_path / "crash").exists()


def test_an_exception_while_serving(tmp_path: Path) -> None:
    live(tmp_path, "words = life(); words.begin_serving()\n"
         "try: raise RuntimeError('\\u00e4' * 10000)\n"
         "except RuntimeError as error: words.say(error)")
    assert 0 < (tmp_path / "crash").stat().st_size <= OWN_BYTES_MAX
    code, (line,) = live(tmp_path, "life()")
    assert code == 0 and "RuntimeError: \u00e4\u00e4" in line


def test_memory_that_is_held_by_what_failed_is_let_go(tmp_path: Path) -> None:
    """The frames of a MemoryError hold what filled the memory; and if there is none even so, a
    few bytes are said."""
    code, lines = live(tmp_path, """
words = life(); words.begin_serving()
import traceback, weakref
class Big: pass
def fill():
    global held
    big = Big(); held = weakref.ref(big)
    raise MemoryError
def none(error): raise MemoryError
try: fill()
except MemoryError as error:
    assert held() is not None
    words.say(error)
    print(held())
    traceback.format_exception = none
    os.truncate(sys.argv[1], 0)
    words.say(error)
""")
    assert (code, lines[1:]) == (0, ["None"])
    assert (tmp_path / "crash").read_text() == "MemoryError, and no memory to say more\n"


RECOVERY_ENDS = {
    "exception": ("try: raise RuntimeError('why')\nexcept RuntimeError as error: words.say(error)",
                  "RuntimeError: why", 0),
    "fault": ("import faulthandler; faulthandler._sigsegv()",
              "Fatal Python error: Segmentation fault", -11),
    "loop": ("while True: pass", "no progress in its time: File", -27),
    "loop that reads the region": ("region.progress = words.alive\nwhile True: region.read(0, 8)",
                                   "no progress in its time: File", -27),
}


@pytest.mark.parametrize("name", RECOVERY_ENDS)
def test_a_death_while_recovering_is_explained_and_nobodys_fault(tmp_path: Path,
                                                                 name: str) -> None:
    """The watchdog runs, although nobody has begun to serve."""
    body, told, code = RECOVERY_ENDS[name]
    assert live(tmp_path, f"words = life(0.2)\n{body}")[0] == code
    _, lines = live(tmp_path, "from app.lastwords import telling\n"
                    "words = life(); print(words.of_last_life(), telling(words.text))")
    assert lines[1].startswith(f"None while recovering: {told}"), lines


def test_reads_are_progress_of_a_recovery(tmp_path: Path) -> None:
    """A quarter of a second goes by, of which no part is as long as the watchdog's 0.15 s."""
    code, _ = live(tmp_path, """
import time
words = life(0.15)
region.progress = words.alive
for _ in range(5):
    end = time.process_time() + 0.05
    while time.process_time() < end: pass
    region.read(0, 8)
""")
    assert code == 0


def test_a_plain_recovery_says_nothing_of_itself(tmp_path: Path) -> None:
    """As before: a kill -9 then, of which nothing is known but that."""
    assert live(tmp_path, "life(); os.kill(os.getpid(), 9)")[0] == -9
    assert live(tmp_path, "life()")[1] == ["(None, None, '')"]


def test_what_the_kernel_adds_is_found(tmp_path: Path) -> None:
    """Behind `recovering`, nobody is to blame; alone, the request is."""
    crash = tmp_path / "crash"
    crash.write_text(RECOVERING + KERNEL)
    assert live(tmp_path, "life()")[1] == [repr((None, None, (RECOVERING + KERNEL).strip()))]
    crash.write_text(KERNEL)
    assert live(tmp_path, "life()")[1] == [repr((None, KERNEL.strip(), KERNEL.strip()))]


@pytest.mark.parametrize("path, problem", [
    ("region", "region: this is the region"), ("fifo", "fifo: no plain file and no device"),
    ("missing/crash", "missing/crash: No such file or directory"),
    (".", ".: Is a directory"), ("/dev/tty", "/dev/tty: "),
])
def test_a_file_that_cannot_be_had(tmp_path: Path, path: str, problem: str) -> None:
    """The server goes on, and every death is unexplained."""
    os.mkfifo(tmp_path / "fifo")
    live(tmp_path, "life()")
    before = (tmp_path / "region").read_bytes()
    code, lines = live(tmp_path, "words = life(); words.begin_serving()\n"
                       "words.say(RuntimeError()); words.alive(); words.close()", path)
    assert code == 0 and len(lines) == 1 and problem in lines[0]
    assert (tmp_path / "region").read_bytes() == before


def test_a_device_is_emptied_not_removed(tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that knows no positions serves as well."""
    (tmp_path / "crash").write_text(KERNEL)
    code, lines = live(tmp_path, """
import stat, types
real = os.fstat
os.fstat = lambda fd: types.SimpleNamespace(
    st_mode=stat.S_IFCHR, st_size=1 << 20, st_dev=0, st_ino=0)
def lseek(*_): raise OSError(29, "Illegal seek")
words = life()
assert region.is_device
os.lseek = lseek
words.begin_serving()
words.close()
""")
    assert (code, lines) == (0, [repr((None, KERNEL.strip(), KERNEL.strip()))])
    assert (tmp_path / "crash").read_bytes() == b""
