# SPDX-License-Identifier: Apache-2.0
"""xsdump restore: a server that starts from the region is where the old one was at that moment; no
number is given twice; what damage has taken is named; the file is whole or not there.

Method: lives in arrays, whose store is compared with that of a life on the restored region; and
the real command, between two real servers."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from app.domain import LEAVING, Known
from app.replay import Replay
from persist import layout
from persist.recover import Outcome, recover
from tests.crash.world import ArrayMedium, Life
from tests.oracle import oracle
from tests.oracle.guest import RingConnection, SimXen, add_guest
from tests.oracle.ours import OurServer
from tests.oracle.xsclient import SocketConnection
from tests.tools.in_process import dump
from tests.tools.test_xsdump import changes, left_by_crash
from tools.dump import fresh
from tools.dump.outfile import OutputError, new_file
from tools.dump.past import read_past
from tools.dump.restore import find
from tools.dump.state import State


def restored(medium: ArrayMedium, word: str = "end", size: int | None = None) -> ArrayMedium:
    """A fresh region with the state of a moment, which must be complete."""
    found = find(medium, word)
    assert found is not None and not found.problems
    present = found.past.present
    assert present is not None
    new = ArrayMedium(size or medium.size)
    fresh.write(new, fresh.prepare(found.state, present.items, present.generation,
                                   found.past.last_life), "restored", 1_800_000_000_000_000)
    return new


def held(life: Life) -> dict[object, object]:
    """What must be the same: nodes with values, permissions, children in order; settings."""
    return {key: value for key, value in life.state().items()
            if not str(key).startswith(("watch.", "tx.", "suspect."))}


def test_the_next_life_is_where_the_old_one_was() -> None:
    old = left_by_crash()
    image = restored(old.medium)
    new = Life(ArrayMedium(bytes(image.bytes)))
    assert new.start.outcome is Outcome.CLEAN and new.start.ended_cleanly and not new.start.notes
    assert held(new) == held(old)
    assert {path: node.ordinal for path, node in new.store.tree.nodes.items()} == {
        path: node.ordinal for path, node in old.store.tree.nodes.items()}
    assert new.store.tree.generation >= old.store.tree.generation
    assert new.start.life > old.start.life + 1


@pytest.mark.parametrize("size", [layout.REGION_SIZE_MIN, 3 << 20])
def test_it_is_a_region_like_any_other(tmp_path: Path, size: int) -> None:
    """xsdump finds nothing wrong with it, and says where it comes from; the server goes on with it
    for laps."""
    image = restored(left_by_crash().medium, size=size)
    (tmp_path / "new").write_bytes(image.bytes)
    assert dump(tmp_path / "new", "verify")[1].startswith("OK: ")
    assert "begins: restored" in dump(tmp_path / "new", "log")[1]
    life = Life(image)
    while life.journal.log.tail < 2 * life.journal.log.size:
        life.turn((11, 0, b"/loud\0" + b"x" * 2000))
        life.tidy(idle=True)
    assert not read_past(image).problems
    assert held(Life(ArrayMedium(bytes(image.bytes)))) == held(life)


def test_every_moment(tmp_path: Path) -> None:
    """Each one that is remembered as a whole; numbers go on behind the newest all the same."""
    life = Life(ArrayMedium(layout.REGION_SIZE_MIN))
    kept: dict[int, dict[object, object]] = {}
    for number in range(900):
        life.turn((11, 0, b"/d/%d/k\0" % (number % 40) + b"x" * (number % 1900)))
        if number % 40 == 39:
            life.turn((13, 0, b"/d/%d\0" % (number % 37)), (26, 0, b"nodes\0%d\0" % number))
        life.tidy(idle=number % 50 == 0)
        if number % 60 == 7:
            kept[life.journal.log.sequence] = held(life)
    compared = 0
    for sequence, state in kept.items():
        if sequence < read_past(life.medium).first:
            continue
        found = find(life.medium, str(sequence))
        assert found is not None
        if found.problems:
            continue
        compared += 1
        new = Life(restored(life.medium, str(sequence)))
        assert held(new) == state
        assert new.store.tree.generation >= life.store.tree.generation
    assert compared > 5


def test_no_number_is_given_twice() -> None:
    """Although the moment is before they were given, and if the counters themselves are lost."""
    state = State()
    state.apply([("next.tx", 1), ("next.epoch", 2), ("next.life", 3)])
    present = {"next.tx": 4097, "domain.5": tuple(Known(9, 77, 2)), "tx.80.5000": (-1, 0),
               "tx.80.5000.1": (1, b"", b""), "next.poison": 3}
    new = fresh.prepare(state, present, 12, 6)
    items = {one.key: one.after for one in new.effects}  # type: ignore[union-attr]
    assert items == {"next.tx": 5001, "next.epoch": 81, "next.life": 8, "next.poison": 3}
    assert new.life == 7 and new.generation == 12


def test_connections_are_left_out_and_domains_stay_known() -> None:
    """What a domain owns goes with it, also if it dies before the new server starts; one whose
    nodes were being removed goes on being removed; domain 0 is none of them."""
    state = State()
    state.apply([
        ("domain.0", tuple(Known(1, 1, 2))), ("domain.5", tuple(Known(9, 7, 2, 100, 3, 6, 0, 1))),
        ("domain.6", tuple(Known(8, 8, LEAVING))), ("domain.5.features", 4),
        ("quota.5.nodes", 7), ("special.@releaseDomain", b"n0\0"), ("boot.nodes", 5),
        ("watch.7.12", (b"/a", b"t", 0, -1)), ("tx.7.3", (-1, 0)), ("tx.7.3.0", (1,)),
        ("suspect.ring.7", (1,)), ("poison.0", (0,)), ("last.death", (1,))])
    new = fresh.prepare(state, {}, 0, 1)
    items = {one.key: one.after for one in new.effects}  # type: ignore[union-attr]
    assert items == {
        "domain.5": tuple(Known(9, is_shutdown=1)), "domain.6": tuple(Known(8, state=LEAVING)),
        "domain.5.features": 4, "quota.5.nodes": 7, "special.@releaseDomain": b"n0\0",
        "boot.nodes": 5, "next.life": 3, "next.epoch": 9, "next.tx": 4}
    assert new.left_out == {"connection": 3, "watch": 1, "tx": 1, "suspect": 1, "poison": 1,
                            "last": 1}


def test_what_damage_has_taken_is_named(tmp_path: Path) -> None:
    """The rest is saved; a lost parent is made anew, for domain 0 only; exit code 1. A server finds
    nothing wrong with the new region."""
    life = left_by_crash()
    lost = life.store.tree.nodes[b"/d/5"]  # type: ignore[index]
    life.turn((11, 0, b"/d/5/k\0new"))
    life.medium.bytes[layout.LOG_OFFSET + lost.position + 60] ^= 4
    path, new = tmp_path / "region", tmp_path / "new"
    path.write_bytes(life.medium.bytes)
    code, text = dump(path, "restore", str(new))
    assert code == 1
    assert f"INCOMPLETE: position {lost.position:#x}" in text
    assert "INCOMPLETE: /d/5 is lost, but for what is below it: made anew" in text
    saved = Life(ArrayMedium(new.read_bytes()))
    assert saved.start.outcome is Outcome.CLEAN
    state, expected = held(saved), held(life)
    assert state.pop(b"/d/5") == (b"", b"n0\0", b"k\0") and expected.pop(b"/d/5")
    del state[b"/d"], expected[b"/d"]  # where the one that was made anew stands is not known
    assert state == expected


def test_lost_superblocks(tmp_path: Path) -> None:
    """Every record is found again; the digest says that it is all."""
    life = left_by_crash()
    for offset in layout.SUPERBLOCK_OFFSETS:
        life.medium.bytes[offset + 20] ^= 1
    path, new = tmp_path / "region", tmp_path / "new"
    path.write_bytes(life.medium.bytes)
    assert dump(path, "restore", str(new))[0] == 0
    assert held(Life(ArrayMedium(new.read_bytes()))) == held(life)


# -- the file


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """Never over another one unless by force; never over the source or a region in use; nothing
    is left beside it."""
    path, new = tmp_path / "region", tmp_path / "new"
    path.write_bytes(left_by_crash(3).medium.bytes)
    new.write_text("precious")
    code, text = dump(path, "restore", str(new))
    assert code == 2 and "--force" in text and new.read_text() == "precious"
    (tmp_path / "link").symlink_to(path)
    for name in ("region", "link"):
        code, text = dump(path, "restore", str(tmp_path / name), "--force")
        assert code == 2 and "this is what is read" in text
    with open(new) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, text = dump(path, "restore", str(new), "--force")
    assert code == 2 and "a server uses this region" in text and new.read_text() == "precious"
    for words, said in ((("--size", "4K"), "must be"), (("--size", "1x"), "K, M or G"),
                        (("--at", "life:9"), "life:9"), (("--port", "5"), "expected DOMID=PORT"),
                        (("--descriptors", "5,x"), "expected SOCKET,EVTCHN")):
        code, text = dump(path, "restore", str(new), "--force", *words)
        assert code == 2 and said in text and new.read_text() == "precious", text
    assert dump(path, "restore", str(tmp_path / "no" / "file"))[0] == 2
    for kind in ((), ("--stream",)):  # both hold what guests have written
        assert dump(path, "restore", str(new), "--force", *kind)[0] == 0
        assert new.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["link", "new", "region"]


def test_a_file_that_somebody_makes_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with pytest.raises(OutputError, match="exists"), new_file(str(path), "", False) as place:
        Path(place).write_text("ours")
        path.write_text("precious")
    assert path.read_text() == "precious" and os.listdir(tmp_path) == ["new"]


def test_too_small(tmp_path: Path) -> None:
    """More than a server would admit is refused, and the size that it takes is enough."""
    life = Life(ArrayMedium(4 << 20))
    for number in range(230):  # fits into 1 MiB, but not twice
        life.turn((11, 0, b"/%d\0" % number + b"x" * 3000))
        life.tidy()
    path, new = tmp_path / "region", tmp_path / "new"
    path.write_bytes(life.medium.bytes)
    code, text = dump(path, "restore", str(new), "--size", "1M")
    assert code == 2 and "--size" in text and not new.exists()
    least = next(word for word in text.split() if word.isdecimal())
    code, text = dump(path, "restore", str(new), "--size", least)
    assert code == 0, text
    saved = Life(ArrayMedium(new.read_bytes()))
    assert held(saved) == held(life)
    assert saved.turn((11, 0, b"/more\0x"))[0].endswith(b"OK\0")


def test_nothing_to_restore(tmp_path: Path) -> None:
    (tmp_path / "region").write_bytes(bytes(layout.REGION_SIZE_MIN))
    code, text = dump(tmp_path / "region", "restore", str(tmp_path / "new"))
    assert code == 1 and "there is no record" in text and not (tmp_path / "new").exists()


# -- the real server


def test_from_server_to_server(tmp_path: Path) -> None:
    """A Xen host's server dies; another starts from a restored region, on the same host: the tree
    is there, guests are introduced again, and one that is gone has taken its nodes along."""
    oracle.fetch()
    (tmp_path / "sim").mkdir()
    sim = SimXen(tmp_path / "sim")
    with OurServer(sim=tmp_path / "sim") as server:
        with SocketConnection(server.socket_path) as dom0:
            for domid in (5, 6):
                add_guest(sim, dom0, domid)
            guest = RingConnection(sim, 5)
            guest.write("b", b"1\0\xff")
            guest.write("a", "2")
            guest.watch("b", "token")
            guest.transaction_start()
            before = oracle.run_client(server.socket_path, "xenstore-ls", "-fp").stdout
        server.kill9()
        new = tmp_path / "new"
        code, text = dump(server.region_path, "restore", str(new))
        assert code == 0 and "3 connections, 1 watches, 1 transactions" in text, text
        server.region_path.write_bytes(new.read_bytes())
        server.start()
        assert "clean after a clean end" in server.log
        assert oracle.run_client(server.socket_path, "xenstore-ls", "-fp").stdout == before
        with SocketConnection(server.socket_path) as dom0:
            dom0.introduce(5)
            guest.close()
            again = RingConnection(sim, 5)
            assert again.read("b") == b"1\0\xff" and again.directory("/local/domain/5") == [
                "b", "a"]
            sim.destroy_domain(6)
            dom0.write("/x", "1")
        listed = oracle.run_client(server.socket_path, "xenstore-ls", "-f").stdout
        assert "/local/domain/6" not in listed and "/local/domain/5/a" in listed
        again.close()
    sim.close()


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "region"
    path.write_bytes(left_by_crash().medium.bytes)
    at = changes(path)[-3]["sequence"]
    code, text = dump(path, "restore", str(tmp_path / "new"), "--json", "--at", str(at))
    (said,) = map(json.loads, text.splitlines())
    assert code == 0 and said["sequence"] == at
    replay = Replay()
    recover(ArrayMedium((tmp_path / "new").read_bytes()), replay.apply)
    assert len(replay.nodes) == said["nodes"]
