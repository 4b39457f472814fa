# SPDX-License-Identifier: Apache-2.0
"""A region's past -> a git repository of ours: one commit per change, tags for lives and deaths.

A1. main only grows. Where it ends says where the next run begins (gitwords.Last); an event that it
    has already is left out, by sequence and step.
A2. The tree of a commit is the state then: all that is known of it (`State: incomplete`), or all.
A3. `is_in_step`: main's tree is exactly the walk's state. If not, the archive knows more, since it
    goes back further; it stays whole if it was, because what follows is absolute and without a gap.
A4. A seal gets onto refs/seals only when git has computed the sealed tree itself.
Knows nothing of arguments, terminals and time. Where to begin: continuation.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from app.codec import Life, SealMark
from app.death import Death
from app.journal import SEAL_AUTHOR, seal_message
from persist import oid
from tools.dump import gitstream, gitwords
from tools.dump.continuation import Plan
from tools.dump.ending import death_lines, death_of
from tools.dump.gitimport import ASKED_MAX, FastImport
from tools.dump.gitrepo import MAIN, SEALS, Repository
from tools.dump.gitwords import BEHIND
from tools.dump.past import (
    SERVER_TYPE,
    Begun,
    Carried,
    Change,
    Ended,
    Event,
    Lost,
    Past,
    Sealed,
)

KEPT_EVERY = 20_000  # commits; a new process then, since it remembers every object that it wrote


class Counts(NamedTuple):
    """What was done. `verified`: seals whose tree git has computed; `unknown`: seals of a state
    that is not known as a whole."""

    commits: int
    verified: int
    unknown: int


class Archive:
    """Takes the events of one walk, in order; close() at the end."""

    def __init__(self, repository: Repository, past: Past, plan: Plan,
                 check_of: Callable[[int], str]) -> None:
        """`check_of`: the checksum of a record, in hexadecimal, or empty."""
        self.problems: list[str] = []
        self.last = plan.last
        self.life = plan.last.life  # the newest
        self.is_ended = False
        self.commits = self.verified = self.unknown = 0
        self._repository = repository
        self._past = past
        self._check_of = check_of
        self._import = FastImport(str(repository.git_dir))
        self._tip = _hex(repository.resolve(MAIN))  # a mark, or the id from before this process
        self._has_tip_here = False
        self._chain = repository.resolve(SEALS)
        self._has_chain_here = False
        self._sealed_up_to = repository.sealed_up_to()
        self._seal_seen, self._sealed_tip = 0, b""  # the last one in this process, and its commit
        self._is_in_step = plan.is_in_step
        self._begun: Life | None = None  # a life without a commit yet
        self._dead: Life | None = None  # the one behind a crash that was not told of yet
        self._dead_tip = b""  # the last commit before it
        self._asked: list[SealMark] = []
        self._kept = 0
        if plan.is_other_region:
            self._end_chain()
        if plan.note is not None:
            subject, body = plan.note
            files = gitstream.everything(plan.base) if plan.base is not None else b""
            self._commit((gitstream.SERVER, gitstream.SERVER),
                         gitwords.note_message(subject, body, self.last), files)

    @property
    def is_dirty(self) -> bool:
        """Whether there are commits that a crash of this machine could lose."""
        return self.commits > self._kept

    # -- events

    def take(self, event: Event) -> None:
        """One event of the walk."""
        if isinstance(event, Change):
            if (event.sequence, event.step) > (self.last.sequence, self.last.step):
                self._take_change(event)
        elif isinstance(event, Lost):
            if event.after > self.last.sequence or (
                    event.after == self.last.sequence and self.last.step != BEHIND):
                self._take_lost(event)
        elif isinstance(event, Begun):
            self.life, self.is_ended = event.life.number, False
            if event.sequence > self.last.sequence:
                self._take_begun(event)
        elif isinstance(event, Sealed):
            if self._tip and event.sequence > self.last.sequence:
                self._take_seal(event.mark)
        elif isinstance(event, Carried):
            if event.differences and event.sequence > self.last.sequence:
                self._take_carried(event)
        elif isinstance(event, Ended):
            self.is_ended = True

    def _take_change(self, change: Change) -> None:
        files = self._resynchronised()
        if not files:
            files = gitstream.changed(change.effects, change.differences, self._is_in_step)
        self._now(change.sequence, change.step, change.life, change.time_us)
        author = (gitstream.SERVER if change.type == SERVER_TYPE
                  else gitstream.identity(change.domid))
        begun, self._begun = self._begun, None
        self._commit((author, gitstream.SERVER),
                     gitwords.change_message(change, self.last, begun is not None), files)
        if self._dead is not None and (death := death_of(change)) is not None:
            self._tell_death(death)
        if begun is not None:
            self._tag(f"life/{begun.number}", begun.time_us, gitwords.life_message(begun))
        if self.commits - self._kept >= KEPT_EVERY:
            self.tidy()

    def _take_lost(self, lost: Lost) -> None:
        self._now(lost.after, BEHIND, self.last.life, lost.time_us or self.last.time_us)
        self.last = self.last._replace(is_whole=False)
        self._note(f"LOST: {lost.size} bytes of the log behind record {lost.after}",
                   f"From position {lost.position:#x} on they do not verify, or were reused before "
                   "they were read. What they changed is seen once it is changed again, or carried "
                   "forward.", b"")

    def _take_carried(self, carried: Carried) -> None:
        files = self._resynchronised() or gitstream.changed(
            gitstream.effects_of(carried.differences), carried.differences, self._is_in_step)
        self._now(carried.sequence, 0, self.last.life, carried.time_us)
        self._note(f"known again: {len(carried.differences)} nodes and items",
                   "They were carried forward in the log: changed in records that are lost.", files)

    def _resynchronised(self) -> bytes:
        """Whether the state is known as a whole now; if that is news (A3), all of it."""
        was_in_step, was_whole = self._is_in_step, self.last.is_whole
        if self._past.is_whole:
            self._is_in_step = True
            self.last = self.last._replace(is_whole=True)
            if not was_in_step and not was_whole:
                return gitstream.everything(self._past.state)
        elif was_in_step:
            self.last = self.last._replace(is_whole=False)
        return b""

    # -- lives

    def _take_begun(self, begun: Begun) -> None:
        self._settle()
        life = begun.life
        if self._chain is not None:
            self._tag_seal()
        self._tell_death(None)
        if not begun.is_clean and self._tip and life.number > 1:
            self._dead, self._dead_tip = life, self._tip
            if self._has_tip_here:
                self._import.write(gitstream.alias(gitstream.DEAD, self._tip))
                self._dead_tip = gitstream.DEAD
        self._begun = life

    def _tell_death(self, death: Death | None) -> None:
        """Of the life before the newest one: with what that has found, if it has said so."""
        dead, self._dead = self._dead, None
        if dead is not None:
            number = dead.number - 1
            self._tag(f"crash/{number}", dead.time_us,
                      gitwords.crash_message(number, death_lines(dead.cause, death)),
                      self._dead_tip)

    def tag_open_death(self, lines: list[str]) -> None:
        """The newest life is dead, and no other has begun."""
        self._tag(f"crash/{self.life}", self.last.time_us,
                  gitwords.crash_message(self.life, lines))

    def _tag(self, name: str, time_us: int, message: bytes, target: bytes = b"") -> None:
        self._import.write(gitstream.tag(self._tag_name(name), target or self._tip,
                                         time_us // 1_000_000, message))

    def _tag_name(self, name: str) -> str:
        return name if self.last.region == 1 else f"region-{self.last.region}/{name}"

    # -- seals

    def _take_seal(self, mark: SealMark) -> None:
        self._seal_seen, self._sealed_tip = mark.sequence, self._tip
        if self._has_tip_here:
            self._import.write(gitstream.alias(gitstream.SEALED, self._tip))
            self._sealed_tip = gitstream.SEALED
        if mark.sequence <= self._sealed_up_to:
            return
        computed = oid.commit_id(mark.tree, mark.parent or None, SEAL_AUTHOR, mark.time_s,
                                 seal_message(mark.sequence))
        if computed != mark.commit:
            self.problems.append(f"seal at sequence {mark.sequence}: commit {mark.commit.hex()}, "
                                 f"computed {computed.hex()}")
            return
        if not self.last.is_whole or self._repository.is_sha256:
            self.unknown += 1
            return
        self._import.ask_tree(self._tip)
        self._asked.append(mark)
        if len(self._asked) == ASKED_MAX:
            self._settle()

    def _settle(self) -> None:
        """Compare the trees that git has computed with the sealed ones; what agrees is chained."""
        asked, self._asked = self._asked, []
        if not asked:
            return
        for mark, tree in zip(asked, self._import.answers(), strict=True):
            if tree != mark.tree:
                self.problems.append(f"seal at sequence {mark.sequence}: git tree {tree.hex()} "
                                     f"instead of the sealed {mark.tree.hex()}")
                continue
            self.verified += 1
            self._chain_seal(mark)

    def _chain_seal(self, mark: SealMark) -> None:
        if mark.parent != (self._chain or b""):
            self._end_chain()
            if mark.parent:
                body = oid.commit_body(mark.tree, mark.parent, SEAL_AUTHOR, mark.time_s,
                                       seal_message(mark.sequence))
                self._restart(lambda: self._repository.begin_chain(body))
                self._chain, self._sealed_up_to = mark.commit, mark.sequence
                return
        parent = b"" if self._has_chain_here or self._chain is None else _hex(self._chain)
        self._import.write(gitstream.commit(
            SEALS.encode(), gitstream.SEAL, (gitstream.SERVER, gitstream.SERVER), mark.time_s,
            seal_message(mark.sequence).encode(), gitstream.root_is(mark.tree), parent))
        self._chain, self._sealed_up_to, self._has_chain_here = mark.commit, mark.sequence, True

    def _tag_seal(self) -> None:
        """The newest proven state of a life: a commit of main, which can be pushed anywhere."""
        target = (self._sealed_tip if self._seal_seen == self._sealed_up_to
                  else _hex(self._repository.commit_at(self._sealed_up_to)))
        if target:
            name = self._tag_name(f"seal/{self._sealed_up_to}")
            self._import.write(gitstream.reset(f"refs/tags/{name}", target))

    def _end_chain(self) -> None:
        if self._chain is not None:
            self._restart(self._repository.end_chain)
        self._chain, self._sealed_up_to = None, 0

    # -- keeping

    def keep(self) -> None:
        """All events so far are in the repository, whatever happens to this process."""
        self._settle()
        self._import.checkpoint()
        self._kept = self.commits

    def tidy(self) -> None:
        """Between two processes of git's: put its packs together."""
        self._settle()
        self._restart(self._repository.tidy)

    def close(self) -> None:
        """The end: everything is in the repository."""
        self._settle()
        self._tell_death(None)
        self._import.close()
        self._repository.tidy()

    def abandon(self) -> None:
        """Something has failed; what was kept is kept."""
        self._import.abandon()

    def counts(self) -> Counts:
        """What was done so far."""
        return Counts(self.commits, self.verified, self.unknown)

    def _restart(self, between: Callable[[], None]) -> None:
        """Do what nothing else may be done beside."""
        self._tell_death(None)
        self._import.close()
        between()
        self._kept = self.commits
        self._import = FastImport(str(self._repository.git_dir))
        self._tip = _hex(self._repository.resolve(MAIN))
        self._has_tip_here = self._has_chain_here = False
        self._seal_seen = 0

    # -- commits

    def _now(self, sequence: int, step: int, life: int, time_us: int) -> None:
        self.last = self.last._replace(sequence=sequence, step=step, life=life, time_us=time_us,
                                       check=self._check_of(sequence))

    def _note(self, subject: str, body: str, files: bytes) -> None:
        self._commit((gitstream.SERVER, gitstream.SERVER),
                     gitwords.note_message(subject, body, self.last), files)

    def _commit(self, who: tuple[bytes, bytes], message: bytes, files: bytes) -> None:
        self._import.write(gitstream.commit(
            MAIN.encode(), gitstream.TIP, who, self.last.time_us // 1_000_000, message, files,
            b"" if self._has_tip_here else self._tip))
        self._tip, self._has_tip_here = gitstream.TIP, True
        self.commits += 1


def _hex(commit: bytes | None) -> bytes:
    return commit.hex().encode() if commit is not None else b""
