# SPDX-License-Identifier: Apache-2.0
"""Our object ids are those that git gives to the same objects, and git fsck --strict agrees.

Method: a store's sealed state is written, object by object, into a real repository with
`git hash-object`, whose ids are compared with ours; then fsck, and checkout of every file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path as FilePath

import pytest

from app import codec, replay
from app import path as paths
from app.effects import Item
from app.journal import SEAL_AUTHOR, seal_message
from app.path import ROOT, Path
from app.seal import entry_name, item_text, perms_text
from app.tree import Node
from persist import layout, oid
from persist.oid import BLOB_MODE, TREE_MODE, Entry
from tests.crash.world import ArrayMedium, Life

# Names that git sorts in its own way, names longer than a file's, and a deep path.
PATHS = [b"/device", b"/device-model", b"/device/vif", b"/device0", b"/-", b"/-/-a", b"/Z/@z",
         b"/_", b"/" + b"l" * 300, b"/" + b"l" * 300 + b"/below", b"/a/b/c/d/e/f/g"]


def git(repository: FilePath, *words: str, data: bytes | None = None) -> bytes:
    """Run git in the repository; returns its output."""
    done = subprocess.run(["git", "-C", str(repository), *words], input=data, check=True,
                          stdout=subprocess.PIPE, timeout=60)
    return done.stdout


class Exporter:
    """Writes a state into a repository, checking every id on the way."""

    def __init__(self, repository: FilePath, life: Life) -> None:
        self.repository = repository
        self.life = life

    def write(self, kind: str, body: bytes) -> bytes:
        """Store one object; returns its binary id, which must be ours."""
        name = git(self.repository, "hash-object", "-w", "-t", kind, "--stdin", data=body)
        theirs = bytes.fromhex(name.decode().strip())
        assert theirs == oid.object_id(kind.encode(), body)
        return theirs

    def tree(self, path: Path, node: Node) -> bytes:
        """Store a node and all below it, written without app/seal.py's Sealer."""
        store = self.life.store
        entries = [Entry(BLOB_MODE, b".p", self.write("blob", perms_text(node.perms.wire)))]
        if node.value:
            entries.append(Entry(BLOB_MODE, b".v", self.write("blob", node.value)))
        if path == ROOT:
            entries.append(Entry(TREE_MODE, b".xs", items_tree(
                store.items.values, lambda blob: self.write("blob", blob),
                lambda entries: self.write("tree", oid.tree_body(entries)))))
        elif len(paths.name(path)) > 255:
            entries.append(Entry(BLOB_MODE, b".n", self.write("blob", paths.name(path))))
        for name in store.tree.listing(path).split(b"\0")[:-1]:
            child = paths.child(path, name)
            entries.append(Entry(TREE_MODE, entry_name(name),
                                 self.tree(child, store.tree.nodes[child])))
        return self.write("tree", oid.tree_body(entries))


def items_tree(items: dict[str, Item], blob: Callable[[bytes], bytes],
               tree: Callable[[list[Entry]], bytes]) -> bytes:
    """.xs/KIND/KEY, or .xs/KIND/NUMBER/KEY (FORMAT.md section 7)."""
    kinds: dict[str, dict[str, list[Entry]]] = {}
    for key, value in items.items():
        kind, second = [*key.split("."), ""][:2]
        kinds.setdefault(kind, {}).setdefault(second if second.isdecimal() else "", []).append(
            Entry(BLOB_MODE, key.encode(), blob(item_text(value))))
    return tree([Entry(TREE_MODE, kind.encode(), tree([
        *numbers.pop("", []),
        *(Entry(TREE_MODE, number.encode(), tree(entries)) for number, entries in numbers.items())
    ])) for kind, numbers in kinds.items()])


@pytest.fixture
def repository(tmp_path: FilePath) -> FilePath:
    """An empty repository."""
    git(tmp_path, "init", "-q")
    return tmp_path


