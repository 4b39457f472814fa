# SPDX-License-Identifier: Apache-2.0
"""xenstore-write, -read, -ls, -list, -exists, -chmod, -rm and -watch of Debian's xenstore-utils.

Properties: they print and return what they do with C xenstored, byte for byte; they do so too if
the server is killed with -9 and restarted between every two of them; so do large trees, values and
directories.
Method: transcripts of command lines with expected output, run on C xenstored, on ours, and on ours
killed after every command; the same random tree on both, listed by xenstore-ls.
Cannot show: anything about guests: these programs are privileged."""

from __future__ import annotations

import random
import shlex
import textwrap
from typing import NamedTuple

import pytest

from tests.clients.subjects import Ours, Subject, ending, running

LONGEST_PATH = "/" + "/".join(["p" * 50] * 40)  # 2039 bytes; the limit is 2048
VALUE_SIZE = 4096 - len("/big\0")

# A command; its stdout; lines of stderr begin with "! "; then [exit code] unless it is 0.
TRANSCRIPTS = {
    "write and read": """
    $ xenstore-write /a 1
    $ xenstore-write /a/b two /a/c ''
    $ xenstore-read /a
    1
    $ xenstore-read -p /a /a/b
    /a: 1
    /a/b: two
    $ xenstore-read /a /missing
    1
    ! xenstore-read: couldn't read path /missing
    [1]
    $ xenstore-write /a 'other value'
    $ xenstore-read /a /a/b
    other value
    two
    $ xenstore read /a/b
    two
    $ xenstore-write relative/path x
    $ xenstore-read relative/path /local/domain/0/relative/path
    x
    x
    """,
    "ls": """
    $ xenstore-write /a 1 /a/b two /a/b/c '' /a/d 'x y'
    $ xenstore-ls
    tool = ""
     xenstored = ""
    a = "1"
     b = "two"
      c = ""
     d = "x y"
    $ xenstore-ls -f
    /tool = ""
    /tool/xenstored = ""
    /a = "1"
    /a/b = "two"
    /a/b/c = ""
    /a/d = "x y"
    $ xenstore-ls /a/b
    c = ""
    $ xenstore-ls -f -p /a
    /a/b = "two"   (n0)
    /a/b/c = ""   (n0)
    /a/d = "x y"   (n0)
    $ xenstore-ls -p /a/b
    c = "" . . . . . . . . . . . . . . . . . . . . . . . . . . .  (n0)
    $ xenstore-ls /a/b/c
    $ xenstore-ls /missing
    ! xenstore-ls: xs_directory (/missing): No such file or directory
    [1]
    $ xenstore-ls /local
    ! xenstore-ls: xs_directory (/local): No such file or directory
    [1]
    """,
    "list and exists": """
    $ xenstore-write /z/second '' /z/first '' /z/third ''
    $ xenstore-list /z
    second
    first
    third
    $ xenstore-list -p /z
    /z/second
    /z/first
    /z/third
    $ xenstore-rm /z/first
    $ xenstore-write /z/first ''
    $ xenstore-list /z
    second
    third
    first
    $ xenstore-list /z/first
    $ xenstore-list /missing
    ! xenstore-list: could not list path /missing
    [1]
    $ xenstore-exists /z
    $ xenstore-exists /z/third /z/second
    $ xenstore-exists /z /missing
    [1]
    """,
    "chmod": """
    $ xenstore-write /x/n 1 /x/n/below 2
    $ xenstore-chmod /x/n n0 r5 b7
    $ xenstore-ls -f -p /x
    /x/n = "1"   (n0,r5,b7)
    /x/n/below = "2"   (n0)
    $ xenstore-chmod -r /x w0 n3
    $ xenstore-ls -f -p /x
    /x/n = "1"   (w0,n3)
    /x/n/below = "2"   (w0,n3)
    $ xenstore-write /x/n/new ''
    $ xenstore-ls -f -p /x/n
    /x/n/below = "2"   (w0,n3)
    /x/n/new = ""   (w0,n3)
    $ xenstore-chmod /x/n n77
    ! xenstore-chmod: Error occurred setting permissions on '/x/n': No such file or directory
    [1]
    $ xenstore-chmod /missing n0
    ! xenstore-chmod: Error occurred setting permissions on '/missing': No such file or directory
    [1]
    $ xenstore-chmod /x/n q0
    ! xenstore-chmod: Invalid permission specification: 'q'
    [1]
    $ xenstore-chmod /x/n
    ! xenstore-chmod: Error occurred setting permissions on '/x/n': Invalid argument
    [1]
    $ xenstore-ls -f -p /x/n
    /x/n/below = "2"   (w0,n3)
    /x/n/new = ""   (w0,n3)
    """,
    "rm": """
    $ xenstore-write /r/a/b/c 1 /r/d 2
    $ xenstore-rm /r/a
    $ xenstore-ls -f /r
    /r/d = "2"
    $ xenstore-rm /r/a
    $ xenstore-rm /missing
    $ xenstore-rm /missing/node
    ! xenstore-rm: could not remove path /missing/node
    [1]
    $ xenstore-rm /
    ! xenstore-rm: could not remove path /
    [1]
    $ xenstore-write /t/one/two/three ''
    $ xenstore-rm -t /t/one/two/three
    $ xenstore-exists /t
    [1]
    $ xenstore-rm /r /tool
    $ xenstore-ls -f
    """,
    "paths that are none": """
    $ xenstore-write /bad//path x
    ! xenstore-write: could not write path /bad//path
    [1]
    $ xenstore-write /trailing/ x
    ! xenstore-write: could not write path /trailing/
    [1]
    $ xenstore-write '/sp ace' x
    ! xenstore-write: could not write path /sp ace
    [1]
    $ xenstore-write @introduceDomain x
    ! xenstore-write: could not write path @introduceDomain
    [1]
    $ xenstore-read '/a:b'
    ! xenstore-read: couldn't read path /a:b
    [1]
    $ xenstore-write /-A_z@09 good
    $ xenstore-read /-A_z@09
    good
    $ xenstore-ls -f
    /tool = ""
    /tool/xenstored = ""
    /-A_z@09 = "good"
    """,
    "watch": """
    $ xenstore-watch -n 1 /any
    /any
    $ xenstore-watch -n 2 /one @releaseDomain
    /one
    @releaseDomain
    $ xenstore-watch -n 1 relative
    relative
    $ xenstore-watch -n 1 bad//path
    ! xenstore-watch: Unable to add watch on bad//path
    !
    [1]
    """,
}


