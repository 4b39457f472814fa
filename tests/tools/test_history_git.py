# SPDX-License-Identifier: Apache-2.0
"""xsdump git: every change is a commit whose tree is the state then, and real git is content.

Method: a region with three lives of everything, written in process; what git says of the archive
against a walk over the region. Going on with an archive: test_history_goes_on.py."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import codec
from app.journal import SEAL_AUTHOR, seal_message
from persist import oid
from persist.intent import write_intent
from persist.log import format_region
from persist.record import Kind
from persist.region import open_region, open_region_for_reading
from tests.crash.world import ArrayMedium
from tests.persist.test_crash_slot import slot
from tests.tools.history_world import (
    Host,
    archive,
    changes,
    eventful,
    git,
    is_sound,
    log,
    tree_of,
)
from tools import xsdump
from tools.dump import git as command
from tools.dump.past import Change, Sealed, read_past

TRAILERS = "%(trailers:key={},valueonly,separator=)"


@pytest.fixture(scope="module")
def region() -> ArrayMedium:
    """As the crash left it."""
    return eventful().image()


@pytest.fixture(scope="module")
def history(region: ArrayMedium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its archive, with a work tree."""
    directory = tmp_path_factory.mktemp("history") / "archive"
    assert archive(region, directory, "--crashed") == 0
    yield directory
    assert git(directory, "status", "--porcelain") == ""


def test_git_is_content(history: Path) -> None:
    """fsck --strict has nothing to say; HEAD is main; the files are the state."""
    assert is_sound(history)
    assert git(history, "symbolic-ref", "HEAD") == "refs/heads/main\n"
    assert (history / "local/domain/3/state/.v").read_bytes() == b"still broken"
    assert (history / "local/domain/3/.p").read_bytes() == b"n0,R7"