def test_seals_are_gits(repository: FilePath) -> None:
    """Two seals of a changing state: tree and commit ids, parent, fsck, checkout."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    commits = []
    for round_ in range(2):
        for path in PATHS:
            life.turn((11, 0, path + b"\0value %d" % round_))
        life.turn((14, 0, b"/device\0n0\0r5\0b7\0"), (13, 0, b"/-/-a\0"),
                  (26, 0, b"nodes\0%d\0" % (50 + round_)))
        life.store.items.put("watch.1.9", (b"/a", b"t%d" % round_, 0, -1))
        life.store.items.put("watch.2.8", None if round_ else (b"/b", b"", 0, 5))
        life.store.items.put("tx.1.5.0", (11, b"p\0", b"=OK\0", (0, (), (b"/a", 1, (), None))))
        life.journal.commit([(codec.SERVER, codec.START, life.store.take_effects())], [])
        life.tidy(idle=True)
        mark = life.journal.last_seal
        assert mark is not None
        exporter = Exporter(repository, life)
        tree = exporter.tree(ROOT, life.store.tree.nodes[ROOT])
        assert tree == mark.tree
        body = oid.commit_body(mark.tree, mark.parent or None, SEAL_AUTHOR, mark.time_s,
                               seal_message(mark.sequence))
        assert exporter.write("commit", body) == mark.commit
        commits.append(mark)
    assert commits[1].parent == commits[0].commit
    git(repository, "update-ref", "refs/heads/main", commits[1].commit.hex())
    git(repository, "fsck", "--strict", "--full")
    assert git(repository, "log", "--format=%T", "main").decode().split() == [
        mark.tree.hex() for mark in reversed(commits)]
    git(repository, "checkout", "-q", "-f", "main")
    assert (repository / "device-model" / ".v").read_bytes() == b"value 1"
    assert (repository / "device" / ".p").read_bytes() == b"n0,R5,B7"  # M4
    assert not (repository / "-" / "-a").exists()
    assert (repository / ".xs/watch/1/watch.1.9").read_bytes() == b"/a t1 0 -1\n"
    assert not (repository / ".xs/watch/2").exists()  # its last item is gone
    assert (repository / ".xs/quota/quota.nodes").read_bytes() == b"51\n"


def test_large_directories_hash_in_slices() -> None:
    """A directory above the slice size has the same id as when it is hashed at once."""
    life = Life(ArrayMedium(layout.REGION_SIZE_DEFAULT))
    for number in range(0, 3500, 50):
        life.turn(*[(11, 0, b"/big/%d-%d\0v" % (one % 7, one))
                    for one in range(number, number + 50)])
    life.tidy(idle=True)
    mark = life.journal.last_seal
    assert mark is not None

    def tree(path: Path) -> bytes:
        node = life.store.tree.nodes[path]
        entries = [Entry(BLOB_MODE, b".p", oid.blob_id(perms_text(node.perms.wire)))]
        if node.value:
            entries.append(Entry(BLOB_MODE, b".v", oid.blob_id(node.value)))
        if path == ROOT:
            entries.append(Entry(TREE_MODE, b".xs", items_tree(
                life.store.items.values, oid.blob_id, oid.tree_id)))
        entries += [Entry(TREE_MODE, name, tree(paths.child(path, name)))
                    for name in life.store.tree.listing(path).split(b"\0")[:-1]]
        return oid.tree_id(entries)

    assert tree(ROOT) == mark.tree


def test_sealed_state_is_verified_after_a_restart() -> None:
    """P5: the ids sealed before the crash are recomputed by the next life, also when the state
    has been changed since, before the crash and after the restart."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    for number in range(60):
        life.turn((11, 0, b"/d/%d/%d\0v" % (number % 5, number)))
    life.tidy(idle=True)
    life.turn((11, 0, b"/d/1/1\0changed"), (13, 0, b"/d/2\0"), (11, 0, b"/new\0x"))
    after = Life(ArrayMedium(bytes(life.medium.bytes)))
    after.turn((13, 0, b"/d/3\0"), (11, 0, b"/d/3/again\0y"), (11, 0, b"/d/0/0\0z"))
    while after.journal.verdict is None:
        assert after.journal.idle()
    assert "verified" in after.journal.verdict, after.journal.verdict
    after.tidy(idle=True)
    fresh = Life(ArrayMedium(bytes(after.medium.bytes)))
    fresh.tidy(idle=True)
    assert fresh.journal.verdict is not None and "verified" in fresh.journal.verdict


def test_a_wrong_seal_is_called_corrupt() -> None:
    """The verification can fail: a seal over another tree is named."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    life.turn((11, 0, b"/a\0b"))
    life.tidy(idle=True)
    mark = life.journal.last_seal
    assert mark is not None
    life.journal.log.append(4, codec.encode_seal(mark._replace(tree=bytes(20))))
    after = Life(ArrayMedium(bytes(life.medium.bytes)))
    after.tidy(idle=True)
    assert after.journal.verdict is not None and after.journal.verdict.startswith("CORRUPT")


def test_verification_is_given_up_rather_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed state that is changed faster than it is verified is let go, and said so."""
    monkeypatch.setattr(replay, "SEALED_CHANGES_MAX", 50)
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    for number in range(100):
        life.turn((11, 0, b"/d/%d\0v" % number))
    life.tidy(idle=True)
    after = Life(ArrayMedium(bytes(life.medium.bytes)))
    for number in range(100):
        after.turn((11, 0, b"/d/%d\0w" % number))
    after.tidy(idle=True)
    assert after.journal.verdict is not None and "too much" in after.journal.verdict
    mark = after.journal.last_seal
    assert mark is not None and mark.sequence == after.journal.log.sequence - 1
    again = Life(ArrayMedium(bytes(after.medium.bytes)))
    again.tidy(idle=True)
    assert again.journal.verdict is not None and "verified" in again.journal.verdict
