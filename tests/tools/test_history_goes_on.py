# SPDX-License-Identifier: Apache-2.0
"""xsdump git goes on with what there is: many runs make what one would, and what is missing is
told, never papered over. Interrupts and servers that run: test_history_interrupted.py.

Method: images of one region at several moments, archived one after the other; refs are compared
with those of a single run, trees with the ids that the server has sealed itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from persist import layout
from persist.reader import LogReader
from persist.record import Kind
from tests.crash.world import ArrayMedium
from tests.tools.history_world import (
    REFS,
    STATE,
    Host,
    archive,
    eventful,
    git,
    is_sound,
    log,
    sealed,
    stages,
    tree,
    tree_of,
)
from tools.dump.past import read_past


def damage(medium: ArrayMedium, position: int) -> None:
    """One bit of the record there."""
    medium.bytes[layout.LOG_OFFSET + (position + 50) % layout.log_size(medium.size)] ^= 4


def position_of(medium: ArrayMedium, sequence: int) -> int:
    """Of a record that is still there."""
    return next(one.position for one in read_past(medium).entries
                if getattr(one, "sequence", 0) == sequence)


def test_many_runs_make_what_one_does(tmp_path: Path) -> None:
    """Every ref is the same: main, seals, lives, deaths. A run without news changes nothing."""
    image = None
    for image in stages():
        assert archive(image, tmp_path / "many", "--bare") == 0
    assert image is not None
    assert archive(image, tmp_path / "one", "--bare") == 0
    refs = git(tmp_path / "many", *REFS)
    assert refs == git(tmp_path / "one", *REFS) and "refs/tags/crash/1" in refs
    assert archive(image, tmp_path / "many") == 0
    assert git(tmp_path / "many", *REFS) == refs and is_sound(tmp_path / "many")


def test_what_was_cleaned_away_is_said(tmp_path: Path) -> None:
    """The first commit says so; commits are incomplete until the state is proven, then every tree
    is exactly the state; seals begin at a shallow root, and main can be pushed and cloned."""
    host = Host()
    host.write(5, "/kept", b"from the beginning")
    host.seal()
    host.fill(1.5)
    host.seal()
    for number in range(8):
        host.write(5, "/late", b"%d" % number)
        host.seal()
    host.die()
    image, place = host.image(), tmp_path / "a"
    assert archive(image, place, "--bare") == 0 and is_sound(place)
    first, *states = log(place, f"%s|{STATE}")
    past = read_past(image)
    assert first == f"the history begins at sequence {past.first}|incomplete"
    assert "cleaned away" in git(place, "log", "--max-parents=0", "--format=%b")
    is_whole = [line.endswith("|") for line in states]
    assert is_whole == sorted(is_whole) and is_whole[-1]
    trees = [tree_of(past) for event in past.walk() if type(event).__name__ == "Change"]
    assert log(place, "%T")[1:] == trees and trees[-1] == sealed(host)
    root = git(place, "log", "--max-parents=0", "--format=%H", "refs/seals").strip()
    assert (place / "shallow").read_text() == root + "\n"
    assert len(log(place, "%H", ref="refs/seals")) >= 8
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main",
                    str(tmp_path / "remote")], check=True)
    git(place, "push", "-q", (tmp_path / "remote").as_uri(), "main", "--tags")
    assert git(tmp_path / "remote", "rev-parse", "main") == git(place, "rev-parse", "main")
    assert "seal/" in git(tmp_path / "remote", "tag")
    subprocess.run(["git", "clone", "-q", place.as_uri(), str(tmp_path / "b")], check=True)
    assert is_sound(tmp_path / "remote") and is_sound(tmp_path / "b")
    assert not (tmp_path / "b/.git/shallow").exists()


def test_the_archive_goes_back_further_than_the_region(tmp_path: Path) -> None:
    """What the region has forgotten since stays in main, which is whole all the time."""
    host, place = Host(), tmp_path / "a"
    host.write(5, "/first", b"1")
    host.write(5, "/gone/below", b"1")
    for _ in range(12):
        assert archive(host.image(), place, "--bare") == 0
        host.fill(0.3)
    host.ask(1, (13, 0, b"/gone\0"))
    expected = sealed(host)
    assert archive(host.image(), place) == 0
    assert tree(place) == expected and is_sound(place)
    assert set(log(place, STATE)) == {""} and not read_past(host.image()).is_from_the_beginning
    sequences = [int(one) for one in log(place, "%(trailers:key=Sequence,valueonly,separator=)")]
    assert sequences == sorted(set(sequences)) and sequences[0] == 2
    assert not any("LOST" in line for line in log(place, "%s"))


def test_a_gap_is_a_commit(tmp_path: Path) -> None:
    """Records that nobody has archived in time: said, from which to which; the state is what the
    region proves."""
    host, place = Host(), tmp_path / "a"
    host.write(5, "/first", b"1")
    host.write(5, "/gone", b"1")
    assert archive(host.image(), place, "--bare") == 0
    last = host.life.journal.log.sequence
    host.ask(5, (13, 0, b"/gone\0"))
    host.fill(3)
    expected = sealed(host)
    assert archive(host.image(), place) == 0
    first = read_past(host.image()).first
    assert f"LOST: records {last + 1} to {first - 1}|incomplete" in log(place, f"%s|{STATE}")
    assert tree(place) == expected and log(place, STATE)[-1] == "" and is_sound(place)
    refs = git(place, *REFS)
    assert archive(host.image(), place) == 0 and git(place, *REFS) == refs


@pytest.mark.parametrize("turns", [1, 60])
def test_another_region_goes_on_in_the_same_archive(tmp_path: Path, turns: int) -> None:
    """After a host's boot: a commit says so and empties the tree; its tags have names of their own;
    the seals of before are kept. Whether it is shorter than the one before, or longer."""
    place = tmp_path / "a"
    assert archive(eventful().image(), place, "--bare") == 0
    before = git(place, "rev-parse", "refs/seals")
    other = Host(time_us=1_800_000_000_000_000)
    for number in range(turns):
        other.write(1, "/new", b"%d" % number)
    expected = sealed(other)
    assert archive(other.image(), place) == 0
    assert tree(place) == expected and is_sound(place)
    assert "region 2 begins: the store was made anew" in log(place, "%s")
    assert log(place, "%T")[-2 - turns] == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert log(place, "%s", "-1", ref="region-2/life/1") == ["life 1 begins"]
    assert git(place, "rev-parse", "refs/seals-before/1") == before
    other.die("boom")
    assert archive(other.image(), place) == 0
    assert "boom" in git(place, "for-each-ref", "--format=%(contents:subject)",
                         "refs/tags/region-2/crash/1")
    assert log(place, "%s").count("region 2 begins: the store was made anew") == 1


def test_an_older_copy_adds_nothing(tmp_path: Path) -> None:
    """All that it has is there already."""
    copies, place = list(stages()), tmp_path / "a"
    assert archive(copies[-1], place, "--bare") == 0
    refs = git(place, *REFS)
    for copy in copies[2:]:
        assert archive(copy, place) == 0
        assert git(place, *REFS) == refs


def test_damage_is_a_commit(tmp_path: Path) -> None:
    """A record in the middle is lost: a commit says so, nothing is whole behind it until all was
    carried forward; then main is the state again. In one run, or in two."""
    host = Host()
    for number in range(30):
        host.write(5, f"/d/{number % 10}", b"%d" % number)
    lost = host.life.journal.log.sequence - 4
    damage(host.medium, position_of(host.medium, lost))
    host.die()
    host.write(5, "/behind", b"1")
    image = host.image()
    for words in ("one", "two"):
        assert archive(image, tmp_path / words, "--bare") == 0
    lines = log(tmp_path / "one", f"%s|{STATE}")
    at = next(index for index, line in enumerate(lines) if line.startswith("LOST: "))
    assert f"behind record {lost - 1}|incomplete" in lines[at] and lines[at - 1].endswith("|")
    assert lines[-2].startswith("life 2 begins") and is_sound(tmp_path / "one")
    host.fill(0.9)
    assert archive(host.image(), tmp_path / "two") == 0
    host.seal()
    assert archive(host.image(), tmp_path / "two") == 0
    assert tree(tmp_path / "two") == sealed(host) and log(tmp_path / "two", STATE)[-1] == ""


def test_what_is_carried_forward_is_known_again(tmp_path: Path) -> None:
    """A running server still knows what a damaged record said, and says it again in time. Then all
    is known; also while the damage is in a part of the log that may be reused any moment."""
    host = Host()
    host.fill(0.3)
    host.write(5, "/kept", b"1")
    damage(host.medium, position_of(host.medium, host.life.journal.log.sequence))
    host.fill(0.75)
    assert archive(host.image(), tmp_path / "a") == 0
    subjects = log(tmp_path / "a", "%s")
    at = next(index for index, one in enumerate(subjects) if one.startswith("known again: "))
    assert subjects[:at][-1].startswith("WRITE /loud") and "LOST: " in "".join(subjects[:at])
    (subject,) = log(tmp_path / "a", "%s", "--", "kept")
    assert subject.startswith("known again: ")
    for directory in ("a", "b"):
        expected = sealed(host)
        assert archive(host.image(), tmp_path / directory) == 0
        assert tree(tmp_path / directory) == expected, directory
        host.fill(0.05)


def test_damage_at_the_very_beginning_of_a_full_log(tmp_path: Path) -> None:
    """It may be reused any moment, so it is no gap, and what was in it is known by inference."""
    host = Host()
    host.write(5, "/kept", b"1")
    damage(host.medium, position_of(host.medium, host.life.journal.log.sequence))
    host.fill(0.9)
    expected = sealed(host)
    assert read_past(host.image()).is_from_the_beginning
    assert archive(host.image(), tmp_path / "a") == 0
    assert tree(tmp_path / "a") == expected


def test_a_lost_removal(tmp_path: Path) -> None:
    """A node that comes back under another ordinal was removed in between, with all below it."""
    host = Host()
    host.write(5, "/x/old", b"1")
    host.ask(5, (13, 0, b"/x\0"))
    damage(host.medium, position_of(host.medium, host.life.journal.log.sequence))
    host.write(5, "/x/new", b"1")
    assert archive(host.image(), tmp_path / "a") == 0
    assert log(tmp_path / "a", "%s")[-2].startswith("LOST: ")
    assert (tmp_path / "a/x/new/.v").exists() and not (tmp_path / "a/x/old").exists()


def test_the_last_archived_record_is_damaged_later(tmp_path: Path) -> None:
    """The next one still names it: nothing is missing. If that one is damaged as well, it cannot
    be told: a commit says so, once."""
    host, place = Host(), tmp_path / "a"
    for number in range(10):
        host.write(5, f"/d/{number}", b"%d" % number)
    assert archive(host.image(), place, "--bare") == 0
    host.write(5, "/next", b"1")
    damage(host.medium, position_of(host.medium, host.life.journal.log.sequence - 1))
    shutil.copytree(place, tmp_path / "b")
    assert archive(host.image(), tmp_path / "b") == 0
    assert log(tmp_path / "b", f"%s|{STATE}")[-2:] == ["WRITE /d/9|", "WRITE /next|"]
    damage(host.medium, position_of(host.medium, host.life.journal.log.sequence))
    host.life.journal.log.append(Kind.END, b"")
    for _ in range(2):
        assert archive(host.image(), place) == 0
        assert log(place, f"%s|{STATE}")[-1].startswith("LOST: what came behind record")
        assert log(place, "%s")[-2] == "WRITE /d/9"


@pytest.mark.parametrize("is_said_again", [True, False])
def test_the_archive_has_what_is_lost_later(tmp_path: Path, is_said_again: bool) -> None:
    """What it has of a record that is damaged now is newer than what the region knows. So a change
    back to that must be a change here, too; and where the region's state is proven again, it
    counts, wherever the archive differs."""
    host, place = Host(), tmp_path / "a"
    host.write(5, "/k", b"before")
    host.write(5, "/k", b"archived")
    assert archive(host.image(), place) == 0
    host.write(5, "/else", b"1")
    if not is_said_again:
        host.write(5, "/k", b"before")
    for sequence in range(host.life.journal.log.sequence, 3, -1):
        damage(host.medium, position_of(host.medium, sequence))
    host.write(5, "/else" if not is_said_again else "/k", b"before")
    assert archive(host.image(), place) == 0
    assert (place / "k/.v").read_bytes() == b"before"
    assert log(place, "%s")[-2].startswith("LOST: what came behind")
    assert (log(place, STATE)[-1] == "incomplete") is is_said_again


def test_a_damaged_beginning(tmp_path: Path) -> None:
    """The first record is lost: said, and no history is made up."""
    host = eventful()
    damage(host.medium, 0)
    assert archive(host.image(), tmp_path / "a", "--bare") == 0
    assert "What was before is damaged." in git(tmp_path / "a", "log", "--max-parents=0",
                                                "--format=%b")
    assert is_sound(tmp_path / "a")


def test_every_damage_leaves_a_sound_archive(tmp_path: Path) -> None:
    """Whichever record it is, alone or with its neighbour, in the first run or in the second."""
    image = eventful().image()
    positions = [one.position for one in read_past(image).entries]
    for number, position in enumerate(positions[::7]):
        hurt = ArrayMedium(bytes(image.bytes))
        damage(hurt, position)
        if number % 2:
            one = LogReader(image).record_at(position)
            assert one is not None
            damage(hurt, position + one.size)
        place = tmp_path / str(number)
        assert archive(hurt, place, "--bare") in (0, 1) and is_sound(place)
        assert archive(image, place) in (0, 1) and is_sound(place)


def test_the_work_tree_of_somebody_at_work(tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    """It follows main, but not where files were changed, or HEAD is elsewhere."""
    images, place = list(stages()), tmp_path / "a"
    assert archive(images[2], place) == 0
    assert archive(images[4], place) == 0 and (place / "a/1/.v").exists()
    (place / "a/1/.v").write_text("mine")
    assert archive(images[6], place) == 0
    assert "its files were changed" in capsys.readouterr().out
    assert (place / "a/1/.v").read_text() == "mine" and not (place / "a/2").exists()
    git(place, "checkout", "-q", "-f", "--detach", "life/1")
    assert archive(images[8], place) == 0
    assert "HEAD is not on main" in capsys.readouterr().out and not (place / "a").exists()
    git(place, "checkout", "-q", "main")
    assert archive(images[-1], place) == 0 and (place / "a/1/c/.v").read_text() == "3"


def test_commits_of_others_on_main_are_refused(tmp_path: Path) -> None:
    """Exit code 2: where to go on is not known."""
    image, place = eventful().image(), tmp_path / "a"
    assert archive(image, place) == 0
    git(place, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty",
        "-m", "mine")
    assert archive(image, place) == 2