class Step(NamedTuple):
    """One command of a transcript and what it must do."""

    command: str
    stdout: str
    stderr: str
    code: int


def steps(transcript: str) -> list[Step]:
    """The steps of a transcript."""
    found: list[Step] = []
    for line in textwrap.dedent(transcript).strip().splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], "", "", 0))
        elif line.startswith("!"):
            found[-1] = found[-1]._replace(stderr=found[-1].stderr + line[2:] + "\n")
        elif line.startswith("["):
            found[-1] = found[-1]._replace(code=int(line.strip("[]")))
        else:
            found[-1] = found[-1]._replace(stdout=found[-1].stdout + line + "\n")
    return found


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(any_subject: Subject, name: str) -> None:
    for step in steps(TRANSCRIPTS[name]):
        done = any_subject.run(*shlex.split(step.command))
        assert Step(step.command, done.stdout, done.stderr, done.returncode) == step


def test_watch_tells_what_happens_in_order(subject: Subject) -> None:
    with ending(subject.start("xenstore-watch", "-n", "5", "/w")) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "/w\n"
        subject.must("xenstore-write", "/w/x", "1")
        assert watcher.stdout.readline() == "/w/x\n"
        subject.must("xenstore-write", "/elsewhere", "1")
        subject.must("xenstore-chmod", "/w/x", "n0")
        assert watcher.stdout.readline() == "/w/x\n"
        subject.must("xenstore-rm", "/w/x")
        assert watcher.stdout.readline() == "/w/x\n"
        subject.must("xenstore-rm", "/w")
        assert watcher.communicate(timeout=10)[0] == "/w\n"
        assert watcher.returncode == 0


