# SPDX-License-Identifier: Apache-2.0
"""xsdump tells the truth about regions: live, left by a crash, damaged, and not ours; never writes.

Method: regions written in process and by the real server; the command's output and exit code."""

from __future__ import annotations

import datetime
import json
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persist import layout
from tests.app.test_main import Daemon
from tests.crash.world import ArrayMedium, Life
from tests.persist.test_crash_slot import slot
from tests.tools.in_process import dump
from tools.dump.past import read_past

XSDUMP = str(Path(__file__).resolve().parents[2] / "tools" / "xsdump")
TIMEOUT_S = 30


def xsdump(region: Path, *words: str) -> tuple[int, str]:
    """Run the command; returns exit code and all it said."""
    done = subprocess.run([XSDUMP, str(region), *words], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S)
    return done.returncode, done.stdout


def left_by_crash(turns: int = 40) -> Life:
    """A life with seals, removals and items, that just stops."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    for number in range(turns):
        life.turn((11, 0, b"/d/%d/k\0value %d" % (number % 9, number)))
        if number % 10 == 9:
            life.turn((13, 0, b"/d/3\0"), (14, 0, b"/d\0n0\0r7\0"), (26, 0, b"nodes\x0099\0"))
            life.tidy(idle=True)
    return life


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Path]:
    """A region file as a crash left it; it must be the same after the test."""
    path = tmp_path / "region"
    image = bytes(left_by_crash().medium.bytes)
    path.write_bytes(image)
    yield path
    assert path.read_bytes() == image, "xsdump wrote to the region"


def test_info(region: Path) -> None:
    """What there is, and that the digest agrees."""
    code, text = xsdump(region, "info")
    assert code == 0
    assert "outcome         clean, running or crashed" in text
    assert "agrees" in text and "last seal" in text and "life            1" in text


def test_log(region: Path) -> None:
    """Every change, oldest first; -n takes the last; --all shows the seals, too."""
    code, text = xsdump(region, "log")
    lines = [line for line in text.splitlines() if line[:8].strip()]
    assert code == 0 and "life 1 begins: new" in lines[0]
    assert any("WRITE" in line and '/d/0/k = "value 9" (n0)' in line for line in lines)
    for said in ("rm /d/3", "[quota.nodes = 99]", '/d = "" (n0,R7)'):
        assert said in text
    assert xsdump(region, "log", "-n", "3")[1].splitlines() == lines[-3:]
    sealed = xsdump(region, "log", "--all")[1].splitlines()
    assert sum("seal of" in line for line in sealed) == 4
    numbers = {int(line.split()[0].partition(".")[0]) for line in sealed if line[:8].strip()}
    assert numbers == set(range(1, len(numbers) + 1))


def changes(region: Path, *words: str) -> list[dict[str, Any]]:
    """What log --json says of changes."""
    code, text = xsdump(region, "log", "--json", *words)
    assert code == 0, text
    return [one for one in map(json.loads, text.splitlines()) if one["event"] == "change"]


def test_log_of_a_path_and_of_a_domain(region: Path) -> None:
    """Only what is asked for; a removal above a path counts as its own."""
    told = changes(region, "/d/3/")
    assert [one["operation"] for one in told] == [
        *["WRITE", "RM"] * 3, "WRITE", "WRITE", "RM"]
    assert all(any(part["path"].startswith("/d/3") for part in one["differences"])
               for one in told)
    removal = told[1]["differences"]
    assert [(one["path"], one["before"]["value"], one["after"]) for one in removal] == [
        ("/d/3/k", "value 3", None), ("/d/3", "", None)]
    assert changes(region, "/d/33") == [] and changes(region, "-d", "7") == []
    assert len(changes(region, "-d", "0")) == 49 and changes(region, "quota.nodes")
    assert "+ /d/3/k" in xsdump(region, "log", "-p", "/d/3")[1]
    assert "- /d/3/k" in xsdump(region, "log", "-p", "/d/3")[1]


def test_moments(region: Path) -> None:
    """The same moment by many names; words that name none are refused, and why."""
    told = changes(region)
    tenth = told[-11]
    tree = xsdump(region, "tree", "--at", f"{tenth['sequence']}.{tenth['step']}")
    assert tree[0] == 0 and tree == xsdump(region, "tree", "--at", "~10")
    stamp = datetime.datetime.fromtimestamp(tenth["time_us"] / 1e6).isoformat()
    assert tree == xsdump(region, "tree", "--at", stamp)
    assert changes(region, "--since", "~10") == told[-10:]
    assert changes(region, "--until", "~10") == told[:-10]
    assert xsdump(region, "tree", "--at", "crash:1") == xsdump(region, "tree")
    assert xsdump(region, "tree", "--at", "0s") == xsdump(region, "tree", "--at", "end")
    for word in ("yesterday", "~9999", "life:7", "25:61", "1999-01-01T00:00"):
        code, text = xsdump(region, "tree", "--at", word)
        assert code == 2 and word in text and text.count("\n") == 1, text


def test_every_moment_is_what_it_was(tmp_path: Path) -> None:
    """tree --at each record is what the server held then: compared with the store itself."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    held: dict[int, dict[bytes, tuple[bytes, int]]] = {}
    for number in range(3000):
        life.turn((11, 0, b"/d/%d/k\0" % (number % 40) + b"x" * (number % 900)))
        if number % 40 == 39:
            life.turn((13, 0, b"/d/%d\0" % (number % 37)))
        life.tidy(idle=number % 50 == 0)
        held[life.journal.log.sequence] = {
            bytes(path): (node.value, node.ordinal)
            for path, node in life.store.tree.nodes.items()}
    past = read_past(life.medium)
    compared = 0
    for event in past.walk():
        if event.sequence in held and past.is_whole:  # type: ignore[union-attr]
            compared += 1
            assert held[event.sequence] == {  # type: ignore[union-attr]
                bytes(path): (node.value, node.ordinal)
                for path, node in past.state.nodes.items()}
    assert not past.is_from_the_beginning and compared > 500 and not past.problems