def test_each_change_is_a_commit(history: Path, region: ArrayMedium) -> None:
    """One for one, in order, each tree the id that a seal would have; who, when, and what."""
    lines = log(history, "%T|%an|%ae|%at|" + "|".join(map(TRAILERS.format, [
        "Sequence", "Step", "Connection", "Process", "Request", "Life"])))
    expected = []
    for past, event in changes(region):
        assert isinstance(event, Change)
        is_server = event.type == 0xFFFF
        who = "tardigrade" if is_server else f"domain {event.domid}"
        said = ["", "", ""] if is_server else [
            str(event.conn_id), str(event.pid) if event.pid else "", str(event.req_id)]
        expected.append("|".join([
            tree_of(past), who, f"{who.replace(' ', '-')}@xenstore",
            str(event.time_us // 1_000_000), str(event.sequence),
            f"{event.step + 1}/{event.steps}", *said, str(event.life)]))
    assert lines == expected and len(lines) > 30


def test_messages(history: Path) -> None:
    """Subjects name the request and its node; bodies list what is there now."""
    subjects = log(history, "%s")
    assert subjects[0] == "life 1 begins"
    assert "WRITE /local/domain/3/state" in subjects and "RM /local/domain/5" in subjects
    assert "SET_PERMS /local/domain/3" in subjects and "SET_QUOTA quota.nodes" in subjects
    assert "transaction: /local/domain/2/t2 and 2 more" in subjects
    assert subjects.count("life 2 begins") == subjects.count("life 3 begins") == 1
    last = git(history, "log", "-1", "--format=%B").splitlines()
    assert last[:3] == ["WRITE /local/domain/3/state", "",
                        '/local/domain/3/state = "still broken" (n0)']
    assert git(history, "log", "-1", "--format=%(trailers:only)").splitlines()[:-1] == last[4:-1]


def test_bodies_are_bounded(tmp_path: Path) -> None:
    """A transaction of many long values is a short message, and is all there."""
    host = Host()
    answer = host.ask(2, (6, 0, b"\0"))[0]
    tx_id = int(answer[16:].rstrip(b"\0"))
    for number in range(50):
        host.ask(2, (11, tx_id, b"/many/%d\0" % number + b"v" * 400))
    host.ask(2, (7, tx_id, b"T\0"))
    assert archive(host.image(), tmp_path / "a") == 0
    message = git(tmp_path / "a", "log", "-1", "--format=%B")
    assert len(message) < 14_000 and "11 more effects" in message and "Record: " in message
    assert (tmp_path / "a/many/49/.v").read_bytes() == b"v" * 400


def test_seals_are_the_logs_own(history: Path, region: ArrayMedium) -> None:
    """refs/seals has exactly the sealed commits, by their ids; each tree is main's at that
    sequence; seal/N is the commit of main that a life's last one is about."""
    marks = [event.mark for event in read_past(region).walk() if isinstance(event, Sealed)]
    assert log(history, "%H", ref="refs/seals") == [mark.commit.hex() for mark in marks]
    trees = {int(line.split()[0]): line.split()[1] for line in log(
        history, TRAILERS.format("Sequence") + " %T")}
    for mark in marks:
        assert trees[max(one for one in trees if one <= mark.sequence)] == mark.tree.hex()
    tags = git(history, "tag", "--list", "seal/*").split()
    assert tags == sorted(f"seal/{marks[index].sequence}" for index in (1, 2))
    for tag in tags:
        assert git(history, "merge-base", "--is-ancestor", tag, "main") == ""
        assert git(history, "rev-parse", f"{tag}^{{tree}}").strip() in {
            mark.tree.hex() for mark in marks}
    assert not (history / ".git/shallow").exists()


def test_lives_and_deaths(history: Path) -> None:
    """life/N at the first change of a life; crash/N at the last one of a life that did not end on
    purpose, with the cause."""
    assert git(history, "tag", "--list", "life/*", "crash/*").split() == [
        "crash/1", "crash/3", "life/1", "life/2", "life/3"]
    for number in (1, 2, 3):
        assert log(history, "%s", "-1", ref=f"life/{number}") == [f"life {number} begins"]
    text = git(history, "for-each-ref", "--format=%(contents)", "refs/tags/crash/1")
    assert text.startswith("life 1 ended by: RuntimeError: the end\n")
    assert "| Traceback (most recent call last):" in text and "|   File x" in text
    assert git(history, "rev-parse", "crash/1^{}") == git(history, "rev-parse", "life/2^")
    assert git(history, "rev-parse", "crash/3^{}") == git(history, "rev-parse", "main")
    text = git(history, "for-each-ref", "--format=%(contents)", "refs/tags/life/2")
    assert "life 2 begins: clean" in text and "RuntimeError: the end" in text


def test_questions_at_night(history: Path) -> None:
    """The commands of the manual: what, who, when."""
    diff = git(history, "log", "-p", "-1", "local/domain/3")
    assert "-broken" in diff and "+still broken" in diff and "Author: domain 7 " in diff
    assert len(log(history, "%H", "--", "local/domain/3/state")) > 8
    assert "(domain 7 " in git(history, "blame", "local/domain/3/state/.v")
    assert git(history, "log", "-1", "--author=domain-7@", "--format=%s").strip() == \
        "WRITE /local/domain/3/state"
    names = git(history, "diff", "--name-only", "HEAD~5").split()
    assert names == ["local/domain/3/state/.v"]
    names = git(history, "diff", "--name-only", "crash/1", "life/3").split()
    assert "local/domain/5/new/.v" in names


def test_bisect(history: Path) -> None:
    """Finds the change that broke it by running a command."""
    git(history, "bisect", "start", "main", "life/3")
    said = git(history, "bisect", "run", "sh", "-c", "! grep -q broken local/domain/3/state/.v")
    git(history, "bisect", "reset")
    assert "is the first bad commit" in said and 'local/domain/3/state = "broken"' in said


def test_bare_and_sha256(region: ArrayMedium, tmp_path: Path,
                         capsys: pytest.CaptureFixture[str]) -> None:
    """The same history under other ids; no refs/seals then, and that is said."""
    assert archive(region, tmp_path / "a", "--bare", "--object-format=sha256") == 0
    assert "there is no refs/seals" in capsys.readouterr().out
    assert is_sound(tmp_path / "a") and len(git(tmp_path / "a", "rev-parse", "main").strip()) == 64
    assert git(tmp_path / "a", "for-each-ref", "refs/seals*", "refs/tags/seal") == ""
    assert (tmp_path / "a/HEAD").is_file()
    subjects = log(tmp_path / "a", "%s")
    assert archive(region, tmp_path / "a", "--object-format=sha1") == 2
    assert archive(region, tmp_path / "b", "--bare") == 0
    assert log(tmp_path / "b", "%s") == subjects and is_sound(tmp_path / "b")


@pytest.mark.parametrize("field", ["tree", "commit"])
def test_a_seal_that_differs(tmp_path: Path, field: str,
                             capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and which; the rest is there, and the next seal is not hung on a lie."""
    host = eventful()
    host.seal()
    mark = host.life.journal.last_seal
    assert mark is not None
    lie = mark._replace(**{field: b"x" * 20}, parent=mark.commit,
                        sequence=host.life.journal.log.sequence)
    host.life.journal.log.append(Kind.SEAL, codec.encode_seal(lie))
    assert archive(host.image(), tmp_path / "a") == 1
    assert f"DIFFERS: seal at sequence {lie.sequence}: " in capsys.readouterr().out
    assert is_sound(tmp_path / "a")
    assert log(tmp_path / "a", "%H", ref="refs/seals")[-1] == mark.commit.hex()


def test_a_seal_over_another_state_differs(tmp_path: Path) -> None:
    """A whole commit, its id as computed, of a tree that git does not get."""
    host = eventful()
    mark = host.life.journal.last_seal
    assert mark is not None
    host.write(1, "/later", b"1")
    lie = mark._replace(parent=mark.commit, sequence=host.life.journal.log.sequence)
    lie = lie._replace(commit=oid.commit_id(lie.tree, lie.parent, SEAL_AUTHOR, lie.time_s,
                                            seal_message(lie.sequence)))
    host.life.journal.log.append(Kind.SEAL, codec.encode_seal(lie))
    assert archive(host.image(), tmp_path / "a") == 1


def test_the_last_death(tmp_path: Path) -> None:
    """Of a file that nobody has locked: crash/N says what the crash slot and the intent say. While
    a server has it there is no such tag, and none for a life that ended on purpose."""
    host = eventful()
    write_intent(host.medium, 1, host.life.journal.log.sequence, b"\1" + (5).to_bytes(8, "little")
                 + (4711).to_bytes(8, "little"))
    whole = slot(b"rax 1\nkernel: divide error at rip 0x1 in restart 3\n")
    host.medium.bytes[0x3000:0x3000 + len(whole)] = whole
    path = tmp_path / "region"
    path.write_bytes(host.medium.bytes)
    server = open_region(str(path), None)
    assert xsdump.main([str(path), "git", str(tmp_path / "a")]) == 0
    assert git(tmp_path / "a", "tag", "--list", "crash/3") == ""
    server.close()
    assert xsdump.main([str(path), "git", str(tmp_path / "a")]) == 0
    text = git(tmp_path / "a", "for-each-ref", "--format=%(contents)", "refs/tags/crash/3")
    assert text.startswith("life 3 ended by: kernel: divide error at rip 0x1 in restart 3\n")
    assert "conn 5 at stream position 4711: its request" in text and "| rax 1" in text
    host.end()
    path.write_bytes(host.medium.bytes)
    assert xsdump.main([str(path), "git", str(tmp_path / "b")]) == 0
    assert git(tmp_path / "b", "tag", "--list", "crash/3") == ""


def test_the_words_beside_the_region(tmp_path: Path) -> None:
    """REGION.crash, which a dead daemon has left."""
    path = tmp_path / "region"
    path.write_bytes(eventful().medium.bytes)
    (tmp_path / "region.crash").write_text("Traceback (most recent call last):\nKeyError: 5\n")
    region = open_region_for_reading(str(path))
    assert archive(region, tmp_path / "a", "--bare") == 0
    region.close()
    text = git(tmp_path / "a", "for-each-ref", "--format=%(contents:subject)",
               "refs/tags/crash/3")
    assert text == "life 3 ended by: KeyError: 5\n"


def test_what_is_not_ours_is_refused(region: ArrayMedium, tmp_path: Path,
                                     capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line, and nothing is touched."""
    file = tmp_path / "file"
    file.write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thing").write_text("x")
    foreign = tmp_path / "foreign"
    subprocess.run(["git", "init", "-q", str(foreign)], check=True)
    git(foreign, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty",
        "-m", "x")
    before = git(foreign, "for-each-ref")
    mixed = tmp_path / "mixed"
    subprocess.run(["git", "init", "-q", str(mixed)], check=True)
    (mixed / "thing").write_text("x")
    for place in (file, full, foreign, mixed):
        assert archive(region, place) == 2, place
        said = capsys.readouterr()
        assert said.err.startswith(f"xsdump: {place}: ") and said.err.count("\n") == 1
    assert git(foreign, "for-each-ref") == before and not (full / ".git").exists()
    assert git(mixed, "config", "--get", "xsdump.archive", code=1) == ""


def test_an_empty_repository_is_taken(region: ArrayMedium, tmp_path: Path) -> None:
    """Made before, for its remotes and settings."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "trunk", str(tmp_path / "a")], check=True)
    assert archive(region, tmp_path / "a") == 0
    assert git(tmp_path / "a", "symbolic-ref", "HEAD") == "refs/heads/main\n" and is_sound(
        tmp_path / "a")


def test_progress(region: ArrayMedium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: how far, how many, how fast; and the line is gone in the end."""
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("tools.dump.progress.FIRST_S", 0)
    monkeypatch.setattr("tools.dump.progress.AGAIN_S", 0)
    assert archive(region, tmp_path / "a", "--bare") == 0
    shown = terminal.getvalue().split("\r")
    assert "%, " in shown[20] and " commits, " in shown[20] and " a second" in shown[20]
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_the_units(tmp_path: Path) -> None:
    """What systemd is told to run is understood, and exists."""
    tools = Path(command.__file__).resolve().parents[1]
    service = (tools / "xsdump-archive.service").read_text("utf-8")
    line = next(one for one in service.splitlines() if one.startswith("ExecStart="))
    program, *words = line.partition("=")[2].split()
    assert (tools.parent / program.removeprefix("/opt/tardigrade/")).is_file()
    options = xsdump.parse([word.strip("${}") for word in words])
    assert options.command is command.export and options.bare and options.follow
    timer = (tools / "xsdump-archive.timer").read_text("utf-8")
    unit = next(one for one in timer.splitlines() if one.startswith("Unit="))
    assert (tools / unit.partition("=")[2]).is_file()


def test_a_new_region(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was recorded, or a server has died before it could: said, and no commit."""
    formatted = ArrayMedium(1 << 20)
    format_region(formatted)
    for medium in (ArrayMedium(1 << 20), formatted):
        assert archive(medium, tmp_path / "a") == 0
        assert "nothing was recorded" in capsys.readouterr().out