def test_raw_and_escaped_values(any_subject: Subject) -> None:
    any_subject.must("xenstore-write", "/escaped", "\\x41\\n\\\\")
    assert any_subject.must("xenstore-read", "-R", "/escaped") == "A\n\\"
    assert any_subject.must("xenstore-read", "/escaped") == "A\\n\\\\\n"
    any_subject.must("xenstore-write", "-R", "/raw", "\\x41\n\x7f")
    assert any_subject.must("xenstore-read", "-R", "/raw") == "\\x41\n\x7f"


def test_limits_of_size(any_subject: Subject) -> None:
    value = ("0123456789abcdef" * 256)[:VALUE_SIZE]
    any_subject.must("xenstore-write", "/big", value)
    assert any_subject.must("xenstore-read", "/big") == value + "\n"
    too_big = any_subject.run("xenstore-write", "/big", value + "x")
    assert too_big.returncode == 1
    assert any_subject.must("xenstore-read", "/big") == value + "\n"
    any_subject.must("xenstore-write", LONGEST_PATH, "deep")
    assert any_subject.must("xenstore-read", LONGEST_PATH) == "deep\n"


def test_directory_of_more_than_one_message(any_subject: Subject) -> None:
    """libxenstore reads it in parts, and puts them together."""
    wanted = [f"child-{i * 7919 % 2000:04}" for i in range(2000)]
    for start in range(0, len(wanted), 400):
        pairs = [text for name in wanted[start:start + 400] for text in (f"/many/{name}", "")]
        any_subject.must("xenstore-write", *pairs)
    assert any_subject.must("xenstore-list", "/many").splitlines() == wanted
    assert any_subject.must("xenstore-ls", "-f", "/many").splitlines() == [
        f'/many/{name} = ""' for name in wanted]


@pytest.mark.parametrize("seed", range(3))
def test_random_tree_is_listed_as_by_c(seed: int) -> None:
    """Replay with: pytest -k 'random_tree and SEED'."""
    outputs = {}
    for name in (Subject.name, Ours.name):
        with running(name) as server:
            outputs[name] = grow(server, random.Random(seed))
            if isinstance(server, Ours):
                server.crash()
                again = [server.must("xenstore-ls", *flags) for flags in (["-f", "-p"], ["-p"])]
                assert again == outputs[name][-2:]
    assert outputs[Subject.name] == outputs[Ours.name]
    assert len(outputs[Subject.name][-1].splitlines()) > 50


def grow(server: Subject, chance: random.Random) -> list[str]:
    """Random changes; what every one of them said, and two listings of the result."""
    said = []
    alphabet = "".join(map(chr, range(1, 128)))
    for _ in range(40):
        action = chance.choice(["write"] * 6 + ["rm", "chmod"])
        path = "".join("/" + chance.choice("abcd") for _ in range(chance.randint(1, 6)))
        if action == "write":
            pairs = [(path + "/" + chance.choice("vwxyz") * chance.randint(1, 9),
                      "".join(chance.choices(alphabet, k=chance.randint(0, 12))))
                     for _ in range(chance.randint(1, 9))]
            done = server.run("xenstore-write", *(text for pair in pairs for text in pair))
        elif action == "rm":
            done = server.run("xenstore-rm", path)
        else:
            perms = [chance.choice("rwbn") + "0"] + [
                chance.choice("rwbn") + str(chance.randint(1, 9))
                for _ in range(chance.randint(0, 4))]
            done = server.run("xenstore-chmod", *chance.choice([[], ["-r"]]), path, *perms)
        said.append(f"{done.returncode} {done.stdout} {done.stderr}")
    return said + [server.must("xenstore-ls", *flags) for flags in (["-f", "-p"], ["-p"])]
