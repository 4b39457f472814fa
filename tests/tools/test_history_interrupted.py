# SPDX-License-Identifier: Apache-2.0
"""xsdump git beside a server, and when it is interrupted, killed, or fails: what was kept is sound,
and the next run makes of it what a single run would have made.

Method: all refs are compared with those of a single run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from persist.history import Gap
from persist.record import Record
from persist.region import Medium
from tests.app.test_main import Daemon
from tests.bench.history import fill
from tests.tools.history_world import (
    REFS,
    archive,
    eventful,
    git,
    is_sound,
    log,
    stages,
)
from tools.dump import archive as archive_module
from tools.dump import git as command
from tools.dump.archive import Archive
from tools.dump.past import Event, read_past

TOOL = str(Path(__file__).resolve().parents[2] / "tools" / "xsdump")
TIMEOUT_S = 30


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_interrupt_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    is_killed: bool) -> None:
    """By SIGINT: 130, all up to there is kept. By a kill: what was kept last is. Then the next run
    makes what one run alone would have made."""
    image = eventful().image()
    assert archive(image, tmp_path / "one", "--bare") == 0
    taken = Archive.take
    events = 0

    def take(self: Archive, event: Event) -> None:
        nonlocal events
        events += 1
        taken(self, event)
        if events % 15 == 0:
            if is_killed:
                raise MemoryError("killed")
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Archive, "take", take)
    monkeypatch.setattr(archive_module, "KEPT_EVERY", 4)
    place = tmp_path / "many"
    counts = [0]
    if is_killed:
        with pytest.raises(MemoryError):
            archive(image, place, "--bare")
    else:
        assert archive(image, place, "--bare") == 130
    counts.append(len(log(place, "%H")))
    assert 4 < counts[-1] < 20 and is_sound(place)
    monkeypatch.setattr(Archive, "take", taken)
    assert archive(image, place) == 0
    assert git(place, *REFS) == git(tmp_path / "one", *REFS)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_real_interrupt(tmp_path: Path, number: signal.Signals) -> None:
    """Of the whole process group, as from a terminal, in the middle of thousands of commits: the
    archive is sound, and goes on; twice."""
    path, place = tmp_path / "region", tmp_path / "many"
    fill(str(path), 30, 12_000)
    for _ in range(2):
        process = subprocess.Popen([TOOL, str(path), "git", "--bare", str(place)],
                                   start_new_session=True, stdout=subprocess.DEVNULL)
        while process.poll() is None and not any(
                one.stat().st_size > 300_000 for one in place.glob("objects/pack/tmp_pack_*")):
            time.sleep(0.01)
        os.killpg(process.pid, number)
        assert process.wait(TIMEOUT_S) == (130 if number != signal.SIGKILL else -number)
        assert number == signal.SIGKILL or is_sound(place)
    for directory in (place, tmp_path / "one"):
        subprocess.run([TOOL, str(path), "git", "--bare", str(directory)], check=True,
                       timeout=10 * TIMEOUT_S)
    assert git(place, *REFS) == git(tmp_path / "one", *REFS)


def test_git_that_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3 and git's own words; later it works."""
    images, place = list(stages()), tmp_path / "a"
    assert archive(images[3], place, "--bare") == 0
    lock = place / "refs/heads/main.lock"
    lock.write_text("")
    capsys.readouterr()
    assert archive(images[-1], place) == 3
    assert "main.lock" in capsys.readouterr().err
    lock.unlink()
    assert archive(images[-1], place) == 0 and is_sound(place)


def test_beside_a_server(tmp_path: Path) -> None:
    """--follow: what a server does is in the archive seconds later, its crash and its next life
    too; in the end it is what one run makes."""
    daemon = Daemon(tmp_path)
    daemon.wait_until_listening()
    place, region = tmp_path / "a", str(tmp_path / "region")
    follower = subprocess.Popen([TOOL, region, "git", "--bare", "--follow", str(place)],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for(place, "life 1 begins")
        write(daemon, b"/live", b"1")
        wait_for(place, "WRITE /live")
        daemon.end(signal.SIGKILL)
        daemon = Daemon(tmp_path)
        daemon.wait_until_listening()
        wait_for(place, "life 2 begins")
        assert git(place, "tag", "--list", "crash/*") == "crash/1\n"
        write(daemon, b"/live", b"2")
        follower.terminate()
        said, _ = follower.communicate(timeout=TIMEOUT_S)
        assert follower.returncode == 0 and b"commits added" in said
    finally:
        follower.kill()
        follower.communicate()
        daemon.end()
    tool = subprocess.run([TOOL, region, "git", str(place)], timeout=TIMEOUT_S)
    again = subprocess.run([TOOL, region, "git", "--bare", str(tmp_path / "b")], timeout=TIMEOUT_S)
    assert tool.returncode == again.returncode == 0 and is_sound(place)
    assert git(place, *REFS) == git(tmp_path / "b", *REFS)


def test_following_with_a_new_git_for_each_record(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept and tidied after every record, whatever it is: nothing rests on one process of git's."""
    first, *_, final = stages()

    def appended(_: Medium, position: int) -> Iterator[Record | Gap | None]:
        for one in read_past(final).entries:
            if one.position >= position:
                yield one
                yield None
        os.kill(os.getpid(), signal.SIGTERM)
        yield None

    monkeypatch.setattr(command, "follow", appended)
    monkeypatch.setattr(command, "KEEP_S", -1)
    monkeypatch.setattr(command, "TIDY_EVERY", 1)
    assert archive(first, tmp_path / "many", "--bare", "--follow") == 0
    assert archive(final, tmp_path / "one", "--bare") == 0
    assert git(tmp_path / "many", *REFS) == git(tmp_path / "one", *REFS)
    assert is_sound(tmp_path / "many")


def write(daemon: Daemon, path: bytes, value: bytes) -> None:
    """One WRITE by the socket."""
    import socket
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(daemon.socket_path)
        payload = path + b"\0" + value
        sock.sendall(b"\x0b\0\0\0" + bytes(8) + len(payload).to_bytes(4, "little") + payload)
        assert sock.recv(100).endswith(b"OK\0")


def wait_for(place: Path, subject: str) -> None:
    """Until the archive has a commit with this subject."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        done = subprocess.run(["git", "--git-dir", str(place), "log", "--format=%s", "main"],
                              capture_output=True, text=True)
        if subject in done.stdout.splitlines():
            return
        time.sleep(0.1)
    raise AssertionError(f"no commit {subject}")


def test_while_following_packs_are_put_together(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Each checkpoint leaves a pack; there are never many."""
    import tools.dump.gitrepo as gitrepo
    monkeypatch.setattr(gitrepo, "PACKS_MAX", 4)
    images, place = list(stages()), tmp_path / "a"
    for image in images:
        assert archive(image, place, "--bare") == 0
        assert len(list((place / "objects/pack").glob("*.pack"))) <= 6
    assert command.TIDY_EVERY * command.KEEP_S >= 60 and is_sound(place)