def test_diff(region: Path) -> None:
    """What was taken away and what came, between two moments."""
    told = changes(region)
    code, text = xsdump(region, "diff", "~2", "end")
    lines = text.splitlines()
    assert code == 0 and lines
    assert all(line[:2] in ("- ", "+ ") for line in lines)
    assert xsdump(region, "diff", "end", "end") == (0, "")
    code, text = xsdump(region, "diff", str(told[0]["sequence"]), "end", "/d/8")
    assert (code, text) == (0, '+ /d/8 = "" (n0)\n+ /d/8/k = "value 35" (n0)\n')
    assert xsdump(region, "diff", str(told[0]["sequence"]), "/d/8") == (0, text)  # to the end


def test_an_interrupt_is_no_answer(region: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C does not say that all is well."""
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.dump.verify.read_past", interrupt)
    assert dump(region, "verify") == (130, "")


def test_nothing_is_said_to_be_nothing(region: Path) -> None:
    """Who finds nothing is told so; a program is not, nor by words."""
    for words, expected, said in (
            (["log", "/never"], 0, "nothing of that is remembered"),
            (["log", "-n", "1", "-d", "77"], 0, "nothing of that is remembered"),
            (["tree", "/never"], 1, "/never: there is no such node"),
            (["watch", "/never"], 0, "no ring has such a watch"),
            (["connections", "-d", "77"], 0, "domain 77 is not known")):
        code, text = xsdump(region, *words)
        assert code == expected and said in text and text.count("\n") == 1
        assert xsdump(region, *words, "--json") == (expected, "")


def test_blame(region: Path) -> None:
    """Each node with who made it so; a removed one with who removed it; no such one: exit 1."""
    code, text = xsdump(region, "blame", "/d/8")
    lines = text.splitlines()
    assert code == 0 and len(lines) == 2
    assert "dom0 conn 1 WRITE" in lines[1] and lines[1].endswith('/d/8/k = "value 35" (n0)')
    code, text = xsdump(region, "blame", "/d/3/k")
    assert code == 0 and "RM: /d/3/k was removed" in text
    assert xsdump(region, "blame", "/never")[0] == 1


def test_stat(region: Path) -> None:
    """Counts that agree with the log's."""
    code, text = xsdump(region, "stat")
    told = changes(region)
    assert code == 0 and f" {len(told)} changes from " in text and "from the beginning" in text
    writes = sum(one["operation"] == "WRITE" for one in told)
    assert f"operation  {writes:>9} WRITE" in text


def test_json_tells_what_lines_tell(region: Path) -> None:
    """Every command, before or behind its name; each line an object."""
    for command in (["info"], ["log"], ["tree"], ["tree", "--items"], ["diff", "~3"],
                    ["blame", "/"], ["watch"], ["connections"], ["crashes"], ["stat"],
                    ["verify"]):
        code, text = xsdump(region, *command, "--json")
        assert code == 0 and all(isinstance(json.loads(line), dict) for line in text.splitlines())
        assert text or command in (["watch"], ["connections"])
        assert subprocess.run([XSDUMP, "--json", str(region), *command], capture_output=True,
                              text=True, timeout=TIMEOUT_S).stdout == text


def test_tree(region: Path) -> None:
    """The state itself, in order of creation."""
    code, text = xsdump(region, "tree")
    expected = left_by_crash().store.tree
    assert code == 0
    assert len(text.splitlines()) == len(expected.nodes)
    assert text.splitlines()[0] == '/ = "" (n0)'
    assert '/d/8/k = "value 35" (n0)' in text.splitlines()


def test_verify(region: Path) -> None:
    """OK, and how many sealed trees that rests on."""
    code, text = xsdump(region, "verify")
    assert code == 0 and text.startswith("OK: ") and "4 sealed git trees recomputed" in text


@pytest.mark.parametrize("where", ["record", "seal"])
def test_verify_finds_damage(tmp_path: Path, where: str) -> None:
    """A flipped byte, or a seal over another tree: DIFFERS, exit code 1, and the place."""
    life = left_by_crash()
    if where == "record":
        position = life.store.tree.nodes[b"/d/5/k"].position  # type: ignore[index]
        life.medium.bytes[layout.LOG_OFFSET + position + 50] ^= 4
        expected = f"position {position:#x}"
    else:
        mark = life.journal.last_seal
        assert mark is not None
        from app import codec
        life.journal.log.append(4, codec.encode_seal(mark._replace(tree=b"x" * 20)))
        expected = f"seal at sequence {mark.sequence}"
    path = tmp_path / "region"
    path.write_bytes(life.medium.bytes)
    code, text = xsdump(path, "verify")
    assert code == 1 and "DIFFERS" in text and expected in text, text
    assert xsdump(path, "info")[0] == 0
    assert xsdump(path, "log")[0] == 0
    assert xsdump(path, "tree")[0] == 0


def test_old_history_is_listed(tmp_path: Path) -> None:
    """Records in front of the replay start are shown as long as they are whole."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    while life.journal.log.tail < 3 * life.journal.log.size:
        life.turn((11, 0, b"/loud\0" + b"x" * 2000))
        life.tidy()
    path = tmp_path / "region"
    path.write_bytes(life.medium.bytes)
    told = changes(path)
    assert told[0]["sequence"] < life.journal.log.superblock.start_sequence
    assert told[-1]["sequence"] == life.journal.log.sequence
    assert "cleaned away)" in xsdump(path, "log")[1].splitlines()[0]
    assert xsdump(path, "verify")[0] == 0


def test_damage_in_old_history_is_told(tmp_path: Path) -> None:
    """A record that no state rests on any more: shown as damaged, and verify says where."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    while life.journal.log.tail < 3 * life.journal.log.size:
        life.turn((11, 0, b"/loud\0" + b"x" * 2000))
        life.tidy()
    log = life.journal.log
    path = tmp_path / "region"
    path.write_bytes(life.medium.bytes)
    _, text = xsdump(path, "log")
    old = (log.superblock.start + log.tail - log.size) // 2
    life.medium.bytes[layout.LOG_OFFSET + old % log.size] ^= 1
    path.write_bytes(life.medium.bytes)
    code, text = xsdump(path, "verify")
    assert code == 1 and "old history" in text
    _, text = xsdump(path, "log")
    assert "bytes: damaged" in text
    assert Life(ArrayMedium(bytes(life.medium.bytes))).state() == life.state()


@pytest.mark.parametrize(("content", "words"), [
    (b"", "too few"), (b"hello", "too few"), (os.urandom(1 << 20), "no magic")])
def test_what_is_no_region(tmp_path: Path, content: bytes, words: str) -> None:
    """One line and exit code 3."""
    path = tmp_path / "file"
    path.write_bytes(content)
    code, text = xsdump(path, "info")
    assert code == 3 and words in text and len(text.splitlines()) == 1
    assert xsdump(tmp_path / "missing", "info")[0] == 3


def test_wrong_arguments(region: Path) -> None:
    """Usage errors have exit code 2; --help has examples."""
    assert xsdump(region, "bananas")[0] == 2
    assert xsdump(region)[0] == 2
    assert xsdump(region, "log", "-n", "-5")[0] == 2
    done = subprocess.run([XSDUMP, "--help"], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0 and "examples:" in done.stdout and "exit codes:" in done.stdout


def test_live_region(tmp_path: Path) -> None:
    """Beside a running server: verify says OK under load, and --follow shows what is written."""
    import socket
    daemon = Daemon(tmp_path)
    daemon.wait_until_listening()
    region = tmp_path / "region"
    follower = subprocess.Popen([XSDUMP, str(region), "log", "--follow"], stdout=subprocess.PIPE)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(daemon.socket_path)
            for number in range(3000):
                payload = b"/live/%d\0" % (number % 50) + b"%d" % number * 100
                sock.sendall(b"\x0b\0\0\0" + bytes(8) + len(payload).to_bytes(4, "little")
                             + payload)
                sock.recv(100)
                if number % 1000 == 500:
                    code, text = xsdump(region, "verify")
                    assert code == 0, text
        assert follower.stdout is not None
        seen = b""
        while b"29992999" not in seen:
            assert select.select([follower.stdout], [], [], TIMEOUT_S)[0], "nothing follows"
            seen += os.read(follower.stdout.fileno(), 1 << 20)
            seen = seen[-20_000:]
    finally:
        follower.terminate()
        follower.wait()
        assert follower.stdout is not None
        follower.stdout.close()
        daemon.end()


def test_the_crash_slot_is_shown(tmp_path: Path) -> None:
    """What a kernel has written of the end: the line that tells, and all of it below; a torn slot
    is said to be torn; without a kernel there is nothing of it. Also without records."""
    path = tmp_path / "region"
    for image in (bytes(left_by_crash(1).medium.bytes), bytes(layout.REGION_SIZE_MIN)):
        path.write_bytes(image)
        assert "crash slot" not in xsdump(path, "info")[1]
        data = bytearray(image)
        whole = slot(b"rax 1\x1b\nkernel: divide error at rip 0x1 in restart 3\n")
        data[0x3000:0x3000 + len(whole)] = whole
        path.write_bytes(data)
        code, text = xsdump(path, "info")
        lines = text.splitlines()
        index = next(index for index, line in enumerate(lines) if line.startswith("crash slot"))
        assert code == 0 and lines[index].startswith("crash slot      written 2023-11-1")
        assert lines[index].endswith("in restart 3: kernel: divide error at rip 0x1 in restart 3")
        assert [line.strip() for line in lines[index + 1:index + 3]] == [
            "| rax 1?", "| kernel: divide error at rip 0x1 in restart 3"]
        data[0x3000 + 40] ^= 1
        path.write_bytes(data)
        assert "crash slot      torn" in xsdump(path, "info")[1]
        data[0x3000:0x4000] = slot(b"").ljust(0x1000, b"\0")
        path.write_bytes(data)
        assert "in restart 3: nothing is said\n" in xsdump(path, "info")[1]


@pytest.mark.parametrize("name", ["fifo", ".", "/dev/null", "socket"])
def test_what_is_no_region_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """A fifo too, which nobody writes to."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        code, text = xsdump(tmp_path / name, "info")
    assert code == 3 and text.count("\n") == 1 and text.startswith("xsdump: "), text
